"""
Nudges: how a standby that changed a shared job store has the leader look at it.
"""

import os
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.ledger import Ledger
from leader_jobs.stores.base import Write

__all__ = ["Nudges"]

_KEY: Final = "nudges/apscheduler"
_WITHIN: Final = 2.0
_EVERY: Final = 0.5


class Nudges:
    """
    One record that anybody may touch, and the leader looks at.

    Args:
        ledger: the election's.
        clock: where moments come from.

    A nudge carries nothing, and decides nothing: who gets one reads the job stores.
    """

    def __init__(self, ledger: Ledger, *, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._seen: int | None = None
        self._look_at = clock.now()

    def give(self) -> None:
        """Nudge whoever leads; raises `StoreError` if it is not known to have been done."""
        self._ledger.store.commit(
            self._ledger.election,
            [Write(_KEY, os.urandom(8).hex().encode())],
            candidacy=None,
            deadline=self._clock.now() + _WITHIN,
        )

    def came(self) -> bool:
        """Whether one came since the last call that looked; the first one counts from now on."""
        now = self._clock.now()
        if now < self._look_at:
            return False
        self._look_at = now + _EVERY
        rows = self._ledger.store.read(self._ledger.election, _KEY, deadline=now + _WITHIN)
        version = rows[_KEY].version if _KEY in rows else 0
        came = self._seen is not None and version != self._seen
        self._seen = version
        return came

    def look_in(self) -> float:
        """Return the seconds until it is worth while to ask again; half a second at most."""
        return max(0.0, self._look_at - self._clock.now())
