"""
What a candidate announces, and to whom.

Events are frozen values handed to observers on a thread of their own. An observer can never hurt
the leader: its exceptions are logged, and while it blocks, only announcements wait.
"""

import logging
import queue
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

__all__ = [
    "Announcer",
    "CampaignFailed",
    "CandidateEnrolled",
    "Doubted",
    "ElectionWon",
    "Event",
    "LedgerRestored",
    "Observer",
    "Reassured",
    "Renewed",
    "Resumed",
    "Suspended",
    "TermEnded",
]

_log = logging.getLogger(__name__)
_BACKLOG = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to this process's part in an election."""

    election: str
    node: str


@dataclass(frozen=True, slots=True)
class CandidateEnrolled(Event):
    """This node stands in the election; the store granted a lease of *ttl* seconds."""

    token: int
    ttl: float


@dataclass(frozen=True, slots=True)
class ElectionWon(Event):
    """This node's term *token* began."""

    token: int


@dataclass(frozen=True, slots=True)
class Suspended(Event):
    """Renewals fail: nothing new starts, and the term ends in *remaining* seconds unless one works."""

    token: int
    remaining: float
    error: str


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A renewal worked again before the deadline."""

    token: int


@dataclass(frozen=True, slots=True)
class Renewed(Event):
    """A renewal of this node's term worked: it took *took* seconds, and *remaining* are left."""

    token: int
    took: float
    remaining: float


@dataclass(frozen=True, slots=True)
class TermEnded(Event):
    """This node's term *token* is over; *reason* is ``resigned``, ``lost`` or ``deadline``."""

    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class CampaignFailed(Event):
    """This node could not stand; it tries again in *retry_in* seconds."""

    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Doubted(Event):
    """This node stands by and could not lead: the store refuses what a leader has to do."""

    error: str


@dataclass(frozen=True, slots=True)
class Reassured(Event):
    """This node could lead again."""


@dataclass(frozen=True, slots=True)
class LedgerRestored(Event):
    """
    The ledger was taken back by a restored snapshot: what was planned before *since* is not run.

    Announced by the leader that noted it, once.
    """

    since: datetime


class Observer(Protocol):
    """Anything callable with an event."""

    def __call__(self, event: Event, /) -> None:
        """Take note of *event*; whatever this raises is logged and goes no further."""
        ...


class Announcer:
    """
    Hands events to observers, in order, on a daemon thread that starts with the first event.

    Args:
        observers: who is told; with none, no thread is ever started.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)
        self._queue: queue.Queue[Event | None] = queue.Queue(_BACKLOG)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Queue *event*; never blocks, and drops (with a log line) what nobody takes in time."""
        if not self._observers:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._deliver, name="leader-jobs-events", daemon=True
                )
                self._thread.start()
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            _log.warning("observers are %d events behind; dropped %r", _BACKLOG, event)

    def close(self, timeout: float = 1.0) -> None:
        """Wait up to *timeout* seconds until what was announced has been delivered."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:  # an observer blocks; the thread is a daemon
            return
        thread.join(timeout)

    def _deliver(self) -> None:
        while (event := self._queue.get()) is not None:
            for observer in self._observers:
                try:
                    observer(event)
                except Exception:  # noqa: BLE001  an observer can never hurt the leader
                    _log.exception("observer %r failed on %r", observer, event)
