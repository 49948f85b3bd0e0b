"""
Records what is true whether or not the store is there to hear it, for as long as the process lives.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from leader_jobs.clock import Clock
from leader_jobs.exceptions import LeaderJobsError

__all__ = ["Recorder"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.2
_INSIST_EVERY: Final = 1.0


class _Item(NamedTuple):
    what: str
    record: Callable[[], object]
    done: Callable[[], None]


class Recorder:
    """
    Tries for a while where it is called, and then for ever on a daemon thread.

    Args:
        clock: where moments come from.
        patience: seconds for which a caller waits.
    """

    def __init__(self, *, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._left: list[_Item] = []
        self._idle = threading.Event()
        self._idle.set()

    def record(self, what: str, record: Callable[[], object], done: Callable[[], None]) -> None:
        """
        Have something recorded; returns when it is, or when the caller's patience is at its end.

        Args:
            what: what it is about, for the log.
            record: records it; raises `LeaderJobsError` if it is not known to have been. It may be
                called again after it was recorded.
            done: called once it is.
        """
        try:
            item = _Item(what, record, done)
            limit = self._clock.now() + self._patience
            while not self._try(item, logging.DEBUG):
                if self._clock.now() >= limit:
                    self.later(what, record, done)
                    return
                self._clock.wait(threading.Event(), _RETRY)
        except BaseException:  # a time limit, or the end of a greenlet: it is true all the same
            self.later(what, record, done)
            raise

    def later(self, what: str, record: Callable[[], object], done: Callable[[], None]) -> None:
        """Have something recorded on the thread; returns at once. The arguments are as above."""
        with self._lock:
            self._left.append(_Item(what, record, done))
            if not self._idle.is_set():
                return
            self._idle.clear()
        threading.Thread(target=self._insist, name="leader-jobs-record", daemon=True).start()

    def flush(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until nothing is left; return whether nothing is."""
        return self._clock.wait(self._idle, timeout)

    def _insist(self) -> None:
        level = logging.WARNING
        while True:
            with self._lock:
                items = tuple(self._left)
                if not items:
                    self._idle.set()
                    return
            done = [item for item in items if self._try_whatever(item, level)]
            with self._lock:
                self._left = [item for item in self._left if item not in done]
            if len(done) < len(items):
                level = logging.DEBUG
                self._clock.wait(threading.Event(), _INSIST_EVERY)

    def _try_whatever(self, item: _Item, level: int) -> bool:
        try:
            return self._try(item, level)
        except Exception:  # noqa: BLE001  one item's trouble may not keep the others from being recorded
            _log.exception("%s: its record is behind", item.what)
            return False

    def _try(self, item: _Item, level: int) -> bool:
        try:
            item.record()
        except LeaderJobsError as error:
            _log.log(level, "%s: its record is behind: %s", item.what, error)
            return False
        item.done()
        return True
