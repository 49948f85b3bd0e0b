"""
Commands that are run when this process begins to lead, and when it has ceased to.

For people who come from keepalived: an address to move, a mount, a mail. They are run one after the
other, in the order of what happened, on a thread of their own, so that a command that hangs holds up
nothing but the next command. A term that is over before its beginning was told is not told at all.
"""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final, Self

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.events import ElectionWon, Event, TermEnded
from leader_jobs.exceptions import ConfigurationError

__all__ = ["Hooks"]

_log = logging.getLogger(__name__)
_ELECTED: Final = "elected"
_STEPPED_DOWN: Final = "stepped_down"
_LONGEST_LINE: Final = 1000
_MOST_LINES: Final = 200
_REST: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Happening:
    event: str
    election: str
    node: str
    token: int
    reason: str = ""

    def environment(self) -> dict[str, str]:
        """Return what a command is told."""
        return {
            "LEADER_JOBS_EVENT": self.event,
            "LEADER_JOBS_ELECTION": self.election,
            "LEADER_JOBS_NODE": self.node,
            "LEADER_JOBS_TOKEN": str(self.token),
            "LEADER_JOBS_REASON": self.reason,
        }


class Hooks:
    """
    An observer that runs commands.

    Args:
        commands: what to run, by event: ``elected``, ``stepped_down``; no shell is involved.
        timeout: seconds after which a command is killed, with its process group.
        clock: where moments come from.

    Raises:
        ConfigurationError: there is no such command.

    Of each election two events wait at most: a term that ended while its beginning waited to be told
    leaves the queue with it, and of two ends the newer one counts.
    """

    def __init__(
        self, commands: dict[str, str], *, timeout: float, clock: Clock | None = None
    ) -> None:
        self._commands = {event: _words(event, text) for event, text in commands.items()}
        self._timeout = timeout
        self._clock: Clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._waiting: deque[_Happening] = deque()
        self._running: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._pid = os.getpid()

    @classmethod
    def of(cls, settings: Settings, *, clock: Clock | None = None) -> Self:
        """
        Return the observer that runs the commands that *settings* name.

        Raises:
            ConfigurationError: there is no such command; the message says which.
        """
        named = {_ELECTED: settings.on_elected, _STEPPED_DOWN: settings.on_stepped_down}
        commands = {event: command for event, command in named.items() if command is not None}
        return cls(commands, timeout=settings.hook_timeout, clock=clock)

    def __call__(self, event: Event) -> None:
        """Have the command of *event* run, if it has one; returns at once."""
        if self._pid != os.getpid():
            return
        with self._changed:
            if isinstance(event, ElectionWon):
                self._add(_Happening(_ELECTED, event.election, event.node, event.token))
            elif isinstance(event, TermEnded):
                self._step_down(event)

    def close(self) -> None:
        """Wait until what happened has been told, for no longer than one command may take."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            return
        thread.join(self._timeout)
        if thread.is_alive():
            with self._changed:
                left = len(self._waiting)
                self._waiting.clear()
            self._kill()
            thread.join(_REST)
            if left:
                _log.error("%d hooks were not run: this process ends, and time is up", left)

    # -- the queue --------------------------------------------------------------------------------

    def _step_down(self, event: TermEnded) -> None:
        untold = [
            h for h in self._waiting if (h.election, h.token) == (event.election, event.token)
        ]
        for happening in untold:
            self._waiting.remove(happening)
            _log.info("term %d is over before its hooks were run: they are not", event.token)
        if untold:
            return
        for happening in tuple(self._waiting):
            if (happening.election, happening.event) == (event.election, _STEPPED_DOWN):
                self._waiting.remove(happening)
        self._add(_Happening(_STEPPED_DOWN, event.election, event.node, event.token, event.reason))

    def _add(self, happening: _Happening) -> None:
        if happening.event not in self._commands:
            return
        self._waiting.append(happening)
        self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="leader-jobs-hooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (happening := self._next()) is not None:
            try:
                self._tell(happening)
            except OSError as error:
                _log.error("on_%s: it can not be run: %s", happening.event, error)
            except Exception:  # noqa: BLE001  the next one has to be told still
                _log.exception("the hook on_%s failed", happening.event)

    def _next(self) -> _Happening | None:
        """Wait for something to tell; None if there is nothing and nothing will come."""
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    # -- one command ------------------------------------------------------------------------------

    def _tell(self, happening: _Happening) -> None:
        name, began = f"on_{happening.event}", self._clock.now()
        environment = happening.environment()
        _log.info("%s: running for election %r", name, happening.election)
        process = subprocess.Popen(  # noqa: S603  the operator's own command
            self._commands[happening.event],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running = process
        assert process.stdout is not None  # noqa: S101  for mypy: it is a pipe
        reader = threading.Thread(
            target=_log_lines, args=(name, process.stdout), name="leader-jobs-hook", daemon=True
        )
        reader.start()
        try:
            status = process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self._kill()
            process.wait()
            _log.error("%s: killed after %g s, which is hook_timeout", name, self._timeout)
        else:
            took = self._clock.now() - began
            level = logging.INFO if status == 0 else logging.ERROR
            _log.log(level, "%s: ended with %s after %.1f s", name, _shown(status), took)
        finally:
            self._running = None
        # What it left running in the background may keep the pipe; its lines are still logged.
        reader.join(_REST)

    def _kill(self) -> None:
        process = self._running
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _words(event: str, command: str) -> list[str]:
    words = shlex.split(command)
    if shutil.which(words[0]) is None:
        msg = (
            f"on_{event} is {command!r}, and there is no command {words[0]!r} that this user may run; "
            "write its full path (no shell reads it: write sh -c '…' for what needs one)"
        )
        raise ConfigurationError(msg)
    return words


def _shown(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


def _log_lines(name: str, output: IO[bytes]) -> None:
    """Log what a command says, up to a point; read on after that, so that it is not held up."""
    with output:
        number = 0
        while line := output.readline(_LONGEST_LINE):
            number += 1
            text = line.decode(errors="replace").rstrip()
            if number <= _MOST_LINES:
                shown = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
                _log.info("%s: %s", name, shown)
            elif number == _MOST_LINES + 1:
                _log.info("%s: what else it says is not logged", name)
