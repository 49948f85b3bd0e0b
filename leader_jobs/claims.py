"""
What the leader does with the ledger at each tick: see what is due, claim it, say so.

All jobs due in a tick are claimed in one guarded transaction, or in as few as the store's limits
allow. Each transaction stands by itself: it carries the fence, and a job's cursor moves in the same
write that opens its claims. A leader that dies between two transactions has claimed some jobs and
not others; the next one recovers the former and finds the latter still due.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from leader_jobs.clock import Clock
from leader_jobs.exceptions import Conflict, Fenced, StoreError
from leader_jobs.ledger import Claim, Ledger, Versioned, history
from leader_jobs.occurrences import Policy, next_due, occurrence_id, plan
from leader_jobs.records import (
    JobRecord,
    OccurrenceRecord,
    State,
    UnreadableRecord,
    job_key,
)
from leader_jobs.schedules import Schedule
from leader_jobs.stores.base import Limits, Write
from leader_jobs.term import Term

__all__ = ["Claims", "PlannedJob", "Tick"]

_log = logging.getLogger(__name__)
#: How often the records of runs on other nodes are looked at again, in seconds.
_RECHECK: Final = 1.0
#: A body that kills its process would otherwise take down one leader after the other, for ever.
_MOST_ATTEMPTS: Final = 5
_TOO_LATE: Final = "window"
_AHEAD: Final = timedelta(seconds=1)
#: How many occurrences of one job may be open, so that all of them can be closed in one commit.
_MOST_OPEN: Final = 100


class PlannedJob(Protocol):
    """What the ledger has to know of a job."""

    @property
    def name(self) -> str:
        """The job's name, unique in its election."""
        ...

    @property
    def schedule(self) -> Schedule:
        """When it is due."""
        ...

    @property
    def policy(self) -> Policy:
        """What happens to occurrences that are late, missed or overlapping."""
        ...

    @property
    def rerun_on_crash(self) -> bool:
        """Whether a run whose process died is attempted again."""
        ...


@dataclass(frozen=True, slots=True)
class Tick:
    """
    What a tick brought.

    Attributes:
        claims: what is now in the hands of this process, in the order to start it.
        unsettled: True if something could not be claimed or is not known to be: tick again soon.
    """

    claims: tuple[Claim, ...]
    unsettled: bool


@dataclass(slots=True)
class _Unit:
    """The change of one job in one tick: written whole or not at all."""

    record: JobRecord
    version: int
    now: datetime
    closed: list[OccurrenceRecord] = field(default_factory=list)
    claims: list[tuple[int, datetime, int]] = field(default_factory=list)
    changed: bool = False

    def writes(self) -> list[Write]:
        """Return the rows of the change: the job's record, guarded, and its closed occurrences."""
        key = job_key(self.record.job)
        return [
            Write(key, self.record.encode(), self.version),
            *history(self.record.job, self.closed),
        ]


class Claims:
    """
    Decides and claims what is due, during one term.

    Args:
        ledger: the election's ledger.
        term: ours.
        jobs: the jobs this node knows.
        clock: where moments come from.
    """

    def __init__(
        self, ledger: Ledger, term: Term, jobs: Iterable[PlannedJob], *, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._term = term
        self._jobs = {job.name: job for job in jobs}
        self._clock = clock
        #: When each job is next to be looked at; a job that is not in here is looked at now.
        self._due: dict[str, datetime | None] = {}
        self._again: deque[str] = deque()
        self._elsewhere: set[str] = set()
        self._recheck_at = clock.now()
        self._warned: set[str] = set()
        self._living: frozenset[str] | None = None
        # What a former leader wrote is read once, linearizably, before anything is claimed.
        ledger.forget()

    def tick(self, now: datetime) -> Tick:
        """
        Claim everything due at *now*, and recover what former leaders left open.

        Raises:
            Fenced: the term does not lead; nothing more was claimed.
            StoreError: nothing could be read.
        """
        self._recheck()
        self._living = None
        names = [name for name in self._jobs if self._is_due(name, now)]
        known = self._ledger.load(names)
        units = []
        for name in names:
            found = known[name]
            if isinstance(found, Versioned):
                units.append(self._examine(self._jobs[name], found, now))
            else:
                self._leave_alone(name, found)
        claims = [c for unit in units if not unit.changed for c in self._accept(unit)]
        unsettled = False
        changed = [unit for unit in units if unit.changed]
        for batch, committed in self._commit_all(changed):
            if committed:
                claims.extend(claim for unit in batch for claim in self._accept(unit))
            else:
                unsettled = True
        # Not before: had a commit been fenced, nobody would start, nor ever let go, of these.
        for claim in claims:
            self._ledger.take(claim)
        return Tick(tuple(claims), unsettled)

    def look_again(self, job: str) -> None:
        """Have the next tick look at *job* whether or not it is due; any thread may ask."""
        self._again.append(job)

    def look_at_all(self) -> None:
        """Have the next tick look at every job: what was due next may not be any more."""
        self._again.extend(self._jobs)

    def next_instant(self) -> datetime | None:
        """Return the next instant at which something is due, or None if nothing ever is."""
        instants = [instant for instant in self._due.values() if instant is not None]
        return min(instants, default=None)

    def _is_due(self, name: str, now: datetime) -> bool:
        if name not in self._due:
            return True
        instant = self._due[name]
        return instant is not None and instant <= now

    def _recheck(self) -> None:
        """Look again at jobs that run, or may be run, in other processes."""
        if self._elsewhere and self._clock.now() >= self._recheck_at:
            self._recheck_at = self._clock.now() + _RECHECK
            self._ledger.forget(self._elsewhere)
            self._again.extend(self._elsewhere)
            self._elsewhere.clear()
        while self._again:
            self._due.pop(self._again.popleft(), None)

    # -- one job ----------------------------------------------------------------------------------

    def _examine(self, job: PlannedJob, found: Versioned, now: datetime) -> _Unit:
        fingerprint = job.schedule.fingerprint
        record = found.record
        if record is None or record.schedule != fingerprint:
            # A new or changed schedule starts from now: it never fires for the past, nor at once.
            record = JobRecord(
                job=job.name,
                schedule=fingerprint,
                words=job.schedule.describe(),
                cursor=now if record is None else max(now, record.cursor),
                sequence=0 if record is None else record.sequence,
                open=() if record is None else record.open,
            )
        unit = _Unit(record, found.version, now, changed=record is not found.record)
        self._recover_all(unit, job, now)
        self._plan(unit, job, now)
        return unit

    def _recover_all(self, unit: _Unit, job: PlannedJob, now: datetime) -> None:
        """Decide about the open occurrences that are not in the hands of this process."""
        loose = [e for e in unit.record.open if not self._ledger.holds(job.name, e)]
        alive = [entry for entry in loose if self._runs_elsewhere(entry)]
        if alive:
            self._elsewhere.add(job.name)
            if not job.policy.overlap:
                return  # what else is open has to wait for the end of that run
        for entry in loose:
            if entry not in alive:
                self._recover(unit, job, entry, now)

    def _recover(
        self, unit: _Unit, job: PlannedJob, entry: OccurrenceRecord, now: datetime
    ) -> None:
        """Decide about an open occurrence that nobody works on."""
        window = job.policy.window
        late = window is not None and now - entry.planned_at > window
        if entry.state is State.CLAIMED:
            if late:
                self._close(unit, entry.closed(State.SKIPPED, now, _TOO_LATE))
            else:
                unit.claims.append((entry.sequence, entry.planned_at, entry.attempt))
        elif job.rerun_on_crash and not late and entry.attempt < _MOST_ATTEMPTS:
            unit.record = unit.record.with_open(entry.again())
            unit.claims.append((entry.sequence, entry.planned_at, entry.attempt + 1))
            unit.changed = True
        else:
            why = "the process that ran it is gone"
            if entry.attempt > 1:
                why += f", at attempt {entry.attempt}"
            self._close(unit, entry.closed(State.INTERRUPTED, now, why))

    def _runs_elsewhere(self, entry: OccurrenceRecord) -> bool:
        if entry.state is not State.STARTED or entry.owner == self._ledger.owner:
            return False
        if self._living is None:
            self._living = self._ledger.living()
        return entry.owner in self._living

    def _close(self, unit: _Unit, entry: OccurrenceRecord) -> None:
        unit.record = unit.record.without(entry.sequence)
        unit.closed.append(entry)
        unit.changed = True

    def _plan(self, unit: _Unit, job: PlannedJob, now: datetime) -> None:
        record = unit.record
        self._warn_of_the_future(record, now)
        room = _MOST_OPEN - len(record.open)
        if room <= 0:
            self._elsewhere.add(job.name)
            return  # what is due stays due; bodies that never end may not fill the store
        policy = job.policy
        if room < policy.max_burst:
            policy = replace(policy, max_burst=room)
        # What was recovered just now waits to be started, and what was missed waits behind it.
        recovered = {sequence for sequence, _, _ in unit.claims}
        busy = any(entry.sequence not in recovered for entry in record.open)
        planned = plan(job.schedule, policy, cursor=record.cursor, now=now, busy=busy)
        token, node = self._term.token, self._ledger.node
        for passed in planned.passed:
            record, entry = record.pass_over(passed, token=token, node=node, now=now)
            unit.closed.append(entry)
        for instant in planned.run:
            unit.claims.append((record.sequence, instant, 1))
            record = record.claim(instant, token=token, node=node, now=now)
        unit.changed = unit.changed or record is not unit.record
        unit.record = record

    def _warn_of_the_future(self, record: JobRecord, now: datetime) -> None:
        if record.cursor - now > _AHEAD and record.job not in self._warned:
            self._warned.add(record.job)
            _log.warning(
                "job %s is accounted for until %s, %.0f s ahead of this node's clock: a clock was or "
                "is wrong; it is not due before that again",
                record.job,
                record.cursor.isoformat(),
                (record.cursor - now).total_seconds(),
            )

    def _leave_alone(self, name: str, error: UnreadableRecord) -> None:
        self._due[name] = None
        _log.error(
            "job %s is not run in this term: its record can not be read (%s); repair or remove the "
            "record %s of election %r",
            name,
            error,
            job_key(name),
            self._ledger.election,
        )

    # -- many jobs --------------------------------------------------------------------------------

    def _commit_all(self, units: Sequence[_Unit]) -> Iterator[tuple[list[_Unit], bool]]:
        """Commit *units* in as few transactions as it takes; yield each batch, and whether it is."""
        limits = self._ledger.store.limits
        if limits.at_once == 1 or len(units) <= limits.guards // 2:  # most often a single one
            for batch, writes in _batches(units, limits):
                yield batch, self._commit(batch, writes)
            return
        # Each transaction stands by itself, so that one can be under way while the next is packed.
        with ThreadPoolExecutor(limits.at_once, thread_name_prefix="leader-jobs-claim") as pool:
            under_way = [
                (batch, pool.submit(self._commit, batch, writes))
                for batch, writes in _batches(units, limits)
            ]
            for batch, outcome in under_way:
                yield batch, outcome.result()

    def _commit(self, batch: Sequence[_Unit], writes: Sequence[Write]) -> bool:
        names = [unit.record.job for unit in batch]
        deadline = min(self._clock.now() + self._term.ttl / 3, self._term.deadline)
        try:
            version = self._ledger.store.commit(
                self._ledger.election, writes, candidacy=self._term.candidacy, deadline=deadline
            )
        except Conflict as conflict:
            _log.info("claiming again, for %s", conflict)
            self._ledger.forget(names)
            return False
        except Fenced:
            raise
        except StoreError as error:
            # Perhaps it was written: then the records, read again, show our claims as open.
            _log.warning("not known whether %d jobs were claimed: %s", len(names), error)
            self._ledger.forget(names)
            return False
        for unit in batch:
            self._ledger.remember(unit.record, version)
        return True

    def _accept(self, unit: _Unit) -> Iterator[Claim]:
        """Note that the unit stands in the store, and yield what it claims."""
        job = self._jobs[unit.record.job]
        due = next_due(job.schedule, unit.record.cursor)
        # Still due after a look means put off until a run ends; `look_again` brings it back.
        self._due[job.name] = due if due is None or due > unit.now else None
        for sequence, planned_at, attempt in unit.claims:
            claim = Claim(
                job=job.name,
                occurrence=occurrence_id(self._ledger.election, job.name, planned_at),
                planned_at=planned_at,
                sequence=sequence,
                attempt=attempt,
                token=self._term.token,
            )
            yield claim


def _batches(units: Sequence[_Unit], limits: Limits) -> Iterator[tuple[list[_Unit], list[Write]]]:
    """Pack units and their writes into transactions; a unit is never split."""
    batch: list[_Unit] = []
    writes: list[Write] = []
    size = 0
    for unit in units:
        rows = unit.writes()
        weight = sum(len(row.key) + len(row.value or b"") for row in rows)
        full = (
            len(batch) + 1 > limits.guards
            or len(writes) + len(rows) > limits.writes
            or size + weight > limits.size
        )
        if batch and full:
            yield batch, writes
            batch, writes, size = [], [], 0
        batch.append(unit)
        writes.extend(rows)
        size += weight
    if batch:
        yield batch, writes
