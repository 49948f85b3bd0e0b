"""
Says what becomes of a node in an election: one clear log line, and an event for observers.
"""

import logging
from collections.abc import Iterable
from datetime import datetime

from leader_jobs.events import (
    Announcer,
    CampaignFailed,
    CandidateEnrolled,
    Doubted,
    ElectionWon,
    LedgerRestored,
    Observer,
    Reassured,
    Renewed,
    Resumed,
    Suspended,
    TermEnded,
)
from leader_jobs.exceptions import StoreError
from leader_jobs.orders import Heir
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import Term

__all__ = ["Herald"]

_log = logging.getLogger(__name__)


class Herald:
    """
    Announces one node's changes of role in one election.

    Args:
        election: the election.
        node: the node's label.
        observers: called with every event, on a thread of their own.
    """

    def __init__(self, election: str, node: str, observers: Iterable[Observer]) -> None:
        self._election = election
        self._node = node
        self._announce = Announcer(observers)

    def close(self) -> None:
        """Wait a moment until what was announced has been delivered."""
        self._announce.close()

    def enrolled(self, candidacy: Candidacy) -> None:
        """The store took the node into the electorate."""
        self._announce(
            CandidateEnrolled(self._election, self._node, candidacy.token, candidacy.ttl)
        )

    def stands_by(self) -> None:
        """Somebody is ahead of the node."""
        _log.info("node %s stands by in election %r", self._node, self._election)

    def doubted(self, error: StoreError) -> None:
        """The node stands by and could not lead."""
        _log.warning(
            "node %s could not lead election %r if it had to: %s", self._node, self._election, error
        )
        self._announce(Doubted(self._election, self._node, str(error)))

    def reassured(self) -> None:
        """It could again."""
        _log.info("node %s could lead election %r again", self._node, self._election)
        self._announce(Reassured(self._election, self._node))

    def won(self, term: Term) -> None:
        """The node leads."""
        _log.info(
            "node %s leads election %r: term %d, lease %g s",
            self._node,
            self._election,
            term.token,
            term.ttl,
        )
        self._announce(ElectionWon(self._election, self._node, term.token))

    def ended(self, term: Term) -> None:
        """The node's term is over."""
        _log.info(
            "node %s no longer leads election %r: term %d ended (%s)",
            self._node,
            self._election,
            term.token,
            term.reason,
        )
        self._announce(TermEnded(self._election, self._node, term.token, str(term.reason)))

    def renewed(self, term: Term, took: float) -> None:
        """A renewal worked, after *took* seconds."""
        self._announce(Renewed(self._election, self._node, term.token, took, term.remaining))

    def steps_back(self, heir: Heir) -> None:
        """It is the node's turn, and it lets another candidate go first."""
        _log.info(
            "node %s steps back in election %r for candidate %s, as %s asked",
            self._node,
            self._election,
            heir.candidate,
            heir.by or "somebody",
        )

    def suspended(self, term: Term, error: StoreError) -> None:
        """Renewals fail."""
        _log.warning(
            "node %s suspended in election %r: renewals fail (%s); nothing new starts, the term ends "
            "in %.1f s unless one works",
            self._node,
            self._election,
            error,
            term.remaining,
        )
        self._announce(
            Suspended(self._election, self._node, term.token, term.remaining, str(error))
        )

    def resumed(self, term: Term) -> None:
        """A renewal worked again in time."""
        _log.info("node %s leads election %r again without doubt", self._node, self._election)
        self._announce(Resumed(self._election, self._node, term.token))

    def restored(self, since: datetime) -> None:
        """The node, leading, has noted that the ledger was taken back."""
        self._announce(LedgerRestored(self._election, self._node, since))

    def candidacy_lost(self, error: StoreError) -> None:
        """The store does not know the node's candidacy any more."""
        _log.info("election %r: candidacy lost, standing again: %s", self._election, error)

    def failed(self, error: Exception, pause: float) -> None:
        """The node could not stand, and tries again in *pause* seconds."""
        _log.warning("election %r: could not stand (%s); trying again", self._election, error)
        self._announce(CampaignFailed(self._election, self._node, str(error), pause))

    def could_not_withdraw(self, candidacy: Candidacy, error: StoreError) -> None:
        """The node's entry stays until its lease runs out."""
        _log.info(
            "election %r: could not withdraw (%s); the lease ends by itself within %g s",
            self._election,
            error,
            candidacy.ttl,
        )
