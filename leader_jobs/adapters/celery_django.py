"""
The rows of django-celery-beat, as a leader keeps them.

Its own scheduler serves one beat that is always there: it rewrites the schedule when it is made, reads
only what is due soon, and has counts and times of its own to write back. A leader comes and goes, and
needs to know of every row; another one may have written since.

`around` makes a scheduler class of it, or of a subclass, that reads all rows, keeps what it made of
those that did not change, writes additions instead of totals, and leaves out rows that make no sense
instead of failing as a whole. What a subclass says by ``Model``, ``Changes``, ``Entry``,
``enabled_models_qs``, ``reserve`` or ``sync`` goes on to hold.
"""

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, cast

from celery.beat import ScheduleEntry, Scheduler
from celery.utils.time import maybe_make_aware
from django.db import Error, close_old_connections, connections, router, transaction
from django.db.models import F
from django_celery_beat.schedulers import DatabaseScheduler
from django_celery_beat.utils import make_aware
from kombu.utils.json import loads

from leader_jobs.adapters.celery_entries import HEADER, BeatJob
from leader_jobs.adapters.celery_keeper import Keeper
from leader_jobs.adapters.celery_schedules import Paced
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.schedules import Every, Schedule, as_utc

__all__ = ["Bounded", "Rows", "around"]

_log = logging.getLogger(__name__)
_MICRO: Final = timedelta(microseconds=1)
#: So often, counted in looks, all rows are read even if nothing says that they were changed:
#: ``QuerySet.update`` does not say so. About five minutes, as in django-celery-beat.
_LOOKS: Final = 60
_JSON: Final = {"args": list, "kwargs": dict, "headers": dict}
#: What changes in a row whenever its entry is sent.
_BOOKS: Final = frozenset({"last_run_at", "total_run_count", "date_changed"})


def around(found: type[Scheduler]) -> type[Scheduler]:
    """Return a subclass of *found*, django-celery-beat's scheduler or one made of it, for leaders."""
    kept: dict[str, Any] = {"__module__": found.__module__}
    for group in (("enabled_models_qs",), ("reserve", "sync")):
        if any(getattr(found, name) is not getattr(DatabaseScheduler, name) for name in group):
            kept |= {name: getattr(found, name) for name in group}
    entry = cast("Any", found).Entry
    kept["Entry"] = type(entry.__name__, (_Entry, entry), {"__module__": entry.__module__})
    return type(found.__name__, (Rows, found), kept)


class _Entry:
    """Keeps in the headers what an entry of Celery's configuration says to this library."""

    @classmethod
    def _unpack_options(
        cls, headers: Any = None, leader_jobs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        if leader_jobs is not None:
            plain = {
                key: value.total_seconds() if isinstance(value, timedelta) else value
                for key, value in leader_jobs.items()
            }
            headers = {**(headers or {}), HEADER: plain}
        unpack: Any = super()
        return unpack._unpack_options(headers=headers, **options)  # noqa: SLF001  its own


class _Made(NamedTuple):
    """An entry, and the values of the row it was made of."""

    values: tuple[Any, ...]
    entry: Any


class Rows(Keeper, Scheduler):
    """What `around` puts in front of a scheduler class."""

    lasting = True
    #: Seconds between writing down what was sent: as much of it is lost if the process is killed.
    sync_every = 5
    Model: Any
    Changes: Any
    enabled_models: Any
    _dirty: set[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._made: dict[str, _Made] = {}
        self._refused: dict[str, str] = {}
        self._reported: dict[str, str] = {}
        self._unsent: dict[str, datetime] = {}
        self._sent: dict[str, tuple[int, datetime]] = {}
        self._schedule: dict[str, Any] | None = None
        self._changed_at: datetime | None = None
        self._looks = 0
        self._mute = False
        super().__init__(*args, **kwargs)

    # -- reading ----------------------------------------------------------------------------------

    def enabled_models_qs(self) -> Any:
        """
        Return every enabled row.

        Its own scheduler leaves out crontabs that are not due within two hours. To the ledger these
        would look as if they had been switched off, and a new leader could not tell what was missed.
        """
        return self.Model.objects.enabled()

    @property
    def schedule(self) -> dict[str, Any]:  # type: ignore[override]  # as in django-celery-beat
        """
        The entries, read anew if the rows were changed.

        Raises:
            django.db.Error: the database is away; the next time may be better.
        """
        close_old_connections()
        with suppress(transaction.TransactionManagementError):
            transaction.commit()  # without autocommit, what others changed is not seen before
        changed_at = self.Changes.last_change()
        self._looks += 1
        if self._schedule is None or changed_at != self._changed_at or self._looks >= _LOOKS:
            self.sync()
            self._schedule = self.all_as_schedule()
            self._changed_at = changed_at
            self._looks = 0
            self._report()
        return self._schedule

    def all_as_schedule(self) -> dict[str, Any]:
        """Read all rows; return the entries of those that make sense."""
        made: dict[str, _Made] = {}
        unsent: dict[str, datetime] = {}
        refused: dict[str, str] = {}
        for row in self.enabled_models():
            if row.last_run_at is None:
                unsent[row.name] = as_utc(make_aware(row.date_changed))
            try:
                made[row.name] = self._make(row)
            except ConfigurationError as error:
                refused[row.name] = str(error)
            except Exception as error:  # noqa: BLE001  one bad row may not hold up the others
                refused[row.name] = repr(error)
        self._made, self._unsent, self._refused = made, unsent, refused
        return {name: one.entry for name, one in made.items()}

    def _make(self, row: Any) -> _Made:
        values = _values(row)
        made = self._made.get(row.name)
        if made is not None and made.values == values:
            made.entry.model = row
            return made
        _check(row)
        return _Made(values, self.Entry(row, app=self.app))

    def _report(self) -> None:
        """Name the rows that make no sense, and did make some when it was said last."""
        for name, why in self._refused.items():
            if self._reported.get(name) != why:
                _log.error("entry %r is not sent: %s", name, why)
        self._reported = self._refused

    # -- what a leader asks -----------------------------------------------------------------------

    def preload(self) -> Mapping[str, ScheduleEntry]:
        """Make the entries, which takes a millisecond each, before the node leads; only read."""
        close_old_connections()
        return self.all_as_schedule()

    def start_over(self) -> None:
        """Read all rows when next asked: others have led since."""
        self._schedule = None

    def job(self, job: BeatJob, entry: ScheduleEntry) -> BeatJob:
        """Return *job*, with what the row of *entry* says."""
        row = cast("Any", entry).model
        begin, end = _instant(row.start_time), _instant(row.expires)
        since = job.since
        if row.one_off and begin is not None and since is None:
            since = begin - _MICRO  # however late it is seen for the first time
        return replace(
            job,
            schedule=_bounded(job.schedule, begin=begin, end=end),
            once=row.one_off,
            since=since,
        )

    def changed_at(self, name: str) -> datetime | None:
        """Return when the row was changed last, if it was not sent since; otherwise None."""
        return self._unsent.get(name)

    def switched_off(self) -> Collection[str]:
        """Return the names of the rows that are switched off."""
        return tuple(self.Model.objects.filter(enabled=False).values_list("name", flat=True))

    def switch_off(self, finished: Collection[str]) -> Collection[str]:
        """Switch off the one-offs among *finished*, and what has expired."""
        entries = self._schedule or {}
        once = {name for name in finished if name in entries and entries[name].model.one_off}
        over = {name for name, entry in entries.items() if _is_over(entry)} - once
        if once or over:
            close_old_connections()
            with transaction.atomic(using=router.db_for_write(self.Model)):
                rows = self.Model.objects.filter(enabled=True)
                rows.filter(name__in=once).update(
                    enabled=False, last_run_at=None, total_run_count=0
                )
                rows.filter(name__in=over).update(enabled=False, last_run_at=None)
                self.Changes.update_changed()
        return once | over

    # -- its books --------------------------------------------------------------------------------

    def reserve(self, entry: Any) -> Any:
        """Note that *entry* was sent, to be written down before long."""
        count, _ = self._sent.get(entry.name, (0, None))
        self._sent[entry.name] = count + 1, entry._default_now()  # noqa: SLF001  its own clock
        return entry

    def sync(self) -> None:
        """
        Write down what was sent.

        Added to what the rows say, since others may have led meanwhile; and without touching when
        the row was changed, for that says when somebody changed it.
        """
        if not self._sent:
            return
        try:
            close_old_connections()
            with transaction.atomic(using=router.db_for_write(self.Model)):
                for name, (count, at) in self._sent.items():
                    self.Model.objects.filter(name=name, enabled=True).update(
                        last_run_at=at, total_run_count=F("total_run_count") + count
                    )
        except Error as error:
            level = logging.DEBUG if self._mute else logging.WARNING
            self._mute = True
            _log.log(level, "what was sent is noted in the database later: %s", error)
        else:
            self._mute = False
            self._sent.clear()

    def forget_books(self) -> None:
        """Write nothing of what was sent and is not written yet."""
        self._sent.clear()
        self._dirty.clear()  # of a subclass with books of its own

    def rest(self) -> None:
        """Close this thread's connections."""
        connections.close_all()


def _values(row: Any) -> tuple[Any, ...]:
    """Return everything that *row* and its schedule say, but for the books."""
    parts = [row] if row.scheduler is None else [row, row.scheduler]
    return tuple(
        value
        for part in parts
        for name, value in vars(part).items()
        if name not in _BOOKS and not name.startswith("_")
    )


def _check(row: Any) -> None:
    """Raise `ConfigurationError` if its own scheduler would switch *row* off, or stumble over it."""
    if row.scheduler is None:
        msg = "its schedule was deleted; give it another one"
        raise ConfigurationError(msg)
    for field, kind in _JSON.items():
        text = getattr(row, field)
        try:
            value = loads(text) if text else kind()
        except ValueError as error:
            msg = f"its {field} are no JSON: {error}"
            raise ConfigurationError(msg) from None
        if not isinstance(value, kind):
            msg = f"its {field} are {text}; write a JSON {'list' if kind is list else 'object'}"
            raise ConfigurationError(msg)


def _is_over(entry: Any) -> bool:
    expires = _instant(entry.model.expires)
    return expires is not None and expires <= as_utc(
        maybe_make_aware(entry._default_now())  # noqa: SLF001  its own clock
    )


def _instant(given: datetime | None) -> datetime | None:
    """Return what a row says as an instant; like django-celery-beat, naive ones are read as UTC."""
    return None if given is None else as_utc(maybe_make_aware(given))


def _bounded(schedule: Schedule, *, begin: datetime | None, end: datetime | None) -> Schedule:
    if begin is None and end is None:
        return schedule
    if isinstance(schedule, Paced) and begin is not None:
        schedule = Every(schedule.period, anchor=begin)
    return Bounded(schedule, begin=begin, end=end)


class Bounded:
    """
    The instants of a schedule that lie within bounds.

    Args:
        schedule: the schedule.
        begin: the first instant that counts, aware; None for no such bound.
        end: the first instant that does not count any more, aware; None likewise.
    """

    def __init__(self, schedule: Schedule, *, begin: datetime | None, end: datetime | None) -> None:
        self._schedule = schedule
        self._before = None if begin is None else as_utc(begin) - _MICRO
        self._last = None if end is None else as_utc(end) - _MICRO
        bounds = (None if bound is None else as_utc(bound).isoformat() for bound in (begin, end))
        self.fingerprint: Final = "|".join((schedule.fingerprint, *(b or "" for b in bounds)))

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if there is none."""
        found = self._schedule.next_after(self._floor(instant))
        return None if found is None or (self._last and found > self._last) else found

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        after, instant = self._floor(after), self._ceiling(instant)
        return self._schedule.latest_until(instant, after=after) if instant > after else None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*, up to *cap*."""
        after, until = self._floor(after), self._ceiling(until)
        return self._schedule.count_between(after, until, cap=cap) if until > after else (0, True)

    def describe(self) -> str:
        """Return the rule in words."""
        words = self._schedule.describe()
        if self._before is not None:
            words += f", from {(self._before + _MICRO).isoformat()}"
        if self._last is not None:
            words += f", until {(self._last + _MICRO).isoformat()}"
        return words

    def _floor(self, instant: datetime) -> datetime:
        return instant if self._before is None else max(as_utc(instant), self._before)

    def _ceiling(self, instant: datetime) -> datetime:
        return instant if self._last is None else min(as_utc(instant), self._last)
