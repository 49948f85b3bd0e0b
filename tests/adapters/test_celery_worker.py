"""Installing the guard, tasks that are not guarded, and what a process opens and closes."""

import threading
from typing import Any

import pytest
from celery import Celery, Task, shared_task, signals
from celery import _state as celery_state
from celery.worker.worker import WorkController

from leader_jobs import leader_only
from leader_jobs.adapters.celery_desks import Desks
from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.adapters.celery_settings import settings_of
from leader_jobs.adapters.celery_worker import LeaderJobs, install
from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Restriction
from leader_jobs.ledger import Claim
from leader_jobs.names import runners_of
from leader_jobs.records import State
from leader_jobs.runs import current_run
from testsupport.apscheduler_rig import until
from testsupport.forking import in_forked_child
from testsupport.guarded_shop import CLOCK, Shop, deliver, ticket_of


@leader_only
def nothing() -> None:
    """Do nothing, on the leader."""


# -- which tasks are guarded ----------------------------------------------------------------------


@pytest.mark.parametrize("when", ["first", "between", "last", "twice"])
def test_it_does_not_matter_when_it_is_installed(when: str) -> None:
    """Tasks that are there are guarded, and those that come; each once."""
    app: Any = Celery("shop", set_as_current=False, broker="memory://")

    @leader_only
    def body() -> None:
        """Do nothing."""

    def body_too() -> None:
        """Do nothing."""

    if when in ("first", "twice"):
        install(app)
    early = app.task(body, name="early", shared=False)
    app.finalize()
    if when == "between":
        install(app)
    late = app.task(body, name="late", shared=False)
    free = app.task(body_too, name="free", shared=False)
    if when in ("last", "twice"):
        install(app)

    guards = [task.run.__dict__.get("__leader_jobs_guarded__") for task in (early, late, free)]
    assert guards == [True, True, None]
    assert early.run.__wrapped__ is body
    app.close()


def test_every_kind_of_task_is_guarded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound, shared, of a class, with a wrapper of Celery's own."""
    monkeypatch.setattr(celery_state, "_on_app_finalizers", set())

    class Counting(Task[Any, Any]):
        name = "of a class"

        @leader_only
        def run(self) -> None:
            shop.see()

    @shared_task(name="shared")
    @leader_only
    def shared() -> None:
        shop.see()

    @shop.task(name="bound", bind=True)
    @leader_only
    def bound(self: Any) -> None:
        shop.see()

    @shop.task(name="auto", autoretry_for=(Exception,))
    @leader_only
    def auto() -> None:
        shop.see()

    shop.app.finalize()
    shop.app.register_task(Counting())

    for name in ("of a class", "shared", "bound", "auto"):
        assert shop.app.tasks[name].apply().state == "IGNORED"
    assert shop.seen == []


def test_the_decorators_have_an_order(shop: Shop) -> None:
    """The other way round it would guard the sending of messages."""
    with pytest.raises(ConfigurationError, match=r"@app.task above @leader_only"):

        @leader_only
        @shop.task(name="wrong")
        def wrong() -> None:
            """Do nothing."""


# -- other tasks ----------------------------------------------------------------------------------


@pytest.fixture(name="plain")
def _plain(shop: Shop) -> Any:
    """Return a task that is not restricted."""

    @shop.task(name="plain")
    def plain() -> None:
        shop.see()
        if current_run() is None:
            msg = "no run"
            raise ValueError(msg)

    return plain


def test_an_unrestricted_task_is_told_what_it_was_planned_for(shop: Shop, plain: Any) -> None:
    """Its runs are not recorded, and it runs as often as it is delivered."""
    claim = shop.claim(plain)
    shop.store.cut()
    assert [deliver(plain, claim).state for _ in range(2)] == ["SUCCESS"] * 2
    shop.store.restore()

    run = shop.seen[0]
    assert run is not None
    assert (run.planned_at, run.token, run.job) == (claim.planned_at, claim.token, "job")
    assert not run.lost.wait(0.01)
    assert current_run() is None
    assert shop.last().state is State.CLAIMED
    assert shop.store.candidates(runners_of("default"), deadline=CLOCK.now() + 1) == ()


@pytest.mark.parametrize("options", [{"ticket": "nonsense"}, {"task_id": "mine"}, {"headers": {}}])
def test_an_unrestricted_task_runs_with_any_ticket_or_none(
    options: dict[str, Any], shop: Shop, plain: Any
) -> None:
    """It is told nothing then."""
    assert isinstance(deliver(plain, shop.claim(plain), **options).result, ValueError)
    assert shop.seen == [None]


def test_the_end_of_an_inner_task_is_not_that_of_the_outer_one(shop: Shop, plain: Any) -> None:
    """Run eagerly inside another one, each has its own run."""

    @shop.task(name="outer")
    def outer(claim: Claim) -> None:
        shop.see()
        deliver(plain, claim)
        shop.see()

    inner = shop.claim(plain)
    outside = Claim("other", "", inner.planned_at, 0, 1, 7)
    ticket = ticket_of(outside)
    outer.apply(args=(inner,), task_id=ticket.occurrence, headers={HEADER: ticket.encode()})

    assert [run.job for run in shop.seen if run] == ["other", "job", "other"]


# -- workers and processes ------------------------------------------------------------------------


def test_a_worker_does_not_start_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has something to guard."""
    monkeypatch.delenv("LEADER_JOBS_STORE", raising=False)
    app: Any = Celery("shop", set_as_current=False, broker="memory://")
    install(app)
    app.task(nothing, name="guarded", shared=False)
    with pytest.raises(ConfigurationError, match="store is not set"):
        WorkController(app=app, pool_cls="solo")

    for name, task in tuple(app.tasks.items()):
        if Restriction.of(task.run):  # shared ones of other tests, too
            del app.tasks[name]
    WorkController(app=app, pool_cls="solo")
    app.conf.leader_jobs_worker_elections = ["mail"]
    with pytest.raises(ConfigurationError, match="store is not set"):
        WorkController(app=app, pool_cls="solo")
    app.close()


def test_the_step_alone_installs_everything(shop: Shop) -> None:
    """When the worker is made, before its consumer is."""
    app: Any = Celery("step", set_as_current=False, broker="memory://")
    app.conf.update(
        leader_jobs_store=shop.app.conf.leader_jobs_store,
        leader_jobs_election="mail",
        leader_jobs_worker_elections=["reports"],
    )
    app.steps["worker"].add(LeaderJobs)
    task = app.task(nothing, name="guarded", shared=False)
    WorkController(app=app, pool_cls="solo")

    assert task.apply().state == "IGNORED"
    assert application.election == "mail"
    assert [step.__name__ for step in app.steps["consumer"]] == ["LeaderConsuming"]
    app.close()


def test_the_step_alone_does_not_do_for_spawned_children(shop: Shop) -> None:
    """They would run their copies of the tasks without the guard."""
    app: Any = Celery("step", set_as_current=False, broker="memory://")
    app.conf.leader_jobs_store = shop.app.conf.leader_jobs_store
    app.steps["worker"].add(LeaderJobs)
    with pytest.raises(ConfigurationError, match=r"call .*install\(app\) where"):
        WorkController(app=app, pool_cls="prefork", pool_start_method="spawn")
    app.close()


def test_what_was_opened_is_closed_with_the_process(shop: Shop, report: Any) -> None:
    """The lease is withdrawn at once; another message opens another one."""
    deliver(report, shop.claim(report))
    assert len(shop.ledger().living()) == 1
    signals.worker_process_shutdown.send(sender=None, pid=0, exitcode=0)
    assert shop.ledger().living() == frozenset()

    deliver(report, shop.claim(report, job="next"))
    assert len(shop.ledger().living()) == 1


def test_a_child_opens_desks_of_its_own(shop: Shop) -> None:
    """What its parent has opened is not touched."""
    desks = Desks(lambda: settings_of(shop.app), clock=CLOCK)
    mine = desks.of("default").presence
    mine.begin(5.0)
    until(lambda: any("leader-jobs-renew" in thread.name for thread in threading.enumerate()))
    threads = threading.active_count()

    def in_child() -> tuple[bool, bool]:
        theirs = desks.of("default").presence
        theirs.begin(5.0)
        desks.close()
        return theirs is mine, theirs.incarnation == mine.incarnation

    assert in_forked_child(in_child) == "(False, False)"
    assert threading.active_count() == threads
    assert desks.of("default").presence is mine
    desks.close()
