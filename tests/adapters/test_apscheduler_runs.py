"""Runs of real schedulers: what bodies see, what listeners hear, what is made of what was missed."""

import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_JOB_SUBMITTED,
)

from leader_jobs.adapters.apscheduler import LeaderMixin
from leader_jobs.records import State
from testsupport.apscheduler_rig import LONG, Body, Heard, Rig, until

#: How far the run times of a frequent job are apart.
STEP = timedelta(seconds=0.1)


def _often(rig: Rig, body: Body, **options: Any) -> None:
    """Start a scheduler with a job that is due every 0.1 s, and have it run once, to the end."""
    scheduler = rig.scheduler()
    scheduler.add_job(body, "interval", seconds=0.1, id="job", **options)
    scheduler.start()
    body.wait()


def _has_jobs(scheduler: LeaderMixin, names: set[str]) -> bool:
    return {job.id for job in scheduler.get_jobs()} == names


def test_a_body_is_told_what_run_it_is(rig: Rig) -> None:
    """Token, planned instant, attempt and the loss of the term are there to be asked for."""
    scheduler, body = rig.started(), Body(held=True)
    due = datetime.now(UTC)
    rig.add(scheduler, body, next_run_time=due)
    run = body.wait()
    assert (run.job, run.election, run.planned_at, run.attempt) == ("job", "default", due, 1)
    assert run.token > 0
    assert not run.lost.is_set()
    body.end()
    (entry,) = rig.wait_closed("job")
    assert (entry.state, entry.token, entry.planned_at) == (State.SUCCEEDED, run.token, due)


def test_listeners_hear_of_submission_and_execution(rig: Rig) -> None:
    """Both events name the planned instant, and the latter has what the body returned."""
    scheduler, body = rig.started(), Body()
    heard = Heard(scheduler)
    due = datetime.now(UTC)
    rig.add(scheduler, body, next_run_time=due)
    executed = heard.wait(EVENT_JOB_EXECUTED)
    assert (executed.job_id, executed.retval, executed.scheduled_run_time) == ("job", "done", due)
    assert heard.wait(EVENT_JOB_SUBMITTED).scheduled_run_times == [due]


def test_listeners_hear_of_an_error(rig: Rig) -> None:
    """So does the ledger."""
    scheduler, body = rig.started(), Body(error=ValueError("no paper"))
    heard = Heard(scheduler)
    rig.add(scheduler, body)
    assert heard.wait(EVENT_JOB_ERROR).exception is body.error
    (entry,) = rig.wait_closed("job")
    assert (entry.state, entry.reason) == (State.FAILED, "ValueError: no paper")


def test_a_listener_that_fails_hurts_nobody(rig: Rig) -> None:
    """The run is recorded, and others are told."""
    scheduler = rig.started()

    def fail(_: object) -> None:
        raise ValueError

    scheduler.add_listener(fail)
    heard = Heard(scheduler)
    rig.add(scheduler, Body())
    heard.wait(EVENT_JOB_EXECUTED)
    assert rig.wait_closed("job")[0].state is State.SUCCEEDED


@pytest.mark.parametrize("instances", [1, 3])
def test_all_that_was_missed_is_run_in_order(rig: Rig, instances: int) -> None:
    """With ``coalesce=False`` a successor runs each run time that came due in the gap."""
    first = Body()
    _often(rig, first, coalesce=False)
    rig.close()
    threading.Event().wait(0.5)
    body = Body()
    _often(rig, body, coalesce=False, max_instances=instances)
    body.wait(6)
    rig.close()
    found = [run.planned_at for run in (*first.runs, *body.runs)]
    found = found if instances == 1 else sorted(found)
    assert all(later - earlier == STEP for earlier, later in pairwise(found)), found


def test_what_was_missed_is_coalesced(rig: Rig) -> None:
    """By default a successor runs the newest run time, and the ledger says what became of others."""
    _often(rig, Body())
    rig.close()
    threading.Event().wait(0.5)
    body = Body()
    _often(rig, body)
    rig.close()
    late = body.runs[0]
    (passed,) = [entry for entry in rig.history("job") if entry.state is State.COALESCED]
    assert (passed.reason, passed.planned_at) == ("coalesced", late.planned_at - STEP)
    assert passed.count >= 3


def test_what_is_later_than_the_grace_time_is_missed(rig: Rig) -> None:
    """Listeners hear of it, and the ledger has it as skipped."""
    _often(rig, Body(), coalesce=False)
    rig.close()
    threading.Event().wait(1.4)
    scheduler, body = rig.scheduler(), Body()
    heard = Heard(scheduler)
    scheduler.add_job(body, "interval", seconds=0.1, id="job", coalesce=False, misfire_grace_time=1)
    scheduler.start()
    heard.wait(EVENT_JOB_MISSED)
    body.wait(8)
    rig.close()
    passed = next(entry for entry in rig.history("job") if entry.reason == "window")
    assert passed.planned_at == body.runs[0].planned_at - STEP


def test_a_run_that_waited_too_long_in_its_pool_is_missed(rig: Rig) -> None:
    """The grace time counts when its turn comes, as in stock APScheduler."""
    executors = {"default": {"type": "threadpool", "max_workers": 1}}
    scheduler, slow, body = rig.started(executors=executors), Body(held=True), Body()
    heard = Heard(scheduler)
    rig.add(scheduler, slow, id="slow")
    slow.wait()
    rig.add(scheduler, body, misfire_grace_time=1)
    heard.wait(EVENT_JOB_SUBMITTED, 2)
    threading.Event().wait(2.1)
    slow.end()
    assert heard.wait(EVENT_JOB_MISSED).job_id == "job"
    (entry,) = rig.wait_closed("job")
    assert (entry.state, entry.reason, body.runs) == (State.SKIPPED, "window", [])


def test_a_job_does_not_overlap_itself(rig: Rig) -> None:
    """With ``max_instances=1`` what comes due during a run is skipped, and listeners hear of it."""
    scheduler, body = rig.started(), Body(held=True)
    heard = Heard(scheduler)
    rig.add(scheduler, body, seconds=0.1)
    body.wait()
    assert heard.wait(EVENT_JOB_MAX_INSTANCES).job_id == "job"
    body.end(100)
    body.wait()
    assert {entry.reason for entry in rig.wait_closed("job", 2)} == {"", "overlap"}


def test_what_comes_due_during_a_run_is_run_after_it(rig: Rig) -> None:
    """With ``coalesce=False`` none is lost, and they run one after the other."""
    scheduler, body = rig.started(), Body(held=True)
    rig.add(scheduler, body, seconds=0.1, coalesce=False)
    body.wait()
    assert body.is_silent(0.4)
    body.end(100)
    body.wait(4)
    planned = [run.planned_at for run in body.runs]
    assert all(later - earlier == STEP for earlier, later in pairwise(planned)), planned


def test_as_many_runs_at_once_as_max_instances_says(rig: Rig) -> None:
    """One more is skipped with an event, or waits with ``coalesce=False``."""
    scheduler, body, patient = rig.started(), Body(held=True), Body(held=True)
    heard = Heard(scheduler, EVENT_JOB_MAX_INSTANCES)
    rig.add(scheduler, body, seconds=0.1, max_instances=2)
    rig.add(scheduler, patient, id="all", seconds=0.1, max_instances=2, coalesce=False)
    body.wait(2)
    patient.wait(2)
    heard.wait(EVENT_JOB_MAX_INSTANCES, 2)
    assert {event.job_id for event in heard.of(EVENT_JOB_MAX_INSTANCES)} == {"job"}
    assert len(body.runs) == len(patient.runs) == 2
    patient.end(100)
    body.end(100)
    patient.wait(4)
    planned = sorted(run.planned_at for run in patient.runs)
    assert all(later - earlier == STEP for earlier, later in pairwise(planned)), planned
    assert "max_instances" in {entry.reason for entry in rig.history("job")}


def test_jitter_delays_the_run_and_not_the_plan(rig: Rig) -> None:
    """What is claimed is the instant without jitter, or nodes would not agree on it."""
    scheduler, body = rig.started(), Body()
    heard = Heard(scheduler)
    due = datetime.now(UTC)
    rig.add(scheduler, body, jitter=1, next_run_time=due)
    submitted = heard.wait(EVENT_JOB_SUBMITTED)
    assert submitted.scheduled_run_times == [due]
    assert body.wait().planned_at == due
    (entry,) = rig.wait_closed("job")
    assert entry.started_at is not None
    assert timedelta(0) < entry.started_at - due < timedelta(seconds=2)


def test_a_job_with_one_run_time_is_run_once_over_a_succession(rig: Rig) -> None:
    """The one that was run is not run again, the one of the gap is, and both disappear."""
    now = datetime.now(UTC)
    times = {"before": now, "gap": now + timedelta(seconds=0.8)}
    found: dict[str, list[str]] = {}
    for leader in ("first", "second"):
        bodies = {name: Body() for name in times}
        scheduler = rig.scheduler()
        for name, body in bodies.items():
            scheduler.add_job(body, "date", run_date=times[name], id=name)
        scheduler.start()
        bodies["before" if leader == "first" else "gap"].wait()
        left = {"gap"} if leader == "first" else set[str]()
        until(partial(_has_jobs, scheduler, left))
        rig.close()
        threading.Event().wait(0.8 if leader == "first" else 0.0)
        found[leader] = [name for name, body in bodies.items() if body.runs]
    assert found == {"first": ["before"], "second": ["gap"]}


def test_what_waits_in_the_pool_of_a_deposed_leader_never_begins(memory: Rig) -> None:
    """Its claim is handed on, and the next leader runs it, under the same id."""
    executors = {"default": {"type": "threadpool", "max_workers": 1}}
    scheduler, slow, body = memory.started(executors=executors), Body(held=True), Body()
    heard = Heard(scheduler)
    memory.add(scheduler, slow, id="slow")
    run = slow.wait()
    memory.add(scheduler, body)
    heard.wait(EVENT_JOB_SUBMITTED, 2)
    memory.depose()
    assert run.lost.wait(LONG)
    slow.end()
    heard.wait(EVENT_JOB_MISSED)
    assert body.wait().token > run.token
    (entry,) = memory.wait_closed("job")
    assert (entry.state, entry.attempt) == (State.SUCCEEDED, 1)


def test_nothing_starts_while_the_store_is_away(
    memory: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why, and all goes on when it is back."""
    scheduler, body = memory.started(), Body()
    memory.add(scheduler, body, seconds=0.1, coalesce=False)
    body.wait()
    memory.memory.cut()
    assert body.is_silent(0.5) or body.is_silent(0.5)  # one may have been about to begin
    assert until(lambda: "nothing is started until the ledger is back" in caplog.text)
    memory.memory.restore()
    body.wait(8)
    planned = [run.planned_at for run in body.runs]
    assert all(later - earlier == STEP for earlier, later in pairwise(planned)), planned
