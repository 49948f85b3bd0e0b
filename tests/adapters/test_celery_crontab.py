"""
Celery's crontabs as sets of instants.

The table says in local time what must happen where clocks change. The properties compare `Crontab`
with Celery's own steps on ordinary days, and with a brute-force reading of the rule everywhere:
each minute of the wall clock, converted by Python with ``fold=0``.
"""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab
from celery.utils.time import LocalTimezone
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leader_jobs.adapters.celery_schedules import Crontab, planned
from leader_jobs.schedules import Schedule
from testsupport.clock_changes import listing, listing_backwards

MICRO = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)


@cache
def application(zone: str | tzinfo) -> Celery:
    """Return an application in a time zone."""
    app = Celery("test", set_as_current=False)
    app.conf.update(timezone=zone)
    return app


def rule(line: str, zone: str | tzinfo = "UTC") -> Schedule:
    """Return the instants of a crontab line in a zone."""
    minute, hour, day, month, weekday = line.split()
    return planned(crontab(minute, hour, weekday, day, month), name="entry", app=application(zone))


# -- where clocks change --------------------------------------------------------------------------

# Zone, line, begin and end in local time, the planned instants in (begin, end].
TABLE = [
    # Berlin, 29 March 2026: 02:00 +01 is followed by 03:00 +02.
    (
        "Europe/Berlin",
        "30 2 * * *",
        ("2026-03-28", "2026-03-31"),
        ["2026-03-28T02:30+01:00", "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"],
    ),
    ("Europe/Berlin", "0 2 * * *", ("2026-03-29", "2026-03-30"), ["2026-03-29T03:00+02:00"]),
    ("Europe/Berlin", "30 2,3 * * *", ("2026-03-29", "2026-03-30"), ["2026-03-29T03:30+02:00"]),
    (
        "Europe/Berlin",
        "*/30 * * * *",
        ("2026-03-29T00:45", "2026-03-29T04:15"),
        [
            "2026-03-29T01:00+01:00",
            "2026-03-29T01:30+01:00",
            "2026-03-29T03:00+02:00",
            "2026-03-29T03:30+02:00",
            "2026-03-29T04:00+02:00",
        ],
    ),
    # 25 October 2026: 03:00 +02 is followed by 02:00 +01.
    (
        "Europe/Berlin",
        "30 2 * * *",
        ("2026-10-24", "2026-10-27"),
        ["2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"],
    ),
    (
        "Europe/Berlin",
        "*/30 * * * *",
        ("2026-10-25T01:45", "2026-10-25T03:30"),
        [
            "2026-10-25T00:00+00:00",
            "2026-10-25T00:30+00:00",
            "2026-10-25T02:00+00:00",
            "2026-10-25T02:30+00:00",
        ],
    ),
    # New York, 8 March 2026: 02:00 -05 is followed by 03:00 -04.
    (
        "America/New_York",
        "30 2 * * *",
        ("2026-03-07", "2026-03-10"),
        ["2026-03-07T02:30-05:00", "2026-03-08T03:30-04:00", "2026-03-09T02:30-04:00"],
    ),
    # 1 November 2026: 02:00 -04 is followed by 01:00 -05.
    (
        "America/New_York",
        "0 * * * *",
        ("2026-10-31T23:30", "2026-11-01T03:30"),
        [
            "2026-11-01T00:00-04:00",
            "2026-11-01T01:00-04:00",
            "2026-11-01T02:00-05:00",
            "2026-11-01T03:00-05:00",
        ],
    ),
    (
        "America/New_York",
        "30 1 * * *",
        ("2026-10-31", "2026-11-03"),
        ["2026-10-31T01:30-04:00", "2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"],
    ),
    # Lord Howe, 5 April 2026: 02:00 +11 is followed by 01:30 +10:30.
    (
        "Australia/Lord_Howe",
        "*/15 1,2 * * *",
        ("2026-04-05T00:59", "2026-04-05T02:20"),
        [
            "2026-04-05T01:00+11:00",
            "2026-04-05T01:15+11:00",
            "2026-04-05T01:30+11:00",
            "2026-04-05T01:45+11:00",
            "2026-04-05T02:00+10:30",
            "2026-04-05T02:15+10:30",
        ],
    ),
    # 4 October 2026: 02:00 +10:30 is followed by 02:30 +11, so that 02:15 comes after 02:35.
    (
        "Australia/Lord_Howe",
        "15,35 2 * * *",
        ("2026-10-03", "2026-10-05"),
        [
            "2026-10-03T02:15+10:30",
            "2026-10-03T02:35+10:30",
            "2026-10-04T02:35+11:00",
            "2026-10-04T02:45+11:00",
        ],
    ),
    (
        "Australia/Lord_Howe",
        "10,40 2 * * *",
        ("2026-10-04", "2026-10-05"),
        ["2026-10-04T02:40+11:00"],
    ),
    # Santiago, 5 April 2026: 00:00 -03 is followed by 23:00 -04 of the day before.
    (
        "America/Santiago",
        "30 23 * * *",
        ("2026-04-03", "2026-04-06"),
        ["2026-04-03T23:30-03:00", "2026-04-04T23:30-03:00", "2026-04-05T23:30-04:00"],
    ),
    # 6 September 2026: 00:00 -04 is followed by 01:00 -03.
    (
        "America/Santiago",
        "0 0 * * *",
        ("2026-09-05T12:00", "2026-09-07T12:00"),
        ["2026-09-06T01:00-03:00", "2026-09-07T00:00-03:00"],
    ),
    # Kolkata has not changed its clocks since 1945.
    (
        "Asia/Kolkata",
        "30 2 * * *",
        ("2026-03-28", "2026-03-30"),
        ["2026-03-28T02:30+05:30", "2026-03-29T02:30+05:30"],
    ),
    # Apia had no 30 December 2011: 29 December at -10 is followed by 31 December at +14.
    (
        "Pacific/Apia",
        "0 10 * * *",
        ("2011-12-29", "2012-01-02"),
        ["2011-12-29T10:00-10:00", "2011-12-31T10:00+14:00", "2012-01-01T10:00+14:00"],
    ),
]


def local(zone: str, text: str) -> datetime:
    """Return the instant of a local time that is not ambiguous."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(("zone", "line", "span", "expected"), TABLE)
def test_changes_of_the_clocks(
    zone: str, line: str, span: tuple[str, str], expected: list[str]
) -> None:
    """The planned instants around a change are those of the table, forwards, backwards, counted."""
    schedule = rule(line, zone)
    since, until = (local(zone, text) for text in span)
    instants = [datetime.fromisoformat(text).astimezone(UTC) for text in expected]
    assert listing(schedule, since, until) == instants
    assert listing_backwards(schedule, since, until) == instants
    assert schedule.count_between(since, until, cap=100) == (len(instants), True)


CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Santiago", "2026-04-05"),
    ("America/Santiago", "2026-09-06"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Pacific/Apia", "2011-12-30"),
    ("Asia/Kolkata", "2026-01-01"),
]


@cache
def readings(zone: str, day: str) -> list[tuple[datetime, datetime]]:
    """Return each minute of the wall clock of some days around *day*, and the instant it is."""
    wall = datetime.fromisoformat(day) - 3 * DAY
    walls = [(wall + number * MINUTE).replace(tzinfo=ZoneInfo(zone)) for number in range(6 * 1440)]
    return [(wall, wall.astimezone(UTC)) for wall in walls]


def some(low: int, high: int) -> st.SearchStrategy[set[int]]:
    """Return sets of numbers, among them the one of all."""
    return st.one_of(
        st.just(set(range(low, high + 1))), st.sets(st.integers(low, high), min_size=1)
    )


crontabs = st.fixed_dictionaries(
    {
        "minute": some(0, 59),
        "hour": some(0, 23),
        "day_of_week": some(0, 6),
        "day_of_month": some(1, 31),
        "month_of_year": some(1, 12),
    }
)


@settings(deadline=None, max_examples=150)
@given(
    change=st.sampled_from(CHANGES),
    fields=st.fixed_dictionaries({"minute": some(0, 59), "hour": some(0, 23)}),
    days=some(0, 6),
    begin=st.integers(-1440, 1440),
    seconds=st.integers(0, 59),
)
def test_the_set_is_the_brute_force_reading_wherever_one_begins(
    change: tuple[str, str], fields: dict[str, Any], days: Any, begin: int, seconds: int
) -> None:
    """From any point, walking either way and counting find each wall time read with fold=0."""
    zone, day = change
    schedule = planned(crontab(**fields, day_of_week=days), name="entry", app=application(zone))
    since = local(zone, day) + begin * MINUTE + timedelta(seconds=seconds)
    until = since + 6 * timedelta(hours=1)
    expected = sorted(
        {
            instant
            for wall, instant in readings(zone, day)
            if since < instant <= until
            and wall.minute in fields["minute"]
            and wall.hour in fields["hour"]
            and wall.isoweekday() % 7 in days
        }
    )
    assert listing(schedule, since, until) == expected
    assert listing_backwards(schedule, since, until) == expected
    assert schedule.count_between(since, until, cap=1000) == (len(expected), True)


@settings(deadline=None, max_examples=150)
@given(
    fields=crontabs,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
    instant=st.datetimes(
        min_value=datetime(2024, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
        max_value=datetime(2032, 1, 1),  # noqa: DTZ001 - likewise
        timezones=st.just(UTC),
    ),
)
def test_steps_are_those_of_celery_on_ordinary_days(
    fields: dict[str, Any], zone: str, instant: datetime
) -> None:
    """Where no clock changes near by, the next instant is what Celery answers if it is asked there."""
    assume(min(fields["day_of_month"]) <= 28)
    app = application(zone)
    theirs = crontab(**fields, app=app)
    ours = planned(crontab(**fields), name="entry", app=app)
    for _ in range(4):
        here = instant.astimezone(app.timezone)
        theirs.nowfun = lambda here=here: here  # type: ignore[attr-defined]  # not in the stubs
        expected = instant + theirs.remaining_estimate(here)
        assume(is_ordinary(instant, expected, app.timezone))
        assert ours.next_after(instant) == expected
        assert ours.latest_until(expected, after=instant) == expected
        assert ours.latest_until(expected - MICRO, after=instant) is None
        instant = expected


def is_ordinary(instant: datetime, other: datetime, zone: tzinfo) -> bool:
    """Tell whether the clocks are at both instants, and some days around them, ahead by as much."""
    near = (moment + days for moment in (instant, other) for days in (-2 * DAY, 2 * DAY))
    return len({moment.astimezone(zone).utcoffset() for moment in near}) == 1


# -- far away -------------------------------------------------------------------------------------


def test_a_match_decades_away_is_found_from_both_sides() -> None:
    """29 February on a Monday comes in 2016 and 2044, and then not before 2072."""
    leap = rule("0 0 29 2 1", "Europe/Berlin")
    former = datetime(2016, 2, 28, 23, tzinfo=UTC)
    coming = datetime(2044, 2, 28, 23, tzinfo=UTC)
    assert leap.next_after(NOON) == coming
    assert leap.next_after(coming) == datetime(2072, 2, 28, 23, tzinfo=UTC)
    assert leap.latest_until(NOON, after=former - MICRO) == former
    assert leap.latest_until(NOON, after=former) is None
    assert leap.count_between(former - MICRO, coming, cap=10) == (2, True)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Pacific/Apia", timezone(-timedelta(hours=12))])
def test_the_turn_of_the_year_is_a_day_like_others(zone: str | tzinfo) -> None:
    """Instants a few hours from New Year are found from either side of it, in UTC and locally."""
    daily = rule("0 * * * *", zone)
    since, until = datetime(2026, 12, 30, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)
    expected = [since + timedelta(hours=number) for number in range(1, 73)]
    assert listing(daily, since, until) == expected
    assert listing_backwards(daily, since, until) == expected


def never() -> crontab:
    """Return what older releases of Celery make of 31 February; 5.7 refuses to."""
    schedule = crontab(minute=0, hour=0)
    vars(schedule).update(day_of_month={31}, month_of_year={2})
    return schedule


def test_a_crontab_that_never_matches_has_no_instants() -> None:
    """31 February is not looked for for ever: there is none after, before or between."""
    schedule = planned(never(), name="entry", app=application("Europe/Berlin"))
    assert schedule.next_after(NOON) is None
    assert schedule.latest_until(NOON, after=NOON - 20_000 * DAY) is None
    assert schedule.count_between(NOON, NOON + 20_000 * DAY, cap=10) == (0, True)


@pytest.mark.parametrize("field", ["minute", "hour", "day_of_week", "day_of_month"])
def test_an_empty_field_matches_nothing(field: str) -> None:
    """A set without numbers, which Celery lets pass, is a crontab that never matches."""
    schedule = crontab()
    vars(schedule)[field] = set()
    rule = planned(schedule, name="entry", app=application("UTC"))
    assert rule.next_after(NOON) is None
    assert rule.latest_until(NOON, after=NOON - DAY) is None


def test_the_calendar_ends() -> None:
    """Near the years 1 and 9999 there are no instants, and no exceptions."""
    daily = rule("0 0 * * *", "Europe/Berlin")
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    assert daily.next_after(last) is None
    assert daily.next_after(last - DAY / 2) is None
    assert daily.latest_until(first + DAY, after=first) is None


def test_counting_stops_at_the_cap() -> None:
    """A long time with many instants is not counted to its end."""
    assert rule("* * * * *").count_between(NOON, NOON + 400 * DAY, cap=10_000) == (10_000, False)
    assert rule("0 0 1 1 *").count_between(NOON, NOON + 400 * DAY, cap=10) == (1, True)


# -- zones ----------------------------------------------------------------------------------------


def test_the_zone_of_the_application_counts() -> None:
    """Three in the morning is another instant in another application."""
    night = datetime(2026, 7, 15, 1, tzinfo=UTC)
    assert rule("0 3 * * *", "Europe/Berlin").next_after(NOON) == night
    assert rule("0 3 * * *").next_after(NOON) == night + timedelta(hours=2)
    fixed = timezone(timedelta(hours=5, minutes=45))
    assert rule("0 3 * * *", fixed).next_after(NOON) == datetime(2026, 7, 14, 21, 15, tzinfo=UTC)


def test_arguments_may_be_in_any_zone() -> None:
    """The answer depends on the instant asked about, not on how it is written."""
    tokyo = ZoneInfo("Asia/Tokyo")
    nightly = rule("0 3 * * *", "Europe/Berlin")
    assert nightly.next_after(NOON.astimezone(tokyo)) == nightly.next_after(NOON)
    former = nightly.latest_until(NOON.astimezone(tokyo), after=(NOON - DAY).astimezone(tokyo))
    assert former == nightly.latest_until(NOON, after=NOON - DAY)
    assert former is not None
    assert former.tzinfo is UTC


class Drifting(tzinfo):
    """A zone without a name, whose objects can not be told from each other by their texts."""

    def __str__(self) -> str:
        return "drifting"

    def utcoffset(self, moment: datetime | None) -> timedelta:
        """Return 90 minutes."""
        return timedelta(minutes=90)

    def dst(self, moment: datetime | None) -> timedelta:
        """Return nothing."""
        return timedelta()

    def tzname(self, moment: datetime | None) -> str:
        """Return what `str` does."""
        return str(self)


class Unhashable(Drifting):
    """A zone as those of dateutil: they can not be keys."""

    __hash__ = None  # type: ignore[assignment]  # as dateutil does it


def test_a_zone_without_a_name_works_and_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The host's own zone may differ from node to node; entries of one zone share the warning."""
    zone = Drifting()
    with caplog.at_level(logging.WARNING):
        nightly, weekly = rule("0 3 * * *", zone), rule("0 3 * * 1", zone)
    assert nightly.next_after(NOON) == datetime(2026, 7, 15, 1, 30, tzinfo=UTC)
    assert weekly.next_after(NOON) == datetime(2026, 7, 20, 1, 30, tzinfo=UTC)
    assert nightly.fingerprint == "celery-crontab:0 3 * * *:drifting"
    assert [record.args for record in caplog.records] == [("drifting",)]


def test_a_zone_that_is_no_key_works_too() -> None:
    """A zone that can not be remembered is looked at each time."""
    schedule = planned(crontab(hour=3, minute=0), name="entry", app=unhashable_application())
    assert schedule.next_after(NOON) == datetime(2026, 7, 15, 1, 30, tzinfo=UTC)


def unhashable_application() -> Celery:
    """Return an application whose zone can not be a key."""
    app = Celery("test", set_as_current=False)
    app.conf.update(timezone=Unhashable())
    return app


@pytest.fixture
def host_in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set this process's local time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("host_in_berlin")
def test_the_local_zone_of_celery_changes_when_the_host_does() -> None:
    """LocalTimezone misplaces changes by the offset; instants go by the host's local time."""
    zone = LocalTimezone()
    ours, named = rule("*/30 * * * *", zone), rule("*/30 * * * *", "Europe/Berlin")
    for day in ("2026-03-29", "2026-10-25"):
        since = local("Europe/Berlin", day)
        assert listing(ours, since, since + DAY / 4) == listing(named, since, since + DAY / 4)


# -- django-celery-beat ---------------------------------------------------------------------------


def test_a_crontab_of_django_celery_beat_has_its_own_zone() -> None:
    """TzAwareCrontab goes by its tz, whatever the application's is."""
    from django_celery_beat.tzcrontab import (
        TzAwareCrontab,
    )

    theirs = TzAwareCrontab(minute="30", hour="2", tz=ZoneInfo("Europe/Berlin"))
    schedule = planned(theirs, name="entry", app=application("Asia/Tokyo"))
    assert isinstance(schedule, Crontab)
    assert schedule.describe() == "30 2 * * * (Europe/Berlin)"
    since = datetime(2026, 3, 28, tzinfo=UTC)
    assert listing(schedule, since, since + 2 * DAY) == [
        datetime(2026, 3, 28, 1, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    ]


# -- identity and words ---------------------------------------------------------------------------


def test_two_spellings_of_one_rule_have_one_fingerprint() -> None:
    """What is compared is what the fields allow, not how they are written."""
    assert (
        rule("*/15 8-10 * * mon-fri").fingerprint == rule("0,15,30,45 8,9,10 * * 1-5").fingerprint
    )
    assert rule("*/1 0-23 1-31 1-12 *").fingerprint == rule("* * * * *").fingerprint
    assert rule("0 3 1 * *").fingerprint == "celery-crontab:0 3 1 * *:UTC"


@pytest.mark.parametrize(
    ("line", "zone"),
    [
        ("1 3 * * *", "UTC"),
        ("0 4 * * *", "UTC"),
        ("0 3 1 * *", "UTC"),
        ("0 3 * 1 *", "UTC"),
        ("0 3 * * 1", "UTC"),
        ("0 3 * * *", "Europe/Berlin"),
    ],
)
def test_each_field_and_the_zone_are_part_of_the_fingerprint(line: str, zone: str) -> None:
    """A rule that differs anywhere is another one."""
    assert rule(line, zone).fingerprint != rule("0 3 * * *").fingerprint


def test_the_words_are_the_users() -> None:
    """The rule is described as it was written, in the order of a crontab line."""
    assert rule("*/5 3 1-7 * mon", "Europe/Paris").describe() == "*/5 3 1-7 * mon (Europe/Paris)"
    spelled = planned(
        crontab(minute=0, hour=[3, 1], day_of_week="mon,fri"), name="entry", app=application("UTC")
    )
    assert spelled.describe() == "0 1,3 * * 1,5 (UTC)"
    assert repr(spelled) == "<Crontab: 0 1,3 * * 1,5 (UTC)>"


def test_neighbours_are_in_order() -> None:
    """A year of instants in a zone with half-hour changes is strictly ascending, and complete."""
    schedule = rule("*/20 * * * *", "Australia/Lord_Howe")
    since = datetime(2026, 1, 1, tzinfo=UTC)
    instants = listing(schedule, since, since + 365 * DAY)
    assert all(former < later for former, later in pairwise(instants))
    counted, exact = schedule.count_between(since, since + 365 * DAY, cap=100_000)
    assert (counted, exact) == (len(instants), True)
