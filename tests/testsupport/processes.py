"""What a test needs to know about real processes, awaited through the kernel."""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from leader_jobs.clock import SystemClock

__all__ = ["Diary", "children_of", "is_alive", "time_of_death"]


class Diary:
    """
    A named pipe that processes write lines to, so that a test can wait for what they do.

    Args:
        path: where to put it; the file must not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # For writing too, so that it never comes to an end between two writers.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._unread = b""

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Make a diary and close it at the end."""
        diary = cls(path)
        try:
            yield diary
        finally:
            os.close(diary._fd)

    def line(self, within: float = 10.0) -> str:
        """Return the next line, without its end; fail after *within* seconds."""
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._fd], [], [], within)
            assert readable, f"nothing was written within {within} s after {self._unread!r}"
            self._unread += os.read(self._fd, 4096)
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()

    def number(self, within: float = 10.0) -> int:
        """Return the next line as a number, such as a process id."""
        return int(self.line(within))

    def is_silent(self, during: float) -> bool:
        """Return whether nothing is written during the next *during* seconds."""
        readable, _, _ = select.select([self._fd], [], [], during)
        return not readable and not self._unread


def is_alive(pid: int) -> bool:
    """Return whether process *pid* exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def time_of_death(pid: int, within: float = 10.0) -> float:
    """Wait for the end of process *pid*; return the moment, or fail after *within* seconds."""
    clock = SystemClock()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return clock.now()
    try:
        readable, _, _ = select.select([descriptor], [], [], within)
        assert readable, f"process {pid} is alive after {within} s"
        return clock.now()
    finally:
        os.close(descriptor)


def children_of(pid: int) -> set[int]:
    """Return the direct children of process *pid*, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            found.add(int(stat.parent.name))
    return found
