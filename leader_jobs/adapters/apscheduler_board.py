"""
The jobs of a scheduler, as its leader sees them: what is in the job stores, and what the ledger says.

A job store knows when each job is next due, and users move that (``modify_job``, ``pause_job``, a
``next_run_time`` of their own). The ledger knows up to where run times are accounted for. A next run
time that is not what the leader itself would have written was moved by somebody, and counts; any
other follows the ledger. Only the leader writes.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import BaseJobStore, JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.adapters.apscheduler_jobs import planned_job
from leader_jobs.clock import Clock
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Job
from leader_jobs.planned import PlannedJob
from leader_jobs.records import JobRecord
from leader_jobs.schedules import as_utc

__all__ = ["Board", "Entry", "is_shared"]

_log = logging.getLogger(__name__)
#: So far back, a run time that a process worked out for a job of its own memory still counts: then
#: it was added just now. What stood by for longer never looked at its jobs' times.
_FRESH: Final = timedelta(seconds=60)


def is_shared(store: BaseJobStore) -> bool:
    """Whether other processes see what is in *store*."""
    return not isinstance(store, MemoryJobStore)


@dataclass(slots=True)
class Entry:
    """
    A job on the board.

    Attributes:
        job: the job as it was last read.
        alias: its store.
        planned: what the ledger has to know of it; None if it is paused, or can not be run.
        shown: the next run time it was last seen with, or given.
    """

    job: SchedulerJob
    alias: str
    planned: PlannedJob | None
    shown: datetime | None


class Board:
    """
    What is to be run during one term.

    Args:
        scheduler: whose jobs.
        known: what the ledger knew of them when the term began.
        ours: the jobs made of ``@leader_only`` functions, by id.
        max_burst: how many missed run times of a job are run at most.
        clock: where instants come from.
    """

    def __init__(
        self,
        scheduler: BaseScheduler,
        *,
        known: Mapping[str, JobRecord],
        ours: Mapping[str, Job],
        max_burst: int,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler
        self._known = dict(known)
        self._ours = ours
        self._max_burst = max_burst
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._blind: set[str] = set()
        self._refused: set[str] = set()

    def __getitem__(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def planned(self) -> list[PlannedJob]:
        """Return the jobs that are to be run; those of stores that can not be read are not."""
        return [
            entry.planned
            for entry in self._entries.values()
            if entry.planned is not None and entry.alias not in self._blind
        ]

    def names(self) -> set[str]:
        """Return the ids of all jobs."""
        return set(self._entries)

    def paused(self) -> set[str]:
        """Return the jobs that are paused."""
        return {name for name, entry in self._entries.items() if entry.shown is None}

    def has_shared(self) -> bool:
        """Whether any job store is one that other processes see."""
        return any(is_shared(store) for _, store in self._stores())

    # -- reading ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Read every job of every store."""
        found: dict[str, Entry] = {}
        for alias, store in self._stores():
            jobs = self._read(alias, store.get_all_jobs)
            if jobs is None:
                found |= {n: e for n, e in self._entries.items() if e.alias == alias}
            else:
                found |= {job.id: self._seen(job, alias) for job in jobs}
        self._entries = found

    def refresh(self, now: datetime, due: Iterable[str]) -> bool:
        """
        Read anew the jobs *due* at *now*, as far as others may have changed them.

        Returns:
            Whether anything was not as it had been.
        """
        names = [n for n in due if n in self._entries]
        changed = False
        for alias, store in self._stores():
            mine = [n for n in names if self._entries[n].alias == alias]
            if not mine or not is_shared(store):
                continue
            was_blind = alias in self._blind
            jobs = self._read(alias, partial(store.get_due_jobs, now))
            changed = changed or was_blind is not (jobs is None)
            if jobs is not None:
                changed = self._compare(alias, store, mine, jobs) or changed
        return changed

    def _compare(
        self, alias: str, store: BaseJobStore, names: Iterable[str], jobs: Iterable[SchedulerJob]
    ) -> bool:
        rows = {job.id: job for job in jobs}
        changed = False
        for name in names:
            row = rows.get(name) or self._read(alias, partial(store.lookup_job, name))
            if row is None:
                changed = True
                if alias not in self._blind:
                    self._entries.pop(name)
                continue
            former = self._entries[name]
            self._entries[name] = self._seen(row, alias)
            changed = changed or former.planned != self._entries[name].planned
        return changed

    def _seen(self, job: SchedulerJob, alias: str) -> Entry:
        """Return the entry of a job that was just read."""
        former = self._entries.get(job.id)
        shown = None if job.next_run_time is None else as_utc(job.next_run_time)
        if shown is None:
            return Entry(job, alias, None, None)
        try:
            planned = self._plan(job, alias, shown, former)
        except ConfigurationError as error:
            if job.id not in self._refused:
                self._refused.add(job.id)
                _log.error("job %s of store %r is not run: %s", job.id, alias, error)
            return Entry(job, alias, None, shown)
        return Entry(job, alias, planned, shown)

    def _plan(
        self, job: SchedulerJob, alias: str, shown: datetime, former: Entry | None
    ) -> PlannedJob:
        def plan(first: datetime | None) -> PlannedJob:
            ours = self._ours.get(job.id)
            return planned_job(job, first=first, max_burst=self._max_burst, ours=ours)

        if former is None:
            planned = plan(None)
            first = self._first(planned, alias, shown)
            return planned if first is None else plan(first)
        if former.shown == shown and former.planned is not None:
            given = getattr(former.planned.schedule, "first", None)
            again = plan(given)
            if again.schedule.fingerprint == former.planned.schedule.fingerprint:
                return again
        return plan(shown)  # it was moved, resumed or rescheduled

    def _first(self, job: PlannedJob, alias: str, shown: datetime) -> datetime | None:
        """Return the run time to begin with for a job that is new in this term; None: go on."""
        record = self._known.get(job.name)
        shared = is_shared(self._scheduler._lookup_jobstore(alias))
        now = self._clock.utcnow()
        if record is None or not record.schedule:
            return shown if shared or now - shown <= _FRESH else None
        if record.schedule != job.schedule.fingerprint:
            return shown if shown > now else None
        if not shared or shown <= record.cursor:
            return None
        return None if shown == job.schedule.next_after(record.cursor) else shown

    # -- writing ----------------------------------------------------------------------------------

    def show(self, names: Iterable[str], due: Callable[[str], datetime | None]) -> None:
        """
        Write the next run times of the jobs *names* into their stores.

        Args:
            names: the jobs the ledger has accounted for anew.
            due: returns a job's next run time; None to leave it as it is.
        """
        with self._scheduler._jobstores_lock:
            for name in names:
                entry = self._entries.get(name)
                instant = due(name)
                if entry is not None and instant not in (None, entry.shown):
                    self._write(entry, instant)

    def remove(self, names: Iterable[str]) -> None:
        """Remove jobs that nothing more will ever be due of, as APScheduler does."""
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and entry.planned is not None:
                try:
                    self._scheduler.remove_job(name, entry.alias)
                except JobLookupError:
                    pass  # somebody was faster
                except Exception as error:  # noqa: BLE001  whatever a database raises when it is away
                    _log.warning("job %s is over, and can not be removed: %s", name, error)
                    continue
                self._entries.pop(name, None)

    def _write(self, entry: Entry, due: datetime) -> None:
        zone = getattr(entry.job.trigger, "timezone", None) or self._scheduler.timezone
        try:
            entry.job._modify(next_run_time=due.astimezone(zone))
            self._scheduler._lookup_jobstore(entry.alias).update_job(entry.job)
        except JobLookupError:  # somebody removed it meanwhile
            self._entries.pop(entry.job.id, None)
        except Exception as error:  # noqa: BLE001  it is shown there, and counts nowhere
            _log.warning("job %s: its next run time can not be stored: %s", entry.job.id, error)
        else:
            entry.shown = due

    # -- stores -----------------------------------------------------------------------------------

    def _stores(self) -> tuple[tuple[str, BaseJobStore], ...]:
        with self._scheduler._jobstores_lock:
            return tuple(self._scheduler._jobstores.items())

    def _read(self, alias: str, read: Callable[[], Any]) -> Any:
        """Return what *read* reads of store *alias*; None if it can not be read, which is said."""
        try:
            with self._scheduler._jobstores_lock:
                found = read()
        except Exception as error:  # noqa: BLE001  whatever a database raises when it is away
            if alias not in self._blind:
                self._blind.add(alias)
                _log.warning(
                    "job store %r can not be read; none of its jobs is started: %s", alias, error
                )
            return None
        if alias in self._blind:
            self._blind.discard(alias)
            _log.info("job store %r can be read again", alias)
        return found
