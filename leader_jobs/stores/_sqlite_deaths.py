"""
Word of a candidate's end, from the kernel: whoever waits for its lock gets it when it is dropped.

A thread for each candidate that is waited for, asleep in ``flock``, costs nothing until then; looking
at the lock now and then costs a wake-up each time. Where threads are greenlets there is no other way:
a call that blocks would stop them all.
"""

import _thread
import fcntl
import os
import threading
from pathlib import Path
from types import BuiltinFunctionType

__all__ = ["Deaths"]


class Deaths:
    """Tells those who wait when somebody's lock is dropped."""

    def __init__(self) -> None:
        self._forget()

    def tell(self, path: Path, event: threading.Event) -> bool:
        """
        Have *event* set when nobody holds the lock on *path* any more; perhaps it is set already.

        Returns:
            False if that can not be promised: look now and then instead.

        The event may be set later than whoever waits for it has lost interest.
        """
        if not isinstance(_thread.start_new_thread, BuiltinFunctionType):
            return False  # gevent and eventlet put their own in its place
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            waiting = self._waiting.get(path)
            if waiting is not None:
                waiting.add(event)
                return True
            try:
                fd = os.open(path, os.O_RDONLY)
            except OSError:
                return False  # a file that is gone tells nothing: the owner's lease decides
            name = f"leader-jobs-wait-{path.stem[:8]}"
            thread = threading.Thread(target=self._wait, args=(path, fd), name=name, daemon=True)
            self._waiting[path] = {event}
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads at the moment
                del self._waiting[path]
                os.close(fd)
                return False
        return True

    def _forget(self) -> None:
        """Begin afresh: at construction, and in the child of a fork, which has none of the threads."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[Path, set[threading.Event]] = {}

    def _wait(self, path: Path, fd: int) -> None:
        try:
            # A shared lock: two who wait must not take each other for the owner.
            fcntl.flock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)
            with self._lock:
                events = self._waiting.pop(path)
            for event in events:
                event.set()
