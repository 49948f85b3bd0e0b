"""
A place where one test's elections are held, on whatever store the settings name.

Everything goes through `open_store`, as a site's own settings would.
"""

from contextlib import ExitStack, closing
from typing import Final

import pytest

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import CandidacyLost
from leader_jobs.stores.base import Candidacy, Record, Store, Write
from leader_jobs.stores.factory import open_store

__all__ = ["ELECTION", "Place"]

#: The election of tests that need only one.
ELECTION: Final = "mail"


class Place:
    """
    Where one test's elections are held.

    Args:
        settings: name the store.
        ttl: the shortest lease in seconds that the store grants.
        forks: whether the child of a fork may use the store.

    Attributes:
        ttl: as given.
        clock: what the stores' leases and deadlines are measured on.
        store: a store object, open for the time of the test.
    """

    def __init__(self, settings: Settings, ttl: float, *, forks: bool = True) -> None:
        self.ttl = ttl
        self.clock: Clock = SystemClock()
        self._forks = forks
        self._settings = settings
        self._opened = ExitStack()
        self.store = self.open()

    def open(self) -> Store:
        """Open one more store object on the same data; it is closed with the test."""
        return self._opened.enter_context(closing(open_store(self._settings, clock=self.clock)))

    def ask_for_forks(self) -> None:
        """Skip the test where a child of a fork gets nothing but refusals, as is documented."""
        if not self._forks:
            pytest.skip("this transport refuses to work in the child of a fork")

    def close(self) -> None:
        """Close all store objects."""
        self._opened.close()

    def within(self, seconds: float = 5.0) -> float:
        """Return a deadline *seconds* from now."""
        return self.clock.now() + seconds

    def enrol(
        self,
        proposal: bytes = b"",
        *,
        election: str = ELECTION,
        ttl: float = 30.0,
        store: Store | None = None,
    ) -> Candidacy:
        """Enrol a candidate, under a lease that outlives the test unless told otherwise."""
        store = store or self.store
        return store.enrol(election, proposal, ttl, deadline=self.within())

    def leads(self, candidacy: Candidacy) -> bool:
        """Return whether the candidacy leads."""
        return self.store.standing(candidacy, deadline=self.within()).leads

    def wait_gone(self, candidacy: Candidacy, *, ahead_of: Candidacy) -> None:
        """Wait, as the next in line, until *candidacy* is no longer ahead."""
        limit = self.within(10.0)
        while self.clock.now() < limit:
            standing = self.store.standing(ahead_of, deadline=self.within())
            if standing.predecessor != candidacy.id:
                return
            self.store.wait(ahead_of, standing, timeout=limit - self.clock.now())
        pytest.fail(f"{candidacy} was still there after 10 s")

    def wait_lost(self, candidacy: Candidacy) -> None:
        """Wait, as the leader that watches its own entry, until *candidacy* is over."""
        limit = self.within(10.0)
        while self.clock.now() < limit:
            try:
                standing = self.store.standing(candidacy, deadline=self.within())
            except CandidacyLost:
                return
            self.store.wait(candidacy, standing, timeout=limit - self.clock.now())
        pytest.fail(f"{candidacy} still stood after 10 s")

    def read(self, *prefixes: str, election: str = ELECTION) -> dict[str, Record]:
        """Return the records under *prefixes*, or all."""
        return dict(self.store.read(election, *(prefixes or ("",)), deadline=self.within()))

    def commit(
        self, *writes: Write, under: Candidacy | None = None, election: str = ELECTION
    ) -> int:
        """Commit the writes, unfenced unless a candidacy is given."""
        return self.store.commit(election, writes, candidacy=under, deadline=self.within())
