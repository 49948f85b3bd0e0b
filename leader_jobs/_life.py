"""
One life of an external command, as seen from the process that runs it.

The other end of the conversation, and the one that acts, is `leader_jobs._keeper`.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

__all__ = ["End", "Life", "Schedule"]

_log = logging.getLogger(__name__)

_KEEPER: Final = Path(__file__).with_name("_keeper.py")


class Schedule(NamedTuple):
    """The moments of SIGTERM and SIGKILL; the past is now."""

    stop_at: float
    kill_at: float


class End(NamedTuple):
    """How a life ended: exit status, or minus a signal; None if it never began."""

    status: int | None
    signalled: bool = False


class Life:
    """
    One life of the command, through its keeper.

    Args:
        argv: the command.
        environ: its environment.
        schedule: when to stop it, unless told otherwise.
        grace: seconds between SIGTERM and SIGKILL at most.
        hold: descriptors that stay open in the keeper.

    Attributes:
        schedule: the one in force.
        refused: why the command could not be started, as an errno.
        end: how the command ended.

    Raises:
        OSError: if there can be no process at the moment.

    Leaving the context kills what is left of the command and waits until it is dead; if the keeper
    was killed, there is nobody left to wait for, and the signals are sent without waiting.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        schedule: Schedule,
        grace: float,
        hold: Sequence[int],
    ) -> None:
        self.schedule = schedule
        self.refused: int | None = None
        self.end = End(None, signalled=True)  # the keeper's silence means that it was too late
        self._pid: int | None = None
        self._unread = b""
        held = ",".join(map(str, hold))
        numbers = [str(os.getpid()), repr(schedule.stop_at), repr(schedule.kill_at), repr(grace)]
        self._socket, theirs = socket.socketpair()
        try:
            self._keeper = subprocess.Popen(  # noqa: S603  to run what the operator names is our task
                [sys.executable, "-I", "-S", str(_KEEPER), *numbers, held, *argv],
                stdin=theirs.fileno(),
                env=environ,
                pass_fds=hold,
                start_new_session=True,
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()  # the keeper kills at once when nobody listens any more
        self._keeper.send_signal(signal.SIGCONT)
        if self._keeper.wait() != 0:
            _log.error("the keeper of the command died; what is left of the command is killed")
            self.kill()
            self.end = End(None if self._pid is None else -signal.SIGKILL)

    def listen(self, timeout: float) -> bool:
        """Take in what the keeper says within *timeout* seconds; False once it is gone."""
        self._socket.settimeout(timeout)
        try:
            received = self._socket.recv(4096)
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            match line.split():
                case [b"started", pid]:
                    self._pid = int(pid)
                case [b"refused", number]:
                    self.refused = int(number)
                case [b"exited", status, signalled]:
                    self.end = End(int(status), signalled=signalled == b"1")
        return bool(received)

    def reschedule(self, schedule: Schedule) -> None:
        """Tell the keeper when to stop the command, if that has changed."""
        if schedule == self.schedule:
            return
        self.schedule = schedule
        with contextlib.suppress(ConnectionError):  # listen() is about to find out
            self._socket.sendall(f"{schedule.stop_at!r} {schedule.kill_at!r}\n".encode())

    def kill(self) -> None:
        """Kill the command's group ourselves, and wake the keeper in case it is frozen."""
        self._keeper.send_signal(signal.SIGCONT)
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
