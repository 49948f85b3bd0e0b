"""
Schedules that have no rule of their own in time: a pace, counted from the ledger's cursor, and one instant.

Frameworks mean such things by an interval and by a date. Nodes agree on a pace because they all begin
at the cursor, which is the last planned instant, or the instant at which the job was new; and phase
is kept because the cursor is itself planned.
"""

from datetime import datetime, timedelta
from typing import Final

from leader_jobs.schedules import Every, as_utc

__all__ = ["Once", "Paced"]

_MICRO: Final = timedelta(microseconds=1)


class Once:
    """
    One instant, and no other.

    Args:
        instant: it.
        kind: what the fingerprint begins with; it never changes, or the job is another one.

    Attributes:
        instant: it, in UTC.
    """

    def __init__(self, instant: datetime, *, kind: str) -> None:
        self.instant: Final = as_utc(instant)
        self.fingerprint: Final = f"{kind}:{self.instant.isoformat()}"

    def __repr__(self) -> str:
        return f"<Once: {self.describe()}>"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant if it is strictly after *instant*."""
        return self.instant if self.instant > as_utc(instant) else None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the instant if it is later than *after* and not later than *instant*."""
        return self.instant if as_utc(after) < self.instant <= as_utc(instant) else None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Return 1 if the instant is later than *after* and not later than *until*, or 0."""
        return int(self.latest_until(until, after=after) is not None), True

    def describe(self) -> str:
        """Return the rule in words: ``once at 2026-03-01T12:00:00+00:00``."""
        return f"once at {self.instant.isoformat()}"


class Paced:
    """
    The instants ``cursor + n * period``, for n from 1.

    Args:
        period: how far they are apart; from 0.1 s.
        kind: what the fingerprint begins with; it never changes, or the job is another one.

    Attributes:
        period: as given.
        by_cursor: True: unlike `leader_jobs.schedules.Every`, whose instants are the same for all who
            have the rule, this is a set only relative to where one begins, and two jobs of 30 s may
            have two phases. *after* must be the cursor, as it is for `leader_jobs.occurrences.plan`.

    They are counted in whole microseconds, and do not drift.
    """

    by_cursor: Final = True

    def __init__(self, period: timedelta, *, kind: str) -> None:
        self.period: Final = period
        self.fingerprint: Final = f"{kind}:{period // _MICRO}"

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
