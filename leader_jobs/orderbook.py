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
from leader_jobs.orders import CONTROL_PREFIX, Answer, Orders, Request, request_key
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
        self._listeners: tuple[Callable[[], None], ...] = ()

    def begin(self) -> None:
        """Forget what a former term knew: the next look is a new one."""
        with self._lock:
            self._orders = None
            self._done.clear()

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
            self._orders = Orders.read(rows, now=self._clock.utcnow())
            return self._orders

    @property
    def known(self) -> Orders:
        """The orders as last read; none at all before the first look of a term."""
        return self._orders or Orders()

    def is_paused(self) -> bool:
        """
        Whether the whole election is paused, for work that is not claimed; True until that is known.

        What is known was read at the beginning of the term, or when the steward last looked.
        """
        orders = self._orders
        return orders is None or orders.pause_of(None, self._clock.utcnow()) is not None

    def requests(self, orders: Orders, now: datetime) -> tuple[Request, ...]:
        """Return those of the requests that are open, and were not answered here already."""
        return tuple(r for r in orders.open(now) if r.id not in self._done)

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
