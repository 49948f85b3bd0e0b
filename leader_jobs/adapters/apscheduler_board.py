"""
The jobs of a scheduler, as its leader sees them: what is in the job stores, and what the ledger says.

A job store knows when each job is next due, and users move that (``modify_job``, ``pause_job``, a
``next_run_time`` of their own). The ledger knows up to where run times are accounted for. A next run
time that is not what the leader itself would have written was moved by somebody, and counts; any
other follows the ledger. Only the leader writes.

Of a store that can not be read nothing is started: others may have paused, changed or removed any of
its jobs. What came due meanwhile is caught up on by each job's policy.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from apscheduler.job import Job as SchedulerJob
from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.adapters.apscheduler_jobs import beginning, is_made_up, planned_job
from leader_jobs.adapters.apscheduler_shelf import Shelf, Writer, shown_of
from leader_jobs.adapters.apscheduler_stores import unrestorable
from leader_jobs.clock import Clock
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Job
from leader_jobs.planned import PlannedJob
from leader_jobs.records import JobRecord

__all__ = ["Board", "Entry"]

_log = logging.getLogger(__name__)
#: So far back, a run time that a process worked out for a job of its own memory still counts: then
#: it was added just now. What stood by for longer never looked at its jobs' times.
_FRESH: Final = timedelta(seconds=60)
_JUST_NOW: Final = timedelta(seconds=5)
#: So many seconds are written on end; then what has come due meanwhile is seen to first.
_AT_ONCE: Final = 0.2


@dataclass(slots=True)
class Entry:
    """
    A job on the board.

    Attributes:
        job: the job as it was last read.
        alias: its store.
        planned: what the ledger has to know of it; None if it is paused, or can not be run.
        shown: the next run time it was last seen with, or given.
        first: a run time that somebody gave it, whatever its trigger says.
    """

    job: SchedulerJob
    alias: str
    planned: PlannedJob | None
    shown: datetime | None
    first: datetime | None = None


class Board:
    """
    What is to be run during one term.

    Args:
        scheduler: whose jobs.
        writer: says whether we may write, and what is to be written first.
        known: what the ledger knew of them when the term began.
        ours: the jobs made of ``@leader_only`` functions, by id.
        max_burst: how many missed run times of a job are run at most.
        clock: where instants come from.

    Attributes:
        busy: whether there is more to be written than was written at once.
    """

    def __init__(
        self,
        scheduler: BaseScheduler,
        *,
        writer: Writer,
        known: Mapping[str, JobRecord],
        ours: Mapping[str, Job],
        max_burst: int,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler
        self._writer = writer
        self._known = dict(known)
        self._ours = ours
        self._max_burst = max_burst
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._shelves: dict[str, Shelf] = {}
        self._refused: set[str] = set()
        self._looked = False
        self._stale = False
        self.busy = False

    def __getitem__(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def planned(self) -> list[PlannedJob]:
        """Return the jobs that are to be run; those of stores that can not be read are not."""
        return [
            entry.planned
            for entry in self._entries.values()
            if entry.planned is not None and not self._is_blind(entry.alias)
        ]

    def names(self) -> set[str]:
        """Return the ids of all jobs."""
        return set(self._entries)

    def paused(self) -> set[str]:
        """Return the jobs that are paused."""
        return {name for name, entry in self._entries.items() if entry.shown is None}

    def forgettable(self) -> set[str]:
        """
        Return the jobs that nobody will ever add again, once they are gone.

        These are in shared stores, and their ids were made up when they were added. What is in a
        process's memory, or has an id of its own, other processes may have too, or add once more.
        """
        return {
            name
            for name, entry in self._entries.items()
            if is_made_up(name) and self._shelves[entry.alias].shared
        }

    def forgotten(self) -> set[str]:
        """Return the jobs of which a former leader left a record, and nothing else."""
        if self.unsettled():
            return set()
        return {
            name
            for name, record in self._known.items()
            if is_made_up(name) and not record.schedule and name not in self._entries
        }

    def has_shared(self) -> bool:
        """Whether any job store is one that other processes see."""
        return any(shelf.shared for shelf in self._shelves.values())

    def unsettled(self) -> bool:
        """Whether the stores are worth another look soon: one did not answer, or held other things."""
        return self._stale or any(shelf.blind for shelf in self._shelves.values())

    def close(self) -> None:
        """Call the job stores no more."""
        for shelf in self._shelves.values():
            shelf.close()

    # -- reading ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Read every job of every store."""
        self._stale = False
        self._find_shelves()
        found: dict[str, Entry] = {}
        for alias, shelf in self._shelves.items():
            jobs = shelf.all()
            if jobs is None:
                found |= {n: e for n, e in self._entries.items() if e.alias == alias}
            else:
                found |= {job.id: self._seen(job, alias) for job in jobs if job.id is not None}
        self._entries = found
        self._looked = True

    def _find_shelves(self) -> None:
        # Not under the lock: somebody may hold it who waits for a database.
        stores = dict(self._scheduler._jobstores)
        for alias in self._shelves.keys() - stores.keys():
            self._shelves.pop(alias).close()
        for alias in stores.keys() - self._shelves.keys():
            self._shelves[alias] = Shelf(alias, stores[alias], self._scheduler, self._writer)

    def refresh(self, now: datetime, due: Iterable[str]) -> bool:
        """
        Read anew the jobs *due* at *now*, as far as others may have changed them.

        Returns:
            Whether anything was not as it had been.
        """
        names: dict[str, list[str]] = {}
        for name in due:
            if name in self._entries:
                names.setdefault(self._entries[name].alias, []).append(name)
        changed = False
        for alias, mine in names.items():
            shelf = self._shelves[alias]
            if not shelf.shared:
                continue
            was_blind = shelf.blind
            jobs = shelf.due(now)
            changed = changed or was_blind is not shelf.blind
            if jobs is not None:
                changed = self._compare(shelf, mine, jobs) or changed
        return changed

    def _compare(self, shelf: Shelf, names: Iterable[str], jobs: Iterable[SchedulerJob]) -> bool:
        rows = {job.id: [job] for job in jobs}
        changed = False
        for name in names:
            row = rows.get(name) or shelf.find(name)
            if row is None:
                return True
            if not row:
                changed = True
                self._entries.pop(name)
                continue
            former = self._entries[name]
            self._entries[name] = self._seen(row[0], shelf.alias)
            changed = changed or former.planned != self._entries[name].planned
        return changed

    def _seen(self, job: SchedulerJob, alias: str) -> Entry:
        """Return the entry of a job that was just read."""
        shown = shown_of(job)
        if shown is None:
            return Entry(job, alias, None, None)
        try:
            planned, first = self._plan(job, alias, shown)
        except ConfigurationError as error:
            if job.id not in self._refused:
                self._refused.add(job.id)
                _log.error("job %s of store %r is not run: %s", job.id, alias, error)
            return Entry(job, alias, None, shown)
        return Entry(job, alias, planned, shown, first)

    def _plan(
        self, job: SchedulerJob, alias: str, shown: datetime
    ) -> tuple[PlannedJob, datetime | None]:
        """Return what the ledger has to know of *job*, and the run time that was given to it."""
        if job.func is unrestorable:
            msg = f"{job.func_ref} can not be imported by this process; it stays for one that can"
            raise ConfigurationError(msg)
        former = self._entries.get(job.id)
        rule = planned_job(job, max_burst=self._max_burst, ours=self._ours.get(job.id))
        first: datetime | None = shown  # if it was moved, resumed or rescheduled
        if former is None:
            first = self._first(rule, shown, shared=self._shelves[alias].shared)
        elif former.planned is not None and former.shown == shown:
            first = former.first if _same_rule(rule, former.planned) else shown
        return (rule if first is None else beginning(rule, first)), first

    def _first(self, job: PlannedJob, shown: datetime, *, shared: bool) -> datetime | None:
        """Return the run time to begin with for a job that is new in this term; None: go on."""
        record = self._known.get(job.name)
        now = self._clock.utcnow()
        if record is None and job.schedule.next_after(shown) is None:
            return shown  # the last there is: if it is too late, its job's grace time says so
        if record is None or not record.schedule:
            return shown if shared or now - shown <= _FRESH else None
        if record.schedule != job.schedule.fingerprint:
            # In memory, a former leader may have run its own copy of what was not added just now.
            counts = shared or self._looked or now - shown <= _JUST_NOW
            return shown if counts and shown > record.cursor else None
        if not shared or shown <= record.cursor:
            return None
        return None if shown == job.schedule.next_after(record.cursor) else shown

    # -- writing ----------------------------------------------------------------------------------

    def show(self, names: Iterable[str], due: Callable[[str], datetime | None]) -> set[str]:
        """
        Write the next run times of the jobs *names* into their stores.

        Args:
            names: the jobs the ledger has accounted for anew.
            due: returns a job's next run time; None to leave it as it is.

        Returns:
            The names of those that are to be tried again.
        """
        self.busy = False
        left = set()
        limit = self._clock.now() + _AT_ONCE
        failed: set[str] = set()
        for name in names:
            entry, instant = self._entries.get(name), due(name)
            if entry is None or entry.planned is None or instant in (None, entry.shown):
                continue
            if self._is_off(entry, limit, failed):
                left.add(name)
            elif self._shelves[entry.alias].advance(entry.job, entry.shown, instant):
                entry.shown = instant
            else:
                left.add(name)
                failed.add(entry.alias)
        self._stale = self._stale or bool(failed)
        return left

    def remove(self, names: Iterable[str]) -> set[str]:
        """Remove jobs that nothing more will ever be due of; return those that are gone."""
        gone = set()
        limit = self._clock.now() + _AT_ONCE
        failed: set[str] = set()
        for name in names:
            entry = self._entries.get(name)
            if entry is None or entry.planned is None:
                gone.add(name)
            elif self._is_off(entry, limit, failed):
                continue
            elif self._shelves[entry.alias].remove(entry.job, entry.shown):
                gone.add(name)
                self._entries.pop(name)
            else:
                failed.add(entry.alias)
        self._stale = self._stale or bool(failed)
        return gone

    def _is_off(self, entry: Entry, limit: float, failed: set[str]) -> bool:
        """Whether *entry* is not written now: it takes too long, or its store did not take another."""
        if self._clock.now() >= limit:
            self.busy = True
            return True
        return entry.alias in failed

    def _is_blind(self, alias: str) -> bool:
        shelf = self._shelves.get(alias)
        return shelf is None or shelf.blind


def _same_rule(one: PlannedJob, other: PlannedJob) -> bool:
    return one.schedule.fingerprint == other.schedule.fingerprint
