"""Durations and instants, as people read and write them."""

from datetime import UTC, datetime, timedelta

import pytest

from leader_jobs.durations import at, how_long, parse_duration, parse_instant, when
from leader_jobs.exceptions import ConfigurationError

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0844, "84 ms"),
        (2.51, "2.5 s"),
        (11.6, "12 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (86400 * 2 + 3600 * 4 + 59, "2 d 4 h"),
        (86400 * 2 + 59, "2 d"),
    ],
)
def test_how_long(seconds: float, words: str) -> None:
    """Two units at most, the larger ones."""
    assert how_long(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "now"), (1.4, "1 s ago"), (-3, "in 3 s"), (200, "3 min 20 s ago"), (-7200, "in 2 h")],
)
def test_when(seconds: float, words: str) -> None:
    """To the second, as seen from now."""
    assert when(NOW - timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("45s", 45),
        ("30m", 1800),
        ("30min", 1800),
        ("1h30m", 5400),
        ("2 d 4 h", 187200),
        ("1w", 604800),
    ],
)
def test_durations_that_are_read(text: str, seconds: float) -> None:
    """With a unit or without, and several in a row."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5", "5 parsecs", "1h30", "0", "9999w", "1e3"])
def test_durations_that_are_not(text: str) -> None:
    """The text is repeated, and how to write one is said."""
    with pytest.raises(ConfigurationError, match=r"write for example 90s, 30m") as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


def test_instants() -> None:
    """With a zone as it says; without one, on this host's clock."""
    assert parse_instant("2026-12-24T18:00Z") == datetime(2026, 12, 24, 18, tzinfo=UTC)
    assert parse_instant("2026-12-24T18:00+01:00") == datetime(2026, 12, 24, 17, tzinfo=UTC)
    assert parse_instant("2026-12-24 18:00") == datetime(2026, 12, 24, 18).astimezone()
    for text in ("tomorrow", "18:00", "2026-02-30T00:00Z", "0001-01-01T00:00+14:00"):
        with pytest.raises(ConfigurationError, match="is not an instant"):
            parse_instant(text)
    assert at(parse_instant("2026-12-24T18:00:07.9+01:00")) == "2026-12-24 17:00:07"
