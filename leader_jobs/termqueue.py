"""
Terms on their way from the thread that campaigns to whoever works under them.
"""

import queue
import threading
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.term import Term

__all__ = ["TermQueue"]

_SLICE: Final = 1.0
_LONG_SLICE: Final = 60.0


class TermQueue:
    """
    Gives each term out once, to one of those who wait.

    Args:
        clock: where moments come from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._terms: queue.SimpleQueue[Term | None] = queue.SimpleQueue()

    def put(self, term: Term | None) -> None:
        """Give *term* out; None has one who waits return empty-handed. Safe in a signal handler."""
        self._terms.put(term)

    def clear(self) -> None:
        """Forget what nobody took."""
        while not self._terms.empty():
            self._terms.get()

    def wait(self, timeout: float | None, stopping: threading.Event) -> Term | None:
        """
        Wait up to *timeout* seconds for a term that is active.

        Returns:
            The term; None if time is up, *stopping* is set, or somebody put None.
        """
        limit = None if timeout is None else self._clock.now() + timeout
        # A signal that comes just before the main thread blocks is not heard of until it wakes.
        is_main = threading.current_thread() is threading.main_thread()
        longest = _SLICE if is_main else _LONG_SLICE
        while not stopping.is_set():
            left = None if limit is None else limit - self._clock.now()
            if left is not None and left <= 0:
                return None
            try:
                term = self._terms.get(timeout=longest if left is None else min(left, longest))
            except queue.Empty:
                continue
            if term is None and stopping.is_set():
                self.put(None)  # there may be more than one who waits
            if term is None or term.active:
                return term
        return None
