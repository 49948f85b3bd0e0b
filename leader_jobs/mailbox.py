"""
Signals and notes of other threads, received one after the other by the main thread.

A main thread that waits on a lock or a queue may never hear of a signal: one that arrives just
before it blocks sets a flag that nobody looks at. The kernel writing to a socket has no such gap,
so the interpreter's wake-up descriptor is what the main thread reads from.
"""

import errno
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

__all__ = ["NOTE", "Mailbox"]

#: What `Mailbox.get` returns for a note; no signal has this number.
NOTE: Final = 0


class Mailbox:
    """Where signals and notes arrive in order; made, opened and read by the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._expected = {NOTE}
        self._before: dict[signal.Signals, Any] = {}

    def put(self, number: int = NOTE) -> None:
        """Put a note, or a signal's number, from any thread; never blocks, lost after `close`."""
        try:
            self._writer.send(bytes([number]))
        except OSError as error:
            if error.errno != errno.EBADF:
                raise

    def get(self) -> int:
        """Wait for the next number of a signal received here, or `NOTE`."""
        # The interpreter writes every signal that has a handler, also those that are not ours.
        while (number := self._reader.recv(1)[0]) not in self._expected:
            continue
        return number

    @contextmanager
    def open(self, numbers: Iterable[signal.Signals]) -> Iterator[None]:
        """Receive the signals *numbers* here, instead of what was done with them before."""
        self._before = {n: signal.signal(n, _leave_it_to_the_mailbox) for n in numbers}
        self._expected.update(self._before)
        descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        _open.add(self)
        try:
            yield
        finally:
            _open.discard(self)
            signal.set_wakeup_fd(descriptor)
            self.restore()

    def restore(self) -> None:
        """Let the signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def close(self) -> None:
        """Close the sockets."""
        self._reader.close()
        self._writer.close()


def _leave_it_to_the_mailbox(number: int, frame: FrameType | None) -> None:
    """Do nothing: that a handler is there at all makes the interpreter write to the mailbox."""


_open: Final[set[Mailbox]] = set()


def _forget_in_child() -> None:
    """
    Take the child of a fork off the mailbox, which is its parent's.

    Otherwise a child that is terminated, as `multiprocessing` does, would stop its parent instead.
    """
    if _open:
        signal.set_wakeup_fd(-1)
        for mailbox in _open:
            mailbox.restore()
        _open.clear()


os.register_at_fork(after_in_child=_forget_in_child)
