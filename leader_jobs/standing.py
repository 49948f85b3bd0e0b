"""
What a process stands in an election with, as its settings say, put together.
"""

from collections.abc import Iterable

from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.events import Observer
from leader_jobs.ledger import Ledger
from leader_jobs.orderbook import OrderBook
from leader_jobs.steward import Steward
from leader_jobs.stores.base import Store
from leader_jobs.version import version
from leader_jobs.vitals import Place, vitals

__all__ = ["place_of"]


def place_of(
    settings: Settings,
    election: str,
    *,
    store: Store,
    clock: Clock,
    observers: Iterable[Observer] = (),
    guarded: bool = False,
) -> Place:
    """
    Return this node's place in *election*, whose candidate does not stand yet.

    Args:
        settings: node, ttl and guardian.
        election: the election's name.
        store: where it is held.
        clock: where moments and instants come from.
        observers: told of the candidate's events.
        guarded: whether a guardian is wanted where the settings do not say.

    What the ledger starts lives as long as the candidate stands.
    """
    candidate = Candidate(
        election,
        store=store,
        node=settings.node,
        ttl=settings.ttl,
        version=version(),
        observers=observers,
        guarded=guarded if settings.guardian is None else settings.guardian,
        clock=clock,
    )
    ledger = Ledger(
        store,
        election,
        node=settings.node,
        owner=candidate.proposal.incarnation,
        clock=clock,
    )
    orders = OrderBook(store, election, node=settings.node, clock=clock)
    steward = Steward(candidate, ledger, orders, clock=clock)
    candidate.attend(steward)
    ledger.tally.tell_restored(candidate.announce_restored)
    place = Place(candidate, ledger, orders, steward)
    steward.place = place
    vitals.post(place)
    return place
