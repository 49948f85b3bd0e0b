"""Durations and instants, as people read and write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from leader_jobs.exceptions import ConfigurationError

__all__ = ["at", "how_long", "parse_duration", "parse_instant", "when"]

_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SHORT: Final = 10.0
_NOW: Final = 0.5
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:s|min|m|h|d|w)\s*)+|\d+(?:\.\d+)?")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w|)")
_LONGEST: Final = timedelta(days=3650)


def how_long(seconds: float) -> str:
    """Return a duration, not negative, in its two largest units: 84 ms, 2.5 s, 3 min 20 s, 2 d 4 h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _SHORT:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts: list[str] = []
    for name, size in _UNITS:
        number, whole = divmod(whole, size)
        if number:
            parts.append(f"{number} {name}")
        elif parts:
            break
    return " ".join(parts[:2])


def when(instant: datetime, now: datetime) -> str:
    """Return an instant as seen from *now*: "3 min ago", "in 12 s", "now"."""
    seconds = (now - instant).total_seconds()
    if abs(seconds) < _NOW:
        return "now"
    # Fractions would be noise here.
    whole = max(1, round(abs(seconds)))
    words = f"{whole} s" if whole < _SHORT else how_long(whole)
    return f"{words} ago" if seconds > 0 else f"in {words}"


def at(instant: datetime) -> str:
    """Return an instant in UTC, to the second."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def parse_duration(text: str) -> timedelta:
    """
    Return what ``90``, ``45s``, ``30m``, ``1h30m``, ``2d`` or ``1w`` says.

    Raises:
        ConfigurationError: it says nothing like that, or nothing, or more than ten years.
    """
    example = "write for example 90s, 30m, 1h30m or 2d"
    if _DURATION.fullmatch(text.strip()) is None:
        msg = f"{text!r} is not a duration; {example}"
        raise ConfigurationError(msg)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds <= _LONGEST.total_seconds():
        msg = f"{text!r} is not between a moment and ten years; {example}"
        raise ConfigurationError(msg)
    return timedelta(seconds=seconds)


def parse_instant(text: str) -> datetime:
    """
    Return the instant that an ISO 8601 text names; without a zone it is one on this host's clock.

    Raises:
        ConfigurationError: it names none.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        msg = (
            f"{text!r} is not an instant; write for example 2026-12-24T18:00 (this host's time) "
            "or 2026-12-24T18:00Z"
        )
        raise ConfigurationError(msg) from None
