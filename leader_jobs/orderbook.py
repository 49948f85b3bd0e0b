"""
The orders that the leader goes by: read before anything is started in a term, then at each change.

Whoever claims holds the book while it does, and a change waits for that. So once the leader has
acknowledged a pause, nothing is claimed any more that the pause forbids.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.orders import CONTROL_PREFIX, PATIENCE, Answer, Orders, Request, request_key
from leader_jobs.stores.base import Store, Write

__all__ = ["OrderBook"]

_WITHIN: Final = 2.0


class OrderBook:
    """
    The orders of one election, as its leader knows them.

    Args:
        store: where they are.
        election: the election.
        node: this node's label, for answers.
        clock: where moments and instants come from.
    """

    def __init__(self, store: Store, election: str, *, node: str, clock: Clock) -> None:
        self.election: Final = election
        self._store = store
        self._node = node
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Begin afresh: at construction, and in the child of a fork."""
        self._lock = threading.RLock()
        self._orders: Orders | None = None
        self._done: set[str] = set()
        self._seen: dict[str, float | None] = {}
        self._listeners: tuple[Callable[[], None], ...] = ()

    def begin(self) -> None:
        """Forget what a former term knew: the next look is a new one."""
        with self._lock:
            self._orders = None
            self._done.clear()
            self._seen.clear()

    @contextmanager
    def held(self) -> Iterator[Orders]:
        """
        Keep the orders as they are while the block goes by them.

        Raises:
            StoreError: they were not read yet in this term, and could not be.
        """
        with self._lock:
            yield self._orders or self.look()

    def look(self) -> Orders:
        """
        Read the orders, and go by them from now on.

        Raises:
            StoreError: they could not be read; what was known before still counts.
        """
        with self._lock:  # of two looks at once, the older one may not come last
            deadline = self._clock.now() + _WITHIN
            rows = self._store.read(self.election, CONTROL_PREFIX, deadline=deadline)
            first = self._orders is None
            self._orders = Orders.read(rows, now=self._clock.utcnow())
            for request in self._orders.requests:
                self._seen.setdefault(request.id, None if first else self._clock.now())
            return self._orders

    def doubt(self) -> None:
        """Have whoever goes by the orders next read them anew."""
        with self._lock:
            self._orders = None

    @property
    def known(self) -> Orders:
        """The orders as last read; none at all before the first look of a term."""
        return self._orders or Orders.none()

    def is_paused(self) -> bool:
        """
        Whether the whole election is paused, for work that is not claimed; True until that is known.

        What is known was read at the beginning of the term, or when the steward last looked.
        """
        orders = self._orders
        return orders is None or orders.pause_of(None, self._clock.utcnow()) is not None

    def requests(self, orders: Orders, now: datetime) -> tuple[Request, ...]:
        """
        Return those of the requests that are to be obeyed at *now*, the oldest first.

        One that came while we looked is new, whatever the clock of whoever asks; only of one that was
        there when the term began it takes clocks to tell that it waited too long.
        """
        return tuple(r for r in self._unanswered(orders) if not self._is_late(r, now))

    def lapsed(self, orders: Orders, now: datetime) -> tuple[Request, ...]:
        """Return the requests that nobody answered in time."""
        return tuple(r for r in self._unanswered(orders) if self._is_late(r, now))

    def _unanswered(self, orders: Orders) -> list[Request]:
        return [r for r in orders.requests if r.answer is None and r.id not in self._done]

    def _is_late(self, request: Request, now: datetime) -> bool:
        seen = self._seen.get(request.id)
        if seen is None:
            return now >= request.until
        return self._clock.now() - seen >= PATIENCE

    def answer(
        self, request: Request, answer: Answer, why: str, *, planned_at: datetime | None = None
    ) -> Write:
        """
        Return the write that answers *request*; it is for the caller to commit, under its term.

        It is refused (`Conflict`) if somebody answered in between.
        """
        now = self._clock.utcnow()
        answered = request.answered(answer, why, node=self._node, now=now, planned_at=planned_at)
        expect = self.known.versions.get(request.id)
        return Write(request_key(request.id), answered.encode(), expect)

    def answered(self, request: Request) -> None:
        """Note that the answer to *request* is committed: it is not obeyed again."""
        self._done.add(request.id)

    def listen(self, listener: Callable[[], None]) -> None:
        """Have *listener* called, on the steward's thread, when orders have changed."""
        self._listeners = (*self._listeners, listener)

    def tell(self) -> None:
        """Call those who listen."""
        for listener in self._listeners:
            listener()
