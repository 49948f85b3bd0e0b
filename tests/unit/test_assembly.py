"""Parts put together: a command as work, and what a process that ran it exits with."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from leader_jobs.assembly import CommandWork, command_part
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.command import CommandRunner, Outcome, Restart
from leader_jobs.config import ENVIRONMENT_PREFIX, Settings
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.service import Service
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.stores.sqlite import SqliteStore
from leader_jobs.term import EndReason, Term
from leader_jobs.version import version
from testsupport.background import Background
from testsupport.commands import new_runner, new_term
from testsupport.processes import Diary

clock = SystemClock()
#: Writes variables of the environment to a file.
_REPORT = """
import os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(" ".join(os.environ[name] for name in sys.argv[2:]))
sys.exit(9)
"""


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Diary]:
    """What the commands of a test write to."""
    with Diary.opened(tmp_path / "diary") as diary:
        yield diary


def make_work(diary: Diary, script: str, restart: Restart = Restart.NEVER) -> CommandWork:
    """Return a shell script as work."""
    runner = new_runner(diary, script, restart=restart)
    return CommandWork(runner, MemoryStore(clock), resign=lambda: None)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -KILL $$", 128 + signal.SIGKILL),
        ("kill -TERM $$", 128 + signal.SIGTERM),
    ],
)
def test_a_command_that_is_done_decides_the_exit_status(
    diary: Diary, script: str, status: int
) -> None:
    """As a shell reports it, so that supervisors see what they would see without us."""
    work = make_work(diary, script)

    assert work.run(new_term()) is False
    assert work.exit_status == status
    assert work.drain(0.0) is True


def test_a_command_that_never_ran_failed_at_nothing(diary: Diary) -> None:
    """A standby that is stopped exits with 0."""
    work = make_work(diary, "exit 3")
    work.stop()

    assert work.run(new_term()) is True
    assert work.exit_status == 0


def test_a_command_that_was_stopped_failed_at_nothing(diary: Diary) -> None:
    """Its exit status is our doing, not its own."""
    work = make_work(diary, "trap 'exit 5' TERM; echo on > $DIARY; while :; do sleep 0.02; done")
    running = Background(lambda: work.run(new_term()))
    diary.line()
    work.stop()

    assert running.result() is True
    assert work.exit_status == 0


def test_now_does_not_wait_for_the_grace_time(diary: Diary) -> None:
    """With *now* a command that does not heed SIGTERM is killed at once."""
    work = make_work(diary, "trap '' TERM; echo on > $DIARY; while :; do sleep 0.02; done")
    running = Background(lambda: work.run(new_term()))
    diary.line()
    work.stop(now=True)

    assert running.result(within=5.0) is True


def test_the_next_term_starts_the_command_again(diary: Diary) -> None:
    """A command that ended with its term is not done, and its exit status does not count."""
    work = make_work(diary, "trap 'exit 5' TERM; echo on > $DIARY; read _ < $DIARY.go; exit 4")
    first, second = new_term(token=1), new_term(token=2)
    gate = diary.path.with_name("diary.go")
    os.mkfifo(gate)
    running = Background(lambda: work.run(first))
    diary.line()
    first.end(EndReason.LOST)
    assert running.result() is True
    assert work.exit_status == 0

    running = Background(lambda: work.run(second))
    diary.line()
    gate.write_text("go\n")
    assert running.result() is False
    assert work.exit_status == 4


def test_the_command_keeps_its_nodes_lifeline(tmp_path: Path) -> None:
    """As long as it lives, a store that sees processes does not take the node for dead."""
    held: list[tuple[int, ...]] = []

    class Noting(CommandRunner):
        def run(self, term: Term, *, hold: Sequence[int] = ()) -> Outcome:
            held.append(tuple(hold))
            return super().run(term, hold=hold)

    runner = Noting(
        ["true"], election="readers", node="one", clock=clock, grace=1.0, restart=Restart.NEVER
    )
    with (
        closing(SqliteStore(tmp_path / "store.sqlite3", clock=clock)) as store,
        Candidate("readers", store=store, node="one") as candidate,
    ):
        term = candidate.campaign(10.0)
        lifeline = store.lifeline(term.candidacy)
        assert CommandWork(runner, store, resign=candidate.resign).run(term) is False
        assert held == [lifeline]
        assert lifeline


def test_a_part_with_a_command_runs_as_a_service(tmp_path: Path) -> None:
    """The command finds the term, election and node of the settings, and its end ends the service."""
    found = tmp_path / "found"
    settings = Settings(store="memory://", election="readers", node="alpha", ttl=5.0, grace=1.0)
    argv = [
        sys.executable,
        "-c",
        _REPORT,
        str(found),
        *(ENVIRONMENT_PREFIX + name for name in ("ELECTION", "NODE", "TOKEN")),
    ]
    store = MemoryStore(clock)
    part = command_part(settings, argv, restart=Restart.NEVER, store=store, clock=clock)

    assert part.candidate.proposal.version == version()
    assert Service([part], grace=settings.grace).run() is True
    assert part.work.exit_status == 9
    election, node, token = found.read_text().split()
    assert (election, node) == ("readers", "alpha")
    assert int(token) > 0


def test_a_command_that_is_not_there_is_refused_at_once() -> None:
    """Before anything is elected: a standby that could not take over is no standby."""
    settings = Settings(store="memory://", node="alpha")

    with pytest.raises(ConfigurationError, match="'no-such-command' is not found"):
        command_part(
            settings,
            ["no-such-command"],
            restart=Restart.NEVER,
            store=MemoryStore(clock),
            clock=clock,
        )
