"""What operators order of an elected scheduler: real schedulers, real executors."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.control import Control
from leader_jobs.orders import Answer
from leader_jobs.records import State
from testsupport.apscheduler_rig import LONG, Body, Rig, until


@pytest.fixture
def control(memory: Rig) -> Control:
    """An operator."""
    return Control(memory.memory, "default", by="ada", clock=SystemClock())


def test_a_pause_and_a_run_on_request(memory: Rig, control: Control) -> None:
    """A paused job runs when it is asked for, and by its trigger again after that."""
    scheduler, body = memory.started(), Body()
    memory.add(scheduler, body, seconds=0.2)
    body.wait(2)
    assert control.wait_heard(control.pause("job"), within=LONG)
    until(lambda: body.is_silent(0.5))

    request = control.wait_answer(control.run_now("job"), within=LONG)
    assert request.answer is Answer.OBEYED
    assert body.wait().planned_at == request.planned_at
    assert body.is_silent(0.5)

    assert control.wait_heard(control.resume("job"), within=LONG)
    body.wait(2)
    entries = memory.history("job")
    assert [e.state for e in entries if e.asked_by == "ada"] == [State.SUCCEEDED]


@pytest.mark.parametrize("ask", [Control.resign, lambda control: control.transfer("heir")])
def test_a_scheduler_gives_up_its_term_when_asked(
    memory: Rig, control: Control, ask: Callable[[Control], object]
) -> None:
    """A run under way comes to its end first, if that takes no longer than a second."""
    scheduler, body = memory.started(), Body(held=True)
    memory.add(scheduler, body)
    run = body.wait()
    heir = Candidate("default", store=memory.memory, node="heir")
    heir.start()
    clock = SystemClock()
    until(lambda: len(memory.memory.candidates("default", deadline=clock.now() + LONG)) == 2)

    ask(control)
    assert not run.lost.wait(0.3)
    body.end()
    until(lambda: heir.term)
    assert not scheduler.leads
    heir.stop()
    (entry,) = memory.wait_closed("job")
    assert entry.state is State.SUCCEEDED
    assert entry.ended_at is not None
    assert entry.ended_at - entry.claimed_at < timedelta(seconds=1)
