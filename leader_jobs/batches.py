"""
Changes of many jobs' records, committed under one term in as few transactions as it takes.

Each transaction stands by itself: it carries the fence, and a job's change is never split. A change
that is refused because its record moved on meanwhile does not hold up the others of its batch.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from leader_jobs.clock import Clock
from leader_jobs.exceptions import Conflict, Fenced, StoreError
from leader_jobs.ledger import Ledger, history
from leader_jobs.records import HISTORY, JobRecord, OccurrenceRecord, history_key, job_key
from leader_jobs.stores.base import Limits, Write
from leader_jobs.term import Term

__all__ = ["Batches", "Change", "Removal"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Change:
    """
    The change of one job: written whole or not at all.

    Attributes:
        record: the job's record as it shall be.
        version: the version it was read at.
        closed: the occurrences that move to the job's history.
        beside: other rows of the register that are written with it.
    """

    record: JobRecord
    version: int
    closed: list[OccurrenceRecord] = field(default_factory=list)
    beside: list[Write] = field(default_factory=list)

    def writes(self) -> list[Write]:
        """Return the rows of the change: the job's record, guarded, and its closed occurrences."""
        key = job_key(self.record.job)
        return [
            Write(key, self.record.encode(), self.version),
            *history(self.record.job, self.closed),
            *self.beside,
        ]


class Removal(Change):
    """The removal of all that is kept of one job; its *record* is what was read of it."""

    def writes(self) -> list[Write]:
        """Return the rows to remove: the job's record, guarded, and its history."""
        job, many = self.record.job, min(self.record.sequence, HISTORY)
        history = [Write(history_key(job, sequence), None) for sequence in range(many)]
        return [Write(job_key(job), None, self.version), *history]


C = TypeVar("C", bound=Change)


class Batches(Generic[C]):
    """
    Commits changes under one term.

    Args:
        ledger: where to; it remembers what was committed and forgets what is in doubt.
        term: the term every transaction is fenced by.
        clock: where moments come from.
    """

    def __init__(self, ledger: Ledger, term: Term, *, clock: Clock) -> None:
        self._ledger = ledger
        self._term = term
        self._clock = clock

    def commit(self, changes: Sequence[C]) -> Iterator[list[C]]:
        """
        Commit *changes*, and yield those that are known to stand, a batch at a time.

        Raises:
            Fenced: the term does not lead; nothing more was written.
        """
        limits = self._ledger.store.limits
        batches = _batches(changes, limits)
        if limits.at_once == 1 or len(changes) <= limits.guards // 2:  # most often a single one
            for batch, writes in batches:
                yield self._commit(batch, writes)
            return
        # Each transaction stands by itself, so that one can be under way while the next is packed.
        with ThreadPoolExecutor(limits.at_once, thread_name_prefix="leader-jobs-commit") as pool:
            under_way = [pool.submit(self._commit, batch, writes) for batch, writes in batches]
            for outcome in under_way:
                yield outcome.result()

    def _commit(self, batch: list[C], writes: Sequence[Write]) -> list[C]:
        """Commit a batch, without those whose records moved on; return what stands."""
        while batch:
            try:
                self._write(batch, writes)
            except Conflict as conflict:
                _log.debug("looking again, for %s", conflict)
                jobs = {c.record.job for c in batch}
                # If the store can not tell whose record it was, it may be anyone's.
                moved = {job for job in jobs if job_key(job) in conflict.keys} or jobs
                self._ledger.forget(moved)
                batch = [c for c in batch if c.record.job not in moved]
                writes = [row for change in batch for row in change.writes()]
            except Fenced:
                self._ledger.tally.refuse()
                raise
            except StoreError as error:
                # Perhaps it was written: then the records, read again, show it.
                _log.warning("not known whether %d jobs were recorded: %s", len(batch), error)
                self._ledger.forget(c.record.job for c in batch)
                return []
            else:
                return batch
        return []

    def _write(self, batch: Sequence[C], writes: Sequence[Write]) -> None:
        deadline = min(self._clock.now() + self._term.ttl / 3, self._term.deadline)
        version = self._ledger.store.commit(
            self._ledger.election, writes, candidacy=self._term.candidacy, deadline=deadline
        )
        for change in batch:
            self._ledger.remember(change.record, version, change.closed)


def _batches(changes: Sequence[C], limits: Limits) -> Iterator[tuple[list[C], list[Write]]]:
    """Pack changes and their writes into transactions; a change is never split."""
    batch: list[C] = []
    writes: list[Write] = []
    size = guards = 0
    for change in changes:
        rows = change.writes()
        weight = sum(len(row.key) + len(row.value or b"") for row in rows)
        expecting = sum(row.expect is not None for row in rows)
        full = (
            guards + expecting > limits.guards
            or len(writes) + len(rows) > limits.writes
            or size + weight > limits.size
        )
        if batch and full:
            yield batch, writes
            batch, writes, size, guards = [], [], 0, 0
        batch.append(change)
        writes.extend(rows)
        size += weight
        guards += expecting
    if batch:
        yield batch, writes
