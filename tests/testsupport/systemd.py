"""A socket that listens as systemd does, for processes that tell it how they are."""

import select
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from leader_jobs.clock import SystemClock

__all__ = ["Listener"]

_CLOCK = SystemClock()


class Listener:
    """
    Who listens.

    Args:
        address: as the environment of a service has it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    @classmethod
    @contextmanager
    def abstract(cls) -> Iterator[Self]:
        """Listen under an abstract name, as within containers."""
        listener = cls(f"@leader-jobs-{uuid.uuid4().hex}")
        with listener._socket:
            yield listener

    @classmethod
    @contextmanager
    def on_disk(cls) -> Iterator[Self]:
        """Listen on a path; a short one, for the kernel takes no others."""
        with tempfile.TemporaryDirectory() as folder:
            listener = cls(str(Path(folder) / "notify"))
            with listener._socket:
                yield listener

    def close(self) -> None:
        """Be gone, as after a crash of systemd."""
        self._socket.close()

    def environ(self, watchdog: float | None = None) -> dict[str, str]:
        """Return what systemd would add to the environment; the process id of the service aside."""
        more = {} if watchdog is None else {"WATCHDOG_USEC": str(round(watchdog * 1e6))}
        return {"NOTIFY_SOCKET": self.address, **more}

    def hear(self, within: float) -> list[str]:
        """Return the lines of the next message; none if there is none within *within* seconds."""
        readable, _, _ = select.select([self._socket], [], [], max(0.0, within))
        return self._socket.recv(65536).decode().splitlines() if readable else []

    def wait_for(self, text: str, within: float = 15.0) -> list[str]:
        """Return all lines up to the first one that contains *text*; fail if there is none in time."""
        limit, heard = _CLOCK.now() + within, list[str]()
        while not any(text in line for line in heard):
            assert _CLOCK.now() < limit, f"{text!r} was not heard within {within} s, but {heard}"
            heard += self.hear(limit - _CLOCK.now())
        return heard

    def during(self, seconds: float) -> list[str]:
        """Return what is heard during *seconds*."""
        limit, heard = _CLOCK.now() + seconds, list[str]()
        while (left := limit - _CLOCK.now()) > 0:
            heard += self.hear(left)
        return heard

    def drain(self) -> list[str]:
        """Return what has been said and not been heard yet."""
        heard = list[str]()
        while lines := self.hear(0.0):
            heard += lines
        return heard
