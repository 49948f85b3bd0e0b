"""
The schedule the leader goes by: the entries of a beat scheduler of any class, and jobs of tasks.

The wrapped scheduler keeps the schedule (in the configuration, a database, anywhere) and its own
books about what was sent. It is used on the leader alone, and by one thread.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.utils.imports import symbol_by_name

from leader_jobs.adapters.celery_entries import BeatJob, job_name, job_of
from leader_jobs.adapters.celery_keeper import Keeper
from leader_jobs.adapters.celery_schedules import Paced
from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Restriction

__all__ = ["StaticScheduler", "Timetable", "scheduler_class"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What was made of an entry, and of which one."""

    entry: ScheduleEntry
    job: BeatJob


def scheduler_class(name: str) -> type[Scheduler]:
    """
    Return the beat scheduler class called *name*, as ``package.module:Class``.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        found = symbol_by_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"leader_jobs_beat_scheduler is {name!r}, which can not be imported: {error}"
        raise ConfigurationError(msg) from error
    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        msg = (
            f"leader_jobs_beat_scheduler is {name!r}, which is no subclass of celery.beat.Scheduler"
        )
        raise ConfigurationError(msg)
    if found is Scheduler:
        return StaticScheduler
    if hasattr(found, "enabled_models_qs"):  # django-celery-beat's: Django is there, then
        from leader_jobs.adapters.celery_django import around

        found = around(found)
    return found


class StaticScheduler(Scheduler):
    """
    Celery's own schedule from the configuration, kept in memory.

    With the daily ``celery.backend_cleanup`` that Celery's persistent scheduler has, which its plain
    one adds and takes away again.
    """

    def setup_schedule(self) -> None:
        """Read the configuration."""
        super().setup_schedule()
        self.install_default_entries(self.schedule)


class Timetable:
    """
    The jobs of an application's schedule.

    Args:
        app: the application.
        scheduler: keeps the schedule; not set up yet.

    The schedule is read by `jobs` alone; all else goes by what it read.
    """

    def __init__(self, app: Celery, scheduler: Scheduler) -> None:
        self._app = app
        self._scheduler: Any = scheduler  # its stubs leave half of it out
        self._keeper = scheduler if isinstance(scheduler, Keeper) else Keeper()
        self._entries: dict[str, ScheduleEntry] = {}
        self._known: dict[str, _Known] = {}
        self._refused: dict[str, str] = {}
        self._finished: set[str] = set()
        self._is_set_up = False
        self._own: Final = {entry.name: (entry, job) for entry, job in _own_entries(app)}
        self._is_time_to_write: Callable[[], bool] = scheduler.should_sync
        # Celery asks in the middle of sending, where an error would look as if nothing was sent.
        vars(scheduler)["should_sync"] = _never

    # -- reading ----------------------------------------------------------------------------------

    def preload(self) -> None:
        """Have at hand what a leader will need, as far as that can be had without writing."""
        try:
            for name, entry in self._keeper.preload().items():
                with contextlib.suppress(Exception):  # reported when it matters
                    self._job(name, entry)
        except Exception as error:  # noqa: BLE001  no more is lost than time, should we be elected
            _log.info("the schedule is read when this node leads, for now it can not be: %s", error)
        self._keeper.rest()

    def set_up(self) -> None:
        """Go by nothing that was read in a former term; the next `jobs` are the first of a term."""
        self._keeper.start_over()
        self._finished.clear()
        was_set_up, self._is_set_up = self._is_set_up, False
        if was_set_up:
            self._scheduler.close()  # it opens its files and the like once more

    def jobs(self, *, since: datetime | None = None) -> list[BeatJob]:
        """
        Return the jobs as the schedule has them now; those that did not change are the same objects.

        An entry that makes no sense is left out, and reported once.

        Args:
            since: when they were read last; None for the first time in a term.

        Raises:
            Exception: whatever kept the scheduler from reading; the next time may be better.
        """
        if since is not None or not self._keeper.lasting:
            self._set_schedule_up()
        over = self._keeper.switch_off(self._finished)
        self._finished.clear()
        former = self._entries
        # What was switched off is missed once at least, even if it was switched on again already.
        present = {n: entry for n, entry in self._scheduler.schedule.items() if n not in over}
        for gone in self._known.keys() - present.keys():
            del self._known[gone]
        jobs = [job for _, job in self._own.values() if job.name not in present]
        for name, entry in present.items():
            try:
                job = self._job(name, entry)
            except Exception as error:  # noqa: BLE001  one bad entry may not hold up the others
                known = isinstance(error, ConfigurationError)
                self._refuse(name, str(error) if known else repr(error))
                continue
            self._refused.pop(name, None)
            jobs.append(self._begun(job, since=since, new=name not in former))
        self._entries = present
        return jobs

    def switched_off(self) -> list[str]:
        """Return the names of jobs that the schedule knows and does not want to be run."""
        return [job_name(name) for name in self._keeper.switched_off()]

    def entry(self, job: BeatJob) -> ScheduleEntry | None:
        """Return the entry that *job* is, as it was read last; None if it is gone."""
        own = self._own.get(job.entry)
        found = self._entries.get(job.entry)
        return own[0] if found is None and own is not None else found

    # -- sending ----------------------------------------------------------------------------------

    def send(self, entry: ScheduleEntry, producer: Any) -> None:
        """Send the message of *entry*, as the wrapped scheduler does."""
        self._scheduler.apply_async(entry, producer=producer, advance=False)

    def sent(self, job: BeatJob) -> None:
        """Have the wrapped scheduler put into its books that *job* was sent."""
        entry = self._entries.get(job.entry)
        if entry is not None:
            self._entries[job.entry] = self._scheduler.reserve(entry)

    def finished(self, jobs: Iterable[BeatJob]) -> None:
        """Have entries that were sent for the last time switched off, at the next look."""
        self._finished.update(job.entry for job in jobs)

    # -- its books --------------------------------------------------------------------------------

    def keep_books(self, *, force: bool = False) -> None:
        """Have the wrapped scheduler write its books, if it is time to."""
        if force or self._is_time_to_write():
            self._scheduler._do_sync()  # noqa: SLF001  beat's own loop calls it so

    def forget_books(self) -> None:
        """Write nothing of what was sent in a lost term: another leader keeps the books now."""
        self._keeper.forget_books()

    def rest(self) -> None:
        """Let go of what is not needed while others lead."""
        self._keeper.rest()

    def close(self) -> None:
        """Close the wrapped scheduler."""
        self._scheduler.close()
        self._keeper.rest()

    def _set_schedule_up(self) -> None:
        """Have the wrapped scheduler set its schedule up, once in a term."""
        if not self._is_set_up:
            self._scheduler.setup_schedule()
            self._is_set_up = True

    def _begun(self, job: BeatJob, *, since: datetime | None, new: bool) -> BeatJob:
        """
        Return *job*, with the instant from which on it counts if it was edited while nobody looked.

        An interval is counted from where its job is seen for the first time; nothing of it is missed.
        """
        changed_at = self._keeper.changed_at(job.entry)
        if changed_at is None:
            return job
        if since is None:
            return replace(job, not_before=changed_at)
        if not new or job.since is not None or isinstance(job.schedule, Paced):
            return job
        return replace(job, since=max(since, changed_at))

    def _job(self, name: str, entry: ScheduleEntry) -> BeatJob:
        known = self._known.get(name)
        if known is not None and _is_as_before(known.entry, entry):
            return known.job
        job = self._keeper.job(job_of(entry, self._app), entry)
        if known is not None and _is_same(known.job, job):
            job = known.job
        self._known[name] = _Known(entry, job)
        return job

    def _refuse(self, name: str, why: str) -> None:
        if self._refused.get(name) != why:
            self._refused[name] = why
            _log.error("entry %r is not sent: %s", name, why)


def _own_entries(app: Celery) -> Iterator[tuple[ScheduleEntry, BeatJob]]:
    """Yield an entry for each task with a schedule of its own, by `leader_only`."""
    for name, task in sorted(app.tasks.items()):
        restriction = Restriction.of(task.run)
        if restriction is None or restriction.schedule is None:
            continue
        if restriction.election not in (None, application.election):
            continue
        entry = ScheduleEntry(app=app, name=restriction.name, task=name, schedule=None)
        yield (
            entry,
            BeatJob(
                name=restriction.name,
                entry=restriction.name,
                task=name,
                schedule=restriction.schedule,
                policy=restriction.policy,
                rerun_on_crash=restriction.rerun_on_crash,
                guarded=True,
            ),
        )


def _is_as_before(former: ScheduleEntry, entry: ScheduleEntry) -> bool:
    """Whether nothing but the entry's own count of runs has changed: Celery makes it anew at each."""
    return entry is former or (
        entry.schedule is former.schedule
        and entry.task == former.task
        and entry.options == former.options
    )


def _is_same(one: BeatJob, other: BeatJob) -> bool:
    """Whether two jobs differ in nothing but the object that holds their schedule."""
    if one.schedule.fingerprint != other.schedule.fingerprint:
        return False
    return replace(one, schedule=other.schedule) == other


def _never() -> bool:
    return False
