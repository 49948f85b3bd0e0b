"""APScheduler's calendar intervals as sets of instants, held against APScheduler itself."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from leader_jobs.adapters.apscheduler_triggers import planned
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.schedules import Schedule
from testsupport.clock_changes import listing, listing_backwards, local

MICRO = timedelta(microseconds=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)

calendar = partial(CalendarIntervalTrigger, timezone="UTC")
instants = st.datetimes(
    min_value=datetime(2025, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2029, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)


def test_months_without_such_a_day_are_left_out() -> None:
    """The 31st of every month is seven days a year; 29 February comes with leap years."""
    rule = planned(calendar(months=1, hour=3, start_date="2026-01-31"))
    assert [i.month for i in islice(walk(rule, NOON), 7)] == [7, 8, 10, 12, 1, 3, 5]
    leap = planned(calendar(years=1, start_date="2024-02-29"))
    assert [i.year for i in islice(walk(leap, NOON), 3)] == [2028, 2032, 2036]


def walk(rule: Schedule, cursor: datetime) -> Iterator[datetime]:
    """Yield the planned instants that follow *cursor*."""
    instant = rule.next_after(cursor)
    while instant is not None:
        yield instant
        instant = rule.next_after(instant)


steps = st.fixed_dictionaries(
    {},
    optional={
        "years": st.integers(1, 4),
        "months": st.integers(1, 14),
        "weeks": st.integers(1, 3),
        "days": st.integers(1, 40),
    },
).filter(bool)


@settings(deadline=None, max_examples=150)
@given(
    step=steps,
    start=st.dates(date(2020, 1, 1), date(2027, 12, 31)),
    length=st.none() | st.integers(0, 4000),
    since=instants,
)
def test_calendar_intervals_go_as_apscheduler_steps(
    step: dict[str, int], start: date, length: int | None, since: datetime
) -> None:
    """Where no clock changes it is the same set, seen from anywhere."""
    end = None if length is None else start + length * DAY
    trigger = calendar(**step, start_date=start, end_date=end, hour=3, minute=7, second=5)
    until = since + 6 * 365 * DAY
    wanted: list[datetime] = []
    instant = trigger.get_next_fire_time(None, since)
    while instant is not None and instant <= until:
        wanted.append(instant)
        instant = trigger.get_next_fire_time(instant, instant)
    wanted = [instant for instant in wanted if instant > since]
    rule = planned(trigger)
    assert listing(rule, since, until) == wanted
    assert listing_backwards(rule, since, until)[-50:] == wanted[-50:]
    assert rule.count_between(since, until, cap=10_000) == (len(wanted), True)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2026-03-29", []),
        ("2026-03-30", ["2026-03-30T02:30+02:00"]),
        ("2026-10-25", ["2026-10-25T02:30+02:00"]),
        ("2026-10-26", ["2026-10-26T02:30+01:00"]),
    ],
)
def test_calendar_intervals_where_clocks_change(day: str, expected: list[str]) -> None:
    """As APScheduler documents: a time that is skipped is left out, of a repeated one the first."""
    trigger = CalendarIntervalTrigger(
        days=1, hour=2, minute=30, start_date="2026-01-01", timezone="Europe/Berlin"
    )
    since = local("Europe/Berlin", day) - MICRO
    until = since.replace(tzinfo=None) + DAY
    until = until.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    rule = planned(trigger)
    wanted = [datetime.fromisoformat(text) for text in expected]
    assert listing(rule, since, until) == wanted
    assert listing_backwards(rule, since, until) == wanted
    assert rule.count_between(since, until, cap=9) == (len(wanted), True)


def test_processes_that_start_on_two_days_have_one_rule_where_the_day_does_not_matter() -> None:
    """Every day at three is the same whenever one begins; every other day is not."""

    def print_of(day: str, **step: int) -> str:
        return planned(calendar(**step, hour=3, start_date=day)).fingerprint

    assert print_of("2026-07-01", days=1) == print_of("2026-07-02", days=1)
    assert print_of("2026-07-01", weeks=1) == print_of("2026-07-08", weeks=1)
    assert print_of("2026-07-01", months=2) == print_of("2026-09-01", months=2)
    assert print_of("2026-07-01", days=2) != print_of("2026-07-02", days=2)
    assert print_of("2026-07-01", months=1) != print_of("2026-07-02", months=1)
    assert print_of("2026-07-01", months=1, days=1) != print_of("2026-08-02", months=1, days=1)


def test_fingerprints_and_words_of_calendar_intervals() -> None:
    """The start is in the words, and of it in the fingerprint what counts."""
    rule = planned(calendar(months=2, hour=3, start_date="2026-02-15", end_date="2027-01-01"))
    assert rule.fingerprint == "aps-calendar:2:0:1-15:03:00:00:2027-01-01:UTC"
    assert rule.describe() == "every 2 mo at 03:00:00 from 2026-02-15 until 2027-01-01 (UTC)"


@pytest.mark.parametrize("step", [{"days": -1}, {"months": -1, "days": 40}])
def test_a_step_that_does_not_lead_forward_is_refused(step: dict[str, int]) -> None:
    """Stock goes back for ever."""
    with pytest.raises(ConfigurationError, match="does not lead forward"):
        planned(calendar(**step))


def test_the_ends_of_the_calendar_are_no_errors() -> None:
    """Before the first and after the last year there is nothing planned."""
    rule = planned(calendar(months=1, end_date=date.max))
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert rule.next_after(last) is None
    assert rule.latest_until(first, after=first) is None
    late = planned(calendar(months=1, start_date="9999-12-20"))
    assert late.next_after(datetime(9999, 12, 25, tzinfo=UTC)) is None
    assert late.count_between(NOON, datetime(9999, 12, 25, tzinfo=UTC), cap=9) == (1, True)
