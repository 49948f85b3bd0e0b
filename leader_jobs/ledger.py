"""
The ledger of one election: which occurrences were claimed, started and how they ended.

Every change of a job's record is guarded by the version it was read at, and by the leading term
where the change is the leader's to make; the store decides, nobody checks first and writes then.
A write whose reply was lost is looked up, never assumed.

What this file offers is one change at a time, for the leader and for a process that still runs what
it started in an earlier term. What is due, and claiming it, is `leader_jobs.claims`.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.edits import Claim, Edit, Edits, find_claimed
from leader_jobs.exceptions import Conflict, Fenced, StoreError, StoreUnavailable
from leader_jobs.names import runners_of
from leader_jobs.proposals import Proposal
from leader_jobs.records import (
    JOBS_PREFIX,
    JobRecord,
    OccurrenceRecord,
    State,
    UnreadableRecord,
    history_key,
    history_prefix,
    job_key,
)
from leader_jobs.stores.base import ABSENT, Store, Write
from leader_jobs.tally import Tally
from leader_jobs.term import Term

__all__ = ["Claim", "Edit", "Ledger", "Versioned", "find_claimed", "history"]

_CONTENTION: Final = 10
#: One record is read in the time that so many take if all are read at once.
_FEW: Final = 50


@dataclass(frozen=True, slots=True)
class Versioned:
    """A job's record (None if there is none yet) and the version it was read at."""

    record: JobRecord | None
    version: int


_NOTHING: Final = Versioned(None, ABSENT)


class Ledger:
    """
    The ledger of one election, as one node reads and writes it.

    Args:
        store: where the register is.
        election: whose register.
        node: this node's label, for people.
        owner: the incarnation of this process's candidate: runs it starts live as long as that
            candidate stands.
        clock: where moments and instants come from.
        timeout: seconds one change may take.
    """

    def __init__(
        self,
        store: Store,
        election: str,
        *,
        node: str,
        owner: str,
        clock: Clock,
        timeout: float = 5.0,
    ) -> None:
        self.store: Final = store
        self.election: Final = election
        self.node: Final = node
        self.owner: Final = owner
        self.edits: Final = Edits(node=node, owner=owner, clock=clock)
        #: What this process did here.
        self.tally: Final = Tally()
        self._clock = clock
        self._timeout = timeout
        self._known: dict[str, Versioned | UnreadableRecord] = {}
        self._doubts = 0
        self._in_hand: set[tuple[str, int, datetime, int]] = set()
        self._lock = threading.Lock()

    # -- looking ----------------------------------------------------------------------------------

    def jobs(self) -> dict[str, JobRecord]:
        """Read every job record that can be read, by the job's name."""
        found: dict[str, JobRecord] = {}
        for name, versioned in self._read().items():
            if isinstance(versioned, Versioned) and versioned.record is not None:
                found[name] = versioned.record
        return found

    def history(self, job: str) -> list[OccurrenceRecord]:
        """Read what is kept of the occurrences of *job*, the open ones included, oldest first."""
        # The open ones first: what is closed between the two reads is seen twice, not missed.
        found = self._read(job_key(job)).get(job)
        record = found.record if isinstance(found, Versioned) else None
        entries = {entry.sequence: entry for entry in (record.open if record is not None else ())}
        rows = self.store.read(self.election, history_prefix(job), deadline=self._limit())
        for row in rows.values():
            with suppress(UnreadableRecord):
                entry = OccurrenceRecord.decode(row.value)
                entries[entry.sequence] = entry
        return [entries[sequence] for sequence in sorted(entries)]

    def living(self) -> frozenset[str]:
        """Return the incarnations that are alive now, leading or not; runs of others are dead."""
        found: set[str] = set()
        for electorate in (runners_of(self.election), self.election):
            for entrant in self.store.candidates(electorate, deadline=self._limit()):
                proposal = Proposal.decode(entrant.proposal)
                if proposal is not None:
                    found.add(proposal.incarnation)
        return frozenset(found)

    def load(self, names: Iterable[str]) -> dict[str, Versioned | UnreadableRecord]:
        """
        Return the records of the jobs *names*, from memory where nothing put them in doubt.

        Raises:
            StoreError: they had to be read and could not be.
        """
        names = tuple(names)
        with self._lock:
            loaded = {name: self._known[name] for name in names if name in self._known}
            doubts = self._doubts
        missing = [name for name in names if name not in loaded]
        if missing:
            found: dict[str, Versioned | UnreadableRecord] = dict.fromkeys(missing, _NOTHING)
            found |= self._fetch(missing)
            with self._lock:
                # All of it is remembered: of ten thousand jobs a tick looks at some at a time.
                for name, read in found.items():
                    found[name] = self._newest(name, read)
                    if doubts == self._doubts:  # else what we read may be what is in doubt
                        self._known[name] = found[name]
            loaded.update((name, found[name]) for name in missing)
        return loaded

    def _newest(
        self, name: str, read: Versioned | UnreadableRecord
    ) -> Versioned | UnreadableRecord:
        """Return what is known of job *name* now that *read* was read of it."""
        known = self._known.get(name)
        # A change made while we read is newer than what we read.
        return known if isinstance(known, Versioned) and not _is_newer(read, known) else read

    def forget(self, names: Iterable[str] | None = None) -> None:
        """Put what is remembered of the jobs *names* (all if None) in doubt: it is read again."""
        with self._lock:
            self._doubts += 1
            for name in tuple(self._known) if names is None else names:
                self._known.pop(name, None)

    def remembered(self) -> tuple[JobRecord, ...]:
        """Return the job records in memory, as they are known to have been; the store is not asked."""
        with self._lock:
            known = tuple(self._known.values())
        return tuple(v.record for v in known if isinstance(v, Versioned) and v.record is not None)

    def remember(
        self, record: JobRecord, version: int, closed: Iterable[OccurrenceRecord] = ()
    ) -> None:
        """Note that *record* was committed at *version*, and *closed* with it."""
        with self._lock:
            known = self._known.get(record.job)
            if not isinstance(known, Versioned) or known.version < version:
                self._known[record.job] = Versioned(record, version)
        self.tally.close(closed)
        if isinstance(known, Versioned) and known.record is not None:
            self._count_starts(known.record, record)

    def _count_starts(self, before: JobRecord, after: JobRecord) -> None:
        """Count what was dispatched, or started without a message, between two records of a job."""
        known = {entry.sequence: entry.state for entry in before.open}
        for entry in after.open:
            began = entry.dispatched_at if entry.state is State.DISPATCHED else entry.started_at
            if began is not None and known.get(entry.sequence) is State.CLAIMED:
                self.tally.start(entry, began)

    # -- what is in this process's hands ----------------------------------------------------------

    def take(self, claim: Claim) -> None:
        """Note that *claim* is in the hands of this process."""
        with self._lock:
            self._in_hand.add((claim.job, claim.sequence, claim.planned_at, claim.attempt))

    def let_go(self, claim: Claim) -> None:
        """Note that *claim* is no longer in the hands of this process."""
        with self._lock:
            self._in_hand.discard((claim.job, claim.sequence, claim.planned_at, claim.attempt))

    def holds(self, job: str, entry: OccurrenceRecord) -> bool:
        """
        Whether an open occurrence of *job* is in the hands of this process, at this attempt.

        What this process runs may have been taken for dead and be run again elsewhere.
        """
        with self._lock:
            # By the instant, too: a ledger that was restored counts again from where it was.
            return (job, entry.sequence, entry.planned_at, entry.attempt) in self._in_hand

    # -- one change -------------------------------------------------------------------------------

    def start(self, claim: Claim, term: Term) -> bool:
        """
        Record, fenced by *term*, that the body of *claim* is about to start.

        Returns:
            True: this process, and no other, is to start it, once. False: it is not ours to start
            (another node did, or closed it).

        Raises:
            Fenced: the term does not lead any more.
            StoreUnavailable: not known whether it was recorded; call again, or `release` it.
        """

        def starting(record: JobRecord) -> Edit:
            return self.edits.starting(record, claim, token=term.token)

        return self.change(claim.job, starting, term)

    def finish(self, claim: Claim, state: State, reason: str = "") -> bool:
        """
        Record how the run of *claim* ended; not fenced, for it did happen.

        Returns:
            False if somebody closed it before (a leader who took this process for dead).

        Raises:
            StoreUnavailable: not known whether it was recorded; call again.
        """

        def finishing(record: JobRecord) -> Edit:
            return self.edits.finishing(record, claim, state, reason)

        return self.change(claim.job, finishing, None)

    def release(self, claim: Claim, *, again: bool = False) -> bool:
        """
        Hand an occurrence back so that whoever leads starts it.

        Args:
            claim: one whose body this process did not start, or stopped.
            again: True if the body was started: what follows is another attempt.

        Returns:
            False if it is not this process's to hand back: another one runs it, or it is closed.

        Raises:
            StoreUnavailable: not known whether it was handed back; call again.

        After True no earlier `start` of *claim* can come true any more, however late the store gets
        to see it.
        """

        def releasing(record: JobRecord) -> Edit:
            return self.edits.releasing(record, claim, again=again)

        return self.change(claim.job, releasing, None)

    # -- any change -------------------------------------------------------------------------------

    def change(self, job: str, change: Callable[[JobRecord], Edit], term: Term | None) -> bool:
        """
        Apply *change* to the record of *job*, until no other change comes between.

        Args:
            job: the job's name.
            change: given the record, returns the new one and the occurrences it closes; the record
                itself if it already is as it should be, None to refuse. It may be called repeatedly.
            term: the term to be fenced by, or None.

        Returns:
            Whether the record now is as it should be; False if it was refused, or does not exist.

        Raises:
            Fenced: the term does not lead.
            StoreUnavailable: not known whether it was changed.
            UnreadableRecord: the record can not be read.
        """
        certain = False
        for _ in range(_CONTENTION):
            found = self.load((job,))[job]
            if isinstance(found, UnreadableRecord):
                raise found
            changed = change(found.record) if found.record is not None else None
            if changed is None or changed[0] is found.record:
                if certain:
                    return changed is not None
            elif self._commit(changed, found.version, term):
                return True
            # What we remember may be behind: look at the store before an answer without a write.
            self.forget((job,))
            certain = True
        msg = f"the record of job {job!r} changed {_CONTENTION} times in a row; trying again later"
        raise StoreUnavailable(msg)

    def _commit(
        self,
        changed: tuple[JobRecord, tuple[OccurrenceRecord, ...]],
        version: int,
        term: Term | None,
    ) -> bool:
        """Write a changed record; False if it was not at *version* any more."""
        record, closed = changed
        writes = [
            Write(job_key(record.job), record.encode(), version),
            *history(record.job, closed),
        ]
        candidacy = term.candidacy if term is not None else None
        try:
            version = self.store.commit(
                self.election, writes, candidacy=candidacy, deadline=self._limit()
            )
        except Conflict:
            return False
        except StoreError as error:
            if isinstance(error, Fenced):
                self.tally.refuse()
            self.forget((record.job,))
            raise
        self.remember(record, version, closed)
        return True

    def _fetch(self, names: Sequence[str]) -> dict[str, Versioned | UnreadableRecord]:
        """Read the records of the jobs *names*, and perhaps others: one by one, or all at once."""
        if len(names) > 1 + len(self._known) // _FEW:
            return self._read()
        found: dict[str, Versioned | UnreadableRecord] = {}
        for name in names:
            found.update(self._read(job_key(name)))
        return found

    def _read(self, prefix: str = JOBS_PREFIX) -> dict[str, Versioned | UnreadableRecord]:
        rows = self.store.read(self.election, prefix, deadline=self._limit())
        found: dict[str, Versioned | UnreadableRecord] = {}
        for key, row in rows.items():
            name = key.removeprefix(JOBS_PREFIX)
            try:
                found[name] = Versioned(_decode(name, row.value), row.version)
            except UnreadableRecord as error:
                found[name] = error
        return found

    def _limit(self) -> float:
        return self._clock.now() + self._timeout


def history(job: str, closed: Iterable[OccurrenceRecord]) -> list[Write]:
    """
    Return the writes that move *closed* occurrences into the history of *job*.

    Where several fall on one place of the ring, the newest has it: a commit names a key once.
    """
    places = {history_key(job, entry.sequence): entry for entry in sorted(closed, key=_by_sequence)}
    return [Write(key, entry.encode()) for key, entry in places.items()]


def _by_sequence(entry: OccurrenceRecord) -> int:
    return entry.sequence


def _decode(name: str, raw: bytes) -> JobRecord:
    record = JobRecord.decode(raw)
    if record.job != name:
        msg = f"it says that it is of job {record.job!r}"
        raise UnreadableRecord(msg)
    return record


def _is_newer(found: Versioned | UnreadableRecord, known: Versioned) -> bool:
    return isinstance(found, UnreadableRecord) or found.version > known.version
