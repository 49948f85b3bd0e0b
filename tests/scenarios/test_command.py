"""What an external command gets, what its end means, and how it is stopped: with real processes."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.command import Backoff, CommandRunner, CommandUnusable, Outcome, Restart
from leader_jobs.exceptions import ConfigurationError
from testsupport.background import Background
from testsupport.commands import (
    POLITE,
    STUBBORN_FAMILY,
    new_runner,
    new_term,
)
from testsupport.processes import Diary, children_of, is_alive, time_of_death

clock = SystemClock()
LIST_DESCRIPTORS = """
import os
for number in range(256):
    try:
        os.fstat(number)
    except OSError:
        continue
    print(number)
"""


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Diary]:
    """What the commands of a test write to."""
    with Diary.opened(tmp_path / "diary") as diary:
        yield diary


def descriptors_of_ours() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class TestOneLife:
    """What the command gets, and what its end means."""

    def test_the_command_finds_its_term_in_the_environment(
        self, diary: Diary, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Election, token and node are set, output passes through, and standard input is empty."""
        runner = new_runner(
            diary,
            "cat; echo $LEADER_JOBS_ELECTION $LEADER_JOBS_TOKEN $LEADER_JOBS_NODE; echo oops >&2",
        )
        assert runner.run(new_term(token=41)) is Outcome.DONE
        assert runner.last_exit == 0
        assert capfd.readouterr() == ("readers 41 alpha\n", "oops\n")

    def test_the_command_has_a_process_group_of_its_own(self, diary: Diary) -> None:
        """A Ctrl-C meant for runleader does not reach it."""
        assert new_runner(diary, "ps -o pgid=,sid= -p $$ > $DIARY").run(new_term()) is Outcome.DONE
        group, session = map(int, diary.line().split())
        assert group != os.getpgrp()
        assert session != os.getsid(0)

    def test_the_command_takes_signals_as_any_program_does(self, diary: Diary) -> None:
        """Nothing that Python or the keeper ignores or blocks is ignored or blocked in it."""
        script = "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2 > $DIARY"
        new_runner(diary, script).run(new_term())
        # The C library keeps a few numbers to itself, and whoever started us may have ignored them.
        ours = sum(1 << (number - 1) for number in signal.valid_signals())
        assert int(diary.line(), 16) & ours == 0
        assert int(diary.line(), 16) & ours == 0

    def test_no_descriptor_of_ours_reaches_the_command(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """It has its standard streams and nothing else: no socket, and nothing that is held."""
        argv = [sys.executable, "-c", LIST_DESCRIPTORS]
        runner = CommandRunner(argv, election="readers", node="alpha", clock=clock, grace=1.0)
        with Path("/dev/null").open() as held:
            assert runner.run(new_term(), hold=[held.fileno()]) is Outcome.DONE
        assert capfd.readouterr().out.split() == ["0", "1", "2"]

    def test_a_crash_is_followed_by_a_restart_and_success_by_the_end(
        self, diary: Diary, tmp_path: Path
    ) -> None:
        """It exits 3 twice and then 0; the waits in between follow the back-off."""
        script = f"echo try > $DIARY; echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3 || exit 3"
        backoff = Backoff(first=0.3, jitter=lambda: 0.0)
        running = Background(lambda: new_runner(diary, script, backoff=backoff).run(new_term()))
        started = []
        for _ in range(3):
            assert diary.line() == "try"
            started.append(clock.now())
        assert running.result() is Outcome.DONE
        assert started[1] - started[0] >= 0.25
        assert started[2] - started[1] >= 0.55

    def test_never_means_that_a_failure_is_an_end_too(self, diary: Diary) -> None:
        """The caller learns the exit status, for its own."""
        runner = new_runner(diary, "exit 3", restart=Restart.NEVER)
        assert runner.run(new_term()) is Outcome.DONE
        assert runner.last_exit == 3

    def test_always_means_that_success_is_no_end(self, diary: Diary) -> None:
        """Only a stop ends it."""
        runner = new_runner(diary, "echo ran > $DIARY", restart=Restart.ALWAYS)
        running = Background(lambda: runner.run(new_term()))
        assert [diary.line() for _ in range(3)] == ["ran"] * 3
        runner.stop()
        assert running.result() is Outcome.STOPPED

    def test_what_a_finished_command_leaves_behind_is_ended(self, diary: Diary) -> None:
        """A daemon in a session of its own would go on under the next leader."""
        script = "setsid sh -c 'sleep 300 & echo $! > $DIARY' & wait"
        assert new_runner(diary, script).run(new_term()) is Outcome.DONE
        assert not is_alive(diary.number())

    def test_nothing_of_a_life_remains_in_this_process(self, diary: Diary) -> None:
        """No zombie, no descriptor."""
        children, descriptors = children_of(os.getpid()), descriptors_of_ours()
        runner = new_runner(diary, "exit 3", restart=Restart.NEVER)
        for _ in range(5):
            runner.run(new_term())
        assert children_of(os.getpid()) == children
        assert descriptors_of_ours() == descriptors

    def test_the_log_has_no_arguments(self, diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
        """They may be passwords."""
        caplog.set_level(logging.DEBUG)
        runner = new_runner(diary, "exit $((7 + 0 * 31337))")
        running = Background(lambda: runner.run(new_term(ttl=2.0, lasts=1.2)))
        assert running.result() is Outcome.TERM_OVER
        assert "sh ended (7)" in caplog.text
        assert "31337" not in caplog.text


class TestStop:
    """What the operator asks for."""

    def test_stop_asks_and_waits(self, diary: Diary) -> None:
        """The command ends in its own way; a later term starts nothing."""
        runner = new_runner(diary, POLITE)
        running = Background(lambda: runner.run(new_term()))
        diary.number()
        runner.stop()
        assert diary.line() == "asked"
        assert running.result() is Outcome.STOPPED
        assert runner.run(new_term()) is Outcome.STOPPED
        assert diary.is_silent(during=0.0)

    def test_the_grace_time_is_kept_and_is_not_exceeded(self, diary: Diary) -> None:
        """What ignores SIGTERM is killed after it, and not sooner."""
        runner = new_runner(diary, STUBBORN_FAMILY, grace=0.5)
        running = Background(lambda: runner.run(new_term()))
        family = [diary.number() for _ in range(3)]
        asked_at = clock.now()
        runner.stop()
        deaths = [time_of_death(pid) for pid in family]
        assert asked_at + 0.5 <= max(deaths) < asked_at + 1.5
        assert running.result() is Outcome.STOPPED
        assert runner.last_exit == -signal.SIGKILL

    def test_a_second_stop_does_not_wait(self, diary: Diary) -> None:
        """Two in a row kill at once."""
        runner = new_runner(diary, STUBBORN_FAMILY, grace=300.0)
        running = Background(lambda: runner.run(new_term(ttl=600.0)))
        family = [diary.number() for _ in range(3)]
        runner.stop()
        asked_at = clock.now()
        runner.stop()
        assert max(time_of_death(pid) for pid in family) < asked_at + 1.0
        assert running.result() is Outcome.STOPPED

    def test_stop_may_be_called_from_a_signal_handler(self, diary: Diary) -> None:
        """`run` blocks in the main thread, and the handler interrupts it there."""
        runner = new_runner(diary, "echo $$ > $DIARY; exec sleep 300")

        def ask() -> None:
            diary.number()
            os.kill(os.getpid(), signal.SIGUSR1)

        previous = signal.signal(signal.SIGUSR1, lambda *_: runner.stop())
        try:
            asking = Background(ask)
            assert runner.run(new_term()) is Outcome.STOPPED
            asking.result()
        finally:
            signal.signal(signal.SIGUSR1, previous)

    def test_an_exception_out_of_run_leaves_no_command(self, diary: Diary) -> None:
        """Ctrl-C without a handler raises KeyboardInterrupt in the midst of it."""
        runner = new_runner(diary, STUBBORN_FAMILY)
        family: list[int] = []

        def interrupt() -> None:
            family.extend(diary.number() for _ in range(3))
            os.kill(os.getpid(), signal.SIGINT)

        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            interrupting = Background(interrupt)
            with pytest.raises(KeyboardInterrupt):
                runner.run(new_term())
            interrupting.result()
        finally:
            signal.signal(signal.SIGINT, previous)
        assert not any(map(is_alive, family))


class TestCommandsThatCannotStart:
    """One line that says what to change, and no restart loop."""

    def new(self, *argv: str) -> CommandRunner:
        """Make a runner of *argv*."""
        return CommandRunner(argv, election="readers", node="a", clock=clock, grace=1.0)

    def test_a_missing_command_is_refused_before_the_election(self) -> None:
        """A standby that could not take over is told so at its start."""
        with pytest.raises(CommandUnusable, match="'no-such-command' is not found") as caught:
            self.new("no-such-command", "secret")
        assert caught.value.exit_code == 127
        assert "secret" not in str(caught.value)

    def test_a_file_without_the_right_to_execute_is_refused(self, tmp_path: Path) -> None:
        """As a shell would, with 126."""
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\n")
        with pytest.raises(CommandUnusable, match="permission denied") as caught:
            self.new(str(script))
        assert caught.value.exit_code == 126

    @pytest.mark.parametrize("argv", [(), ("",)])
    def test_an_empty_command_is_refused(self, argv: tuple[str, ...]) -> None:
        """With an example."""
        with pytest.raises(ConfigurationError, match="no command is given"):
            self.new(*argv)

    def test_a_command_that_vanished_ends_the_run(self, tmp_path: Path) -> None:
        """It was there at the start and is gone at the election."""
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o700)
        runner = self.new(str(script))
        script.unlink()
        with pytest.raises(CommandUnusable, match="is not found") as caught:
            runner.run(new_term())
        assert caught.value.exit_code == 127

    @pytest.mark.parametrize(
        ("first_line", "exit_code"), [("#!/no/such/interpreter", 127), ("no first line", 126)]
    )
    def test_a_script_without_interpreter_is_refused(
        self, tmp_path: Path, first_line: str, exit_code: int
    ) -> None:
        """The kernel says so at the first start."""
        script = tmp_path / "script"
        script.write_text(f"{first_line}\n")
        script.chmod(0o700)
        with pytest.raises(CommandUnusable) as caught:
            self.new(str(script)).run(new_term())
        assert caught.value.exit_code == exit_code


class TestOrders:
    """What operators order of a command that runs under a term."""

    def test_a_pause_ends_the_command_until_it_is_over(self, diary: Diary) -> None:
        """It is asked to end, is not started again meanwhile, and is started once more after that."""
        paused = threading.Event()
        runner = new_runner(diary, POLITE, paused=paused.is_set)
        running = Background(lambda: runner.run(new_term()))
        first = int(diary.line())
        paused.set()
        assert diary.line() == "asked"
        while is_alive(first):
            clock.wait(threading.Event(), 0.01)
        paused.clear()
        assert int(diary.line()) != first
        runner.stop()
        assert running.result() is Outcome.STOPPED

    def test_a_term_that_is_given_up_leaves_no_command_behind(self, diary: Diary) -> None:
        """The command is gone when `run` returns, so that the next leader may start its own."""
        runner = new_runner(diary, POLITE)
        running = Background(lambda: runner.run(new_term()))
        pid = int(diary.line())
        runner.leave()
        assert running.result() is Outcome.LEFT
        assert not is_alive(pid)
        # That was for this term only.
        again = Background(lambda: runner.run(new_term(token=8)))
        assert diary.line() == "asked"
        assert int(diary.line()) != pid
        runner.stop()
        assert again.result() is Outcome.STOPPED
