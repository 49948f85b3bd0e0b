"""
Triggers that go by wall clocks: the sets of wall times that APScheduler's own objects mean.

`FieldTimes` are those of a `CronTrigger`, `DateTimes` those of a `CalendarIntervalTrigger`. What
becomes of a wall time in a zone whose clocks change is `leader_jobs.schedules.WallClock`'s concern:
asking the triggers themselves would give ``30 2 * * *`` twice in autumn, and may never come to an
end where a time is skipped (APScheduler#1036).
"""

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from datetime import MAXYEAR, MINYEAR, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from threading import Lock
from typing import Any, Final

from apscheduler.triggers.cron import CronTrigger

from leader_jobs.daytimes import DayTimes
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.schedules import WallClock
from leader_jobs.zones import Stretch, Zone

__all__ = ["CalendarClock", "CronClock", "zone_of"]

_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
#: After so many years without a day that matches there is none. 29 February falls on each day of
#: the week within 40 years.
_GIVE_UP: Final = 50
#: Any day: hours, minutes and seconds are asked for on it, months in its year.
_SOME_DAY: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall time


def zone_of(given: tzinfo) -> Zone:
    """
    Return the time zone that a trigger holds: of zoneinfo, pytz, dateutil or `datetime.timezone`.

    Raises:
        ConfigurationError: it has no IANA name and no fixed offset either, like the local zone of a
            host that does not know its own name; nodes could not tell whether they mean the same.
    """
    named = getattr(given, "key", None) or getattr(given, "zone", None)
    fixed = None if named else given.utcoffset(None)
    if fixed is not None:
        return Zone(timezone(fixed))
    try:
        return Zone(given)
    except ConfigurationError as error:
        msg = f"{error} (as the time zone of the trigger, or of its scheduler)"
        raise ConfigurationError(msg) from None


class FieldTimes(DayTimes):
    """
    The wall times that the fields of a `CronTrigger` allow.

    Args:
        fields: the trigger's own field objects; they are asked, not parsed.

    Attributes:
        fixed: whether hour and minute are named: neither begins with ``*``.
        canonical: the fields in APScheduler's order, as they spell themselves.
    """

    def __init__(self, fields: list[Any]) -> None:
        by_name = {field.name: field for field in fields}
        self._hours: Final = _allowed(by_name["hour"], range(24))
        self._minutes: Final = _allowed(by_name["minute"], range(60))
        self._seconds: Final = _allowed(by_name["second"], range(60))
        self._per_day = len(self._hours) * len(self._minutes) * len(self._seconds)
        self._year: Final = by_name["year"]
        self._months: Final = _allowed(by_name["month"], range(1, 13))
        self._of_days: Final = [by_name[name] for name in ("day", "week", "day_of_week")]
        # As many as one look for a day that never comes can ask for.
        self._days_of: Final = lru_cache(maxsize=(_GIVE_UP + 1) * 12)(self._find_days)
        self.fixed: Final = not any(str(by_name[n]).startswith("*") for n in ("hour", "minute"))
        self.canonical: Final = ";".join(str(field) for field in fields)

    @staticmethod
    def _whole(wall: datetime) -> datetime:
        """Return the first whole second not before *wall*."""
        return wall.replace(microsecond=0) + _SECOND if wall.microsecond else wall

    def _number(self, wall: datetime) -> int:
        """Return how many times of a day come before that of *wall*, a whole second."""
        number, known = 0, True
        for values, value in (
            (self._hours, wall.hour),
            (self._minutes, wall.minute),
            (self._seconds, wall.second),
        ):
            place = bisect_left(values, value) if known else 0
            number = number * len(values) + place
            known = known and place < len(values) and values[place] == value
        return number

    def _wall(self, day: date, number: int) -> datetime:
        number, second = divmod(number, len(self._seconds))
        hour, minute = divmod(number, len(self._minutes))
        return datetime.combine(
            day, time(self._hours[hour], self._minutes[minute], self._seconds[second])
        )

    def _days_from(self, day: date) -> Iterator[date]:
        """Yield the days that match from *day* on."""
        for year in range(day.year, min(day.year + _GIVE_UP, MAXYEAR) + 1):
            for month in self._months_of(year):
                if year > day.year or month >= day.month:
                    yield from (found for found in self._days_of(year, month) if found >= day)

    def _days_until(self, day: date) -> Iterator[date]:
        """Yield the days that match from *day* backwards."""
        for year in range(day.year, max(day.year - _GIVE_UP, MINYEAR) - 1, -1):
            for month in reversed(self._months_of(year)):
                if year < day.year or month <= day.month:
                    days = reversed(self._days_of(year, month))
                    yield from (found for found in days if found <= day)

    def _months_of(self, year: int) -> tuple[int, ...]:
        due = self._per_day and _matches(self._year, date(year, 1, 1))
        return self._months if due else ()

    def _find_days(self, year: int, month: int) -> tuple[date, ...]:
        first = date(year, month, 1)
        days = (first + number * _DAY for number in range(_length(first)))
        return tuple(day for day in days if all(_matches(field, day) for field in self._of_days))


class CronClock(WallClock):
    """
    The instants a `CronTrigger` means, without its jitter and its bounds.

    Attributes:
        fingerprint: one text for one rule: the fields and the zone.

    Where clocks change, it is as for `leader_jobs.schedules.Cron`: once, if hour and minute are
    named; by the hands, if one of them begins with ``*`` (or was not given, and so is ``*``).
    """

    def __init__(self, trigger: CronTrigger) -> None:
        times, zone = FieldTimes(trigger.fields), zone_of(trigger.timezone)
        super().__init__(times, zone)
        named = ", ".join(f"{f.name}='{f}'" for f in trigger.fields if not f.is_default)
        self._words: Final = f"cron[{named}] ({zone.name})"
        self.fingerprint: Final = f"aps-cron:{times.canonical}:{zone.name}"

    def describe(self) -> str:
        """Return the rule in words: ``cron[hour='2', minute='30'] (Europe/Berlin)``."""
        return self._words


class DateTimes:
    """
    One wall time on each of the days that a `CalendarIntervalTrigger` steps on.

    Args:
        start: the first day.
        end: no day after it counts; None for no bound.
        months: how many months a step takes; repeated until there is such a day of the month.
        days: how many days are added then. Neither may be negative, nor both zero.
        at: the time of day.
    """

    fixed: Final = True

    def __init__(self, start: date, end: date | None, *, months: int, days: int, at: time) -> None:
        self._at: Final = at
        self._end: Final = end if end is None else min(end, date.max - _DAY)
        self._months: Final = months
        self._more_days: Final = days * _DAY
        #: The days from the first one on, as far as they have been asked for.
        self._days: Final = [start]
        self._growing: Final = Lock()

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first one not before *wall*; None if there is none."""
        number = self._number(wall)
        found = number < len(self._days) and (self._end is None or self._days[number] <= self._end)
        return datetime.combine(self._days[number], self._at) if found else None

    def last_before(self, wall: datetime) -> datetime | None:
        """Return the last one before *wall*; None if there is none."""
        number = self._number(wall)
        return datetime.combine(self._days[number - 1], self._at) if number else None

    def count(self, first: datetime, end: datetime, *, cap: int) -> int:
        """Count those in [first, end)."""
        return max(0, self._number(end) - self._number(first))

    def _number(self, wall: datetime) -> int:
        """Return how many come before *wall*."""
        day = wall.date() if wall.time() <= self._at else wall.date() + _DAY
        if self._end is not None:
            day = min(day, self._end + _DAY)
        with self._growing:
            while self._days[-1] < day:
                following = self._after(self._days[-1])
                if following is None:
                    return len(self._days)
                self._days.append(following)
        return bisect_left(self._days, day)

    def _after(self, day: date) -> date | None:
        """Return the day one step after *day*; None at the end of the calendar."""
        first = day.replace(day=1)
        try:
            while self._months:
                year, month = divmod(first.year * 12 + first.month - 1 + self._months, 12)
                first = date(year, month + 1, 1)
                if day.day <= _length(first):
                    day = first.replace(day=day.day)
                    break
            return day + self._more_days
        except (ValueError, OverflowError):  # the year 10000
            return None


class CalendarClock(WallClock):
    """
    The instants a `CalendarIntervalTrigger` means, without its jitter.

    Attributes:
        fingerprint: one text for one rule: the step, where it stands, the time of day, the zone.

    The days are counted from ``start_date``, which is today in the process that makes the trigger
    if it was not given. So of the start only that is part of the fingerprint which says on which
    days the steps fall: nothing for every day, the day of the month for every month. Whoever steps
    further than that should give ``start_date``, as processes started on two days differ otherwise.

    Where clocks change, it is as APScheduler documents it: a day on which the time is skipped is
    left out, and of a repeated time the first pass counts.

    Raises:
        ConfigurationError: a step does not lead forward, or the zone has no name.
    """

    def __init__(self, trigger: Any) -> None:
        given = trigger.__getstate__()
        years, months, weeks, days = given["interval"]
        months, days = years * 12 + months, weeks * 7 + days
        if min(months, days) < 0 or months == days == 0:
            msg = f"interval of {trigger!r} does not lead forward; give whole positive numbers"
            raise ConfigurationError(msg)
        start, end, at = given["start_date"], given["end_date"], time(*given["time"])
        zone = zone_of(given["timezone"])
        super().__init__(DateTimes(start, end, months=months, days=days, at=at), zone)
        step = " and ".join(f"{n} {unit}" for n, unit in ((months, "mo"), (days, "d")) if n)
        until = f" until {end}" if end is not None else ""
        self._words: Final = f"every {step} at {at} from {start}{until} ({zone.name})"
        phase = _phase(start, months, days)
        self.fingerprint: Final = (
            f"aps-calendar:{months}:{days}:{phase}:{at}:{end or ''}:{zone.name}"
        )

    def describe(self) -> str:
        """Return the rule in words: ``every 2 mo at 03:00:00 from 2026-01-31 (UTC)``."""
        return self._words

    def _opening(self, stretch: Stretch) -> datetime:
        """Return the first wall time that counts: not one in a gap, nor one that is repeated."""
        return (stretch.begin + max(stretch.before, stretch.offset)).replace(tzinfo=None)


def _phase(start: date, months: int, days: int) -> str:
    """Return on which days the steps from *start* fall: the same for all starts of one sequence."""
    if not months:
        return str(start.toordinal() % days)
    if not days:
        return f"{(start.year * 12 + start.month - 1) % months}-{start.day}"
    return start.isoformat()


def _allowed(field: Any, values: range) -> tuple[int, ...]:
    """Return those of *values* that *field* allows."""
    place: Any = _SOME_DAY.replace
    return tuple(value for value in values if _matches(field, place(**{field.name: value})))


def _matches(field: Any, wall: date) -> bool:
    """Return whether *field* allows what *wall* has; its next value is then that very one."""
    return bool(field.get_next_value(wall) == field.get_value(wall))


def _length(first: date) -> int:
    """Return how many days the month has that begins on *first*."""
    return monthrange(first.year, first.month)[1]
