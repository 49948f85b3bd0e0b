"""
Writes the log of terms: each leader its own, and the end of a former one that could not.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import Conflict, StoreError
from leader_jobs.proposals import Proposal
from leader_jobs.stores.base import ABSENT, Store, Write
from leader_jobs.term import Term
from leader_jobs.terms import GONE, KEPT, TERMS_PREFIX, TermRecord, read_terms, term_key

__all__ = ["TermLog"]

_log = logging.getLogger(__name__)
_TRIES: Final = 5
_WITHIN: Final = 1.0
_MOST_LEFT: Final = 5


class TermLog:
    """
    One node's part of the log of terms of one election.

    Args:
        store: where it is kept.
        election: the election.
        proposal: returns what this process says about itself.
        clock: where moments and instants come from.
    """

    def __init__(
        self, store: Store, election: str, *, proposal: Callable[[], Proposal], clock: Clock
    ) -> None:
        self._store = store
        self._election = election
        self._proposal = proposal
        self._clock = clock
        self._left: list[tuple[int, str, datetime]] = []

    def begin(self, term: Term, began_at: datetime) -> None:
        """
        Record that *term* began, fenced by it; and the end of a former term that nobody recorded.

        Raises:
            Fenced: the term does not lead.
            StoreError: not known to be recorded; call again.
        """
        for _ in range(_TRIES):
            known = self._read()
            if known and known[-1][0].token >= term.token:
                return  # recorded, by a try whose reply was lost
            try:
                self._commit(self._beginning(term, began_at, known), term)
            except Conflict:
                continue
            return

    def end(self, term: Term, at: datetime) -> None:
        """Record that *term* ended at *at*, now or when the store is back; raises nothing."""
        self._left = [*self._left, (term.token, str(term.reason or GONE), at)][-_MOST_LEFT:]
        self.catch_up()

    def catch_up(self) -> None:
        """Record the ends that could not be recorded before."""
        try:
            while self._left:
                self._end(*self._left[0])
                del self._left[0]
        except StoreError as error:
            _log.debug("election %r: the end of a term is not logged: %s", self._election, error)

    def forget(self) -> None:
        """Drop what is left to be recorded: it is the parent's."""
        self._left = []

    def _beginning(
        self, term: Term, began_at: datetime, known: list[tuple[TermRecord, int]]
    ) -> list[Write]:
        proposal = self._proposal()
        number = known[-1][0].number + 1 if known else 0
        record = TermRecord(
            number=number,
            token=term.token,
            node=proposal.node,
            host=proposal.host,
            pid=proposal.pid,
            version=proposal.version,
            began_at=began_at,
        )
        versions = {entry.number % KEPT: version for entry, version in known}
        place = versions.get(number % KEPT, ABSENT)
        writes = [Write(term_key(number), record.encode(), place)]
        if known and known[-1][0].ended_at is None:
            former, version = known[-1]
            gone = former.ended(GONE, began_at)
            writes.append(Write(term_key(former.number), gone.encode(), version))
        return writes

    def _end(self, token: int, reason: str, at: datetime) -> None:
        for _ in range(_TRIES):
            found = next((entry for entry in self._read() if entry[0].token == token), None)
            if found is None:
                return
            record, version = found
            write = Write(term_key(record.number), record.ended(reason, at).encode(), version)
            try:
                self._commit([write], None)
            except Conflict:  # a successor closed it meanwhile, with less to say
                continue
            return

    def _read(self) -> list[tuple[TermRecord, int]]:
        rows = self._store.read(self._election, TERMS_PREFIX, deadline=self._limit())
        return read_terms(rows)

    def _commit(self, writes: list[Write], term: Term | None) -> None:
        candidacy = None if term is None else term.candidacy
        self._store.commit(self._election, writes, candidacy=candidacy, deadline=self._limit())

    def _limit(self) -> float:
        return self._clock.now() + _WITHIN
