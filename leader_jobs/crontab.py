"""
Crontab lines: what one says about wall clocks, whatever the time zone.

cronsim reads the line and walks over wall times, given and returned here as naive datetimes: a wall
clock without a zone never changes. What becomes of a wall time in a zone is `leader_jobs.schedules`'
concern.
"""

from bisect import bisect_left
from datetime import datetime, timedelta
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from leader_jobs.exceptions import ConfigurationError, LeaderJobsError
from leader_jobs.names import nearest

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = ["CronLine"]

_FIELDS: Final = ("minute", "hour", "day", "month", "weekday")
_WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MICRO: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_MIDNIGHT: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall time, of any day


class CronLine:
    """
    A crontab line.

    Args:
        expression: five fields as in crontab(5), with ranges, steps, names, and cronsim's ``L``,
            ``LW`` and ``#``; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.

    Attributes:
        given: the expression as it was given, with single spaces.
        canonical: its five fields in capitals.
        fixed: whether minutes and hours are named: neither field begins with ``*``. Debian's cron
            calls the other lines wildcard jobs and treats them differently when clocks change.

    Raises:
        ConfigurationError: it is no crontab line, or cronsim is not installed.
    """

    def __init__(self, expression: str) -> None:
        self._simulate: Final = _cronsim()
        self.canonical: Final = _five_fields(expression).upper()
        self.given: Final = " ".join(expression.split())
        minute, hour, *_ = self.canonical.split()
        self.fixed: Final = not (minute.startswith("*") or hour.startswith("*"))
        fault = self._fault(self.canonical)
        if fault:
            msg = f"cron is {self.given!r}: {self._explain(fault)}"
            raise ConfigurationError(msg)

    def first_from(self, wall: datetime) -> datetime | None:
        """
        Return the first wall time not before *wall*; None if the next 50 years have none.

        Raises:
            LeaderJobsError: cronsim stepped backwards. Whoever went on from its answer would
                never come to an end (as in APScheduler#1036).
            OverflowError: the end of the calendar.
        """
        found = next(self._simulate(self.canonical, wall - _MICRO), None)
        if found is not None and found < wall:
            msg = (
                f"cron {self.given!r} does not move on from {wall} but to {found}: "
                "this is a defect of cronsim; install another version"
            )
            raise LeaderJobsError(msg)
        return found

    def last_before(self, wall: datetime) -> datetime | None:
        """
        Return the last wall time before *wall*; None if the last 50 years have none.

        Raises:
            OverflowError: the beginning of the calendar.
        """
        return next(self._simulate(self.canonical, wall, reverse=True), None)

    def count(self, first: datetime, end: datetime, *, cap: int) -> int:
        """Count the wall times in [first, end), a day at a time; stops once it reaches *cap*."""
        times = self._times
        total = 0
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
        days = " ".join(["0", "0", *self.canonical.split()[2:]])
        for day in self._simulate(days, midnight - _MICRO):
            if day >= end or total >= cap:
                break
            total += bisect_left(times, end - day) - bisect_left(times, first - day)
        return total

    @cached_property
    def _times(self) -> tuple[timedelta, ...]:
        """The times of day of the line, since midnight."""
        minute, hour, *_ = self.canonical.split()
        walls = self._simulate(f"{minute} {hour} * * *", _MIDNIGHT - _MICRO)
        return tuple(wall - _MIDNIGHT for wall in takewhile(lambda w: w < _MIDNIGHT + _DAY, walls))

    def _fault(self, line: str) -> str:
        """Return what cronsim has against *line*, or an empty text."""
        from cronsim import CronSimError

        try:
            self._simulate(line, _MIDNIGHT)
        except CronSimError as error:
            return str(error)
        return ""

    def _explain(self, fault: str) -> str:
        minute, hour, day, _, weekday = self.canonical.split()
        if "day-of-month" in fault and not self._fault(f"{minute} {hour} {day} * {weekday}"):
            return "it never fires; name a day that the month has"
        return f"{fault[0].lower()}{fault[1:]}; write five fields: {' '.join(_FIELDS)}"


def _cronsim() -> "type[CronSim]":
    try:
        from cronsim import CronSim
    except ImportError:
        msg = 'cron schedules need cronsim; run: pip install "leader-jobs[cron]"'
        raise ConfigurationError(msg) from None
    return CronSim


def _five_fields(expression: object) -> str:
    wanted = f"write five fields: {' '.join(_FIELDS)}"
    if not isinstance(expression, str):
        msg = f"cron is {expression!r}; {wanted}"
        raise ConfigurationError(msg)
    fields = expression.split()
    if len(fields) == 1 and fields[0].startswith("@"):
        return _word(fields[0].lower())
    if len(fields) == len(_FIELDS) + 1:
        msg = (
            f"cron is {expression!r}: six fields, but seconds are not supported; {wanted}; "
            "for less than a minute use every="
        )
        raise ConfigurationError(msg)
    if len(fields) != len(_FIELDS):
        msg = f"cron is {expression!r}: that makes {len(fields)} fields; {wanted}"
        raise ConfigurationError(msg)
    return " ".join(fields)


def _word(word: str) -> str:
    if word not in _WORDS:
        near = nearest(word, _WORDS)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(_WORDS)}"
        msg = f"cron is {word!r}: not a known word; {hint}"
        raise ConfigurationError(msg)
    return _WORDS[word]
