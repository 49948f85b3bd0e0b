"""Every scheduler class of APScheduler, each in programs of its own framework."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.records import State
from testsupport.apscheduler_programs import EVERY, KINDS
from testsupport.apscheduler_rig import Rig
from testsupport.parenthood import die_with_parent
from testsupport.processes import Diary

_TESTS = Path(__file__).parents[1]
_BINDINGS = ("PySide6", "PyQt6", "PySide2", "PyQt5")
#: Where bodies run: coroutines in the loop, functions beside it, greenlets in the one thread.
_PLACES = {"gevent": {"loop"}, "asyncio": {"loop", "thread"}, "tornado": {"loop", "thread"}}

Start = Callable[[], "Running"]


class Running:
    """
    A program of one kind that runs.

    Args:
        kind: its kind.
        folder: where its store and its diary are.
        diary: what all of its kind write.
    """

    def __init__(self, kind: str, folder: Path, diary: Diary) -> None:
        self.kind = kind
        self.diary = diary
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "error", "-m", "testsupport.apscheduler_programs", kind),
                *(f"sqlite:///{folder}/store.sqlite3", str(diary.path)),
            ],
            cwd=_TESTS,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  between fork and exec it only calls prctl
        )

    def wait(self, word: str, within: float = 15.0) -> list[str]:
        """Return what follows *word* and this process's id in the next line that begins with them."""
        while True:
            words = self.diary.line(within).split()
            if words[:2] == [word, str(self.process.pid)]:
                return words[2:]

    def tell(self, line: str) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def drain(self, during: float) -> None:
        """Read what is written until nothing is for *during* seconds."""
        while not self.diary.is_silent(during):
            self.diary.line()

    def close(self) -> str:
        """Kill it, and return what it wrote to its standard error."""
        self.process.kill()
        _, complaints = self.process.communicate(timeout=10)
        return complaints


@pytest.fixture(name="start")
def _start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Return what starts programs of the kind the test is for, on one store."""
    with ExitStack() as stack:
        diary = stack.enter_context(Diary.opened(tmp_path / "diary"))

        def start() -> Running:
            running = Running(request.param, tmp_path, diary)
            stack.callback(running.close)
            return running

        yield start


def _by_succession(one: Running, other: Running) -> tuple[Running, Running]:
    """Wait until both are ready and one runs jobs; return that one first."""
    starting, leader = {one.process.pid, other.process.pid}, 0
    while starting or not leader:
        word, pid, *_ = one.diary.line(15.0).split()
        if word == "ready":
            starting.discard(int(pid))
        else:
            leader = int(pid)
    return (one, other) if leader == one.process.pid else (other, one)


def _kind(name: str) -> object:
    """Return a kind as a parameter; without a binding, Qt is left out where it is not required."""
    missing = all(importlib.util.find_spec(binding) is None for binding in _BINDINGS)
    skipped = name == "qt" and missing and not os.environ.get("REQUIRE_QT")
    marks = [pytest.mark.skip(reason="no Qt binding is installed")] if skipped else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("start", [_kind(name) for name in KINDS], indirect=True)
def test_a_program_of_each_kind_leads_stands_by_and_takes_over(start: Start) -> None:
    """
    It runs jobs only when it leads, and at once when it takes over or is resumed.

    The bodies run where those of its class do, and its end leaves nothing hanging.
    """
    clock = SystemClock()
    first, second = _by_succession(start(), start())
    lines = [first.wait("work") for _ in range(6)]
    assert {place for _, place in lines} == _PLACES.get(first.kind, {"thread"})
    first.process.kill()
    began = clock.now()
    token, _ = second.wait("work")
    assert clock.now() - began < EVERY + 1.0
    assert int(token) > int(lines[0][0])
    second.tell("pause")
    second.drain(2 * EVERY)
    second.tell("resume")
    began = clock.now()
    second.wait("work")
    assert clock.now() - began < EVERY + 1.0
    second.tell("stop")
    began = clock.now()
    second.wait("bye")
    assert second.process.wait(10) == 0
    assert clock.now() - began < 2.0
    # What it cancels at its end, APScheduler's executor of asyncio complains of itself.
    assert "leader_jobs" not in second.close()


@pytest.mark.parametrize("wait", [True, False])
def test_greenlets_go_on_while_their_scheduler_is_shut_down(tmp_path: Path, wait: bool) -> None:
    """Whoever waits holds up nobody; what is left at the interpreter's exit never ends, and is closed."""
    program = f"""
import gevent
from datetime import UTC, datetime
from leader_jobs.adapters.apscheduler import LeaderGeventScheduler
scheduler = LeaderGeventScheduler(leader_jobs={{"store": "sqlite:///{tmp_path}/s.sqlite3", "ttl": 5}})
begun = gevent.event.Event()
def work():
    begun.set()
    gevent.sleep(0.5)
scheduler.add_job(work, "interval", hours=1, id="job", next_run_time=datetime.now(UTC))
scheduler.start()
begun.wait()
scheduler.shutdown(wait={wait})
"""
    clock = SystemClock()
    began = clock.now()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
    assert clock.now() - began < 4.0
    (entry,) = Rig(f"sqlite:///{tmp_path}/s.sqlite3").history("job")
    assert entry.state is (State.SUCCEEDED if wait else State.INTERRUPTED)
