"""Jobs that will never be again leave nothing in the ledger, once nothing of them is open."""

import pytest

from leader_jobs.claims import Claims
from leader_jobs.exceptions import Fenced
from leader_jobs.records import State, job_key
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.ledgers import CountingStore, LedgerNode, make_planned, reader, run
from testsupport.place import ELECTION, Place


def _rows(store: CountingStore, clock: ManualClock) -> set[str]:
    return set(store.read(ELECTION, "", deadline=clock.now() + 1))


def _ran(node: LedgerNode, clock: ManualClock, name: str) -> Claims:
    """Have *node* run a job once, and return the term's claims, which plan it no more."""
    claims = node.claims(make_planned(name, guarded=False))
    node.tick(claims)
    clock.advance(10)
    run(node, *node.tick(claims))
    claims.plan([])
    return claims


def test_nothing_is_left_of_an_erased_job(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Its record and its history go in one commit; those of others stay."""
    _ran(node, clock, "other")
    others = _rows(store, clock)
    claims = _ran(node, clock, "job")
    assert _rows(store, clock) > others
    commits = len(store.batches)
    assert claims.erase(["job", "unheard of"]) == {"job", "unheard of"}
    assert _rows(store, clock) == others
    assert len(store.batches) == commits + 1
    assert claims.erase(["job"]) == {"job"}


def test_a_job_with_something_open_is_not_erased(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """What runs has to be closed before."""
    claims = node.claims(make_planned(guarded=False))
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    assert node.ledger.start(claim, node.term())
    claims.plan([])
    assert claims.erase(["job"]) == set()
    assert node.ledger.finish(claim, State.SUCCEEDED)
    assert claims.erase(["job"]) == {"job"}
    assert _rows(store, clock) == set()


def test_a_job_that_changed_meanwhile_is_not_erased_unseen(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """A record that somebody wrote since it was read is read again first."""
    claims = _ran(node, clock, "job")
    row = store.read(ELECTION, job_key("job"), deadline=clock.now() + 1)[job_key("job")]
    again = [Write(job_key("job"), row.value)]
    limit = clock.now() + 1
    store.before.append(
        lambda: MemoryStore.commit(store, ELECTION, again, candidacy=None, deadline=limit)
    )
    assert claims.erase(["job"]) == set()
    assert claims.erase(["job"]) == {"job"}


def test_only_the_leader_erases(node: LedgerNode, other: LedgerNode, clock: ManualClock) -> None:
    """Who was deposed removes nothing, even if it does not know it yet."""
    claims = _ran(node, clock, "job")
    node.dies()
    other.claims()
    with pytest.raises(Fenced):
        claims.erase(["job"])
    assert "job" in reader(other.store, clock).jobs()


def test_rows_that_are_not_there_may_be_removed(place: Place) -> None:
    """On each store: of a history, only what there is is there to be removed."""
    leader: Candidacy = place.enrol()
    place.commit(Write("jobs/a", b"1"), Write("history/a/000", b"1"), under=leader)
    place.commit(
        Write("jobs/a", None, place.read()["jobs/a"].version),
        *(Write(f"history/a/{number:03d}", None) for number in range(100)),
        under=leader,
    )
    assert place.read() == {}
