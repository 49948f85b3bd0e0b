"""The ledger: one change at a time, guarded by version and term, and never assumed."""

import threading

import pytest

from leader_jobs.exceptions import Conflict, Fenced, StoreUnavailable
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.occurrences import Policy
from leader_jobs.records import (
    JOBS_PREFIX,
    State,
    job_key,
)
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.ledgers import LedgerNode, claim_one, entries_of, make_job, record_of, states
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


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> LateStore:
    return LateStore(clock)


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
