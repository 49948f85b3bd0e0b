"""Admissions: what becomes of a run is recorded, whatever becomes of the store meanwhile."""

from datetime import datetime, timedelta

import pytest

from leader_jobs.admissions import Later, Message, Refused
from leader_jobs.exceptions import ConfigurationError, StoreRefused, StoreUnavailable
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.records import State
from leader_jobs.term import EndReason
from leader_jobs.testing import ManualClock
from testsupport.admissions import LateStore, Worker, dispatched, guarded, last, message
from testsupport.ledgers import (
    CountingStore,
    LedgerNode,
    claim_one,
    entries_of,
    passing,
    record_of,
)


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> LateStore:
    return LateStore(clock)


@pytest.fixture(name="job")
def _job() -> Job:
    return guarded()


@pytest.fixture(name="worker")
def _worker(node: LedgerNode, store: CountingStore, clock: ManualClock) -> Worker:
    assert node.ledger.living() == {"a"}  # who leads
    return Worker("w", store, clock)


@pytest.fixture(name="second")
def _second(worker: Worker, store: CountingStore, clock: ManualClock) -> Worker:
    assert worker.name == "w"
    return Worker("x", store, clock)


@pytest.fixture(name="pair")
def _pair(node: LedgerNode, clock: ManualClock) -> list[Claim]:
    """Return claims of two occurrences of one job, both with a leader who let them overlap."""
    claims = node.claims(guarded(policy=Policy(catch_up="all", overlap=True)))
    node.tick(claims)
    clock.advance(20)
    return list(node.tick(claims))


# -- retries --------------------------------------------------------------------------------------


def retried(worker: Worker, claim: Claim, due: datetime) -> Message:
    """Have the body of a started *claim* ask for a retry; return the message it sent."""
    worker.admissions.retry(claim, due)
    return message(claim, retries=claim.retries + 1)


def test_a_retry_is_another_start(
    worker: Worker, second: Worker, claim: Claim, clock: ManualClock
) -> None:
    """Of the message that the body sent; older ones count no more."""
    due = clock.utcnow() + timedelta(seconds=30)
    retry = retried(worker, worker.admit(message(claim)), due)

    entry = last(worker)
    assert (entry.state, entry.retries, entry.dispatched_at) == (State.DISPATCHED, 1, due)
    with pytest.raises(Refused, match="it is of retry 0; retry 1 counts"):
        second.admit(message(claim))
    again = second.admit(retry)
    assert (again.retries, again.attempt) == (1, 1)
    with pytest.raises(Refused, match="it runs on node x"):
        worker.admit(retry)


def test_a_retry_may_come_before_it_is_recorded(
    worker: Worker, second: Worker, claim: Claim
) -> None:
    """Celery sends it while the body still runs: it has to wait, here and elsewhere."""
    started = worker.admit(message(claim))
    retry = message(claim, retries=1)
    for asked in worker, second:
        with pytest.raises(Later) as later:
            asked.admit(retry)
        assert later.value.delay == 1.0
    with pytest.raises(Refused):
        second.admit(message(claim, retries=2))

    worker.store.cut()
    with passing(worker.clock):
        worker.admissions.retry(started, worker.clock.utcnow())
    with pytest.raises(Later):
        worker.admit(retry)
    worker.store.restore()
    worker.settle()
    assert second.admit(retry).retries == 1


def test_a_retry_of_a_dead_process(
    node: LedgerNode, worker: Worker, second: Worker, clock: ManualClock
) -> None:
    """It died before it had recorded it: that is a crash like any other."""
    claim = claim_one(node, guarded(rerun=True), clock)
    worker.admit(message(claim))
    worker.dies()
    with pytest.raises(Refused, match="it is of retry 2; retry 0 counts"):
        second.admit(message(claim, retries=2, rerun=True))

    again = second.admit(message(claim, retries=1, rerun=True))
    assert (again.attempt, again.retries) == (2, 1)
    second.dies()

    with pytest.raises(Refused, match="interrupted"):
        Worker("y", node.store, clock).admit(message(again))  # type: ignore[arg-type]


def test_the_reply_to_a_recorded_retry_is_lost(
    worker: Worker, claim: Claim, caplog: pytest.LogCaptureFixture
) -> None:
    """It is recorded once, and nothing is suspected."""
    started = worker.admit(message(claim))
    worker.store.lose_reply("commit")
    with passing(worker.clock):
        worker.admissions.retry(started, worker.clock.utcnow())

    assert last(worker).retries == 1
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


# -- other ends -----------------------------------------------------------------------------------


def test_what_is_handed_back_is_started_by_the_next_message(
    worker: Worker, second: Worker, node: LedgerNode, claim: Claim
) -> None:
    """As the broker was asked to deliver it again."""
    dispatched(node, claim)
    worker.admissions.hand_back(worker.admit(message(claim)))
    assert last(node).state is State.DISPATCHED

    assert second.admit(message(claim)).attempt == 1


@pytest.mark.parametrize(
    ("rerun", "attempt", "state"),
    [(False, 1, State.INTERRUPTED), (True, 1, State.CLAIMED), (True, 5, State.INTERRUPTED)],
)
def test_a_body_that_is_stopped(
    rerun: bool, attempt: int, state: State, worker: Worker, node: LedgerNode, claim: Claim
) -> None:
    """From outside, by the end of its greenlet say, it did not fail."""
    for _ in range(attempt - 1):
        node.ledger.change(
            "job", lambda record: (record.with_open(record.open[0].again()), ()), None
        )
    worker.admissions.interrupt(worker.admit(message(claim)), "SystemExit", rerun=rerun)

    entry = last(node)
    assert (entry.state, entry.attempt) == (state, attempt + (state is State.CLAIMED))
    assert entry.reason == ("SystemExit" if state is State.INTERRUPTED else "")


def test_the_end_is_recorded_when_the_store_is_back(worker: Worker, claim: Claim) -> None:
    """The caller has its patience, and the process a longer one."""
    started = worker.admit(message(claim))
    worker.store.cut()
    before = worker.clock.now()
    with passing(worker.clock):
        worker.admissions.succeed(started)
        assert worker.clock.now() - before >= 3.0
        assert not worker.admissions.close(2.0)
    worker.store.restore()
    worker.settle()

    assert last(worker).state is State.SUCCEEDED


def test_the_end_is_recorded_though_the_recorder_is_stopped(
    worker: Worker, claim: Claim, store: LateStore
) -> None:
    """A time limit strikes wherever it finds the process."""
    started = worker.admit(message(claim))

    def strike() -> None:
        msg = "time is up"
        raise TimeoutError(msg)

    store.before.append(strike)
    with pytest.raises(TimeoutError):
        worker.admissions.succeed(started)
    worker.settle()

    assert last(worker).state is State.SUCCEEDED


def test_trouble_with_one_record_does_not_hold_up_another(
    worker: Worker, pair: list[Claim], store: LateStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even if it is a bug."""
    policy = Policy(overlap=True)
    first, then = (worker.admit(message(claim, policy=policy)) for claim in pair)
    store.cut()
    with passing(worker.clock):
        worker.admissions.succeed(first)
        worker.admissions.succeed(then)
    store.before.append(lambda: 1 / 0)
    store.restore()
    worker.settle()

    states = [entry.state for entry in entries_of(store, "job", worker.clock)]
    assert states == [State.SUCCEEDED, State.SUCCEEDED]
    assert "ZeroDivisionError" in caplog.text


def test_a_run_that_was_taken_for_dead_says_so(
    worker: Worker, second: Worker, claim: Claim, caplog: pytest.LogCaptureFixture
) -> None:
    """What it did can not be undone; what the ledger says stands."""
    started = worker.admit(message(claim))
    worker.dies()
    with pytest.raises(Refused):
        second.admit(message(claim))
    worker.admissions.succeed(started)

    assert "had been taken for dead meanwhile" in caplog.text
    assert last(worker).state is State.INTERRUPTED


# -- a store that is away -------------------------------------------------------------------------


def test_a_start_whose_reply_is_lost_is_a_start(worker: Worker, claim: Claim) -> None:
    """It is found when it is looked for, and counts once."""
    worker.store.lose_reply("commit")
    with passing(worker.clock):
        started = worker.admit(message(claim))

    assert started.attempt == 1
    assert last(worker).owner == "w"


def test_a_start_that_can_not_be_recorded_comes_later(worker: Worker, claim: Claim) -> None:
    """Nothing was written, nothing is in hand."""
    worker.store.cut()
    with passing(worker.clock), pytest.raises(Later, match="ledger can not be reached") as later:
        worker.admit(message(claim))
    assert later.value.delay == 5.0
    worker.store.restore()

    assert worker.admit(message(claim)).attempt == 1


def test_a_store_that_refuses_is_not_asked_again(
    worker: Worker, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still: there is no waiting."""

    def refuse(*_: object, **__: object) -> None:
        msg = "wrong password"
        raise StoreRefused(msg)

    monkeypatch.setattr(worker.store, "read", refuse)
    with pytest.raises(Later, match="wrong password"):
        worker.admit(message(claim))


def test_a_start_that_may_stand_is_undone(
    worker: Worker, second: Worker, claim: Claim, store: LateStore
) -> None:
    """Until then, whoever asks here has to wait."""
    recorded: list[str] = []

    def recorded_then_away() -> None:
        recorded.append(last(worker).owner)
        store.cut()

    store.after.append(recorded_then_away)
    store.lose_reply("commit")
    with passing(worker.clock), pytest.raises(Later):
        worker.admit(message(claim))
    assert recorded == ["w"]
    with pytest.raises(Later, match="not recorded yet"):
        worker.admit(message(claim))

    store.restore()
    worker.settle()
    assert last(worker).state is State.CLAIMED
    assert second.admit(message(claim)).attempt == 1


@pytest.mark.parametrize("again", [False, True])
def test_a_start_that_arrives_too_late_is_refused(
    again: bool, node: LedgerNode, worker: Worker, second: Worker, store: LateStore
) -> None:
    """Undoing it moves the record on, whatever was to be started."""
    claim = claim_one(node, guarded(rerun=True), node.clock)
    dispatched(node, claim)
    if again:
        second.admit(message(claim))
        second.dies()
    store.withhold = True
    with passing(worker.clock), pytest.raises(Later):
        worker.admit(message(claim, rerun=True))
    store.withhold = False
    worker.settle()
    store.deliver()

    assert last(node).owner == ("x" if again else "")
    assert Worker("y", store, node.clock).admit(message(claim, rerun=True)).attempt == 1 + again


def test_a_start_in_doubt_is_undone_also_if_it_is_refused_then(
    worker: Worker, second: Worker, pair: list[Claim], store: LateStore
) -> None:
    """It was still under way when another run of the job turned out to be alive."""
    policy = Policy(catch_up="all")
    worker.admit(message(pair[0], policy=policy))
    worker.dies()

    def comes_back() -> None:
        store.withhold = False
        worker.stand()

    store.withhold = True
    store.after.append(comes_back)
    with passing(second.clock), pytest.raises(Later, match="has not ended on node w"):
        second.admit(message(pair[1], policy=policy))
    second.settle()
    store.deliver()

    assert last(second).state is State.CLAIMED


def test_a_lease_that_lapsed_meanwhile_starts_nothing(
    worker: Worker, second: Worker, claim: Claim
) -> None:
    """Others may take this process for dead already."""
    worker.presence.end(EndReason.LOST)
    with pytest.raises(Later, match="has lapsed"):
        worker.admit(message(claim))
    worker.settle()

    assert last(worker).state is State.CLAIMED
    second.admit(message(claim))


def test_an_interrupted_question_starts_nothing(
    worker: Worker, claim: Claim, store: LateStore
) -> None:
    """By a time limit, say, that strikes in the middle of it."""

    def strike() -> None:
        msg = "time is up"
        raise TimeoutError(msg)

    store.before.append(strike)
    with pytest.raises(TimeoutError):
        worker.admit(message(claim))
    worker.settle()

    assert last(worker).state is State.CLAIMED
    worker.admit(message(claim))


# -- without a ticket -----------------------------------------------------------------------------


def test_a_call_that_was_skipped_is_in_the_history(worker: Worker, clock: ManualClock) -> None:
    """Of a job that nobody has planned, too."""
    worker.admissions.skip("shop.tasks.cleanup", "this node does not lead", task="cleanup")
    clock.advance(5)
    worker.admissions.skip("shop.tasks.cleanup", "nor now", task="cleanup")

    entries = entries_of(worker.store, "shop.tasks.cleanup", clock)
    assert [(e.sequence, e.state, e.reason) for e in entries] == [
        (0, State.SKIPPED, "this node does not lead"),
        (1, State.SKIPPED, "nor now"),
    ]
    record = record_of(worker.store, "shop.tasks.cleanup", clock)
    assert (record.words, record.schedule, record.task) == ("when called", "", "cleanup")


def test_a_skipped_call_does_not_touch_the_schedule(
    worker: Worker, node: LedgerNode, claim: Claim, job: Job, clock: ManualClock
) -> None:
    """What is due is due, and what is open stays open; also if others write at the same time."""
    before = record_of(node.store, "job", clock)
    worker.store.before.append(lambda: dispatched(node, claim))  # type: ignore[attr-defined]
    clock.advance(10)
    worker.admissions.skip("job", "not here")

    after = record_of(node.store, "job", clock)
    assert after.cursor == before.cursor
    assert [entry.state for entry in after.open] == [State.DISPATCHED]
    assert after.sequence == before.sequence + 1


def test_a_job_begins_when_it_is_planned_first(
    worker: Worker, node: LedgerNode, job: Job, clock: ManualClock
) -> None:
    """Calls that were skipped before do not make it due."""
    worker.admissions.skip("job", "not here")
    clock.advance(100)
    claims = node.claims(job)

    assert node.tick(claims) == ()
    clock.advance(10)
    assert len(node.tick(claims)) == 1


def test_a_call_that_can_not_be_noted(worker: Worker) -> None:
    """The caller is told why."""
    with pytest.raises(ConfigurationError, match="job name"):
        worker.admissions.skip("<locals>", "not here")
    worker.store.cut()
    with pytest.raises(StoreUnavailable):
        worker.admissions.skip("job", "not here")
