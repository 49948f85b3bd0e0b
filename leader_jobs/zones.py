"""
Time zones: finding one by name, and the stretches of time between changes of its clocks.

Python's time zones convert instants but do not say when their clocks change, so changes are looked
for: a day at a time, then by halving.
"""

import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import nearest

__all__ = ["Stretch", "Zone"]

_MICRO: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    A stretch of time during which the clocks of a zone do not change.

    Attributes:
        begin: its first instant.
        end: the first instant after it.
        before: what the clocks were ahead of UTC just before *begin*.
        offset: what they are ahead of UTC during the stretch.
    """

    begin: datetime
    end: datetime
    before: timedelta
    offset: timedelta


class Zone:
    """
    A time zone under a name that means the same on every node.

    Args:
        given: an IANA name, a `zoneinfo.ZoneInfo` (or anything else that knows its IANA name), or a
            fixed `datetime.timezone`.

    Raises:
        ConfigurationError: there is no such zone, or it does not know its name.
    """

    def __init__(self, given: str | tzinfo) -> None:
        self.name, self._tzinfo = _find(given)

    def stretches(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """
        Yield, in order, the stretches that cover the UTC instants [since, until).

        The first one begins where it really does or a day before *since*, so that a repeated hour
        is known as such throughout. (The longest repetition since 1970 took seven hours.)
        """
        begin = since - _DAY
        before = offset = self._offset(begin)
        while begin < until:
            end = self._end(begin, offset, until)
            if end > since:
                yield Stretch(begin, end, before, offset)
            begin, before, offset = end, offset, self._offset(end)

    def _end(self, begin: datetime, offset: timedelta, until: datetime) -> datetime:
        """Return when the clocks next change after *begin*, or *until* if they do not before."""
        low = begin
        while low < until:
            # In the time zone database no two changes since 1970 are closer than a week.
            high = min(low + _DAY, until)
            if self._offset(high) != offset:
                while high - low > _MICRO:
                    middle = low + (high - low) // 2
                    low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
                return high
            low = high
        return until

    def _offset(self, instant: datetime) -> timedelta:
        return instant.astimezone(self._tzinfo).utcoffset() or timedelta()


def _find(given: object) -> tuple[str, tzinfo]:
    """Return a name and a time zone."""
    if isinstance(given, timezone):
        fixed = timezone(given.utcoffset(None))  # drops a name that hides the offset
        return str(fixed), fixed
    name = given if isinstance(given, str) else getattr(given, "key", getattr(given, "zone", None))
    if not isinstance(name, str):
        msg = f"timezone is {given!r}; write its IANA name, like 'Europe/Paris'"
        raise ConfigurationError(msg)
    if name == "UTC":  # needs no time zone database
        return name, UTC
    if name == "localtime":
        msg = "timezone is 'localtime', which differs from node to node; write an IANA name"
        raise ConfigurationError(msg)
    try:
        return name, zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(_unknown(name)) from None


def _unknown(name: str) -> str:
    known = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    if not known:
        return f"timezone is {name!r}, but this host has no time zones; run: pip install tzdata"
    near = nearest(name.lower().replace(" ", "_"), known)
    hint = f"did you mean {known[near]!r}?" if near else "write an IANA name, like 'Europe/Paris'"
    return f"timezone is {name!r}: there is no such zone; {hint}"
