"""
Celery's crontabs as schedules: a fixed set of instants on the wall clocks of a time zone.

Celery finds the next time of a crontab by stepping from the last one, and where clocks change the
answer depends on where it stood and on the release. Here a crontab is the set it means: every wall
time that its fields allow, read in its zone as PEP 495 reads one with ``fold=0``. A time skipped in
spring is read on the clock as it stood before (02:30 in Berlin is 03:30+02:00), a repeated one is
its first pass alone. Celery 5.7 answers the same when it is asked at a planned instant, but for
what a gap puts out of order: of 02:15 and 02:35 on Lord Howe, which become 02:45 and 02:35, it
passes over the second.

Wall times are written here as if they were in UTC: wall = instant + offset.
"""

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from logging import getLogger
from typing import Final

from celery.utils.time import LocalTimezone

from leader_jobs.daytimes import DayTimes
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.schedules import as_utc
from leader_jobs.zones import Zone

__all__ = ["Clocks", "Crontab", "Piece", "WallTimes", "clocks_of"]

_log = getLogger(__name__)
_MICRO: Final = timedelta(microseconds=1)
_MINUTE: Final = timedelta(minutes=1)
_DAY: Final = timedelta(days=1)
#: No two offsets of a zone are further apart than this, whatever happened between them.
_FURTHEST: Final = 2 * _DAY
#: After so many years without an instant there is none. 29 February falls on each day of the week
#: within 40 years.
_GIVE_UP: Final = 50
_LONGEST_MONTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class WallTimes(DayTimes):
    """
    The wall times that the fields of a crontab allow, whatever the zone.

    Args:
        minutes: 0 to 59.
        hours: 0 to 23.
        days: of the month, 1 to 31.
        months: 1 to 12.
        weekdays: 0 to 6, Sunday is 0. Unlike cron, Celery wants *days* and *weekdays* both to match.

    Attributes:
        canonical: the five fields in crontab(5)'s order, one text for all spellings of a rule.
    """

    def __init__(
        self,
        *,
        minutes: Collection[int],
        hours: Collection[int],
        days: Collection[int],
        months: Collection[int],
        weekdays: Collection[int],
    ) -> None:
        self._minutes: Final = tuple(sorted(minutes))
        self._hours: Final = tuple(sorted(hours))
        self._days: Final = tuple(sorted(days))
        self._weekdays: Final = frozenset(weekdays)
        self._per_day = len(self._minutes) * len(self._hours)
        # Only months that can have a match are looked at: none of them, if there never is one.
        first = self._days[0] if self._days and self._per_day and self._weekdays else 32
        self._months: Final = tuple(m for m in sorted(months) if first <= _LONGEST_MONTHS[m - 1])
        self.canonical: Final = " ".join(
            (
                _spell(minutes, range(60)),
                _spell(hours, range(24)),
                _spell(days, range(1, 32)),
                _spell(months, range(1, 13)),
                _spell(weekdays, range(7)),
            )
        )

    def between(self, first: datetime, end: datetime) -> Iterator[datetime]:
        """Yield those in [first, end), in order."""
        wall = self.first_from(first)
        while wall is not None and wall < end:
            yield wall
            wall = self.first_from(wall + _MINUTE)

    @staticmethod
    def _whole(wall: datetime) -> datetime:
        """Return the first whole minute not before *wall*."""
        if wall.second or wall.microsecond:
            wall = wall.replace(second=0, microsecond=0) + _MINUTE
        return wall

    def _number(self, wall: datetime) -> int:
        """Return how many times of day come before the one of *wall*, on a day that matches."""
        number = bisect_left(self._hours, wall.hour)
        earlier = number * len(self._minutes)
        if number < len(self._hours) and self._hours[number] == wall.hour:
            earlier += bisect_left(self._minutes, wall.minute)
        return earlier

    def _wall(self, day: date, number: int) -> datetime:
        hour, minute = divmod(number, len(self._minutes))
        return datetime(
            day.year, day.month, day.day, self._hours[hour], self._minutes[minute], tzinfo=UTC
        )

    def _days_from(self, day: date) -> Iterator[date]:
        """Yield the days that match from *day* on."""
        if self._matches(day):  # most often this one does
            yield day
        for year in range(day.year, min(day.year + _GIVE_UP, MAXYEAR) + 1):
            for month in self._months:
                if year > day.year or month >= day.month:
                    yield from (found for found in self._days_of(year, month) if found > day)

    def _days_until(self, day: date) -> Iterator[date]:
        """Yield the days that match from *day* backwards."""
        if self._matches(day):
            yield day
        for year in range(day.year, max(day.year - _GIVE_UP, MINYEAR) - 1, -1):
            for month in reversed(self._months):
                if year < day.year or month <= day.month:
                    days = reversed(self._days_of(year, month))
                    yield from (found for found in days if found < day)

    def _matches(self, day: date) -> bool:
        return (
            day.month in self._months
            and day.day in self._days
            and day.isoweekday() % 7 in self._weekdays
        )

    def _days_of(self, year: int, month: int) -> list[date]:
        before, length = monthrange(year, month)
        return [
            date(year, month, day)
            for day in self._days
            if day <= length and (before + day) % 7 in self._weekdays
        ]


@dataclass(frozen=True, slots=True)
class Piece:
    """
    A piece of time throughout which wall times are read alike.

    Attributes:
        begin: its first instant.
        end: the first instant after it.
        offsets: what is ahead of UTC each clock whose times are due: most often one; none while
            an hour is repeated; two after a gap, for as long as the gap was: the clock as it is,
            and as it would be without the change.
    """

    begin: datetime
    end: datetime
    offsets: tuple[timedelta, ...]


class Clocks:
    """
    What the clocks of a time zone show.

    Args:
        given: the zone. One that has no IANA name, such as the host's own, is warned of: it may be
            another one on each node.

    Attributes:
        name: its IANA name; without one, what it calls itself.
    """

    def __init__(self, given: tzinfo) -> None:
        self._zone: Final = _zone(given)
        self._years: Final[dict[int, tuple[Piece, ...]]] = {}
        self.name: Final = self._zone.name

    def pieces(self, year: int) -> tuple[Piece, ...]:
        """
        Return the pieces that *year*, in UTC, consists of.

        Raises:
            OverflowError: the end of the calendar.
        """
        known = self._years.get(year)
        if known is None:
            if not MINYEAR < year < MAXYEAR:
                msg = f"no instants are planned in the year {year}"
                raise OverflowError(msg)
            known = self._years[year] = tuple(self._find(year))
        return known

    def piece_at(self, instant: datetime) -> Piece:
        """Return the piece that *instant* lies in."""
        return next(piece for piece in self.pieces(instant.year) if instant < piece.end)

    def _find(self, year: int) -> Iterator[Piece]:
        since, until = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        for stretch in self._zone.stretches(since, until):
            turned = min(stretch.end, stretch.begin + abs(stretch.offset - stretch.before))
            gap = stretch.offset > stretch.before
            begin = max(since, stretch.begin)
            if turned > begin:
                yield Piece(begin, turned, (stretch.before, stretch.offset) if gap else ())
            if stretch.end > max(begin, turned):
                yield Piece(max(begin, turned), stretch.end, (stretch.offset,))


class Crontab:
    """
    The instants a Celery crontab means in a time zone.

    Args:
        times: its wall times.
        clocks: its zone's clocks.
        given: how the user wrote it, for `describe`.

    A pure set: no answer depends on where an earlier one left off. Near the present an answer takes
    microseconds; a crontab that never matches has none, and is seen to have none at once.
    """

    def __init__(self, times: WallTimes, clocks: Clocks, *, given: str) -> None:
        self._times: Final = times
        self._clocks: Final = clocks
        self._given: Final = given
        self.fingerprint: Final = f"celery-crontab:{times.canonical}:{clocks.name}"

    def __repr__(self) -> str:
        return f"<Crontab: {self.describe()}>"

    def describe(self) -> str:
        """Return the rule in words: ``*/5 3 * * * (Europe/Paris)``."""
        return f"{self._given} ({self._clocks.name})"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if 50 years have none."""
        since = as_utc(instant)
        last_year = since.year + _GIVE_UP
        try:
            since += _MICRO
            while since.year <= last_year:
                piece = self._clocks.piece_at(since)
                begin, since = since, piece.end
                if piece.offsets:
                    found = self._first(begin, piece.offsets)
                    if found is None or found < piece.end:
                        return found
                    # Another offset may hold by then, so that it is only about then.
                    since = max(since, found - _FURTHEST)
        except OverflowError:
            pass  # the end of the calendar
        return None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        until, since = as_utc(instant), as_utc(after)
        try:
            while until > since:
                piece = self._clocks.piece_at(until)
                end, until = until, piece.begin - _MICRO
                if piece.offsets:
                    found = self._last(end, piece.offsets)
                    if found is None or found >= piece.begin:
                        return found if found is not None and found > since else None
                    until = min(until, found + _FURTHEST)
        except OverflowError:
            pass  # the beginning of the calendar
        return None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*, up to *cap*."""
        since, end = as_utc(after) + _MICRO, as_utc(until) + _MICRO
        total = 0
        while since < end:
            piece = self._clocks.piece_at(since)
            total += self._count(since, min(end, piece.end), piece.offsets, cap=cap - total)
            if total >= cap:
                return cap, False
            since = piece.end
        return total, True

    def _first(self, begin: datetime, offsets: tuple[timedelta, ...]) -> datetime | None:
        """Return the first instant not before *begin* on any of the clocks."""
        walls = ((self._times.first_from(begin + offset), offset) for offset in offsets)
        return min((wall - offset for wall, offset in walls if wall is not None), default=None)

    def _last(self, end: datetime, offsets: tuple[timedelta, ...]) -> datetime | None:
        """Return the last instant not after *end* on any of the clocks."""
        walls = ((self._times.last_before(end + offset + _MICRO), offset) for offset in offsets)
        return max((wall - offset for wall, offset in walls if wall is not None), default=None)

    def _count(
        self, begin: datetime, end: datetime, offsets: tuple[timedelta, ...], *, cap: int
    ) -> int:
        """Count the instants in [begin, end), part of a piece."""
        if len(offsets) == 1:
            return self._times.count(begin + offsets[0], end + offsets[0], cap=cap)
        return len(
            {
                wall - offset
                for offset in offsets
                for wall in self._times.between(begin + offset, end + offset)
            }
        )


def clocks_of(zone: tzinfo) -> Clocks:
    """Return the clocks of *zone*, the same object each time: finding their changes takes long."""
    try:
        return _shared(zone)
    except TypeError:  # not hashable, as those of dateutil
        return Clocks(zone)


_shared: Final = lru_cache(maxsize=256)(Clocks)


class _Unnamed(Zone):
    """A zone that has no IANA name; its own name is all there is to tell it by."""

    def __init__(self, given: tzinfo, name: str) -> None:
        self.name, self._tzinfo = name, given

    def _offset(self, instant: datetime) -> timedelta:
        # Celery's LocalTimezone takes the instant for a wall time; the host itself does not.
        zone = None if isinstance(self._tzinfo, LocalTimezone) else self._tzinfo
        return instant.astimezone(zone).utcoffset() or timedelta()


def _zone(given: tzinfo) -> Zone:
    try:
        return Zone(given)
    except ConfigurationError:
        name = str(given)
        _log.warning(
            "time zone %s has no IANA name: a node with another local zone would plan other "
            "instants; name one in Celery's setting `timezone`",
            name,
        )
        return _Unnamed(given, name)


def _spell(numbers: Collection[int], everything: range) -> str:
    if len(set(numbers)) == len(everything):
        return "*"
    return ",".join(map(str, sorted(set(numbers))))
