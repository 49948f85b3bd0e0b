"""
Schedules: which instants a job is planned for.

A schedule is a fixed set of UTC instants. Every question about it is answered from that set alone:
never from the local time zone, the clock, or the place where an earlier question left off. So any
two nodes that agree on the rule (and, for a named zone, on the time zone database) agree on every
instant, and an instant can be the identity of an occurrence.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, Protocol

from leader_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from leader_jobs.zones import Stretch, Zone

__all__ = [
    "EPOCH",
    "Cron",
    "Every",
    "Schedule",
    "WallClock",
    "WallTimes",
    "as_utc",
    "microseconds",
]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_LONGEST: Final = timedelta(days=36525)


class Schedule(Protocol):
    """A set of planned UTC instants; all arguments are aware datetimes, all results are in UTC."""

    @property
    def fingerprint(self) -> str:
        """A text that is the same on every node and in every release as long as the rule is."""
        ...

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if there is none."""
        ...

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        ...

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """
        Count the planned instants later than *after* and not later than *until*.

        Returns:
            The number and True; or *cap* and False, if counting stopped there: at least so many.
        """
        ...

    def describe(self) -> str:
        """Return the rule in words, for pages and logs."""
        ...


def as_utc(instant: datetime) -> datetime:
    """
    Return *instant* in UTC.

    Raises:
        ConfigurationError: it is naive, so it means another instant on each node.
    """
    if instant.tzinfo is UTC:
        return instant
    if instant.utcoffset() is None:
        msg = f"{instant!r} has no time zone; pass an aware datetime"
        raise ConfigurationError(msg)
    return instant.astimezone(UTC)


def microseconds(key: str, value: object, *, least: timedelta) -> int:
    """
    Return the span *value*, seconds or a timedelta, in whole microseconds.

    Args:
        key: what to call the value in messages.
        value: what the user gave.
        least: the shortest span allowed; the longest is 100 years.

    Raises:
        ConfigurationError: it is no span, or out of range.
    """
    given = value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) <= _LONGEST.total_seconds():  # neither NaN nor infinite
            value = timedelta(microseconds=round(value * 1_000_000))
    elif not isinstance(value, timedelta):
        msg = f"{key} is {value!r}; it must be a number of seconds or a timedelta"
        raise ConfigurationError(msg)
    if not (isinstance(value, timedelta) and least <= value <= _LONGEST):
        msg = (
            f"{key} is {given!r}; it must be between {least.total_seconds():g} s and 100 years, "
            "as a number of seconds or a timedelta"
        )
        raise ConfigurationError(msg)
    return value // _MICRO


class Every:
    """
    The instants ``anchor + n * period`` for every whole n.

    Args:
        period: seconds or a timedelta, from 0.1 s to 100 years; kept in whole microseconds.
        anchor: an instant the rule goes through. By default the Unix epoch, so that a period of
            30 s falls on :00 and :30 of every minute on every node.

    Raises:
        ConfigurationError: the period is no span or out of range, or the anchor is naive.

    Instants are computed in integers and never from the one before, so they do not drift.
    """

    def __init__(self, period: float | timedelta, *, anchor: datetime = EPOCH) -> None:
        self._period: Final = microseconds("every", period, least=timedelta(seconds=0.1))
        self._phase: Final = (as_utc(anchor) - EPOCH) // _MICRO % self._period
        self.fingerprint: Final = f"every:{self._period}:{self._phase}"

    def __repr__(self) -> str:
        return f"<Every: {self.describe()}>"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None after the year 9999."""
        number = self._number(instant) + 1
        try:
            return EPOCH + timedelta(microseconds=self._phase + number * self._period)
        except OverflowError:
            return None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        number = self._number(instant)
        if number <= self._number(after):
            return None
        return EPOCH + timedelta(microseconds=self._phase + number * self._period)

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*; always exact."""
        return max(0, self._number(until) - self._number(after)), True

    def describe(self) -> str:
        """Return the rule in words: ``every 30 s``."""
        words = f"every {self._period / 1_000_000:.6f}".rstrip("0").rstrip(".") + " s"
        for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
            number, rest = divmod(self._period, size * 1_000_000)
            if not rest:
                words = f"every {number} {unit}"
                break
        if self._phase:
            words += f", through {(EPOCH + timedelta(microseconds=self._phase)).isoformat()}"
        return words

    def _number(self, instant: datetime) -> int:
        """Return n of the newest planned instant not later than *instant*."""
        return ((as_utc(instant) - EPOCH) // _MICRO - self._phase) // self._period


#: How far one look for an instant reaches. Clocks are less than a day away from UTC, so a look that
#: begins a day before a wall time read as UTC, and is this long, sees that wall time's instants.
_WINDOW: Final = 3 * _DAY
#: After so many years without an instant there is none; cronsim's own limit.
_GIVE_UP: Final = 50
#: Where a new line is asked for its first instant: not before zones changed their clocks at all,
#: or a time that is always in their gap would be found in the years before.
_OUR_TIME: Final = datetime(2025, 1, 1, tzinfo=UTC)


class WallTimes(Protocol):
    """A set of wall times, all of them naive datetimes: `leader_jobs.crontab.CronLine` is one."""

    @property
    def fixed(self) -> bool:
        """Whether a time that clocks skip is made up for, and one they repeat is due once."""
        ...

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first wall time not before *wall*; None if the next 50 years have none."""
        ...

    def last_before(self, wall: datetime) -> datetime | None:
        """Return the last wall time before *wall*; None if the last 50 years have none."""
        ...

    def count(self, first: datetime, end: datetime, *, cap: int) -> int:
        """Count the wall times in [first, end); may stop once it reaches *cap*."""
        ...


class WallClock:
    """
    The instants at which the wall clocks of a time zone show a set of wall times.

    Args:
        times: the wall times.
        zone: whose clocks.

    When clocks change, the rules of Debian's cron hold, for shifts of any length. Fixed times are
    due once: right after the gap if they were skipped (several skipped times are one instant), and
    in the first pass if they are repeated. Other times follow the hands: nothing in a gap, both
    passes of a repeated hour.
    """

    def __init__(self, times: WallTimes, zone: "Zone") -> None:
        self._times: Final = times
        self._zone: Final = zone

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if 50 years have none."""
        since = as_utc(instant)
        last_year = since.year + _GIVE_UP
        try:
            since += _MICRO
            while since.year <= last_year:
                found = self._first_in(since, since + _WINDOW)
                if found is not None:
                    return found
                wall = self._times.first_from(_wall(since + _WINDOW, -_DAY))
                if wall is None:
                    return None
                since = max(since + _WINDOW, _instant(wall, _DAY))
        except OverflowError:
            pass  # the end of the calendar
        return None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        until, since = as_utc(instant), as_utc(after)
        try:
            until, since = until + _MICRO, since + _MICRO
            while until > since:
                found = self._last_in(max(since, until - _WINDOW), until)
                if found is not None:
                    return found
                wall = self._times.last_before(_wall(until - _WINDOW, _DAY))
                if wall is None:
                    return None
                until = min(until - _WINDOW, _instant(wall, -_DAY))
        except OverflowError:
            pass  # the beginning of the calendar
        return None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*, up to *cap*."""
        since, end = as_utc(after) + _MICRO, as_utc(until) + _MICRO
        total = 0
        for stretch in self._zone.stretches(since, end):
            first = self._first(stretch, since)
            if first is None:
                continue
            # A change of the clocks bears on the first instant only; the rest are plain wall times.
            rest = _wall(first, stretch.offset) + _MICRO, _wall(stretch.end, stretch.offset)
            total += 1 + self._times.count(*rest, cap=cap - total)
            if total >= cap:
                return cap, False
        return total, True

    def _first_in(self, since: datetime, until: datetime) -> datetime | None:
        """Return the first planned instant in [since, until)."""
        found = (self._first(stretch, since) for stretch in self._zone.stretches(since, until))
        return next((instant for instant in found if instant is not None), None)

    def _last_in(self, since: datetime, until: datetime) -> datetime | None:
        """Return the last planned instant in [since, until)."""
        for stretch in reversed(list(self._zone.stretches(since, until))):
            wall = self._times.last_before(_wall(stretch.end, stretch.offset))
            if wall is not None and wall >= self._opening(stretch):
                instant = max(stretch.begin, _instant(wall, stretch.offset))
                return instant if instant >= since else None
        return None

    def _first(self, stretch: "Stretch", since: datetime) -> datetime | None:
        """Return the first planned instant of *stretch* not before *since*."""
        wall = self._opening(stretch)
        if since > stretch.begin:
            wall = max(wall, _wall(since, stretch.offset))
        found = self._times.first_from(wall)
        if found is None:
            return None
        instant = max(stretch.begin, _instant(found, stretch.offset))
        return instant if instant < stretch.end else None

    def _opening(self, stretch: "Stretch") -> datetime:
        """
        Return the first wall time that counts in *stretch*.

        Fixed times go on from where the clocks stood before the change: they make up for a gap, and
        wait until a repetition is over. All others go by what the clocks show now.
        """
        return _wall(stretch.begin, stretch.before if self._times.fixed else stretch.offset)


class Cron(WallClock):
    """
    The instants a crontab line names on the wall clocks of a time zone.

    Args:
        expression: see `leader_jobs.crontab.CronLine`.
        timezone: see `leader_jobs.zones.Zone`.

    Raises:
        ConfigurationError: the line is not one, never fires, the zone is unknown, or cronsim is
            not installed.

    Where clocks change, the times of a line that names its minutes and hours (``30 2 * * *``) are
    fixed; a line whose minute or hour begins with ``*`` follows the hands: see `WallClock`.

    cronsim applies the same rules, but its walk through a change can depend on where it begins:
    on the day Lord Howe sets its clocks back by half an hour, ``35 * * * *`` asked at 15:00 UTC
    leaves out the 15:05 UTC that it finds when asked at 15:01. No two nodes begin alike, so only
    its walk over wall times is used.
    """

    def __init__(self, expression: str, *, timezone: str | tzinfo = "UTC") -> None:
        # Programs without crontab lines need not pay for importing what reads them.
        from leader_jobs.crontab import CronLine
        from leader_jobs.zones import Zone

        line, zone = CronLine(expression), Zone(timezone)
        super().__init__(line, zone)
        self._words: Final = f"{line.given} ({zone.name})"
        # Two spellings of one rule ("1-5", "MON-FRI") differ here: an edit that changes nothing is
        # taken for one that does, never the other way round.
        self.fingerprint: Final = f"cron:{line.canonical}:{zone.name}"
        if self.next_after(_OUR_TIME) is None:
            msg = f"cron is {self.describe()!r}: it never fires; name a time that exists there"
            raise ConfigurationError(msg)

    def __repr__(self) -> str:
        return f"<Cron: {self.describe()}>"

    def describe(self) -> str:
        """Return the rule in words: ``*/5 * * * * (Europe/Paris)``."""
        return self._words


def _wall(instant: datetime, offset: timedelta) -> datetime:
    return (instant + offset).replace(tzinfo=None)


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return wall.replace(tzinfo=UTC) - offset
