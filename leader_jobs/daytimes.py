"""
Wall times that are the same on every day that has any: what the fields of crontabs come to.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date, datetime

__all__ = ["DayTimes"]


class DayTimes(ABC):
    """
    The wall times of certain days, a fixed number of them on each.

    Whoever derives from it says which days there are and which times; the walk over them is here.
    """

    _per_day: int

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first one not before *wall*; None if there is none for as long as days are sought."""
        wall = self._whole(wall)
        today = wall.date()
        for day in self._days_from(today):
            number = self._number(wall) if day == today else 0
            if number < self._per_day:
                return self._wall(day, number)
        return None

    def last_before(self, wall: datetime) -> datetime | None:
        """Return the last one before *wall*; None likewise."""
        wall = self._whole(wall)
        today = wall.date()
        for day in self._days_until(today):
            number = self._number(wall) if day == today else self._per_day
            if number:
                return self._wall(day, number - 1)
        return None

    def count(self, first: datetime, end: datetime, *, cap: int) -> int:
        """Count those in [first, end), a day at a time; stops once it reaches *cap*."""
        first, end = self._whole(first), self._whole(end)
        first_day, last_day = first.date(), end.date()
        total = 0
        for day in self._days_from(first_day):
            if day > last_day or total >= cap:
                break
            total += self._number(end) if day == last_day else self._per_day
            if day == first_day:
                total -= self._number(first)
        return total

    @staticmethod
    @abstractmethod
    def _whole(wall: datetime) -> datetime:
        """Return the first wall time not before *wall* that is as coarse as the times are."""

    @abstractmethod
    def _number(self, wall: datetime) -> int:
        """Return how many times of a day come before that of *wall*, which is whole."""

    @abstractmethod
    def _wall(self, day: date, number: int) -> datetime:
        """Return the time of that number on *day*."""

    @abstractmethod
    def _days_from(self, day: date) -> Iterator[date]:
        """Yield the days that match from *day* on."""

    @abstractmethod
    def _days_until(self, day: date) -> Iterator[date]:
        """Yield the days that match from *day* backwards."""
