"""
What a process that runs tasks needs of each election: a presence, a ledger, and who admits messages.

Opened when the first message with a ticket arrives, in the process that runs it. The main process of
a prefork worker opens nothing, and each of its children opens its own.
"""

import atexit
import os
import threading
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from leader_jobs.admissions import Admissions
from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.ledger import Ledger
from leader_jobs.presence import Presence
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from leader_jobs.version import version

__all__ = ["Desk", "Desks"]

_CLOSE_WITHIN: Final = 5.0


class Desk:
    """
    Where this process asks about one election.

    Args:
        election: the election.
        store: where it is held.
        settings: node and ttl.
        clock: where moments and instants come from.
    """

    def __init__(self, election: str, *, store: Store, settings: Settings, clock: Clock) -> None:
        self.presence: Final = Presence(
            election,
            store=store,
            node=settings.node,
            version=version(),
            ttl=settings.ttl,
            clock=clock,
        )
        ledger = Ledger(
            store, election, node=settings.node, owner=self.presence.incarnation, clock=clock
        )
        self.admissions: Final = Admissions(ledger, clock=clock)

    def close(self) -> None:
        """Record what is left to be recorded, within a moment, and withdraw."""
        self.admissions.close(_CLOSE_WITHIN)
        self.presence.stop(_CLOSE_WITHIN)


class Desks:
    """
    The desks of this process, by election.

    Args:
        settings: returns the settings; called when the first desk is opened.
        clock: where moments and instants come from.
    """

    def __init__(self, settings: Callable[[], Settings], *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.forget()
        _all.add(self)

    def forget(self) -> None:
        """Begin afresh: what was opened belongs to the parent."""
        self._lock = threading.Lock()
        self._desks: dict[str, Desk] = {}
        self._store: Store | None = None

    def of(self, election: str) -> Desk:
        """
        Return the desk of *election*, opened if need be; nothing is connected to yet.

        Raises:
            ConfigurationError: the settings make no sense.
        """
        with self._lock:
            desk = self._desks.get(election)
            if desk is None:
                settings = self._settings()
                if self._store is None:
                    self._store = open_store(settings, clock=self._clock)
                    atexit.register(self.close)
                desk = Desk(election, store=self._store, settings=settings, clock=self._clock)
                self._desks[election] = desk
            return desk

    def close(self) -> None:
        """Close what was opened, in this process; what is asked for later is opened anew."""
        with self._lock:
            desks, store = self._desks, self._store
            self._desks, self._store = {}, None
        for desk in desks.values():
            desk.close()
        if store is not None:
            store.close()
            atexit.unregister(self.close)


_all: Final[WeakSet[Desks]] = WeakSet()


def _forget_all() -> None:
    for desks in tuple(_all):
        desks.forget()


os.register_at_fork(after_in_child=_forget_all)
