"""
Word of commits to the embedded store's database, from the kernel: inotify on its write-ahead log.

Whoever commits, in whatever process, writes to the ``-wal`` file. The log may go and come again, with
the last connection or with a database that is put in the other's place; so the file is named to the
kernel anew before each wait, and whoever waits looks in between.

The descriptors are waited for through `selectors`, which gevent and eventlet know how to replace: a
thread that blocked in a read would stop all their greenlets.
"""

import contextlib
import functools
import os
import selectors
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

__all__ = ["Changes"]

# From linux/inotify.h: IN_MODIFY, IN_DELETE_SELF, IN_MOVE_SELF; and IN_ATTRIB, which is what a file
# that is unlinked while somebody has it open is told of as.
_MASK: Final = 0x2 | 0x400 | 0x800 | 0x4
_EVENTS: Final = 65536
# Limits that are reached; another platform; a Python without ctypes.
_NOT_HERE: Final = (OSError, AttributeError, ImportError)
# Seconds between two tries where there is no waiting.
_DEAF: Final = 0.1


class Changes:
    """
    Tells one thread, again and again, that a database was perhaps written to.

    Args:
        database: the database file.

    Descriptors are opened by the first `listen` and closed with the object; the child of a fork
    closes its copies and opens its own.
    """

    def __init__(self, database: Path) -> None:
        self._log = bytes(database) + b"-wal"
        self._descriptors: list[int] = []
        # Once the process exits they close anyway, and not under a thread that still waits.
        weakref.finalize(self, _close, self._descriptors).atexit = False
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Begin afresh: at construction, and in the child of a fork."""
        _close(self._descriptors)
        self._woken = threading.Event()

    def listen(self) -> bool:
        """
        Have the kernel tell of every change from now on; to be called before each look.

        Returns:
            False if it can not: look now and then instead. The limits on inotify may be reached, the
            platform may have none, or there is no log yet.
        """
        if not self._descriptors:
            with contextlib.suppress(*_NOT_HERE):
                self._descriptors.extend(_open())
        if not self._descriptors:
            return False
        _await(self._descriptors, 0.0)  # what it has told so far is no news any more
        # A file that is named again is watched once all the same.
        return bool(_libc().inotify_add_watch(self._descriptors[0], self._log, _MASK) >= 0)

    def wait(self, seconds: float) -> bool:
        """Wait for a change since `listen`, `wake`, or the time given; return whether it was `wake`."""
        return self._wait(self._descriptors, seconds)

    def rest(self, seconds: float) -> bool:
        """Wait for `wake` alone, or the time given; return whether it was `wake`."""
        return self._wait(self._descriptors[1:], seconds)

    def _wait(self, descriptors: list[int], seconds: float) -> bool:
        if seconds > 0 and not self._woken.is_set():
            if not descriptors:
                self._woken.wait(seconds)
            elif not _await(descriptors, seconds):
                self._woken.wait(min(seconds, _DEAF))
        return self._woken.is_set()

    def wake(self) -> None:
        """End the wait in another thread, and every later one until `settle`."""
        self._woken.set()
        for bell in self._descriptors[1:]:
            os.eventfd_write(bell, 1)

    def settle(self) -> None:
        """Take note of `wake`: the next wait waits again."""
        self._woken.clear()


def _open() -> tuple[int, int]:
    """Return an inotify descriptor and one that `wake` writes to."""
    ear = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if ear < 0:
        msg = "no inotify at the moment"
        raise OSError(msg)
    try:
        return ear, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError:
        os.close(ear)
        raise


def _await(descriptors: list[int], seconds: float) -> bool:
    """
    Wait until one of them can be read, so many seconds at most, and empty those that can.

    Returns:
        False if this process has so many files open that it can not even wait.
    """
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in descriptors:
                selector.register(descriptor, selectors.EVENT_READ)
            for key, _ in selector.select(seconds):
                # One read, no more: eventlet's own would wait for the next event.
                os.read(key.fd, _EVENTS)
    except (OSError, ValueError):
        return False
    return True


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


@functools.cache
def _libc() -> "ctypes.CDLL":
    import ctypes  # for those alone who wait: it is not small

    return ctypes.CDLL(None)


_all: Final[weakref.WeakSet[Changes]] = weakref.WeakSet()


def _forget_all() -> None:
    for changes in list(_all):
        changes.forget()


os.register_at_fork(after_in_child=_forget_all)
