"""What a ledger remembers and what it reads; see `test_ledger` for what it writes."""

import json
import sys
import threading
from collections.abc import Mapping

import pytest

from leader_jobs.exceptions import Conflict, StoreUnavailable
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim, Ledger, Versioned
from leader_jobs.names import runners_of
from leader_jobs.proposals import Proposal
from leader_jobs.records import HISTORY, State, UnreadableRecord, history_prefix, job_key
from leader_jobs.stores.base import Candidacy, Record, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.ledgers import (
    LedgerNode,
    entries_of,
    make_job,
    reader,
    record_of,
    states,
)
from testsupport.place import ELECTION, Place

# -- what is remembered --------------------------------------------------------------------------------


def test_what_is_remembered_may_be_behind_but_a_no_is_certain(
    node: LedgerNode, other: LedgerNode, job: Job, claim: Claim, clock: ManualClock
) -> None:
    """A node that still remembers an empty record looks again before it refuses."""
    clock.advance(10)
    assert node.ledger.start(claim, node.term())
    assert node.ledger.finish(claim, State.SUCCEEDED)
    other.ledger.load([job.name])  # it remembers that nothing is open
    (second,) = node.tick(node.claims(job))
    node.dies()

    assert other.ledger.start(second, other.term())


def test_reads_are_saved(store: MemoryStore, node: LedgerNode, claim: Claim) -> None:
    """A run costs two commits and no read, for its record is remembered at each commit."""
    reads: list[str] = []
    read = store.read

    def counting(election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        reads.extend(prefixes)
        return read(election, *prefixes, deadline=deadline)

    store.read = counting  # type: ignore[method-assign]  # to count what is asked of the store
    node.ledger.start(claim, node.term())
    node.ledger.finish(claim, State.SUCCEEDED)

    assert reads == []


def test_a_change_made_while_reading_is_not_forgotten(
    store: MemoryStore, node: LedgerNode, claim: Claim
) -> None:
    """Of a read under way and a commit, the later version is remembered."""
    read = store.read

    def slow(election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        found = read(election, *prefixes, deadline=deadline)
        store.read = read  # type: ignore[method-assign]  # only the first read is slow
        assert node.ledger.start(claim, node.term())
        return found

    node.ledger.forget()
    store.read = slow  # type: ignore[method-assign]  # a commit comes between

    loaded = node.ledger.load([claim.job])[claim.job]
    assert isinstance(loaded, Versioned)
    assert loaded.record is not None
    assert loaded.record.open[0].state is State.STARTED


def test_a_record_put_in_doubt_meanwhile_is_still_loaded(node: LedgerNode, claim: Claim) -> None:
    """A thread that forgets never makes another one believe that there is no record."""
    enough = threading.Event()

    def keep_forgetting() -> None:
        while not enough.is_set():
            node.ledger.forget()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    forgetting = Background(keep_forgetting)
    try:
        loaded = [node.ledger.load([claim.job])[claim.job] for _ in range(3000)]
    finally:
        enough.set()
        sys.setswitchinterval(interval)
    forgetting.result()

    assert all(isinstance(one, Versioned) and one.record is not None for one in loaded)


def test_a_record_that_never_rests_is_left_for_later(
    store: MemoryStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Ten conflicts in a row are no reason to say yes or no."""
    commit = store.commit

    def racing(
        election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        raise Conflict((job_key(claim.job),))

    store.commit = racing  # type: ignore[method-assign]  # somebody else is always first
    with pytest.raises(StoreUnavailable, match="changed 10 times in a row"):
        node.ledger.start(claim, node.term())
    store.commit = commit  # type: ignore[method-assign]  # and now nobody is

    assert node.ledger.start(claim, node.term())


# -- looking ------------------------------------------------------------------------------------------


def test_the_living_are_those_who_stand(node: LedgerNode, other: LedgerNode) -> None:
    """And not those who died."""
    assert node.ledger.living() == {"a", "b"}
    node.dies()

    assert other.ledger.living() == {"b"}


@pytest.mark.parametrize(
    "proposal",
    [
        b"etcdctl",
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"incarnation": "a"}',
        b'{"node":"n","host":"h","pid":Infinity,"version":"0","incarnation":"x"}',
        b"[" * 4000,
    ],
)
def test_candidates_of_other_programs_are_nobody(
    store: MemoryStore, node: LedgerNode, clock: ManualClock, proposal: bytes
) -> None:
    """Whatever they say about themselves, it neither helps nor hurts."""
    store.enrol(ELECTION, proposal, 1000.0, deadline=clock.now() + 1)

    assert node.ledger.living() == {"a"}


@pytest.mark.parametrize("damage", [b"garbage", b'{"v": 2}', None])
def test_an_unreadable_record_harms_no_other_job(
    store: MemoryStore, node: LedgerNode, claim: Claim, clock: ManualClock, damage: bytes | None
) -> None:
    """It is not listed, and a change of it is refused by name; the others go on."""
    if damage is None:  # a good record in another one's place
        damage = record_of(store, claim.job, clock).encode()
    write = Write(job_key("broken"), damage)
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    node.ledger.forget()
    stray = Claim(
        job="broken",
        occurrence="",
        planned_at=claim.planned_at,
        sequence=0,
        attempt=1,
        token=claim.token,
    )

    assert node.ledger.jobs().keys() == {claim.job}
    assert isinstance(node.ledger.load(["broken", claim.job])["broken"], UnreadableRecord)
    with pytest.raises(UnreadableRecord):
        node.ledger.start(stray, node.term())
    assert node.ledger.start(claim, node.term())


def test_the_history_keeps_the_last_hundred(node: LedgerNode, clock: ManualClock) -> None:
    """A thousand runs leave a hundred records, all of them readable and in order."""
    job = make_job(every=1)
    claims = node.claims(job)
    node.tick(claims)
    for _ in range(1000):
        clock.advance(1)
        (claim,) = node.tick(claims)
        node.ledger.start(claim, node.term())
        node.ledger.finish(claim, State.SUCCEEDED)
        node.ledger.let_go(claim)

    entries = entries_of(node.store, job.name, clock)
    assert [entry.sequence for entry in entries] == list(range(1000 - HISTORY, 1000))
    rows = node.store.read(ELECTION, "", deadline=clock.now() + 1)
    assert len(rows) == HISTORY + 1
    assert record_of(node.store, job.name, clock).sequence == 1000


def test_what_ends_during_a_look_is_not_missed(
    store: MemoryStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """An occurrence is open or in the history at any moment, and so in any look."""
    node.ledger.start(claim, node.term())
    read = store.read

    def slow(election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        found = read(election, *prefixes, deadline=deadline)
        store.read = read  # type: ignore[method-assign]  # only the first read is slow
        assert node.ledger.finish(claim, State.SUCCEEDED)
        return found

    store.read = slow  # type: ignore[method-assign]  # the run ends between the two reads

    assert states(store, claim.job, clock) == [State.SUCCEEDED]


def test_a_damaged_entry_of_the_history_is_left_out(
    store: MemoryStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """The rest is shown."""
    node.ledger.start(claim, node.term())
    node.ledger.finish(claim, State.SUCCEEDED)
    write = Write(f"{history_prefix(claim.job)}050", json.dumps({"v": 1}).encode())
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)

    assert states(store, claim.job, clock) == [State.SUCCEEDED]
    assert reader(store, clock).history("unknown") == []


# -- who lives -----------------------------------------------------------------------------------------


def test_who_stands_and_who_only_runs_jobs_are_both_alive(place: Place) -> None:
    """On every kind of store, and for as long as they are there; foreign candidates are nobody."""
    ledger = Ledger(place.store, ELECTION, node="n", owner="n", clock=place.clock)
    place.enrol(b"a Go program")
    candidate, worker, other = (
        place.enrol(
            Proposal(node=name, host="h", pid=1, version="0", incarnation=name).encode(),
            election=electorate,
        )
        for name, electorate in (
            ("candidate", ELECTION),
            ("worker", runners_of(ELECTION)),
            ("other", runners_of("elsewhere")),
        )
    )
    assert ledger.living() == {"candidate", "worker"}

    place.store.withdraw(worker, deadline=place.within())
    assert ledger.living() == {"candidate"}
    place.store.withdraw(candidate, deadline=place.within())
    assert ledger.living() == set()
    assert other.token > 0
