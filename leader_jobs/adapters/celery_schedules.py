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
from leader_jobs.pacing import Once, Paced
from leader_jobs.schedules import Schedule, microseconds

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
        # New after its instant it is never due by the ledger's rules, which begin with now. Celery would
        # send it at once; who wants that has the entry begin before.
        return Once(instant, kind="celery-clocked")
    if kind is interval:
        given = vars(schedule)
        period = microseconds(f"entry {name!r}: run_every", given["run_every"], least=_SHORTEST)
        if not given["relative"]:
            return Paced(timedelta(microseconds=period), kind="celery-interval")
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
