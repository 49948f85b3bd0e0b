"""The ledger: one change at a time, guarded by version and term, and never assumed."""

import json
import sys
import threading
from collections.abc import Mapping

import pytest

from leader_jobs.exceptions import Conflict, Fenced, StoreUnavailable
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim, Ledger, Versioned
from leader_jobs.occurrences import Policy
from leader_jobs.records import (
    HISTORY,
    JOBS_PREFIX,
    State,
    UnreadableRecord,
    history_prefix,
    job_key,
)
from leader_jobs.stores.base import Candidacy, Record, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.ledgers import LedgerNode, entries_of, make_job, reader, record_of, states
from testsupport.place import ELECTION


class LateStore(MemoryStore):
    """A store on which a commit can still arrive after its caller has given up."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.withhold_next = False
        self._withheld: list[tuple[list[Write], Candidacy | None]] = []

    def commit(
        self,
        election: str,
        writes: object,
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Write a batch, or keep it under way."""
        assert isinstance(writes, list)
        if self.withhold_next:
            self.withhold_next = False
            self._withheld.append((writes, candidacy))
            msg = "no reply in time"
            raise StoreUnavailable(msg)
        return super().commit(election, writes, candidacy=candidacy, deadline=deadline)

    def deliver(self) -> int:
        """Let what is under way arrive; return how many commits were refused."""
        refused = 0
        for writes, candidacy in self._withheld:
            try:
                self.commit(ELECTION, writes, candidacy=candidacy, deadline=float("inf"))
            except Conflict:
                refused += 1
        self._withheld.clear()
        return refused


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> LateStore:
    return LateStore(clock)


@pytest.fixture(name="node")
def _node(store: LateStore, clock: ManualClock) -> LedgerNode:
    return LedgerNode("a", store, clock)


@pytest.fixture(name="other")
def _other(node: LedgerNode, store: LateStore, clock: ManualClock) -> LedgerNode:
    """Return a node that stands behind the first one."""
    assert node.ledger.living() == {"a"}
    return LedgerNode("b", store, clock)


@pytest.fixture(name="job")
def _job() -> Job:
    return make_job()


@pytest.fixture(name="claim")
def _claim(node: LedgerNode, job: Job, clock: ManualClock) -> Claim:
    """Return a claim of the first node, which leads."""
    return claim_one(node, job, clock)


def claim_one(node: LedgerNode, job: Job, clock: ManualClock) -> Claim:
    """Have *node* claim the next occurrence of *job*."""
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    return claim


# -- start, finish, release ---------------------------------------------------------------------------


def test_a_run_is_recorded_from_start_to_end(
    node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """With node, token, owner and times, and it moves to the history when it ends."""
    assert node.ledger.start(claim, node.term())
    clock.advance(2.5)
    assert node.ledger.finish(claim, State.SUCCEEDED)

    (entry,) = entries_of(node.store, claim.job, clock)
    assert entry.state is State.SUCCEEDED
    assert (entry.node, entry.owner, entry.token) == ("a", "a", node.candidacy.token)
    assert entry.started_at is not None
    assert entry.ended_at is not None
    assert (entry.ended_at - entry.started_at).total_seconds() == 2.5
    assert record_of(node.store, claim.job, clock).open == ()


def test_a_failure_is_recorded_with_its_reason(
    node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """The reason is there to be read in the history."""
    node.ledger.start(claim, node.term())
    node.ledger.finish(claim, State.FAILED, "ValueError: no")

    (entry,) = entries_of(node.store, claim.job, clock)
    assert (entry.state, entry.reason) == (State.FAILED, "ValueError: no")


def test_of_many_that_start_one_occurrence_one_starts_it(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Under one term, from ledgers that know nothing of each other."""
    term, gate = node.term(), threading.Barrier(8)

    def start(owner: str) -> bool:
        ledger = Ledger(store, ELECTION, node=owner, owner=owner, clock=clock)
        gate.wait(10)
        return ledger.start(claim, term)

    tries = [Background(lambda n=n: start(f"o{n}")) for n in range(8)]  # type: ignore[misc]  # a default argument binds n

    assert sum(one.result() for one in tries) == 1


def test_many_changes_of_one_record_all_come_through(
    store: LateStore, node: LedgerNode, clock: ManualClock
) -> None:
    """Runs of one job that end at once on threads of one process lose nothing."""
    job = make_job(every=1, policy=Policy(catch_up="all", overlap=True))
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(8)
    ready = node.tick(claims)
    for claim in ready:
        assert node.ledger.start(claim, node.term())
    gate = threading.Barrier(len(ready))

    def finish(claim: Claim) -> bool:
        gate.wait(10)
        return node.ledger.finish(claim, State.SUCCEEDED)

    ends = [Background(lambda c=c: finish(c)) for c in ready]  # type: ignore[misc]  # a default argument binds c

    assert all(end.result() for end in ends)
    assert states(store, job.name, clock) == [State.SUCCEEDED] * 8


def test_a_start_whose_reply_was_lost_is_ours_and_counts_once(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Trying again finds what the first try wrote, and writes nothing more."""
    store.lose_reply("commit")
    with pytest.raises(StoreUnavailable):
        node.ledger.start(claim, node.term())
    before = store.read(ELECTION, JOBS_PREFIX, deadline=clock.now() + 1)

    assert node.ledger.start(claim, node.term())
    assert store.read(ELECTION, JOBS_PREFIX, deadline=clock.now() + 1) == before


def test_a_start_of_another_owner_is_refused(
    node: LedgerNode, other: LedgerNode, claim: Claim
) -> None:
    """Whether it learned of it or not."""
    assert node.ledger.start(claim, node.term())
    node.dies()

    assert not other.ledger.start(claim, other.term())


def test_a_start_under_a_term_that_does_not_lead_is_fenced(
    node: LedgerNode, other: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Nothing is written; whoever leads still finds the claim."""
    term = node.term()
    node.dies()

    with pytest.raises(Fenced):
        node.ledger.start(claim, term)
    assert states(node.store, claim.job, clock) == [State.CLAIMED]
    assert other.ledger.start(claim, other.term())


def test_a_finish_comes_through_after_the_term(
    node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """It did happen, whoever leads now."""
    node.ledger.start(claim, node.term())
    node.dies()

    assert node.ledger.finish(claim, State.SUCCEEDED)
    assert states(node.store, claim.job, clock) == [State.SUCCEEDED]


def test_a_finish_whose_reply_was_lost_is_found_done(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Trying again says that it is closed, and changes nothing."""
    node.ledger.start(claim, node.term())
    store.lose_reply("commit")
    with pytest.raises(StoreUnavailable):
        node.ledger.finish(claim, State.SUCCEEDED)

    assert not node.ledger.finish(claim, State.FAILED)
    assert states(store, claim.job, clock) == [State.SUCCEEDED]


def test_a_finish_after_somebody_closed_it_changes_nothing(
    node: LedgerNode, other: LedgerNode, job: Job, claim: Claim, clock: ManualClock
) -> None:
    """A leader that took us for dead has the last word."""
    node.ledger.start(claim, node.term())
    node.dies()
    other.tick(other.claims(job))

    assert not node.ledger.finish(claim, State.SUCCEEDED)
    assert states(node.store, claim.job, clock) == [State.INTERRUPTED]


def test_a_finish_of_a_former_attempt_changes_nothing(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """The run that was repeated elsewhere is not closed by the one it replaces."""
    job = make_job(rerun=True)
    claim = claim_one(node, job, clock)
    node.ledger.start(claim, node.term())
    node.dies()
    (again,) = other.tick(other.claims(job))
    other.ledger.start(again, other.term())

    assert not node.ledger.finish(claim, State.SUCCEEDED)
    assert not node.ledger.release(claim)
    assert states(node.store, claim.job, clock) == [State.STARTED]


def test_what_is_released_can_be_started_again(
    node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """As if it had never been started; with *again*, as another attempt."""
    node.ledger.start(claim, node.term())
    assert node.ledger.release(claim)
    assert states(node.store, claim.job, clock) == [State.CLAIMED]
    assert node.ledger.start(claim, node.term())
    assert node.ledger.release(claim, again=True)

    assert not node.ledger.start(claim, node.term())
    (entry,) = entries_of(node.store, claim.job, clock)
    assert (entry.state, entry.attempt) == (State.CLAIMED, 2)


def test_what_another_one_runs_can_not_be_released(
    node: LedgerNode, other: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Nor finished."""
    node.ledger.start(claim, node.term())

    assert not other.ledger.release(claim)
    assert not other.ledger.finish(claim, State.FAILED)
    assert states(node.store, claim.job, clock) == [State.STARTED]


def test_a_start_that_arrives_after_the_release_is_refused(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Else it would stay started by a process that lives and never runs it."""
    store.withhold_next = True
    with pytest.raises(StoreUnavailable):
        node.ledger.start(claim, node.term())
    assert node.ledger.release(claim)

    assert store.deliver() == 1
    assert states(store, claim.job, clock) == [State.CLAIMED]


def test_a_start_that_arrives_before_the_release_is_taken_back(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """The release finds it, although what was remembered says otherwise."""
    store.withhold_next = True
    with pytest.raises(StoreUnavailable):
        node.ledger.start(claim, node.term())
    assert store.deliver() == 0
    assert states(store, claim.job, clock) == [State.STARTED]

    assert node.ledger.release(claim)
    assert states(store, claim.job, clock) == [State.CLAIMED]


def test_a_claim_of_a_record_that_was_removed_is_refused(
    store: LateStore, node: LedgerNode, job: Job, claim: Claim, clock: ManualClock
) -> None:
    """Sequences begin at 0 again, and the same number then means another occurrence."""
    write = Write(job_key(job.name), None)
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    node.ledger.forget()
    newer = claim_one(node, job, clock)

    assert (newer.sequence, newer.attempt) == (claim.sequence, claim.attempt)
    assert not node.ledger.start(claim, node.term())
    assert node.ledger.start(newer, node.term())
    assert not node.ledger.finish(claim, State.FAILED)


def test_a_job_nobody_knows_has_nothing_to_start(node: LedgerNode, claim: Claim) -> None:
    """A claim of a record that is gone is refused, not written."""
    gone = Claim(
        job="gone",
        occurrence=claim.occurrence,
        planned_at=claim.planned_at,
        sequence=0,
        attempt=1,
        token=claim.token,
    )

    assert not node.ledger.start(gone, node.term())
    assert node.ledger.jobs().keys() == {claim.job}


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


def test_reads_are_saved(store: LateStore, node: LedgerNode, claim: Claim) -> None:
    """A run costs two commits and no read, for its record is remembered at each commit."""
    reads: list[str] = []
    read = store.read

    def counting(election: str, prefix: str, *, deadline: float) -> Mapping[str, Record]:
        reads.append(prefix)
        return read(election, prefix, deadline=deadline)

    store.read = counting  # type: ignore[method-assign]  # to count what is asked of the store
    node.ledger.start(claim, node.term())
    node.ledger.finish(claim, State.SUCCEEDED)

    assert reads == []


def test_a_change_made_while_reading_is_not_forgotten(
    store: LateStore, node: LedgerNode, claim: Claim
) -> None:
    """Of a read under way and a commit, the later version is remembered."""
    read = store.read

    def slow(election: str, prefix: str, *, deadline: float) -> Mapping[str, Record]:
        found = read(election, prefix, deadline=deadline)
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
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
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
    store: LateStore, node: LedgerNode, clock: ManualClock, proposal: bytes
) -> None:
    """Whatever they say about themselves, it neither helps nor hurts."""
    store.enrol(ELECTION, proposal, 1000.0, deadline=clock.now() + 1)

    assert node.ledger.living() == {"a"}


@pytest.mark.parametrize("damage", [b"garbage", b'{"v": 2}', None])
def test_an_unreadable_record_harms_no_other_job(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock, damage: bytes | None
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
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """An occurrence is open or in the history at any moment, and so in any look."""
    node.ledger.start(claim, node.term())
    read = store.read

    def slow(election: str, prefix: str, *, deadline: float) -> Mapping[str, Record]:
        found = read(election, prefix, deadline=deadline)
        store.read = read  # type: ignore[method-assign]  # only the first read is slow
        assert node.ledger.finish(claim, State.SUCCEEDED)
        return found

    store.read = slow  # type: ignore[method-assign]  # the run ends between the two reads

    assert states(store, claim.job, clock) == [State.SUCCEEDED]


def test_a_damaged_entry_of_the_history_is_left_out(
    store: LateStore, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """The rest is shown."""
    node.ledger.start(claim, node.term())
    node.ledger.finish(claim, State.SUCCEEDED)
    write = Write(f"{history_prefix(claim.job)}050", json.dumps({"v": 1}).encode())
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)

    assert states(store, claim.job, clock) == [State.SUCCEEDED]
    assert reader(store, clock).history("unknown") == []
