"""Every executor: threads, processes, coroutines, and what becomes of a run when they fail."""

import asyncio
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MISSED,
    EVENT_JOB_SUBMITTED,
)

from leader_jobs import current_run, leader_only
from leader_jobs.adapters.apscheduler import LeaderAsyncIOScheduler
from leader_jobs.records import State
from testsupport.apscheduler_rig import LONG, Body, Heard, Rig, until


def processes() -> dict[str, Any]:
    """Return what configures a pool of one process."""
    return {"default": {"type": "processpool", "max_workers": 1}}


def tell_the_run(word: str) -> tuple[str, int, str, bool]:
    """Return what a body in another process sees."""
    run = current_run()
    assert run is not None
    return (
        word,
        os.getpid(),
        f"{run.job} {run.token} {run.planned_at.isoformat()}",
        run.lost.is_set(),
    )


async def tell_the_run_soon(word: str) -> tuple[str, int, str, bool]:
    """Return the same from a coroutine."""
    await asyncio.sleep(0)
    return tell_the_run(word)


def kill_itself() -> None:
    """End the process by SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("func", [tell_the_run, tell_the_run_soon])
def test_a_process_pool_runs_bodies_that_know_their_run(rig: Rig, func: Any) -> None:
    """The start is recorded before it is sent; what it returns comes back by the event."""
    scheduler = rig.started(executors=processes())
    heard = Heard(scheduler)
    due = datetime.now(UTC)
    rig.add(scheduler, func, args=["a"], next_run_time=due)
    word, pid, about, lost = heard.wait(EVENT_JOB_EXECUTED).retval
    assert (word, about, lost) == ("a", f"job 1 {due.isoformat()}", False)
    assert pid != os.getpid()
    assert rig.wait_closed("job")[0].state is State.SUCCEEDED


def test_a_killed_process_of_a_pool_is_an_error(rig: Rig) -> None:
    """Listeners and ledger are told, which stock does not; the next run gets a new pool."""
    scheduler = rig.started(executors=processes())
    heard = Heard(scheduler)
    rig.add(scheduler, kill_itself)
    assert "terminated" in str(heard.wait(EVENT_JOB_ERROR).exception)
    (entry,) = rig.wait_closed("job")
    assert (entry.state, entry.reason.partition(":")[0]) == (State.FAILED, "BrokenProcessPool")
    rig.add(scheduler, tell_the_run, id="next", args=["b"])
    assert heard.wait(EVENT_JOB_EXECUTED).retval[0] == "b"


def return_the_unpicklable(planned_at: str) -> object:
    """Return what can not be sent back if this is the run of *planned_at*; others end after it."""
    run = current_run()
    assert run is not None
    if run.planned_at == datetime.fromisoformat(planned_at):
        return threading.Lock()
    threading.Event().wait(1.0)
    return None


def test_which_of_two_runs_broke_down_is_known(rig: Rig) -> None:
    """The executor names the job only, and the other run goes on."""
    executors = {"default": {"type": "processpool", "max_workers": 2}}
    scheduler = rig.started(executors=executors)
    heard = Heard(scheduler)
    first = datetime.now(UTC)
    second = first + timedelta(seconds=0.2)
    given = {"args": [second.isoformat()], "max_instances": 2, "next_run_time": first}
    rig.add(scheduler, return_the_unpicklable, **given)
    heard.wait(EVENT_JOB_SUBMITTED)
    scheduler.modify_job("job", next_run_time=second)
    assert heard.wait(EVENT_JOB_ERROR).scheduled_run_time == second
    assert heard.wait(EVENT_JOB_EXECUTED).scheduled_run_time == first
    states = {entry.planned_at: entry.state for entry in rig.wait_closed("job", 2)}
    assert states == {first: State.SUCCEEDED, second: State.FAILED}


def test_what_can_not_be_sent_to_a_process_is_an_error(rig: Rig) -> None:
    """It is recorded as failed, and others are run."""
    scheduler = rig.started(executors=processes())
    heard = Heard(scheduler)
    rig.add(scheduler, lambda: None, id="lambda")
    rig.add(scheduler, tell_the_run, id="argument", args=[threading.Lock()])
    heard.wait(EVENT_JOB_ERROR, 2)
    assert "could not be submitted" in rig.wait_closed("lambda")[0].reason
    assert "cannot pickle" in rig.wait_closed("argument")[0].reason
    rig.add(scheduler, tell_the_run, id="next", args=["b"])
    assert heard.wait(EVENT_JOB_EXECUTED).retval[0] == "b"


def test_an_unknown_executor_is_an_error_and_the_job_stays(rig: Rig) -> None:
    """Stock removes the job, though the executor may be added a moment later."""
    scheduler, body = rig.started(), Body()
    heard = Heard(scheduler)
    rig.add(scheduler, body, executor="other", seconds=0.2)
    assert "No such executor: other" in str(heard.wait(EVENT_JOB_ERROR).exception)
    assert "No such executor: other" in rig.wait_closed("job")[0].reason
    scheduler.add_executor("threadpool", "other")
    body.wait()


def test_the_debug_executor_runs_in_the_schedulers_own_thread(rig: Rig) -> None:
    """One after the other, as it does without an election."""
    scheduler = rig.started(executors={"default": {"type": "debug"}})
    threads: list[str] = []
    heard = Heard(scheduler)
    rig.add(scheduler, lambda: threads.append(threading.current_thread().name), seconds=0.1)
    heard.wait(EVENT_JOB_EXECUTED, 2)
    assert set(threads) == {"APScheduler"}
    assert rig.wait_closed("job", 2)[0].state is State.SUCCEEDED


def test_a_coroutine_gets_a_loop_of_its_own_in_a_thread(rig: Rig) -> None:
    """Stock calls the function and drops the coroutine."""
    scheduler = rig.started()
    heard = Heard(scheduler)
    rig.add(scheduler, tell_the_run_soon, args=["c"])
    assert heard.wait(EVENT_JOB_EXECUTED).retval[0] == "c"


def test_a_guarded_coroutine_is_run_on_an_event_loop(rig: Rig) -> None:
    """Its guard knows that it was claimed."""
    ran: list[object] = []

    @leader_only(on_standby="raise")
    async def body() -> None:
        await asyncio.sleep(0)
        ran.append(current_run())

    async def main() -> None:
        scheduler = rig.scheduler(LeaderAsyncIOScheduler)
        scheduler.start()
        rig.add(scheduler, body)
        await asyncio.wait_for(_until(lambda: ran), LONG)
        scheduler.shutdown()
        await _until(lambda: not scheduler.running)

    asyncio.run(main())
    assert rig.wait_closed("job")[0].state is State.SUCCEEDED


@pytest.mark.parametrize("rerun", [False, True])
def test_a_coroutine_is_cancelled_when_the_term_is_lost(memory: Rig, rerun: bool) -> None:
    """It is recorded as interrupted, or attempted again if that was asked for."""
    runs: list[Any] = []

    @leader_only(on_crash="rerun" if rerun else "interrupt")
    async def body() -> None:
        runs.append(current_run())
        if len(runs) == 1:
            await asyncio.sleep(LONG)

    async def main() -> None:
        scheduler = memory.scheduler(LeaderAsyncIOScheduler)
        heard = Heard(scheduler)
        scheduler.start()
        memory.add(scheduler, body)
        await _until(lambda: runs)
        memory.depose()
        await _until(lambda: heard.of(EVENT_JOB_ERROR))
        assert isinstance(heard.of(EVENT_JOB_ERROR)[0].exception, asyncio.CancelledError)
        await _until(lambda: memory.history("job")[0].ended_at)
        scheduler.shutdown()
        await _until(lambda: not scheduler.running)

    asyncio.run(main())
    (entry,) = memory.history("job")
    if rerun:
        assert (entry.state, entry.attempt) == (State.SUCCEEDED, 2)
        assert [run.attempt for run in runs] == [1, 2]
    else:
        assert (entry.state, entry.reason) == (
            State.INTERRUPTED,
            "cancelled, as the term was over",
        )


def test_coroutines_that_wait_for_their_start_are_handed_back(memory: Rig) -> None:
    """One that is cancelled before it may begin is begun by who leads next."""
    began: list[object] = []

    async def body() -> None:
        began.append(current_run())

    async def main() -> None:
        scheduler = memory.scheduler(LeaderAsyncIOScheduler)
        heard = Heard(scheduler)
        scheduler.start()
        await _until(lambda: scheduler.leads)
        memory.add(scheduler, body, next_run_time=None)
        await asyncio.sleep(0.1)
        memory.add(scheduler, body, id="next")
        await _until(lambda: heard.of(EVENT_JOB_SUBMITTED))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await _until(lambda: began or heard.of(EVENT_JOB_MISSED))
        await _until(lambda: began)
        scheduler.shutdown()
        await _until(lambda: not scheduler.running)

    asyncio.run(main())
    assert [entry.state for entry in memory.history("next")] == [State.SUCCEEDED]


def test_a_function_ends_after_its_event_loop(rig: Rig) -> None:
    """Nobody is told by an event any more, and yet its end is recorded."""
    body = Body(held=True)

    async def main() -> None:
        scheduler = rig.scheduler(LeaderAsyncIOScheduler)
        scheduler.start()
        rig.add(scheduler, body)
        await _until(lambda: body.runs)
        scheduler.shutdown()
        await _until(lambda: not scheduler.running)
        threading.Timer(0.2, body.end).start()

    asyncio.run(main())
    (entry,) = rig.wait_closed("job")
    assert entry.state is State.SUCCEEDED


def test_a_scheduler_whose_event_loop_is_gone_does_not_lead(rig: Rig) -> None:
    """It could run nothing of what it claims: another node shall."""
    body, scheduler = Body(), rig.scheduler(LeaderAsyncIOScheduler)

    async def main() -> None:
        scheduler.start()
        rig.add(scheduler, body, seconds=0.1)
        await _until(lambda: body.runs)

    asyncio.run(main())
    until(lambda: not scheduler.leads)
    rig.made.remove(scheduler)  # without a loop it can not be shut down
    assert scheduler._node is not None
    scheduler._node.close()
    assert scheduler.join(5)
    assert scheduler.leads is False


async def _until(question: Any) -> None:
    """Wait until *question* has an answer that is not false, without holding up the loop."""
    await asyncio.to_thread(until, question)
