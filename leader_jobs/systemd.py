"""
What systemd is told of this process: that it is ready, what it is, that it lives, that it stops.

The protocol is that of ``sd_notify(3)``, on the standard library: datagrams of lines, sent to the
socket that the environment names. Whatever becomes of that socket, nothing is raised here, nothing
blocks, and nobody waits for an answer.

- ``READY=1`` once this process stands in all its elections, so the store has answered.
- ``STATUS=…``, a line on each of them, when it has changed.
- ``WATCHDOG=1`` twice in the time that the unit's ``WatchdogSec=`` allows, at least, as long as the
  process is live, which is what ``/livez`` says. A process that is frozen can send none.
- ``STOPPING=1`` when it is asked to end.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from typing import Final, Self

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.events import Event, Renewed
from leader_jobs.positions import Position, Role
from leader_jobs.probes import Answer
from leader_jobs.vitals import Place, vitals

__all__ = ["SOCKET", "Notifier", "NotifySocket"]

#: The variable that says that systemd listens, and where.
SOCKET: Final = "NOTIFY_SOCKET"

_log = logging.getLogger(__name__)
_OURS: Final = (SOCKET, "WATCHDOG_USEC", "WATCHDOG_PID")
_OK: Final = 200
#: Seconds after which the status is looked at again though nothing was announced.
_REFRESH: Final = 10.0
#: The same while something is wrong: it may be over before systemd loses its patience.
_AGAIN: Final = 1.0
_STOP_LIMIT: Final = 1.0


class NotifySocket:
    """
    Where systemd listens.

    Args:
        address: the path of a socket, or the name of an abstract one, which begins with ``@``.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._complained = False
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            # One that does not read may cost a message, never hold us up.
            self._socket.setblocking(False)
        except OSError as error:
            self._complain(error)

    def send(self, *lines: str) -> bool:
        """Send one message; takes no lock, so that a signal handler may call it too. Whether it went."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except (OSError, ValueError) as error:  # the latter for a path with a null character
            self._complain(error)
            return False
        return True

    def close(self) -> None:
        """Send no more."""
        if self._socket is not None:
            self._socket.close()

    def _complain(self, error: Exception) -> None:
        """Say that it fails when that begins, not at every try."""
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        _log.log(level, "systemd can not be told anything on %r: %s", self._address, error)


class Notifier:
    """
    An observer that tells systemd, on a thread of its own.

    Args:
        listener: who listens.
        livez: what ``/livez`` answers.
        watchdog: seconds after which systemd ends a process that it did not hear of; None: never.
        places: this process's places in elections.
        clock: where moments and instants come from.

    In the child of a fork it does nothing.
    """

    def __init__(
        self,
        listener: NotifySocket,
        *,
        livez: Callable[[], Answer],
        watchdog: float | None = None,
        places: Callable[[], tuple[Place, ...]] = vitals.places,
        clock: Clock | None = None,
    ) -> None:
        self._listener = listener
        self._livez = livez
        self._places = places
        self._clock: Clock = clock or SystemClock()
        self._watched = watchdog is not None
        self._pause = min(_REFRESH, watchdog / 2 if watchdog is not None else _REFRESH)
        self._pid = os.getpid()
        self._ready = self._leaving = self._troubled = False
        self._status = ""
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader-jobs-systemd", daemon=True)

    @classmethod
    def of_environment(
        cls,
        environ: MutableMapping[str, str],
        *,
        livez: Callable[[], Answer],
        clock: Clock | None = None,
    ) -> Self | None:
        """
        Take over what *environ* says of who listens, and remove it there.

        What this process starts (a command, hooks, the guardian) does not know of it then, and can not
        speak in this one's name.

        Returns:
            None if nobody listens.
        """
        address, microseconds, pid = (environ.pop(name, "") for name in _OURS)
        if not address.startswith(("/", "@")):
            if address:
                _log.warning("%s is %r, which is no socket of this host", SOCKET, address)
            return None
        meant = pid in ("", str(os.getpid())) and microseconds.isdecimal()
        seconds = int(microseconds) / 1e6 if meant else 0.0
        return cls(NotifySocket(address), livez=livez, watchdog=seconds or None, clock=clock)

    def __call__(self, event: Event) -> None:
        """Look at what *event* has changed; returns at once."""
        if self._pid == os.getpid() and not isinstance(event, Renewed):
            self._changed.set()

    def start(self) -> None:
        """Tell from now on."""
        self._thread.start()

    def leave(self) -> None:
        """Tell that this process is about to end; a signal handler may call it, and again."""
        if self._pid != os.getpid() or self._leaving:
            return
        self._leaving = True
        self._listener.send("STOPPING=1", "STATUS=stopping: what runs is brought to an end first")

    def close(self) -> None:
        """Tell that this process is about to end, and nothing more."""
        if self._pid != os.getpid() or self._closing.is_set():
            return
        self.leave()
        self._closing.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_LIMIT)
        if not self._thread.is_alive():
            self._listener.close()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.clear()
            try:
                pause = self._tell()
            except Exception:  # noqa: BLE001  the next look may succeed; until then we are not live
                _log.exception("systemd could not be told how this process is")
                pause = min(self._pause, _AGAIN)
            self._clock.wait(self._changed, pause)

    def _tell(self) -> float:
        """Tell what there is to tell; return the seconds until there may be more."""
        trouble = self._trouble()
        positions = [Position.of(place, clock=self._clock) for place in self._places()]
        self._tell_role(positions, trouble)
        if trouble is not None:
            return min(self._pause, _AGAIN)
        if self._watched:
            self._listener.send("WATCHDOG=1")
        return self._pause

    def _tell_role(self, positions: list[Position], trouble: str | None) -> None:
        ready = self._ready or (bool(positions) and all(p.token is not None for p in positions))
        status = trouble or "; ".join(map(_shown, positions)) or "stands in no election yet"
        lines = [] if status == self._status else [f"STATUS={status}"]
        if ready and not self._ready:
            lines.append("READY=1")
        # What was not delivered is new the next time.
        if lines and not self._leaving and self._listener.send(*lines):
            self._ready, self._status = ready, status

    def _trouble(self) -> str | None:
        """Return why this process is not live, or None; log when that changes."""
        answer = self._livez()
        trouble = None if answer.status == _OK else " ".join(answer.body.decode().split())
        if (trouble is not None) != self._troubled:
            self._troubled = trouble is not None
            if trouble is not None:
                _log.error("this process is not live: %s", trouble)
            else:
                _log.warning("this process is live again")
        return trouble


def _shown(position: Position) -> str:
    where = f"election {position.election!r}"
    match position.role:
        case Role.LEADER:
            paused = ", which is paused" if position.paused else ""
            return f"leads {where}, term {position.token}{paused}"
        case Role.SUSPENDED:
            return f"leads {where}, term {position.token}; renewals fail, nothing new starts"
        case Role.STANDBY:
            return f"stands by in {where}, token {position.token}"
        case Role.SEEKING:
            return f"tries to stand in {where}"
