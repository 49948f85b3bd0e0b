"""
The elections that this process stands in, for probes and metrics to look at.

Like `leader_jobs.term.held_terms` one board for the process, because a probe is asked of the process.
Whoever makes a place posts it; a place whose candidate does not stand any more drops off by itself.
"""

import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from leader_jobs.candidate import Candidate
from leader_jobs.ledger import Ledger
from leader_jobs.orderbook import OrderBook
from leader_jobs.steward import Steward

__all__ = ["Place", "Vitals", "vitals"]


@dataclass(frozen=True, eq=False)
class Place:
    """
    A process's place in one election.

    Attributes:
        candidate: stands in it.
        ledger: what the process writes there.
        orders: what operators ordered, as far as the leader knows.
        steward: serves the candidate's terms.
    """

    candidate: Candidate
    ledger: Ledger
    orders: OrderBook
    steward: Steward


class Vitals:
    """The places of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: tuple[weakref.ref[Place], ...] = ()

    def post(self, place: Place) -> None:
        """Add *place*; it is shown from when its candidate stands until it ceases to."""
        with self._lock:
            self._places = (*(ref for ref in self._places if ref() is not None), weakref.ref(place))

    def places(self) -> tuple[Place, ...]:
        """Return the places whose candidates stand, or should: their thread was started and not stopped."""
        return tuple(place for place in self._all() if place.candidate.standing)

    def forget_all(self) -> None:
        """Drop everything: the child of a fork stands nowhere."""
        self._lock = threading.Lock()
        self._places = ()

    def _all(self) -> Iterator[Place]:
        for ref in self._places:
            place = ref()
            if place is not None:
                yield place


#: The board of this process.
vitals: Final = Vitals()
os.register_at_fork(after_in_child=vitals.forget_all)
