"""The life of a scheduler: started, paused, shut down, forked, and its jobs changed meanwhile."""

import io
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers import SchedulerAlreadyRunningError, SchedulerNotRunningError

from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler, LeaderMixin
from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.records import State
from testsupport.apscheduler_rig import Body, Heard, Rig, until
from testsupport.forking import in_forked_child

HOUR = timedelta(hours=1)


def work(*args: object) -> None:
    """Do nothing."""


def _candidates(rig: Rig) -> int:
    return len(rig.memory.candidates("default", deadline=SystemClock().now() + 5))


# -- leading and standing by ------------------------------------------------------------------------


def test_a_standby_runs_nothing_and_takes_over_within_milliseconds(memory: Rig) -> None:
    """Its jobs can be listed, added and changed meanwhile."""
    store, clock = memory.memory, SystemClock()
    rival = store.enrol("default", b"", 60, deadline=clock.now() + 5)
    scheduler, body, late = memory.scheduler(), Body(), Body()
    memory.add(scheduler, body, seconds=1)
    scheduler.start()
    memory.add(scheduler, late, id="late")
    assert body.is_silent(0.3)
    assert not scheduler.leads
    assert {job.id for job in scheduler.get_jobs()} == {"job", "late"}
    scheduler.print_jobs(out=(printed := io.StringIO()))
    assert "Body (trigger: interval[0:00:01]" in printed.getvalue()
    began = clock.now()
    store.withdraw(rival, deadline=began + 5)
    late.wait()
    assert clock.now() - began < 1.0  # a few milliseconds, if nothing else goes on
    body.wait()


def test_a_paused_scheduler_does_not_stand(memory: Rig) -> None:
    """It starts to when it is resumed, and leaves when it is paused again."""
    scheduler, body = memory.scheduler(), Body()
    memory.add(scheduler, body, seconds=0.1)
    scheduler.start(paused=True)
    assert body.is_silent(0.3)
    assert _candidates(memory) == 0
    scheduler.resume()
    body.wait()
    scheduler.pause()
    until(lambda: _candidates(memory) == 0)
    while not body.is_silent(0.3):
        pass
    scheduler.resume()
    body.wait()


def test_what_runs_when_it_is_paused_comes_to_its_end(memory: Rig) -> None:
    """The term lasts until then: pausing is no reason to lose a run."""
    scheduler, body = memory.started(), Body(held=True)
    memory.add(scheduler, body)
    run = body.wait()
    scheduler.pause()
    assert not run.lost.wait(0.3)
    assert _candidates(memory) == 1
    body.end()
    until(lambda: _candidates(memory) == 0)
    assert memory.history("job")[0].state is State.SUCCEEDED


def test_a_pause_lasts_no_longer_than_the_grace_time(memory: Rig) -> None:
    """Then another node leads, and the run is told."""
    scheduler, body = memory.started(lj_grace=0.2), Body(held=True)
    memory.add(scheduler, body)
    run = body.wait()
    scheduler.pause()
    assert run.lost.wait(5)
    body.end()
    assert memory.wait_closed("job")[0].state is State.SUCCEEDED


# -- the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_lets_what_runs_come_to_its_end(rig: Rig, wait: bool) -> None:
    """It does so as the leader, whether or not the caller waits."""
    scheduler, body = rig.started(), Body(held=True)
    rig.add(scheduler, body)
    run = body.wait()
    threading.Timer(0.3, body.end).start()
    began = SystemClock().now()
    scheduler.shutdown(wait=wait)
    assert (SystemClock().now() - began > 0.25) is wait
    assert run.lost.is_set() is wait
    assert rig.wait_closed("job")[0].state is State.SUCCEEDED
    assert scheduler.join(5)
    assert run.lost.is_set()


def test_what_waits_in_a_pool_does_not_begin_at_shutdown(rig: Rig) -> None:
    """The next leader runs it, at once."""
    executors = {"default": {"type": "threadpool", "max_workers": 1}}
    scheduler, slow, body = rig.started(executors=executors), Body(held=True), Body()
    rig.add(scheduler, slow, id="slow")
    slow.wait()
    rig.add(scheduler, body)
    until(lambda: rig.history("job"))
    threading.Timer(0.2, slow.end).start()
    scheduler.shutdown()
    assert body.runs == []
    successor, again = rig.scheduler(), Body()
    successor.add_job(again, "interval", hours=1, id="job")
    successor.start()
    again.wait()
    assert [entry.state for entry in rig.wait_closed("job")] == [State.SUCCEEDED]


def test_a_run_that_outlasts_the_grace_time_is_told(rig: Rig) -> None:
    """Another node leads from then on; the end is recorded all the same."""
    scheduler, body = rig.started(lj_grace=0.2), Body(held=True)
    rig.add(scheduler, body)
    run = body.wait()
    scheduler.shutdown(wait=False)
    assert run.lost.wait(5)
    body.end()
    assert rig.wait_closed("job")[0].state is State.SUCCEEDED


def test_a_scheduler_can_be_started_again(rig: Rig) -> None:
    """With jobs of the new start, for a job store in memory forgets, and with a new pool."""
    scheduler, body = rig.scheduler(), Body()
    for number in (1, 2, 3):
        rig.add(scheduler, body, seconds=1, replace_existing=True)
        scheduler.start()
        body.wait()
        scheduler.shutdown(wait=number != 2)
    assert len({run.token for run in body.runs}) == 3


def test_starts_and_ends_that_make_no_sense_are_refused_as_ever(rig: Rig) -> None:
    """By APScheduler itself, and without harm."""
    scheduler = rig.scheduler()
    with pytest.raises(SchedulerNotRunningError):
        scheduler.shutdown()
    scheduler.start()
    with pytest.raises(SchedulerAlreadyRunningError):
        scheduler.start()
    until(lambda: scheduler.leads)
    scheduler.shutdown()
    with pytest.raises(SchedulerNotRunningError):
        scheduler.shutdown()


def test_a_start_that_fails_can_be_tried_again(rig: Rig) -> None:
    """Nothing of it stands in the election."""
    scheduler = rig.scheduler()
    scheduler.add_job(work, "interval", seconds=5, id="a", jobstore="other")
    with pytest.raises(KeyError, match="No such job store"):
        scheduler.start()
    assert not scheduler.running
    scheduler.remove_job("a")
    scheduler.start()
    until(lambda: scheduler.leads)


# -- jobs are changed -------------------------------------------------------------------------------


def test_next_run_time_can_be_moved(rig: Rig) -> None:
    """To now, which runs the job once more; its rule goes on from there."""
    scheduler, body = rig.started(), Body()
    job = rig.add(scheduler, body, seconds=3600, next_run_time=datetime.now(UTC) + HOUR)
    assert body.is_silent(0.2)
    now = datetime.now(UTC)
    scheduler.modify_job("job", next_run_time=now)
    assert body.wait().planned_at == now
    until(lambda: job.next_run_time == now + HOUR)
    later = datetime.now(UTC) + timedelta(seconds=0.3)
    job.modify(next_run_time=later)
    assert body.wait().planned_at == later


def test_a_job_can_be_rescheduled(rig: Rig) -> None:
    """Both ways, by the scheduler and by the job."""
    scheduler, body = rig.started(), Body()
    job = rig.add(scheduler, body, seconds=3600, next_run_time=datetime.now(UTC) + HOUR)
    scheduler.reschedule_job("job", trigger="interval", seconds=0.2)
    body.wait(2)
    job.reschedule("interval", hours=2)
    while not body.is_silent(0.5):
        pass
    assert job.next_run_time > datetime.now(UTC) + HOUR


def test_a_job_can_be_paused_and_resumed(rig: Rig) -> None:
    """What would have been due meanwhile is not made up for."""
    scheduler, body = rig.started(), Body()
    job = rig.add(scheduler, body, seconds=0.1, coalesce=False)
    body.wait()
    scheduler.pause_job("job")
    while not body.is_silent(0.3):
        pass
    resumed = datetime.now(UTC)
    job.resume()
    assert body.wait().planned_at > resumed
    body.wait()


def test_a_job_can_be_added_paused(rig: Rig) -> None:
    """With ``next_run_time=None``, as ever."""
    scheduler, body = rig.started(), Body()
    rig.add(scheduler, body, seconds=0.1, next_run_time=None)
    assert body.is_silent(0.3)
    scheduler.resume_job("job")
    body.wait()


@pytest.mark.parametrize("everything", [False, True])
def test_a_job_can_be_removed(rig: Rig, everything: bool) -> None:
    """It does not run again, and may be added anew."""
    scheduler, body = rig.started(), Body()
    job = rig.add(scheduler, body, seconds=0.1)
    body.wait()
    if everything:
        scheduler.remove_all_jobs()
    else:
        job.remove()
    while not body.is_silent(0.3):
        pass
    with pytest.raises(JobLookupError):
        scheduler.remove_job("job")
    rig.add(scheduler, body, seconds=0.1)
    body.wait(2)


def test_a_job_may_remove_itself_while_it_runs(rig: Rig) -> None:
    """Its end is recorded all the same."""
    scheduler = rig.started()
    heard = Heard(scheduler)
    rig.add(scheduler, lambda: scheduler.remove_job("job"), seconds=0.1)
    heard.wait(EVENT_JOB_EXECUTED)
    heard.wait(EVENT_JOB_REMOVED)
    assert [entry.state for entry in rig.wait_closed("job")] == [State.SUCCEEDED]
    assert scheduler.get_jobs() == []


def test_a_job_may_add_and_shut_down(rig: Rig) -> None:
    """From its own thread, as jobs do."""
    scheduler, body = rig.started(), Body()

    def chain() -> None:
        rig.add(scheduler, body, id="next")

    rig.add(scheduler, chain)
    body.wait()
    rig.add(scheduler, lambda: scheduler.shutdown(wait=False), id="last")
    until(lambda: not scheduler.running)
    assert scheduler.join(5)
    assert rig.history("last")[0].state is State.SUCCEEDED


def test_a_job_store_may_be_added_and_removed_while_it_runs(rig: Rig) -> None:
    """Its jobs come and go with it."""
    scheduler, body = rig.started(), Body()
    scheduler.add_jobstore(MemoryJobStore(), "extra")
    rig.add(scheduler, body, seconds=0.1, jobstore="extra")
    body.wait(2)
    scheduler.remove_jobstore("extra")
    while not body.is_silent(0.3):
        pass


# -- what is refused --------------------------------------------------------------------------------


def test_two_schedulers_of_one_election_in_one_process_are_refused(rig: Rig) -> None:
    """Only the elected one of them would run its jobs."""
    first, second = rig.started(), rig.scheduler()
    with pytest.raises(ConfigurationError, match="another scheduler of this process stands in"):
        second.start()
    assert not second.running
    other = rig.scheduler(lj_election="other")
    other.start()
    until(lambda: other.leads)
    first.shutdown()
    second.start()
    until(lambda: second.leads)


def _refusals(scheduler: LeaderMixin) -> list[str]:
    """Return what becomes of a scheduler in the child of a fork."""

    def outcome(call: Callable[[], object]) -> str:
        try:
            call()
        except ConfigurationError as error:
            return str(error).partition(",")[0]
        return "done"

    calls: list[Callable[[], Any]] = [
        lambda: scheduler.add_job(work, "interval", seconds=5, id="b"),
        lambda: scheduler.modify_job("a", next_run_time=None),
        lambda: scheduler.remove_job("a"),
        scheduler.start,
        scheduler.get_jobs,
        scheduler.shutdown,
    ]
    return [outcome(call) for call in calls]


def test_the_copy_of_a_scheduler_in_a_forked_child_is_refused(rig: Rig) -> None:
    """It says what to do; that the child ends, however it does, is nothing to its parent."""
    scheduler, body = rig.started(), Body()
    rig.add(scheduler, body, seconds=0.1, id="a")
    answer = in_forked_child(lambda: _refusals(scheduler))
    why = "this scheduler was started before a fork"
    assert answer == repr([why, why, why, why, "done", "done"])
    assert scheduler.leads
    body.wait(2)


def test_a_scheduler_may_be_made_before_a_fork_and_started_after_it(rig: Rig) -> None:
    """As under gunicorn --preload with post_fork; the child's own is one of many."""
    scheduler = rig.scheduler()
    scheduler.add_job(work, "interval", seconds=0.1, id="a")

    def start() -> list[str]:
        scheduler.start()
        until(lambda: scheduler.leads)
        ran: list[str] = until(lambda: [entry.state.value for entry in rig.history("a")])
        scheduler.shutdown()
        return ran[:1]

    assert in_forked_child(start) in ("['succeeded']", "['started']", "['claimed']")
    assert not scheduler.running
    scheduler.start()
    until(lambda: scheduler.leads)


def test_a_child_that_ends_by_itself_leaves_the_parent_in_the_lead(rig: Rig) -> None:
    """Exit handlers run in it, and may not resign for the parent."""
    scheduler = rig.started()
    pid = os.fork()
    if pid == 0:
        try:
            assert scheduler._node is not None
            scheduler._node._exit()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert scheduler.leads


@pytest.fixture(name="shared")
def _shared(rig: Rig) -> Any:
    """Return a job store that others may share."""
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

    return SQLAlchemyJobStore(url=rig.url.replace("ledger", "jobs"))


def test_a_shared_job_store_needs_a_ledger_that_is_shared(memory: Rig, shared: Any) -> None:
    """Or each process would run its jobs."""
    scheduler = memory.scheduler(jobstores={"default": shared})
    with pytest.raises(ConfigurationError, match=r"can be shared by processes, but the ledger"):
        scheduler.start()
    shared.shutdown()


@pytest.mark.parametrize(
    ("func", "args"), [(lambda: None, ()), (work, [threading.Lock()])], ids=["lambda", "lock"]
)
def test_what_can_not_be_serialised_is_refused_at_the_start(
    rig: Rig, shared: Any, func: Any, args: Any
) -> None:
    """Not by the leader later on, in a thread nobody looks at."""
    scheduler = rig.scheduler(jobstores={"default": shared})
    scheduler.add_job(func, "interval", seconds=5, id="a", args=args)
    with pytest.raises(ConfigurationError, match="job a can not be kept in job store 'default'"):
        scheduler.start()
    shared.shutdown()


def test_uwsgi_without_threads_is_refused_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """By APScheduler, before anything stands in an election."""
    import sys
    import types

    module = types.ModuleType("uwsgi")
    module.has_threads = False  # type: ignore[attr-defined]  # as uWSGI makes it
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    scheduler = LeaderBackgroundScheduler(leader_jobs={"store": "memory://uwsgi"})
    with pytest.raises(RuntimeError, match="--enable-threads"):
        scheduler.start()
