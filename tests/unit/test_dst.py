"""
Crontab lines where clocks change.

The table says in local time what must happen; the properties compare `Cron` with a brute-force
reading of the rules, minute by minute on Python's own idea of local time, and with cronsim.
"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from leader_jobs.schedules import Cron
from testsupport.clock_changes import (
    CHANGES,
    TABLE,
    Reading,
    listing,
    listing_backwards,
    local,
)

DAY = timedelta(days=1)


@pytest.mark.parametrize(("zone", "line", "days", "expected"), TABLE)
def test_the_table(zone: str, line: str, days: tuple[str, str], expected: list[str]) -> None:
    """Each case comes out as written, forward, backward and counted."""
    cron = Cron(line, timezone=zone)
    since = local(zone, days[0]).astimezone(UTC) - timedelta(microseconds=1)
    until = local(zone, days[1]).astimezone(UTC)
    wanted = [datetime.fromisoformat(text).astimezone(UTC) for text in expected]
    assert listing(cron, since, until) == wanted
    assert listing_backwards(cron, since, until) == wanted
    assert cron.count_between(since, until, cap=100) == (len(wanted), True)
    assert all(instant.tzinfo is UTC for instant in listing(cron, since, until))


# -- against brute force --------------------------------------------------------------------------

minutes = st.sampled_from(["0", "59", "7,37", "15-20", "*/15", "*/7", "1-59/2", "*"])
hours = st.sampled_from(["0", "1", "2", "3", "23", "1-3", "0,2,12", "22-23", "*/2", "*/5", "*"])
lines = st.builds(
    lambda *fields: " ".join(fields),
    minutes,
    hours,
    st.sampled_from(["*", "*", "1-15", "*/2", "8", "25,29"]),
    st.sampled_from(["*", "*", "3,10", "4-12"]),
    st.sampled_from(["*", "*", "0", "1-6", "6,0"]),
)
changes = st.sampled_from(CHANGES)
# Whole minutes with and without a little more: hypothesis draws wide ranges mostly near zero.
offsets = st.builds(
    lambda minutes, jitter: timedelta(minutes=minutes, microseconds=jitter),
    st.integers(-2880, 2880),
    st.sampled_from([0, 1, -1, 29_500_000]),
)


@settings(deadline=None, max_examples=150)
@given(line=lines, change=changes, edges=st.tuples(offsets, offsets))
def test_planned_instants_are_those_of_a_minute_by_minute_reading(
    line: str, change: tuple[str, datetime], edges: tuple[timedelta, timedelta]
) -> None:
    """Forward, backward and counted, from anywhere near a change, it is the same set."""
    zone, middle = change
    since, until = sorted(middle + edge for edge in edges)
    wanted = list(Reading(line).planned(ZoneInfo(zone), since, until))
    cron = Cron(line, timezone=zone)
    assert listing(cron, since, until) == wanted
    assert cron.latest_until(until, after=since) == (wanted[-1] if wanted else None)
    assert listing_backwards(cron, since, until)[-20:] == wanted[-20:]
    assert cron.count_between(since, until, cap=100_000) == (len(wanted), True)
    assert cron.count_between(since, until, cap=7) == (min(len(wanted), 7), len(wanted) < 7)


@settings(deadline=None, max_examples=100)
@given(
    line=lines,
    change=changes.filter(lambda c: c[0] in {"Europe/Berlin", "America/New_York"}),
    start=offsets,
)
def test_whole_hour_changes_go_as_in_cronsim(
    line: str, change: tuple[str, datetime], start: timedelta
) -> None:
    """Where cronsim's walk does not depend on its beginning, it and ours are the same."""
    zone, middle = change
    since = middle - 3 * DAY + start
    walk = CronSim(line, since.astimezone(ZoneInfo(zone)))
    theirs = list(takewhile(lambda i: i <= middle + 2 * DAY, (w.astimezone(UTC) for w in walk)))
    assert listing(Cron(line, timezone=zone), since, middle + 2 * DAY) == theirs


@settings(deadline=None, max_examples=100)
@given(line=lines, change=changes, starts=st.tuples(offsets, offsets))
def test_two_nodes_that_begin_elsewhere_agree(
    line: str, change: tuple[str, datetime], starts: tuple[timedelta, timedelta]
) -> None:
    """Whoever asks later finds the same instants from there on."""
    zone, middle = change
    early, late = sorted(middle + start for start in starts)
    until = middle + 2 * DAY
    cron = Cron(line, timezone=zone)
    assert [i for i in listing(cron, early, until) if i > late] == listing(cron, late, until)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("line", ["30 2 * * *", "*/30 * * * *", "0 0 1 * *"])
def test_walking_strictly_moves_on_in_utc(zone: str, line: str) -> None:
    """Three years of instants grow strictly, whatever the clocks do."""
    since, until = datetime(2025, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
    if line.startswith("*/30"):
        since, until = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)
    found = listing(Cron(line, timezone=zone), since, until)
    assert len(found) >= 36
    assert all(former < later for former, later in pairwise(found))
