"""Who leads? For anybody who can read the store; asking takes no part in the election."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import application
from leader_jobs.exceptions import StoreUnavailable
from leader_jobs.proposals import Proposal
from leader_jobs.stores.base import Entrant, Store
from leader_jobs.stores.factory import open_store
from leader_jobs.texts import printable

__all__ = ["Leader", "find_leader", "watch_leader"]

_LABEL: Final = 200
_LOOK_EVERY: Final = 10.0
_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Leader:
    """
    A leader as the store shows it.

    Attributes:
        election: the election.
        token: the fencing token of its term.
        node: its label; of a foreign candidate, its proposal as far as that is printable.
        proposal: its description of itself, or None if it is a foreign candidate.
        ttl: its lease's granted time in seconds, or None if that is not known.
        remaining: seconds until the lease runs out unless it is renewed, or None.
    """

    election: str
    token: int
    node: str
    proposal: Proposal | None
    ttl: float | None
    remaining: float | None

    @property
    def foreign(self) -> bool:
        """Whether it is a candidate of another program."""
        return self.proposal is None

    @classmethod
    def of(cls, election: str, entrant: Entrant) -> "Leader":
        """Describe *entrant*, taking nothing it says at its word."""
        proposal = Proposal.decode(entrant.proposal)
        raw = entrant.proposal[:_LABEL].decode(errors="replace")
        label = proposal.node if proposal is not None else raw
        return cls(
            election, entrant.token, printable(label), proposal, entrant.ttl, entrant.remaining
        )


def find_leader(
    election: str | None = None,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    timeout: float = 5.0,
) -> Leader | None:
    """
    Return the leader of an election, or None if nobody leads.

    Args:
        election: the election; the application's default if None.
        store: where to look; opened from the application's settings, and closed, if None.
        clock: where moments come from.
        timeout: seconds to wait for the store.

    Raises:
        StoreError: the store could not say.

    The answer was true at one moment between call and return. It is for showing, not for deciding:
    whoever leads decides by its own `Term`.
    """
    clock = clock or SystemClock()
    election = election or application.election
    opened = store or open_store(application.settings, clock=clock)
    try:
        entrants = opened.candidates(election, deadline=clock.now() + timeout, leases=True)
    finally:
        if store is None:
            opened.close()
    return Leader.of(election, entrants[0]) if entrants else None


def watch_leader(
    election: str | None = None,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Leader | None]:
    """
    Yield the leader now, and again whenever it is another one or none; until *stop* is set.

    A store that is away is waited for: what was last yielded is then the last thing known, not the
    present. Setting *stop* is noticed within ten seconds.
    """
    clock = clock or SystemClock()
    stop = stop or threading.Event()
    election = election or application.election
    opened = store or open_store(application.settings, clock=clock)
    last: tuple[int, ...] | None = None
    try:
        while not stop.is_set():
            try:
                leader = find_leader(election, store=opened, clock=clock)
            except StoreUnavailable:
                clock.wait(stop, _PAUSE)
                continue
            seen = (leader.token,) if leader is not None else ()
            if seen != last:
                last = seen
                yield leader
            opened.wait_for_change(election, timeout=_LOOK_EVERY)
    finally:
        if store is None:
            opened.close()
