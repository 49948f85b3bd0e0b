"""
What one process did in one election, counted for probes and metrics; nothing is decided by it.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from leader_jobs.records import OccurrenceRecord, State

__all__ = ["Lag", "Tally"]


@dataclass(frozen=True, slots=True)
class Lag:
    """
    How long after their planned instants occurrences were dispatched or started, in seconds.

    Attributes:
        count: of how many.
        total: the sum.
        last: the last one's.
    """

    count: int = 0
    total: float = 0.0
    last: float = 0.0

    def with_one(self, seconds: float) -> "Lag":
        """Return the lag with one more occurrence."""
        return Lag(self.count + 1, self.total + seconds, seconds)


class Tally:
    """Counts since the process began; any thread may count and look."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._closed: Counter[State] = Counter()
        self._lag = Lag()
        self._refused = 0
        self._restored = 0
        self._tell_restored: Callable[[datetime], None] = lambda _since: None
        #: When the leader's loop last came round, in moments; None before the first time in a term.
        self.turned_at: float | None = None
        #: What is due next of what is not paused, as of then; None if nothing ever is.
        self.due: datetime | None = None

    @property
    def closed(self) -> Mapping[State, int]:
        """How many occurrences were closed, by the state they ended in; ranges count as many."""
        with self._lock:
            return dict(self._closed)

    @property
    def lag(self) -> Lag:
        """How late occurrences were dispatched or started."""
        return self._lag

    @property
    def refused(self) -> int:
        """How many writes the store refused because the term did not lead any more."""
        return self._refused

    @property
    def restored(self) -> int:
        """How many times this process noted that the ledger was taken back."""
        return self._restored

    def restore(self, since: datetime) -> None:
        """Count a restore that is noted: what was planned before *since* is not run."""
        with self._lock:
            self._restored += 1
        self._tell_restored(since)

    def tell_restored(self, tell: Callable[[datetime], None]) -> None:
        """Have *tell* called at each restore that is noted from now on."""
        self._tell_restored = tell

    def close(self, entries: Iterable[OccurrenceRecord]) -> None:
        """Count occurrences that are known to be recorded as closed."""
        with self._lock:
            for entry in entries:
                self._closed[entry.state] += entry.count

    def start(self, entry: OccurrenceRecord, now: datetime) -> None:
        """Count an occurrence that is known to be recorded as started or dispatched."""
        with self._lock:
            self._lag = self._lag.with_one((now - entry.planned_at).total_seconds())

    def refuse(self) -> None:
        """Count a write that was fenced off."""
        with self._lock:
            self._refused += 1

    def turn(self, moment: float, due: datetime | None) -> None:
        """Note that the leader's loop came round at *moment*, and what is *due* next."""
        self.turned_at, self.due = moment, due

    def rest(self) -> None:
        """Note that this process does not lead: its loop has nothing to come round for."""
        self.turned_at, self.due = None, None
