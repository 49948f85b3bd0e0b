"""
What a process stands in an election with, as its settings say: a candidate, and the ledger it writes.
"""

from collections.abc import Iterable

from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.events import Observer
from leader_jobs.ledger import Ledger
from leader_jobs.stores.base import Store
from leader_jobs.version import version

__all__ = ["candidate_of", "ledger_of"]


def candidate_of(
    settings: Settings,
    election: str,
    *,
    store: Store,
    clock: Clock,
    observers: Iterable[Observer] = (),
) -> Candidate:
    """
    Return this node's candidate for *election*, which does not stand yet.

    Args:
        settings: node and ttl.
        election: the election's name.
        store: where it is held.
        clock: where moments come from.
        observers: told of the candidate's events.
    """
    return Candidate(
        election,
        store=store,
        node=settings.node,
        ttl=settings.ttl,
        version=version(),
        observers=observers,
        clock=clock,
    )


def ledger_of(candidate: Candidate, *, store: Store, clock: Clock) -> Ledger:
    """
    Return the ledger of the election of *candidate*: what it starts lives as long as that one stands.

    Args:
        candidate: who writes.
        store: where its election is held.
        clock: where moments and instants come from.
    """
    return Ledger(
        store,
        candidate.election,
        node=candidate.node,
        owner=candidate.proposal.incarnation,
        clock=clock,
    )
