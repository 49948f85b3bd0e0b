"""
Run an external command while a term is held, and never beyond it.

For the classic of ``runleader -- CMD ARGS…``: one binlog reader, several hot standbys. The command
must be dead before the lease can run out, also when this process is frozen, starved or killed with
SIGKILL. So it is started by a keeper (`leader_jobs._keeper`), a tiny process that is told the
term's deadline after every renewal and kills the command and all its descendants when the deadline
passes or this process is gone; a bare parent-death signal would cover neither a frozen parent nor
grandchildren, and is tied to the thread that forked. The keeper costs 10 MB (4 MB of them its own)
and 20 ms at each start.

Limits. Work that the command hands to somebody else's daemon (``docker run``, ``systemd-run``) is
out of reach, and so is what runs under another user's id (``sudo``), which may not be signalled. If
both this process and the keeper are killed at once, the kernel kills the command itself (unless
it is a set-user-id program) but not its descendants.
"""

import errno
import logging
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

from leader_jobs._life import End, Life, Schedule
from leader_jobs.clock import Clock
from leader_jobs.config import ENVIRONMENT_PREFIX, Timing
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.term import Term

__all__ = ["Backoff", "CommandRunner", "CommandUnusable", "Outcome", "Restart"]

_log = logging.getLogger(__name__)

#: How often stop requests and the end of the term are looked for. Not an event: a signal handler
#: that sets a `threading.Event` deadlocks when it interrupts the thread that waits on that event.
_TICK: Final = 0.05
#: Reasons for not starting a command that may be gone at the next try.
_PASSING: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY})


class Restart(StrEnum):
    """When a command that ended by itself is started again under the same term."""

    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    NEVER = "never"


class Outcome(StrEnum):
    """
    Why `CommandRunner.run` returned; the command is dead in each case.

    ``done``: it ended by itself and need not run again. ``term-over``: the term ended first.
    ``stopped``: `CommandRunner.stop` was called. ``left``: `CommandRunner.leave` was.
    """

    DONE = "done"
    TERM_OVER = "term-over"
    STOPPED = "stopped"
    LEFT = "left"


class CommandUnusable(ConfigurationError):
    """
    The command cannot be started, now or later.

    Args:
        message: what is wrong and what to do.
        exit_code: what a shell would exit with: 127 if it is not found, 126 otherwise.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Backoff:
    """
    How long to wait before a command that ended is started again.

    Args:
        first: seconds after the first failure; each further failure in a row doubles them.
        ceiling: the most it comes to, in seconds.
        steady: seconds a command must have run for its failure to count as a first one.
        jitter: a source of numbers from 0 to 1; up to a quarter is taken off at random, so that
            commands that fail together do not return together.
    """

    def __init__(
        self,
        *,
        first: float = 1.0,
        ceiling: float = 30.0,
        steady: float = 60.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._ceiling = ceiling
        self._steady = steady
        self._jitter = jitter
        self._next = first

    def after(self, *, ran: float, failed: bool) -> float:
        """Return the seconds to wait after a run of *ran* seconds that *failed* or did not."""
        if not failed or ran >= self._steady:
            self._next = self._first
        delay = min(self._next, self._ceiling)
        if failed:
            self._next = delay * 2
        return delay * (1 - self._jitter() / 4)


class CommandRunner:
    """
    Runs one command, again and again, while terms are held.

    Args:
        argv: the command and its arguments; no shell is involved.
        election: what the command finds in ``LEADER_JOBS_ELECTION``.
        node: what it finds in ``LEADER_JOBS_NODE``; ``LEADER_JOBS_TOKEN`` is the term's.
        clock: the host's clock; the keeper measures deadlines on the same one.
        restart: whether a command that ended by itself is started again.
        grace: seconds from SIGTERM to SIGKILL; the end of a term may leave it less.
        environ: the command's environment; that of this process if None.
        backoff: how long to wait before each restart.
        paused: whether the command is not to run for the time being, under a term or not.

    Raises:
        CommandUnusable: if there is no such command, or it may not be executed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        election: str,
        node: str,
        clock: Clock,
        restart: Restart = Restart.ON_FAILURE,
        grace: float,
        environ: Mapping[str, str] | None = None,
        backoff: Backoff | None = None,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._argv = tuple(argv)
        self._variables = {"ELECTION": election, "NODE": node}
        self._clock = clock
        self._restart = restart
        self._grace = grace
        self._environ = environ
        self._backoff = backoff or Backoff()
        self._paused = paused
        self._stopping = False
        self._leaving = False
        self._killing = False
        #: How the command last ended: its exit status, or minus the signal that killed it; None
        #: as long as it never ran.
        self.last_exit: int | None = None
        _check_command(self._argv, os.environ if environ is None else environ)

    def stop(self, *, now: bool = False) -> None:
        """
        Ask `run` to end the command and return; callable from signal handlers and any thread.

        The command gets SIGTERM, and SIGKILL after the grace time or at the term's deadline,
        whichever is earlier; a second call, or *now*, kills it at once. There is no way back: every
        later `run` returns at once too.
        """
        # Two plain assignments: nothing here can block, whatever was interrupted.
        self._killing = now or self._stopping
        self._stopping = True

    def leave(self) -> None:
        """Ask `run` to end the command as `stop` does and return, in this term; any thread may."""
        self._leaving = True

    def run(self, term: Term, *, hold: Sequence[int] = ()) -> Outcome:
        """
        Run the command while *term* is active; return when no process of it is left.

        SIGTERM comes in time for SIGKILL to come no later than the term's deadline, which leaves
        the whole safety margin before the lease runs out. A renewal extends the command's time; if
        it comes after SIGTERM was sent, the command is started once more.

        Args:
            term: the term to run under.
            hold: descriptors to keep open, even if this process dies, until the command is dead;
                not for the command itself. The next leader that waits for an flock of this process
                then cannot start its command before this one is dead.

        Returns:
            Why it returned.

        Raises:
            CommandUnusable: if the command has become impossible to start.
        """
        pause = 0.0
        self._leaving = False
        while self._await_start(term, pause):
            began = self._clock.now()
            end = self._live(term, hold)
            if end.status is not None:
                self.last_exit = end.status
            if end.signalled:
                pause = 0.0
                continue
            if self._is_done(end):
                return Outcome.DONE
            ran = self._clock.now() - began
            pause = self._backoff.after(ran=ran, failed=end.status != 0)
            _log.warning("%s ended (%s); next start in %.1f s", self._name, end.status, pause)
        if self._stopping:
            return Outcome.STOPPED
        return Outcome.LEFT if self._leaving and term.active else Outcome.TERM_OVER

    @property
    def _name(self) -> str:
        """What to call the command in logs; its arguments may be secret."""
        return Path(self._argv[0]).name

    def _is_done(self, end: End) -> bool:
        if end.status is None or self._restart is Restart.ALWAYS:
            return False
        return end.status == 0 or self._restart is Restart.NEVER

    def _await_start(self, term: Term, pause: float) -> bool:
        """Wait *pause* seconds, and until *term* lets work start; False if there will be none."""
        ready_at = self._clock.now() + pause
        while term.active and not self._stopping and not self._leaving:
            in_time = term.remaining > self._notice(term) and self._clock.now() >= ready_at
            if in_time and term.may_start and not self._paused():
                return True
            self._clock.wait(term.ended, _TICK)
        return False

    def _live(self, term: Term, hold: Sequence[int]) -> End:
        """Start the command and stay with it until it is dead."""
        schedule = self._schedule(term)
        environ = dict(os.environ if self._environ is None else self._environ)
        for name, value in {**self._variables, "TOKEN": str(term.token)}.items():
            environ[ENVIRONMENT_PREFIX + name] = value
        try:
            life = Life(self._argv, environ, schedule=schedule, grace=self._grace, hold=hold)
        except OSError as error:
            _log.error("%s has no process for now: %s", self._name, error)
            return End(None)
        with life:
            self._tend(life, term)
        if life.refused is None:
            return life.end
        if life.refused not in _PASSING:
            raise _unusable(self._argv[0], life.refused)
        _log.error("%s has no process for now: %s", self._name, os.strerror(life.refused))
        return End(None)

    def _tend(self, life: Life, term: Term) -> None:
        """Keep the schedule up to date until the keeper is gone, and the command with it."""
        margin = Timing(term.ttl).safety_margin
        overdue = False
        while life.listen(_TICK):
            life.reschedule(self._schedule(term, life.schedule))
            if self._clock.now() < life.schedule.kill_at + margin / 4:
                continue
            if not overdue:
                _log.error("%s lives on after SIGKILL was due; killing it again", self._name)
            overdue = True
            life.kill()

    def _schedule(self, term: Term, previous: Schedule | None = None) -> Schedule:
        """Return when to stop the command, as things stand."""
        now, deadline = self._clock.now(), term.deadline
        at_once = now if self._killing else None
        if at_once is None and not term.active:
            at_once = now + min(self._grace, Timing(term.ttl).safety_margin / 2)
        if at_once is not None:  # the first such moment stands
            return Schedule(0.0, min(at_once, (previous or Schedule(0, deadline)).kill_at))
        at_will = self._stopping or self._leaving or self._paused()
        return Schedule(0.0 if at_will else deadline - self._notice(term), deadline)

    def _notice(self, term: Term) -> float:
        """Return the seconds of notice before the deadline; a fifth of the ttl spares renewals."""
        return min(self._grace, term.ttl / 5)


def _check_command(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    if not argv or not argv[0]:
        msg = "no command is given; write it behind --, for example: -- ./reader --verbose"
        raise ConfigurationError(msg)
    # Now rather than at the first election: a standby that could not take over is no standby.
    if shutil.which(argv[0], path=environ.get("PATH")) is None:
        missing = "/" not in argv[0] or not Path(argv[0]).exists()
        raise _unusable(argv[0], errno.ENOENT if missing else errno.EACCES)


def _unusable(command: str, number: int) -> CommandUnusable:
    """Return the error for a command that cannot be started."""
    if number == errno.ENOENT:
        msg = (
            f"command {command!r} is not found (or its interpreter is not); check its path and PATH"
        )
        return CommandUnusable(msg, 127)
    reason = os.strerror(number).lower()
    msg = f"command {command!r} cannot be executed ({reason}); check its mode and its first line"
    return CommandUnusable(msg, 126)
