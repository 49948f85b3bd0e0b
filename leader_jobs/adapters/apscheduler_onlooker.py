"""
What a process that stands by has to say: who runs the jobs, and which of its own nobody will.
"""

import logging
from typing import Final

from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.adapters.apscheduler_stores import is_shared
from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreError
from leader_jobs.ledger import Ledger
from leader_jobs.proposals import Proposal

__all__ = ["Onlooker"]

_log = logging.getLogger(__name__)
#: Seconds after which a leader has written down the jobs it knows.
_SETTLED: Final = 3.0
_WITHIN: Final = 2.0
_FEW: Final = 5


class Onlooker:
    """
    Looks, once it has stood by for a little, at who leads, and at what that one knows.

    Args:
        scheduler: whose jobs this process has.
        ledger: the election's.
        node: this node's label.
        clock: where moments come from.
    """

    def __init__(
        self, scheduler: BaseScheduler, ledger: Ledger, *, node: str, clock: Clock
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._node = node
        self._clock = clock
        self._look_at: float | None = clock.now() + _SETTLED
        self._leader = ""
        self._warned: set[str] = set()

    def look_soon(self) -> None:
        """Look again in a while: jobs were added, changed or removed here."""
        self._look_at = self._look_at or self._clock.now() + _SETTLED

    def look_in(self) -> float | None:
        """Return the seconds until the next look; None if none is due."""
        return None if self._look_at is None else max(0.0, self._look_at - self._clock.now())

    def look(self) -> None:
        """Say what is to be said, once, if a look is due."""
        if self._look_at is None or self._clock.now() < self._look_at:
            return
        self._look_at = None
        limit = self._clock.now() + _WITHIN
        try:
            entrants = self._ledger.store.candidates(self._ledger.election, deadline=limit)
            known = self._ledger.jobs().keys()
        except StoreError:
            self.look_soon()  # the candidate says what is the matter
            return
        proposal = Proposal.decode(entrants[0].proposal) if entrants else None
        if entrants and (proposal is None or proposal.incarnation != self._ledger.owner):
            self._say(proposal.node if proposal is not None else entrants[0].id)
            self._warn(self._own() - known - self._warned)

    def _say(self, leader: str) -> None:
        if leader != self._leader:
            self._leader = leader
            _log.info(
                "node %s leads election %r and runs the jobs; node %s stands by",
                leader,
                self._ledger.election,
                self._node,
            )

    def _own(self) -> set[str]:
        """Return the ids of the jobs that are in this process's memory alone."""
        stores = tuple(self._scheduler._jobstores.values())
        return {job.id for store in stores if not is_shared(store) for job in store.get_all_jobs()}

    def _warn(self, unknown: set[str]) -> None:
        if not unknown:
            return
        self._warned |= unknown
        names = ", ".join(sorted(unknown)[:_FEW]) + (" …" if len(unknown) > _FEW else "")
        _log.warning(
            "node %s, which leads election %r, does not know jobs of this process, and will not run "
            "them: %s; keep jobs that are added while the program runs in a job store that all "
            "processes share, and give another program an election of its own",
            self._leader,
            self._ledger.election,
            names,
        )
