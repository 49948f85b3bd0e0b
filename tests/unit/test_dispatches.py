"""What becomes of claims whose messages went to a broker: recorded once, whoever else was quicker."""

from datetime import timedelta

import pytest

from leader_jobs.dispatches import Dispatches
from leader_jobs.exceptions import Fenced, StoreUnavailable
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.planned import PlannedJob
from leader_jobs.records import OccurrenceRecord, State, job_key
from leader_jobs.stores.base import Limits, Write
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    CountingStore,
    LedgerNode,
    Worker,
    dispatch,
    entries_of,
    make_planned,
    planned,
    record_of,
    states,
)
from testsupport.place import ELECTION

ALL = Policy(catch_up="all")


@pytest.fixture(name="worker")
def _worker(store: CountingStore, clock: ManualClock) -> Worker:
    return Worker("w", store, clock)


@pytest.fixture(name="dispatches")
def _dispatches(node: LedgerNode, clock: ManualClock) -> Dispatches:
    return Dispatches(node.ledger, node.term(), clock=clock)


def claim(node: LedgerNode, *jobs: PlannedJob) -> tuple[Claim, ...]:
    """Have *node* claim one occurrence of each job."""
    claims = node.claims(*(jobs or (make_planned(),)))
    node.tick(claims)
    node.clock.advance(10)
    found = node.tick(claims)
    assert len(found) == max(1, len(jobs))
    return found


def only(node: LedgerNode, job: str = "job") -> OccurrenceRecord:
    """Return the only occurrence that is kept of a job."""
    (entry,) = entries_of(node.store, job, node.clock)
    return entry


def holds(node: LedgerNode, claim: Claim) -> bool:
    """Whether *claim* is in the hands of *node*."""
    return any(
        node.ledger.holds(claim.job, entry)
        for entry in record_of(node.store, "job", node.clock).open
    )


# -- what is recorded ---------------------------------------------------------------------------------


def test_what_was_sent_is_recorded_and_let_go_of(
    node: LedgerNode, dispatches: Dispatches, clock: ManualClock
) -> None:
    """With the moment it was sent, not that of the record, and the number of copies."""
    (found,) = claim(node)
    dispatches.sent(found)
    at = clock.utcnow()
    clock.advance(3)

    assert dispatches.record()
    entry = only(node)
    assert (entry.state, entry.dispatched_at, entry.copies) == (State.DISPATCHED, at, 1)
    assert not holds(node, found)


def test_a_whole_batch_is_recorded_in_one_transaction(
    store: CountingStore, node: LedgerNode, dispatches: Dispatches
) -> None:
    """And several occurrences of one job in one write of its record."""
    jobs = [make_planned(f"job-{n}", policy=Policy(catch_up="all", overlap=True)) for n in range(5)]
    claims = node.claims(*jobs)
    node.tick(claims)
    node.clock.advance(30)
    for found in node.tick(claims):
        dispatches.sent(found)
    store.batches.clear()

    assert dispatches.record()
    assert store.batches == [5]
    for job in jobs:
        assert states(store, job.name, node.clock) == [State.DISPATCHED] * 3


def test_what_can_not_be_sent_is_recorded_as_failed(
    node: LedgerNode, dispatches: Dispatches, clock: ManualClock
) -> None:
    """With the reason; the job is free."""
    (found,) = claim(node)
    dispatches.refused(found, "no message\ncould be made")

    assert dispatches.record()
    entry = only(node)
    assert (entry.state, entry.reason) == (State.FAILED, "no message could be made")
    assert entry.ended_at == clock.utcnow()
    assert record_of(node.store, "job", clock).open == ()
    assert not holds(node, found)


def test_nothing_noted_is_nothing_to_do(store: CountingStore, dispatches: Dispatches) -> None:
    """Not even a look at the store."""
    store.cut()

    assert dispatches.record()


def test_a_message_sent_again_is_one_copy_more(
    node: LedgerNode, dispatches: Dispatches, clock: ManualClock
) -> None:
    """Under the same id; the next one follows after twice the time."""
    (found,) = claim(node)
    dispatch(node, found)
    claims = node.claims(make_planned(policy=ALL))
    node.tick(claims)
    clock.advance(59)
    assert node.tick(claims) == ()
    clock.advance(1)
    (again,) = node.tick(claims)
    assert again.occurrence == found.occurrence
    dispatches.sent(again)

    assert dispatches.record()
    entry = only(node)
    assert (entry.copies, entry.dispatched_at) == (2, clock.utcnow())


# -- a worker that was quicker ------------------------------------------------------------------------


def test_a_run_that_has_begun_stays_begun(
    node: LedgerNode, worker: Worker, dispatches: Dispatches
) -> None:
    """A worker starts the message before the leader gets to note that it was sent."""
    (found,) = claim(node)
    dispatches.sent(found)
    assert worker.starts(found)

    assert dispatches.record()
    assert (only(node).state, only(node).owner) == (State.STARTED, "w")
    assert not holds(node, found)


def test_a_run_that_has_ended_stays_ended(
    node: LedgerNode, worker: Worker, dispatches: Dispatches
) -> None:
    """Likewise, for one that takes no time."""
    (found,) = claim(node)
    dispatches.sent(found)
    assert worker.starts(found)
    assert worker.ends(found)

    assert dispatches.record()
    assert only(node).state is State.SUCCEEDED


@pytest.mark.parametrize("refused", [False, True])
def test_a_run_that_waits_to_be_retried_goes_on_waiting(
    node: LedgerNode, worker: Worker, dispatches: Dispatches, clock: ManualClock, refused: bool
) -> None:
    """What is noted is of the first message; the record is of the second, which is due later."""
    (found,) = claim(node)
    if refused:
        dispatches.refused(found, "the reply of the broker was lost")
    else:
        dispatches.sent(found)
    due = clock.utcnow() + timedelta(seconds=300)
    assert worker.starts(found)
    assert worker.retries(found, due)

    assert dispatches.record()
    entry = only(node)
    assert (entry.state, entry.retries, entry.dispatched_at) == (State.DISPATCHED, 1, due)
    clock.advance(300 + 3599)
    claims = node.claims(make_planned(policy=ALL))
    assert node.tick(claims) == ()
    clock.advance(15)
    (again,) = node.tick(claims)
    assert (again.occurrence, again.retries) == (found.occurrence, 1)


def test_another_attempt_is_not_taken_for_this_one(
    node: LedgerNode, worker: Worker, dispatches: Dispatches
) -> None:
    """The message was delivered twice, and its second worker took over from the first."""
    (found,) = claim(node)
    dispatches.sent(found)
    assert worker.starts(found)
    assert worker.ledger.release(found, again=True)

    assert dispatches.record()
    assert (only(node).state, only(node).attempt, only(node).copies) == (State.CLAIMED, 2, 0)


def test_one_quick_worker_does_not_hold_up_the_batch(
    store: CountingStore, node: LedgerNode, worker: Worker, dispatches: Dispatches
) -> None:
    """The job it works on is looked up again, the others are recorded."""
    jobs = [make_planned(f"job-{number}") for number in range(4)]
    found = claim(node, *jobs)
    for each in found:
        dispatches.sent(each)
    store.before = [lambda: worker.starts(found[2])]

    assert dispatches.record()
    assert [only(node, job.name).state for job in jobs] == [
        State.DISPATCHED,
        State.DISPATCHED,
        State.STARTED,
        State.DISPATCHED,
    ]


# -- trouble with the store ---------------------------------------------------------------------------


def test_a_record_whose_reply_was_lost_counts_one_copy(
    store: CountingStore, node: LedgerNode, dispatches: Dispatches
) -> None:
    """It is looked up, and found as it should be."""
    (found,) = claim(node)
    dispatches.sent(found)
    store.lose_reply("commit")
    store.batches.clear()

    assert dispatches.record()
    assert (only(node).state, only(node).copies) == (State.DISPATCHED, 1)
    assert store.batches == []
    assert not holds(node, found)


def test_what_is_not_recorded_stays_in_hand_and_is_recorded_later(
    store: CountingStore, node: LedgerNode, dispatches: Dispatches, clock: ManualClock
) -> None:
    """Nobody here sends it again meanwhile; the moment is that of the message."""
    job = make_planned(policy=ALL)
    (found,) = claim(node, job)
    dispatches.sent(found)
    at = clock.utcnow()
    store.cut()
    with pytest.raises(StoreUnavailable):
        dispatches.record()
    store.restore()
    clock.advance(100)

    assert holds(node, found)
    assert node.tick(node.claims(job)) == ()
    assert dispatches.record()
    assert (only(node).state, only(node).dispatched_at) == (State.DISPATCHED, at)
    assert not holds(node, found)


@pytest.mark.parametrize("limits", [Limits(guards=1, writes=10, size=1_000_000)])
def test_what_is_not_recorded_says_so(
    store: CountingStore, node: LedgerNode, dispatches: Dispatches
) -> None:
    """The batches that were written are done with, the others are tried again."""
    jobs = [make_planned(f"job-{number}") for number in range(3)]
    found = claim(node, *jobs)
    for each in found:
        dispatches.sent(each)

    def fail() -> None:
        msg = "not now"
        raise StoreUnavailable(msg)

    store.before = [lambda: None, fail, lambda: None, fail, fail]
    assert not dispatches.record()
    assert [only(node, job.name).state for job in jobs].count(State.CLAIMED) == 1
    assert dispatches.record()
    assert [only(node, job.name).state for job in jobs] == [State.DISPATCHED] * 3


def test_a_fenced_term_records_nothing(
    node: LedgerNode, other: LedgerNode, dispatches: Dispatches, clock: ManualClock
) -> None:
    """Its successor finds the claim unconfirmed, and sends the same message once more."""
    job = make_planned()
    (found,) = claim(node, job)
    dispatches.sent(found)
    node.dies()
    with pytest.raises(Fenced):
        dispatches.record()
    assert holds(node, found)

    (again,) = other.tick(other.claims(job))
    assert again.occurrence == found.occurrence
    dispatch(other, again)
    dispatches.drop()
    assert not holds(node, found)
    assert dispatches.record()
    assert clock.utcnow() == found.planned_at


@pytest.mark.parametrize("value", [b'{"v": 9}', None], ids=["unreadable", "removed"])
def test_what_has_no_record_any_more_is_let_go_of(
    store: CountingStore,
    node: LedgerNode,
    dispatches: Dispatches,
    clock: ManualClock,
    value: bytes | None,
) -> None:
    """There is nothing to note it in, and trying for ever would help nobody."""
    (found,) = claim(node)
    entry = only(node)
    dispatches.sent(found)
    write = Write(job_key("job"), value)
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)

    assert dispatches.record()
    assert not node.ledger.holds("job", entry)


# -- with workers, from claim to end -------------------------------------------------------------------


def test_one_occurrence_after_the_other(
    node: LedgerNode, worker: Worker, clock: ManualClock
) -> None:
    """What was missed is claimed at once and handed out in order, each when the last has ended."""
    job = make_planned(policy=ALL)
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(30)
    done = []
    for _ in range(3):
        (found,) = node.tick(claims)
        dispatch(node, found)
        assert node.tick(claims) == ()
        assert worker.starts(found)
        clock.advance(1)
        assert node.tick(claims) == ()
        assert worker.ends(found)
        done += planned((found,))
        clock.advance(1)

    assert done == [10, 20, 30]
    assert states(node.store, "job", clock) == [State.SUCCEEDED] * 3


@pytest.mark.parametrize("policy", [Policy(), ALL])
def test_a_run_that_ended_behind_the_leaders_back_does_not_cost_the_next_one(
    node: LedgerNode, worker: Worker, clock: ManualClock, policy: Policy
) -> None:
    """Workers tell the ledger, not the leader: it looks again when the next one is due."""
    claims = node.claims(make_planned(policy=policy))
    node.tick(claims)
    for second in (10, 20, 30):
        clock.advance(10)
        (found,) = node.tick(claims)
        dispatch(node, found)
        assert worker.starts(found)
        assert worker.ends(found)
        assert planned((found,)) == [second]


def test_what_was_put_off_follows_the_end_of_a_run_within_a_second(
    node: LedgerNode, worker: Worker, clock: ManualClock
) -> None:
    """A body that takes longer than its period runs one time after the other."""
    claims = node.claims(make_planned(policy=ALL))
    node.tick(claims)
    clock.advance(10)
    (found,) = node.tick(claims)
    dispatch(node, found)
    assert worker.starts(found)
    clock.advance(12)
    assert node.tick(claims) == ()
    assert worker.ends(found)
    clock.advance(1)

    assert planned(node.tick(claims)) == [20]


def test_a_worker_lives_where_it_shows_that_it_lives(
    node: LedgerNode, worker: Worker, clock: ManualClock
) -> None:
    """It stands in no election, and its runs are alive until its lease is over."""
    claims = node.claims(make_planned(every=3600))
    clock.advance(3590)
    node.tick(claims)
    clock.advance(10)
    (found,) = node.tick(claims)
    dispatch(node, found)
    assert worker.starts(found)
    clock.advance(1000)
    assert node.tick(claims) == ()
    assert node.ledger.living() == {"a", "w"}
    assert only(node).state is State.STARTED

    worker.dies()
    clock.advance(15)
    assert node.tick(claims) == ()
    assert only(node).state is State.INTERRUPTED


def test_a_start_that_may_still_come_true_can_be_called_back(
    node: LedgerNode, worker: Worker, clock: ManualClock
) -> None:
    """What was dispatched, and perhaps started here, is handed back as it was."""
    (found,) = claim(node)
    dispatch(node, found)
    before = worker.ledger.load(("job",))["job"]

    assert worker.ledger.release(found)
    assert only(node).state is State.DISPATCHED
    assert worker.ledger.load(("job",))["job"] != before
    assert worker.starts(found)
    assert worker.ledger.release(found)
    assert (only(node).state, only(node).owner) == (State.DISPATCHED, "")
    assert only(node).dispatched_at == clock.utcnow()
