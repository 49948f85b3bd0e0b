"""An external command lives as long as its term and not a moment longer, whoever dies."""

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from leader_jobs._life import End, Life, Schedule
from leader_jobs.clock import SystemClock
from leader_jobs.command import Outcome, Restart
from leader_jobs.config import Timing
from leader_jobs.term import EndReason
from testsupport.background import Background
from testsupport.commands import (
    POLITE,
    STUBBORN_FAMILY,
    Runleader,
    lease_expiry,
    new_runner,
    new_term,
)
from testsupport.processes import Diary, children_of, is_alive, time_of_death

#: What it does within fractions of a second is what these are about.
pytestmark = pytest.mark.alone
clock = SystemClock()


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Diary]:
    """What the commands of a test write to."""
    with Diary.opened(tmp_path / "diary") as diary:
        yield diary


class TestTheEndOfTheTerm:
    """The command is dead before the lease can run out."""

    def test_a_lost_term_kills_everything_the_command_started(self, diary: Diary) -> None:
        """Even what ignores SIGTERM or left the group is dead within half the safety margin."""
        term = new_term(ttl=10.0)
        running = Background(lambda: new_runner(diary, STUBBORN_FAMILY).run(term))
        family = [diary.number() for _ in range(3)]
        lost_at = clock.now()
        term.end(EndReason.LOST)
        deaths = [time_of_death(pid) for pid in family]
        assert lost_at + 0.8 < max(deaths) < lost_at + Timing(10.0).safety_margin
        assert running.result() is Outcome.TERM_OVER

    def test_a_lost_term_is_announced_by_sigterm(self, diary: Diary) -> None:
        """A command that heeds it ends by itself, and is not started again."""
        term = new_term()
        runner = new_runner(diary, POLITE, restart=Restart.ALWAYS)
        running = Background(lambda: runner.run(term))
        pid = diary.number()
        term.end(EndReason.LOST)
        assert diary.line() == "asked"
        assert running.result() is Outcome.TERM_OVER
        assert not is_alive(pid)
        assert runner.last_exit == 0

    def test_the_deadline_kills_although_nobody_ends_the_term(self, diary: Diary) -> None:
        """Renewals fail and nothing else happens: SIGKILL at the deadline, long before the expiry."""
        term = new_term(ttl=2.0)
        running = Background(lambda: new_runner(diary, STUBBORN_FAMILY).run(term))
        family = [diary.number() for _ in range(3)]
        term.suspended = True
        deaths = [time_of_death(pid) for pid in family]
        assert term.deadline - 0.01 <= max(deaths) < lease_expiry(term)
        assert running.result() is Outcome.TERM_OVER
        assert not term.ended.is_set()

    def test_a_suspended_term_asks_the_command_to_end_before_the_deadline(
        self, diary: Diary
    ) -> None:
        """SIGTERM comes a fifth of the ttl ahead, so that a command that heeds it is not killed."""
        term = new_term(ttl=3.0, lasts=1.5)
        running = Background(lambda: new_runner(diary, POLITE).run(term))
        dead_at = time_of_death(diary.number())
        assert term.deadline - 0.6 <= dead_at < term.deadline
        assert running.result() is Outcome.TERM_OVER

    def test_renewals_keep_the_command_alive(self, diary: Diary) -> None:
        """The command outlives its first deadline, and ends by the one that is not renewed."""
        term = new_term(ttl=3.0, lasts=1.4)
        running = Background(lambda: new_runner(diary, POLITE).run(term))
        pid = diary.number()
        for _ in range(12):
            assert diary.is_silent(during=0.15)
            assert term.extend(clock.now() + 1.4)
        assert is_alive(pid)
        assert term.deadline - 0.6 <= time_of_death(pid) < term.deadline
        assert running.result() is Outcome.TERM_OVER

    def test_a_renewal_that_comes_late_starts_the_command_anew(self, diary: Diary) -> None:
        """It got SIGTERM while the term was in doubt; it returns once the term is in none."""
        term = new_term(ttl=5.0, lasts=2.0)
        runner = new_runner(diary, POLITE)
        running = Background(lambda: runner.run(term))
        first = diary.number()
        term.suspended = True
        assert diary.line() == "asked"
        assert term.extend(clock.now() + 4.0)
        assert diary.is_silent(during=0.2)
        term.suspended = False
        second = diary.number()
        assert second != first
        runner.stop()
        assert running.result() is Outcome.STOPPED
        assert not is_alive(second)

    def test_nothing_starts_under_a_term_that_is_suspended_or_over(self, diary: Diary) -> None:
        """Not even for an instant."""
        suspended = new_term(ttl=2.0, lasts=0.3)
        suspended.suspended = True
        over = new_term()
        over.end(EndReason.RESIGNED)
        for term in (suspended, over):
            runner = new_runner(diary, "echo ran > $DIARY")
            assert runner.run(term) is Outcome.TERM_OVER
            assert runner.last_exit is None
        assert diary.is_silent(during=0.0)

    def test_a_keeper_that_comes_too_late_starts_nothing(self, diary: Diary) -> None:
        """The term may have come to its end while the keeper was being started."""
        late = Schedule(stop_at=clock.now(), kill_at=clock.now() + 5.0)
        argv = ["sh", "-c", f"echo ran > {diary.path}"]
        with Life(argv, dict(os.environ), schedule=late, grace=5.0, hold=()) as life:
            while life.listen(timeout=10.0):
                pass
        assert life.end == End(None, signalled=True)
        assert diary.is_silent(during=0.0)

    def test_a_stopped_process_can_still_end_well(self, diary: Diary) -> None:
        """SIGTERM alone would wait for ever in front of a process under SIGSTOP."""
        term = new_term()
        running = Background(lambda: new_runner(diary, POLITE).run(term))
        os.kill(diary.number(), signal.SIGSTOP)
        term.end(EndReason.LOST)
        assert diary.line() == "asked"
        assert running.result() is Outcome.TERM_OVER

    def test_what_is_held_is_let_go_after_the_command_is_dead(
        self, diary: Diary, tmp_path: Path
    ) -> None:
        """Who waits for a lock of ours starts no command beside the one that is dying."""
        term = new_term(ttl=2.0)
        with (tmp_path / "lock").open("w") as lock, (tmp_path / "lock").open("w") as other:
            fcntl.flock(lock, fcntl.LOCK_EX)
            hold = (lock.fileno(),)
            running = Background(lambda: new_runner(diary, STUBBORN_FAMILY).run(term, hold=hold))
            family = [diary.number() for _ in range(3)]
            lock.close()
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            term.end(EndReason.LOST)
            fcntl.flock(other, fcntl.LOCK_EX)
            assert not any(map(is_alive, family))
        assert running.result() is Outcome.TERM_OVER


class TestWhoeverDies:
    """Neither the death nor the freezing of any one process lets the command live on."""

    def test_kill_9_of_runleader_kills_everything_at_once(self, diary: Diary) -> None:
        """The command, its child, and the grandchild in another session, within a second."""
        with Runleader(STUBBORN_FAMILY, diary) as runleader:
            family = [diary.number() for _ in range(3)]
            (keeper,) = children_of(runleader.pid)
            killed_at = runleader.send_signal(signal.SIGKILL)
            assert max(time_of_death(pid) for pid in [*family, keeper]) < killed_at + 1.0

    def test_a_forked_copy_of_runleader_does_not_keep_the_command_alive(self, diary: Diary) -> None:
        """Such a copy has the keeper's socket too, so that its other end stays open."""
        with Runleader("echo $$ > $DIARY; exec sleep 300", diary) as runleader:
            command = diary.number()
            copy = runleader.fork()
            try:
                killed_at = runleader.send_signal(signal.SIGKILL)
                assert time_of_death(command) < killed_at + 1.0
                assert is_alive(copy)
            finally:
                os.kill(copy, signal.SIGKILL)

    def test_without_runleader_and_keeper_the_kernel_kills_the_command(self, diary: Diary) -> None:
        """One is frozen and the other killed, so only the parent-death signal is left."""
        with Runleader("echo $$ > $DIARY; exec sleep 300", diary) as runleader:
            command = diary.number()
            (keeper,) = children_of(runleader.pid)
            killed_at = runleader.send_signal(signal.SIGSTOP)
            os.kill(keeper, signal.SIGKILL)
            assert time_of_death(command) < killed_at + 1.0

    def test_a_frozen_runleader_does_not_keep_the_command_alive(self, diary: Diary) -> None:
        """SIGSTOP past the deadline: the keeper kills before the lease can run out."""
        with Runleader(STUBBORN_FAMILY, diary, ttl=3.0, lasts=2.0) as runleader:
            family = [diary.number() for _ in range(3)]
            runleader.send_signal(signal.SIGSTOP)
            deaths = [time_of_death(pid) for pid in family]
            assert max(deaths) < runleader.deadline + Timing(3.0).safety_margin
            runleader.send_signal(signal.SIGCONT)
            assert runleader.wait() == 0

    def test_kill_9_of_the_keeper_is_a_crash_of_the_command(self, diary: Diary) -> None:
        """The kernel and the runner kill what it guarded, and the command starts again."""
        runner = new_runner(diary, "echo $$ > $DIARY; sleep 300 & echo $! > $DIARY; wait")
        before = children_of(os.getpid())
        running = Background(lambda: runner.run(new_term()))
        family = [diary.number() for _ in range(2)]
        (keeper,) = children_of(os.getpid()) - before
        killed_at = clock.now()
        os.kill(keeper, signal.SIGKILL)
        assert max(time_of_death(pid) for pid in family) < killed_at + 1.0
        assert is_alive(diary.number())
        assert runner.last_exit == -signal.SIGKILL
        runner.stop()
        assert running.result() is Outcome.STOPPED

    def test_a_frozen_keeper_is_woken_when_the_deadline_has_passed(self, diary: Diary) -> None:
        """The runner looks after the keeper as the keeper looks after the runner."""
        term = new_term(ttl=3.0, lasts=1.5)
        before = children_of(os.getpid())
        running = Background(lambda: new_runner(diary, STUBBORN_FAMILY).run(term))
        family = [diary.number() for _ in range(3)]
        (keeper,) = children_of(os.getpid()) - before
        os.kill(keeper, signal.SIGSTOP)
        assert max(time_of_death(pid) for pid in family) < lease_expiry(term)
        assert running.result() is Outcome.TERM_OVER

    def test_a_signal_to_the_keeper_changes_nothing(self, diary: Diary) -> None:
        """A service manager signals all processes of a service; the runner decides what it means."""
        runner = new_runner(diary, POLITE)
        before = children_of(os.getpid())
        running = Background(lambda: runner.run(new_term()))
        diary.number()
        (keeper,) = children_of(os.getpid()) - before
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(keeper, number)
        assert diary.is_silent(during=0.1)
        runner.stop()
        assert diary.line() == "asked"
        assert running.result() is Outcome.STOPPED
