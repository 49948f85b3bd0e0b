"""
The only reader of time.

Two clocks, never mixed. *Moments* are floats in seconds on the host's boot-time clock; leases and
deadlines are measured with them, and they go on counting while the machine is suspended (Python's
`time.monotonic` stops there on Linux). *Instants* are aware UTC datetimes; occurrences are planned
with them.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]

# macOS and the BSDs have no CLOCK_BOOTTIME; their monotonic clock is the closest there is.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What the library asks of time; tests give it a clock they move by hand."""

    def now(self) -> float:
        """Return the present moment in seconds on a clock that never steps and counts suspend."""
        ...

    def utcnow(self) -> datetime:
        """Return the present instant as an aware datetime in UTC."""
        ...

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """
        Wait until *event* is set or *timeout* seconds have passed.

        Returns:
            True if the event is set.
        """
        ...


class SystemClock:
    """The host's clocks."""

    def now(self) -> float:
        """Return the seconds since the host was booted, suspend included."""
        return time.clock_gettime(_BOOT_CLOCK)

    def utcnow(self) -> datetime:
        """Return the present instant as an aware datetime in UTC."""
        return datetime.now(UTC)

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait until *event* is set or *timeout* seconds have passed; True if it is set."""
        return event.wait(max(0.0, timeout))
