"""
Helpers for the tests of code that uses this library.

Nothing here runs in production. `ManualClock` moves only when told to, so that a test of leases,
deadlines and missed occurrences takes no time and always sees the same thing; pass it wherever the
library takes a ``clock``, to the store as well as to whatever uses the store.
"""

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["ManualClock"]

#: Seconds of real time between two looks of a waiting thread: nobody tells it that time has moved.
_POLL: Final = 0.002


class ManualClock:
    """
    A `leader_jobs.clock.Clock` that a test moves by hand; many threads may use it.

    Args:
        start: the first instant, aware.
        moment: the first moment in seconds, as if the host had been booted that long ago.
    """

    def __init__(
        self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), moment: float = 1000.0
    ) -> None:
        self._lock = threading.Lock()
        self._instant = start.astimezone(UTC)
        self._moment = moment

    def now(self) -> float:
        """Return the present moment in seconds; it moves by `advance` alone."""
        return self._moment

    def utcnow(self) -> datetime:
        """Return the present instant in UTC; it moves by `advance` and `step_wall`."""
        return self._instant

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """
        Wait until *event* is set or the clock was moved by *timeout* seconds.

        Returns:
            True if the event is set. It blocks for ever if neither happens, as a test's own time
            limit will tell.
        """
        until = self.now() + timeout
        while not event.is_set() and self.now() < until:
            event.wait(_POLL)
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """
        Move both clocks on; threads whose time has come go on at once.

        Args:
            seconds: how far; zero or more, for moments never go back.

        Raises:
            ValueError: *seconds* is negative.
        """
        if seconds < 0:
            msg = f"a clock can not be advanced by {seconds:g} seconds; use step_wall to go back"
            raise ValueError(msg)
        with self._lock:
            self._moment += seconds
            self._instant += timedelta(seconds=seconds)

    def step_wall(self, seconds: float) -> None:
        """
        Step the wall clock alone, as NTP or an operator does; leases must not notice.

        Args:
            seconds: how far; negative to step back.
        """
        with self._lock:
            self._instant += timedelta(seconds=seconds)
