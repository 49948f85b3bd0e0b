"""
The schedules of Celery's beat entries, as `leader_jobs.schedules.Schedule`.

Celery asks a schedule whether it is due, given when the entry ran last; the ledger asks for planned
instants. `planned` answers for every kind of schedule object:

==============================================  ===================================================
``crontab``, django-celery-beat's               `leader_jobs.adapters.celery_crontab.Crontab`
``TzAwareCrontab``
``schedule`` (an interval)                      `Paced`: cursor + n * period
``schedule(relative=True)``, ``solar``, any     `Chained`: each instant follows from the one before
other that can tell its next time
``clocked`` of django-celery-beat               `Once`
all others                                      `Asked`: due when it says so, at most once
==============================================  ===================================================

Only the first and the fourth are sets in themselves. The others go by the ledger's cursor, which is
the last planned instant, or the instant at which the entry was new: nodes agree because they all
begin at the cursor, and phase is kept because the cursor is itself planned.
"""

from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from celery import Celery
from celery.schedules import crontab
from celery.schedules import schedule as interval

from leader_jobs.adapters.celery_chains import Asked, CannotTell, Chained
from leader_jobs.adapters.celery_crontab import Crontab, WallTimes, clocks_of
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.schedules import Every, Schedule, as_utc, microseconds

__all__ = ["Asked", "Chained", "Crontab", "Once", "Paced", "planned"]

_MICRO: Final = timedelta(microseconds=1)
_SHORTEST: Final = timedelta(seconds=0.1)


def planned(schedule: object, *, name: str, app: Celery) -> Schedule:
    """
    Return the planned instants of a beat entry.

    Args:
        schedule: the entry's schedule object; it is neither changed nor asked when it is due now,
            unless there is no other way.
        name: the entry's name, for messages.
        app: its application, whose time zone counts for schedules without one of their own.

    Raises:
        ConfigurationError: naming the entry: an interval is shorter than 0.1 s or none at all, or
            the object is no schedule.
    """
    kind = type(schedule)
    if kind is crontab:
        return _crontab(schedule, app.timezone)
    # What is django-celery-beat's is known by its looks: its models need not be installed.
    if kind.__name__ == "TzAwareCrontab" and isinstance(schedule, crontab):
        return _crontab(schedule, getattr(schedule, "tz", app.timezone))
    if isinstance(instant := getattr(schedule, "clocked_time", None), datetime):
        return Once(instant)
    if kind is interval:
        given = vars(schedule)
        period = microseconds(f"entry {name!r}: run_every", given["run_every"], least=_SHORTEST)
        if not given["relative"]:
            return Paced(timedelta(microseconds=period))
    if not callable(getattr(schedule, "is_due", None)):
        msg = f"entry {name!r}: {schedule!r} is no schedule; give it a crontab or an interval"
        raise ConfigurationError(msg)
    try:
        return Chained(schedule, name=name, app=app)
    except CannotTell as why:
        return Asked(schedule, name=name, app=app, why=str(why))


def _crontab(schedule: Any, zone: tzinfo) -> Crontab:
    times = WallTimes(
        minutes=schedule.minute,
        hours=schedule.hour,
        days=schedule.day_of_month,
        months=schedule.month_of_year,
        weekdays=schedule.day_of_week,
    )
    fields = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
    given = [getattr(schedule, f"_orig_{field}", None) for field in fields]
    spelled = all(isinstance(field, (str, int)) for field in given)
    words = " ".join("".join(str(field).split()) for field in given)
    return Crontab(times, clocks_of(zone), given=words if spelled else times.canonical)


class Once:
    """
    One instant, and no other.

    Attributes:
        instant: it, in UTC.

    An entry that is new after its instant is never due by the ledger's rules, which begin with now.
    Celery would send it at once; who wants that has the entry begin before `instant`.
    """

    def __init__(self, instant: datetime) -> None:
        self.instant: Final = as_utc(instant)
        self.fingerprint: Final = f"celery-clocked:{self.instant.isoformat()}"

    def __repr__(self) -> str:
        return f"<Once: {self.describe()}>"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant if it is strictly after *instant*."""
        return self.instant if self.instant > instant else None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the instant if it is later than *after* and not later than *instant*."""
        return self.instant if after < self.instant <= instant else None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Return 1 if the instant is later than *after* and not later than *until*, or 0."""
        return int(after < self.instant <= until), True

    def describe(self) -> str:
        """Return the rule in words: ``once at 2026-03-01T12:00:00+00:00``."""
        return f"once at {self.instant.isoformat()}"


class Paced:
    """
    The instants ``cursor + n * period``, for n from 1: what an interval means in Celery.

    Attributes:
        period: how far they are apart; from 0.1 s.

    An interval has no times of its own: Celery counts it from the last run, and is late by a little
    more each time. Here it is counted from the ledger's cursor in whole microseconds and does not
    drift. So, unlike `leader_jobs.schedules.Every`, whose instants are the same for all who have the
    rule, this is a set only relative to where one begins, and two entries of 30 s may have two
    phases, as in Celery. *after* must be the cursor, as it is for `leader_jobs.occurrences.plan`.
    """

    def __init__(self, period: timedelta) -> None:
        self.period: Final = period
        self.fingerprint: Final = f"celery-interval:{period // _MICRO}"

    def __repr__(self) -> str:
        return f"<Paced: {self.describe()}>"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant one period after *instant*; None after the year 9999."""
        try:
            return as_utc(instant) + self.period
        except OverflowError:
            return None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest instant, counted from *after*, not later than *instant*."""
        number, _ = self.count_between(after, instant, cap=1)
        return as_utc(after) + number * self.period if number else None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the instants, counted from *after*, not later than *until*; always exact."""
        return max(0, (as_utc(until) - as_utc(after)) // self.period), True

    def describe(self) -> str:
        """Return the rule in words: ``every 30 s``."""
        return Every(self.period).describe()
