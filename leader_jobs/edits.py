"""
What one process does to a job's record with what it claimed: start it, end it, hand it back.

Pure functions of the record. Whoever commits them, alone (`leader_jobs.ledger`) or many at once
(`leader_jobs.runlog`), guards them by the version the record was read at.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.records import JobRecord, OccurrenceRecord, State

__all__ = ["Claim", "Edit", "Edits", "find_claimed"]

#: A change of a job's record: the new record and the occurrences it closes, or None to let it be.
Edit = tuple[JobRecord, tuple[OccurrenceRecord, ...]] | None


@dataclass(frozen=True, slots=True)
class Claim:
    """
    An occurrence this process has claimed and may start.

    Attributes:
        job: the job's name.
        occurrence: the occurrence's id (see `leader_jobs.occurrences.occurrence_id`).
        planned_at: the instant it was planned for.
        sequence: its number in the job's record.
        attempt: which attempt this is.
        token: the term under which it is to be started.
        retries: how many times its body asked to be retried before.
    """

    job: str
    occurrence: str
    planned_at: datetime
    sequence: int
    attempt: int
    token: int
    retries: int = 0


class Edits:
    """
    The changes one process makes.

    Args:
        node: its label.
        owner: its incarnation: nobody else writes that.
        clock: where instants come from.
    """

    def __init__(self, *, node: str, owner: str, clock: Clock) -> None:
        self._node: Final = node
        self._owner: Final = owner
        self._clock = clock

    def starting(self, record: JobRecord, claim: Claim, *, token: int) -> Edit:
        """Return the change that records a start under the term *token*."""
        entry = find_claimed(record, claim)
        if entry is None:
            return None
        if entry.state is State.STARTED:
            # Ours: the reply to an earlier try was lost. Nobody else writes our incarnation.
            return (record, ()) if entry.owner == self._owner else None
        started = entry.starting(
            token=token, node=self._node, owner=self._owner, now=self._clock.utcnow()
        )
        return record.with_open(started), ()

    def finishing(self, record: JobRecord, claim: Claim, state: State, reason: str) -> Edit:
        """Return the change that records how a run ended."""
        entry = self._ours(record, claim)
        if entry is None:
            return None
        closed = entry.closed(state, self._clock.utcnow(), reason)
        return record.without(entry.sequence), (closed,)

    def skipping(self, record: JobRecord, claim: Claim, reason: str) -> Edit:
        """Return the change that closes *claim*, which was never started, for *reason*."""
        entry = find_claimed(record, claim)
        if entry is None or entry.state is not State.CLAIMED:
            return None
        closed = entry.closed(State.SKIPPED, self._clock.utcnow(), reason)
        return record.without(entry.sequence), (closed,)

    def releasing(self, record: JobRecord, claim: Claim, *, again: bool) -> Edit:
        """Return the change that hands *claim* back; *again*: its body was started."""
        claimed = find_claimed(record, claim)
        if claimed is not None and claimed.state is not State.STARTED:
            # Nothing to change, but a start may still be on its way: a new version refuses it.
            return replace(record), ()
        entry = self._ours(record, claim)
        if entry is None:
            return None
        back = entry.again() if again else entry.back()
        return record.with_open(back), ()

    def _ours(self, record: JobRecord, claim: Claim) -> OccurrenceRecord | None:
        entry = find_claimed(record, claim)
        if entry is None or entry.state is not State.STARTED or entry.owner != self._owner:
            return None
        return entry


def find_claimed(record: JobRecord, claim: Claim) -> OccurrenceRecord | None:
    """Return the open occurrence that *claim* is of, if it is still at that attempt."""
    entry = record.find(claim.sequence)
    # A record that was removed, or came back from a backup, counts again from where it was.
    same = (claim.planned_at, claim.attempt)
    return entry if entry is not None and (entry.planned_at, entry.attempt) == same else None
