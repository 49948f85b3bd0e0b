"""
The schedule the leader goes by: the entries of a beat scheduler of any class, and jobs of tasks.

The wrapped scheduler keeps the schedule (in the configuration, a database, anywhere) and its own
books about what was sent. It is used on the leader alone, and by one thread.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.utils.imports import symbol_by_name

from leader_jobs.adapters.celery_entries import BeatJob, job_name, job_of
from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Restriction

__all__ = ["Timetable", "scheduler_class"]

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
    if hasattr(found, "enabled_models_qs"):
        found = type(found.__name__, (_EveryRow, found), {})
    return cast("type[Scheduler]", found)


class _EveryRow:
    """
    Reads all rows of django-celery-beat.

    Its own scheduler leaves out crontabs that are not due within two hours, and looks for them again
    every five minutes. To the ledger that would look like jobs that were switched off; and a new
    leader could not tell what was missed before it was elected.
    """

    def enabled_models_qs(self) -> Any:
        """Return every enabled row."""
        return cast("Any", self).Model.objects.enabled()

    def disabled_names(self) -> Iterable[str]:
        """Return the names of the entries that are switched off."""
        rows = cast("Any", self).Model.objects.filter(enabled=False)
        return tuple(rows.values_list("name", flat=True))


class Timetable:
    """
    The jobs of an application's schedule.

    Args:
        app: the application.
        scheduler: keeps the schedule; not set up yet.
    """

    def __init__(self, app: Celery, scheduler: Scheduler) -> None:
        self._app = app
        self._scheduler: Any = scheduler  # its stubs leave half of it out
        self._known: dict[str, _Known] = {}
        self._refused: dict[str, str] = {}
        self._own: Final = {entry.name: (entry, job) for entry, job in _own_entries(app)}

    def set_up(self) -> None:
        """Have the wrapped scheduler set its schedule up, as for the first time."""
        changed = getattr(self._scheduler, "schedule_changed", None)
        if changed is not None:
            changed()  # it compares with the last time it was asked, and has not been asked yet
        self._scheduler.setup_schedule()

    def jobs(self) -> list[BeatJob]:
        """
        Return the jobs as the schedule has them now; those that did not change are the same objects.

        An entry that makes no sense is left out, and reported once.
        """
        present = dict(self._scheduler.schedule)
        for gone in self._known.keys() - present.keys():
            del self._known[gone]
        jobs = [job for _, job in self._own.values() if job.name not in present]
        for name, entry in present.items():
            try:
                jobs.append(self._job(name, entry))
            except ConfigurationError as error:
                self._refuse(name, str(error))
            else:
                self._refused.pop(name, None)
        return jobs

    def switched_off(self) -> list[str]:
        """Return the names of jobs that the schedule knows and does not want to be run."""
        names: Iterable[str] = getattr(self._scheduler, "disabled_names", tuple)()
        return [job_name(name) for name in names]

    def entry(self, job: BeatJob) -> ScheduleEntry | None:
        """Return the entry that *job* is, as it is now; None if it is gone."""
        own = self._own.get(job.entry)
        found: ScheduleEntry | None = self._scheduler.schedule.get(job.entry)
        return own[0] if found is None and own is not None else found

    def send(self, entry: ScheduleEntry, producer: Any) -> None:
        """Send the message of *entry*, as the wrapped scheduler does."""
        self._scheduler.apply_async(entry, producer=producer, advance=False)

    def sent(self, job: BeatJob) -> None:
        """Have the wrapped scheduler put into its books that *job* was sent."""
        entry = self._scheduler.schedule.get(job.entry)
        if entry is None:
            return
        following: Any = self._scheduler.reserve(entry)
        if job.once:
            following.is_due()  # which is where django-celery-beat switches it off

    def keep_books(self, *, force: bool = False) -> None:
        """Have the wrapped scheduler write its books, if it is time to."""
        if force or self._scheduler.should_sync():
            self._scheduler._do_sync()  # noqa: SLF001  beat's own loop calls it so

    def forget_books(self) -> None:
        """Write nothing of what was sent in a lost term: another leader keeps the books now."""
        dirty = getattr(self._scheduler, "_dirty", None)
        if dirty is not None:
            dirty.clear()

    def close(self) -> None:
        """Close the wrapped scheduler."""
        self._scheduler.close()

    def _job(self, name: str, entry: ScheduleEntry) -> BeatJob:
        known = self._known.get(name)
        if known is not None and known.entry is entry:
            return known.job
        job = job_of(entry, self._app)
        if known is not None and _is_same(known.job, job):
            job = known.job
        _expire(entry)
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


def _is_same(one: BeatJob, other: BeatJob) -> bool:
    """Whether two jobs differ in nothing but the object that holds their schedule."""
    if one.schedule.fingerprint != other.schedule.fingerprint:
        return False
    return replace(one, schedule=other.schedule) == other


def _expire(entry: ScheduleEntry) -> None:
    """Have django-celery-beat switch off an entry that has expired."""
    row = getattr(entry, "model", None)
    if getattr(row, "expires", None) is not None:
        with contextlib.suppress(Exception):  # its own books; what is sent is bounded anyway
            entry.is_due()
