"""
Whether a node that stands by could lead, found out before it has to.

A renewal and a look at the electorate need few rights, and on some servers no valid login. What a term
needs beyond them is therefore proved with every periodic look.
"""

import logging
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.config import Timing
from leader_jobs.exceptions import StoreError
from leader_jobs.herald import Herald
from leader_jobs.stores.base import Store

__all__ = ["Proving"]

_log = logging.getLogger(__name__)
#: A look that comes round a little early is the periodic one all the same.
_NEARLY: Final = 0.9


class Proving:
    """
    Has the store checked now and then, for one candidate; it changes nothing but what is said.

    Args:
        election: the candidate's election.
        store: where it is held.
        herald: says when a doubt begins and when it is over.
        clock: where moments come from.

    Attributes:
        doubt: why this node could not lead, in words, or None.
    """

    def __init__(self, election: str, *, store: Store, herald: Herald, clock: Clock) -> None:
        self.doubt: str | None = None
        self._election = election
        self._store = store
        self._herald = herald
        self._clock = clock
        self._proved_at: float | None = None

    def look(self, ttl: float) -> None:
        """Check the store if it is time to, as a standby whose lease has *ttl* seconds."""
        timing, now = Timing(ttl), self._clock.now()
        if self._proved_at is None:
            self._proved_at = now  # whoever started this process has just checked
        if self.doubt is None and now - self._proved_at < _NEARLY * timing.look_every:
            return
        self._proved_at = now
        try:
            self._store.check(self._election, deadline=now + timing.renew_every)
        except StoreError as error:
            self.failed(error)
        except Exception:  # noqa: BLE001  a bug may cost the proof, never the candidacy
            _log.exception("election %r: the check failed unexpectedly", self._election)
        else:
            self.worked()

    def failed(self, error: StoreError) -> None:
        """Take note that the store said no; that it is away says nothing of rights."""
        if not error.lasting:
            return
        begins, self.doubt = self.doubt is None, str(error)
        if begins:
            self._herald.doubted(error)

    def worked(self) -> None:
        """Take note that all is well, or that the node leads: from then on its claims tell."""
        if self.doubt is not None:
            self.doubt = None
            self._herald.reassured()
