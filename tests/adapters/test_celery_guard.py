"""The guard of Celery tasks, in one process: what it lets in, what it turns away, what it records."""

from datetime import timedelta
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject

from leader_jobs import leader_only
from leader_jobs.adapters import celery_guard
from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.exceptions import NotLeader
from leader_jobs.records import State
from leader_jobs.runs import current_run
from leader_jobs.term import held_terms
from leader_jobs.tickets import Ticket
from testsupport.guarded_shop import CLOCK, HOUR, Shop, deliver, ticket_of, trace

# -- with a ticket --------------------------------------------------------------------------------


def test_a_message_with_a_ticket_runs_once(shop: Shop, report: Any) -> None:
    """The body knows what it was planned for; the next copy stores no result."""
    claim = shop.claim(report)
    assert deliver(report, claim, 4).result == 8
    copy = deliver(report, claim, 4)

    assert (copy.state, copy.result.args) == ("IGNORED", ("it succeeded on node here",))
    (run,) = shop.seen
    assert run is not None
    assert (run.occurrence, run.planned_at) == (claim.occurrence, claim.planned_at)
    assert (run.job, run.token, run.attempt) == ("job", claim.token, 1)
    assert not run.lost.is_set()
    assert shop.last().state is State.SUCCEEDED
    assert current_run() is None


def test_a_ticket_may_be_of_any_election(shop: Shop, report: Any) -> None:
    """If the task names none, it is of that of the ticket."""
    claim = shop.claim(report, "mail")
    ticket = ticket_of(claim, "mail").encode()

    assert deliver(report, claim, ticket=ticket).state == "SUCCESS"
    assert shop.last(election="mail").state is State.SUCCEEDED


def test_a_ticket_of_another_election_is_forged(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """If the task names one."""

    @shop.task(name="report")
    @leader_only(election="mail")
    def report() -> None:
        shop.see()

    assert deliver(report, shop.claim(report)).state == "REJECTED"
    assert "is rejected: it is of election 'mail', its ticket of 'default'" in caplog.text
    assert shop.seen == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ticket": "nonsense"}, "not a ticket of this library"),
        ({"ticket": {"v": 1}}, "can not be read"),
        ({"task_id": "mine"}, "its ticket is of occurrence"),
    ],
)
def test_a_forged_ticket_is_rejected(
    options: dict[str, Any], why: str, shop: Shop, report: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Not run, and one line says why."""
    claim = shop.claim(report)
    result = deliver(report, claim, **options)

    assert result.state == "REJECTED"
    assert isinstance(result.result, Reject)
    (line,) = [r for r in caplog.records if r.name == celery_guard.__name__]
    assert line.levelname == "WARNING"
    assert why in line.message
    assert shop.seen == []
    assert shop.last().state is State.CLAIMED


def test_a_ticket_of_another_task_is_rejected(shop: Shop, report: Any) -> None:
    """The ledger knows what the job runs."""

    @shop.task(name="other")
    @leader_only
    def other() -> None:
        shop.see()

    assert deliver(other, shop.claim(report)).state == "REJECTED"
    assert shop.seen == []


_BUSY = "busy"


def test_a_message_that_goes_back_to_its_queue_may_start_its_occurrence_again(shop: Shop) -> None:
    """With ``acks_late`` alone: acknowledged early, there is nothing that could go back."""

    @shop.task(name="report", acks_late=True)
    @leader_only
    def report() -> None:
        raise Reject(_BUSY, requeue=True)

    deliver(report, shop.claim(report))
    assert shop.last().state is State.CLAIMED


def test_a_retry_that_is_not_raised_counts_all_the_same(shop: Shop) -> None:
    """By ``throw=False``: the message is with the broker, and the occurrence is not over."""

    @shop.task(name="report", bind=True)
    @leader_only
    def report(self: Any) -> None:
        self.retry(countdown=60, throw=False)

    deliver(report, shop.claim(report))
    assert (shop.last().state, shop.last().retries) == (State.DISPATCHED, 1)


# -- how bodies end -------------------------------------------------------------------------------


class Stopped(BaseException):
    """What is raised in a greenlet that is killed, say."""


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (ValueError("no\npaper"), State.FAILED, "ValueError: no paper"),
        (Ignore("replaced"), State.SUCCEEDED, "celery.exceptions.Ignore: replaced"),
        (Reject("bad"), State.FAILED, "celery.exceptions.Reject: ('bad', False)"),
        (Reject("busy", requeue=True), State.FAILED, "celery.exceptions.Reject: ('busy', True)"),
        (Stopped(), State.INTERRUPTED, ".Stopped"),
    ],
    ids=["error", "ignore", "reject", "requeue", "stopped"],
)
def test_how_a_body_ends_is_recorded(
    error: BaseException, state: State, reason: str, shop: Shop
) -> None:
    """And Celery learns of it as it would without the guard."""

    @shop.task(name="report")
    @leader_only
    def report() -> None:
        raise error

    try:
        result = deliver(report, shop.claim(report)).result
    except Stopped as stopped:
        result = stopped
    assert type(result) is type(error)

    entry = shop.last()
    assert entry.state is state
    assert entry.reason.endswith(reason)


@pytest.mark.parametrize("eta", [False, True])
def test_a_retry_is_recorded_with_its_time(eta: bool, shop: Shop) -> None:
    """Each message counts once; in the end there is one end."""

    @shop.task(name="report", bind=True)
    @leader_only
    def report(self: Any) -> str:
        shop.see()
        if self.request.retries < 2:
            if eta:  # as Celery has them where there is no time zone
                raise self.retry(eta=CLOCK.utcnow().replace(tzinfo=None) + HOUR)
            raise self.retry(countdown=3600)
        return "at last"

    claim = shop.claim(report)
    assert deliver(report, claim).result == "at last"

    entry = shop.last()
    assert (entry.state, entry.retries, entry.attempt) == (State.SUCCEEDED, 2, 1)
    assert entry.dispatched_at is not None
    assert abs(entry.dispatched_at - CLOCK.utcnow() - HOUR) < timedelta(seconds=30)
    assert deliver(report, claim, retries=1).state == "IGNORED"
    assert len(shop.seen) == 3


def test_retries_that_celery_asks_for_are_seen(shop: Shop) -> None:
    """`autoretry_for` is inside the guard; it does not retry what the guard turns away."""

    @shop.task(name="report", autoretry_for=(Exception,), max_retries=1)
    @leader_only
    def report() -> None:
        shop.see()
        msg = "no paper"
        raise ValueError(msg)

    claim = shop.claim(report)
    assert isinstance(deliver(report, claim).result, ValueError)
    assert deliver(report, claim, ticket="nonsense").state == "REJECTED"
    assert len(shop.seen) == 2
    assert (shop.last().state, shop.last().retries) == (State.FAILED, 1)


def test_a_body_may_call_itself(shop: Shop) -> None:
    """And what is decorated like itself; only a message is asked for its ticket."""

    @shop.task(name="report", bind=True)
    @leader_only
    def report(self: Any, deeper: int) -> None:
        shop.see()
        if deeper == 2:
            self.run(1)
        if deeper == 1:
            self(0)

    assert deliver(report, shop.claim(report), 2).state == "SUCCESS"
    assert len(shop.seen) == 3


# -- without a ticket -----------------------------------------------------------------------------


def test_a_message_without_a_ticket_is_skipped(
    shop: Shop, report: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Where this process does not lead; one line and the ledger say so."""
    caplog.set_level("INFO", logger="leader_jobs")
    assert report.apply(args=(4,)).state == "IGNORED"

    why = "no ticket, and this node does not lead election 'default'"
    (line,) = [r for r in caplog.records if r.name == celery_guard.__name__]
    assert why in line.message


def test_a_skip_is_noted_in_the_ledger(shop: Shop) -> None:
    """Under the job's name."""

    @shop.task(name="report")
    @leader_only(name="daily")
    def report() -> None:
        shop.see()

    report.apply()
    entry = shop.last("daily")
    assert (entry.state, entry.node) == (State.SKIPPED, "here")
    assert entry.reason == "no ticket, and this node does not lead election 'default'"
    assert shop.ledger().jobs()["daily"].task == "report"


def test_a_skip_needs_no_store(shop: Shop, report: Any) -> None:
    """That it can not be noted changes nothing."""
    shop.store.cut()
    assert report.apply().state == "IGNORED"


def test_a_task_may_insist(shop: Shop) -> None:
    """On an error where it does not run."""

    @shop.task(name="report")
    @leader_only(on_standby="raise")
    def report() -> None:
        shop.see()

    result = report.apply()
    assert result.state == "FAILURE"
    assert isinstance(result.result, NotLeader)
    assert shop.seen == []


def test_the_leader_runs_what_is_called(shop: Shop, report: Any) -> None:
    """Under its term, which the body can see the end of."""
    term = shop.term()
    held_terms.post(term)
    try:
        assert report.apply(args=(4,), task_id="call").result == 8
        term.suspended = True
        assert report.apply(args=(4,)).state == "IGNORED"
    finally:
        held_terms.remove(term)

    (run,) = shop.seen
    assert run is not None
    assert (run.occurrence, run.token) == ("call", term.token)
    term._deadline = 0.0
    assert run.lost.is_set()


def test_a_plain_call_is_no_message(shop: Shop, report: Any) -> None:
    """The decorator alone decides about it."""
    assert report(4) is None
    assert shop.ledger().jobs() == {}


# -- a store that is away -------------------------------------------------------------------------


def test_a_message_comes_again_when_the_ledger_is_away(
    shop: Shop, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published anew with the same id, ticket and retries, for a moment later."""
    monkeypatch.setattr(celery_guard, "_BEGIN_WITHIN", 0.2)
    claim = shop.claim(report)
    shop.store.cut()
    assert trace(report, claim).info.state == "IGNORED"

    with shop.app.connection() as connection, connection.SimpleQueue("celery") as queue:
        found = queue.get(timeout=1)
        found.ack()
        headers = found.headers
    assert headers["id"] == claim.occurrence
    assert Ticket.decode(headers[HEADER]) == ticket_of(claim)
    assert headers["retries"] == 0
    assert headers["eta"] is not None
    assert found.payload[0] == [4]

    shop.store.restore()
    monkeypatch.undo()
    assert deliver(report, claim, 4).result == 8
    assert len(shop.seen) == 1


def test_a_message_that_can_not_be_published_is_requeued(
    shop: Shop, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is acknowledged late, that gives it back."""
    monkeypatch.setattr(celery_guard, "_BEGIN_WITHIN", 0.2)
    claim = shop.claim(report)
    shop.store.cut()
    shop.app.conf.broker_url = "amqp://127.0.0.1:1//"
    shop.app.conf.task_publish_retry = False
    shop.app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0}

    rejected = trace(report, claim).info.retval
    assert isinstance(rejected, Reject)
    assert rejected.requeue  # type: ignore[attr-defined]  # the stubs lack it
