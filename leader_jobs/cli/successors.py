"""Who leads after a term was given up, and for how long nobody did, as the store shows it."""

from dataclasses import dataclass
from typing import Final

from leader_jobs.cli.front import Call
from leader_jobs.leaders import Leader
from leader_jobs.stores.base import Store
from leader_jobs.terms import TERMS_PREFIX, read_terms

__all__ = ["Successor", "await_successor"]

#: A change between a look and the wait after it may go unnoticed for so long, in seconds.
_LOOK: Final = 0.2
#: How long the leader's own note of its term is waited for, in seconds.
_NOTE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Successor:
    """Who leads now; *gap* is how long nobody did, in seconds, or None if nobody noted that."""

    leader: Leader
    gap: float | None


def await_successor(
    call: Call, store: Store, *, heir: int | None, after: int | None, until: float
) -> Successor | None:
    """
    Wait until a term has passed to another candidate.

    Args:
        call: whose election it is.
        store: where that is held.
        heir: the token of the candidate that is to lead; None: whoever does.
        after: the token of the term that is to end, where nobody is named.
        until: when to stop waiting.

    Returns:
        Who leads, or None if nobody, or not the right one, does by then.
    """
    while True:
        entrants = store.candidates(call.election, deadline=call.clock.now() + call.timeout)
        leads = entrants[0].token if entrants else None
        if leads is not None and (leads == heir if heir is not None else leads != after):
            leader = Leader.of(call.election, entrants[0])
            return Successor(leader, _gap(call, store, leader.token))
        left = until - call.clock.now()
        gone = heir is not None and all(entrant.token != heir for entrant in entrants)
        if left <= 0 or gone:
            return None
        store.wait_for_change(call.election, timeout=min(left, _LOOK))


def _gap(call: Call, store: Store, token: int) -> float | None:
    """Return how long nobody led before term *token*, as its leader noted it."""
    watch = store.watch(call.election, TERMS_PREFIX)
    until = call.clock.now() + _NOTE
    while True:
        deadline = call.clock.now() + call.timeout
        terms = read_terms(store.read(call.election, TERMS_PREFIX, deadline=deadline))
        took = next((term.took for term, _ in terms if term.token == token), None)
        left = until - call.clock.now()
        if took is not None or left <= 0:
            return took
        watch.wait(max((version for _, version in terms), default=0), timeout=left)
