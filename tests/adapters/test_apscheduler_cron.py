"""
APScheduler's cron triggers as sets of instants.

Where clocks change they are held against the table of `leader_jobs.schedules.Cron` and a reading
minute by minute; which days and times they mean against APScheduler itself, in UTC.
"""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from leader_jobs.adapters.apscheduler_triggers import planned
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.schedules import Schedule
from testsupport.clock_changes import CHANGES, TABLE, Reading, listing, listing_backwards, local

MICRO = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
WEEKDAYS = {"0": "sun", "1-6": "mon-sat", "6,0": "sat,sun", "SUN": "sun", "MON": "mon", "*": "*"}

cron = partial(CronTrigger, timezone="UTC")


def from_crontab(line: str, zone: str) -> Schedule:
    """Return the rule of a crontab line, whose weekdays begin with Sunday, in APScheduler's words."""
    line = {"@hourly": "0 * * * *"}.get(line, line)
    minute, hour, day, month, weekday = line.split()
    words = " ".join((minute, hour, day.replace("L", "last"), month, WEEKDAYS[weekday]))
    return planned(CronTrigger.from_crontab(words, timezone=zone))


# -- where clocks change --------------------------------------------------------------------------


# APScheduler's years begin with 1970.
@pytest.mark.parametrize(
    ("zone", "line", "days", "expected"), [case for case in TABLE if case[2][0] >= "1970"]
)
def test_the_table_of_crontab_lines(
    zone: str, line: str, days: tuple[str, str], expected: list[str]
) -> None:
    """What is due where clocks change is the same as for `Cron`: forward, backward and counted."""
    rule = from_crontab(line, zone)
    since, until = local(zone, days[0]) - MICRO, local(zone, days[1])
    wanted = [datetime.fromisoformat(text).astimezone(UTC) for text in expected]
    assert listing(rule, since, until) == wanted
    assert listing_backwards(rule, since, until) == wanted
    assert rule.count_between(since, until, cap=100) == (len(wanted), True)
    assert all(instant.tzinfo is UTC for instant in listing(rule, since, until))


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
edges = st.builds(
    lambda minutes, more: timedelta(minutes=minutes, microseconds=more),
    st.integers(-2880, 2880),
    st.sampled_from([0, 1, -1, 29_500_000]),
)


@settings(deadline=None, max_examples=120)
@given(line=lines, change=st.sampled_from(CHANGES), ends=st.tuples(edges, edges))
def test_planned_instants_are_those_of_a_minute_by_minute_reading(
    line: str, change: tuple[str, datetime], ends: tuple[timedelta, timedelta]
) -> None:
    """From anywhere near a change it is the same set, so that two nodes agree."""
    zone, middle = change
    since, until = sorted(middle + end for end in ends)
    wanted = list(Reading(line, both_days=True).planned(ZoneInfo(zone), since, until))
    rule = from_crontab(line, zone)
    assert listing(rule, since, until) == wanted
    assert rule.latest_until(until, after=since) == (wanted[-1] if wanted else None)
    assert listing_backwards(rule, since, until)[-20:] == wanted[-20:]
    assert rule.count_between(since, until, cap=100_000) == (len(wanted), True)
    assert rule.count_between(since, until, cap=7) == (min(len(wanted), 7), len(wanted) < 7)


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        # 02:30:00 to 02:30:59 are skipped, and made up for by one instant.
        ({"hour": 2, "minute": 30, "second": "*"}, 1),
        # The minute was not given and is *: such a line follows the hands.
        ({"hour": 2, "second": "*/10"}, 0),
        ({"hour": "2-3", "minute": 0, "second": "0,30"}, 2),
    ],
)
def test_seconds_in_a_gap(fields: dict[str, Any], number: int) -> None:
    """Berlin, 29 March 2026: seconds do not make a line one that follows the hands."""
    rule = planned(CronTrigger(**fields, timezone="Europe/Berlin"))
    since, until = (
        local("Europe/Berlin", "2026-03-29") - MICRO,
        local("Europe/Berlin", "2026-03-30"),
    )
    found = listing(rule, since, until)
    assert len(found) == number
    assert found == listing_backwards(rule, since, until)
    assert rule.count_between(since, until, cap=10) == (number, True)
    assert found[:1] == [datetime(2026, 3, 29, 1, tzinfo=UTC)][:number]


def test_stock_fires_twice_where_the_clocks_go_back_and_we_do_not() -> None:
    """The reason why a trigger's fields are read, and the trigger itself is not asked."""
    trigger = CronTrigger(hour=2, minute=30, timezone="Europe/Berlin")
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    second = trigger.get_next_fire_time(first, first)
    assert second.astimezone(UTC) == first.astimezone(UTC) + timedelta(hours=1)
    again = planned(trigger).next_after(first)
    assert again == datetime(2026, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize("zone", ["Africa/Cairo", "America/Havana", "America/Asuncion"])
def test_a_skipped_midnight_is_no_trap(zone: str) -> None:
    """Three years of midnights, about one a day, where APScheduler#1036 could hang."""
    rule = planned(CronTrigger(hour=0, minute=0, timezone=zone))
    since, until = datetime(2023, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 12, tzinfo=UTC)
    found = listing(rule, since, until)
    assert len(found) == (until - since) // DAY
    assert all(abs(b - a - DAY) <= timedelta(hours=1) for a, b in pairwise(found))


# -- the fields -----------------------------------------------------------------------------------

fields = st.fixed_dictionaries(
    {},
    optional={
        "year": st.sampled_from(["*", "2026-2030", "*/2", "2027"]),
        "month": st.sampled_from(["*", "2", "jan,jul-aug", "*/3", "12"]),
        "day": st.sampled_from(
            ["*", "1", "31", "29-31", "last", "2nd fri", "last sun,15", "5th mon", "*/10"]
        ),
        "week": st.sampled_from(["*", "1", "53", "10-40/5", "*/2"]),
        "day_of_week": st.sampled_from(["*", "0", "mon-fri", "sat,sun", "*/2", "3-6"]),
        "hour": st.sampled_from(["*", "0", "2,14", "22-23", "*/7"]),
        "minute": st.sampled_from(["*", "0", "59", "*/20", "5-10"]),
        "second": st.sampled_from(["*", "0", "30", "*/25", "58,59"]),
    },
).filter(bool)
instants = st.datetimes(
    min_value=datetime(2025, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2029, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)


@settings(deadline=None, max_examples=200)
@given(given_fields=fields, since=instants)
def test_the_fields_mean_what_they_mean_to_apscheduler(
    given_fields: dict[str, str], since: datetime
) -> None:
    """Where no clock changes, eight steps are the same, as is the way back."""
    trigger = cron(**given_fields)
    rule = planned(trigger)
    wanted: list[datetime] = []
    end = since + 20 * 365 * DAY
    bounded = cron(**given_fields, end_date=end)  # or APScheduler looks through 8,000 years
    instant = bounded.get_next_fire_time(None, since + MICRO)
    while instant is not None and len(wanted) < 8:
        wanted.append(instant)
        instant = bounded.get_next_fire_time(instant, instant)
    until = wanted[-1] if len(wanted) == 8 else end
    assert listing(rule, since, until) == wanted
    assert listing_backwards(rule, since, until) == wanted
    assert rule.count_between(since, until, cap=100) == (len(wanted), True)


def test_a_rule_that_never_comes_true_has_no_instants_and_says_so_at_once() -> None:
    """30 February, a year that is over, and a week that January does not have."""
    begin = perf_counter()
    for rule in map(planned, (cron(month=2, day=30), cron(year=2020), cron(month=1, week=30))):
        assert rule.next_after(NOON) is None
        assert rule.latest_until(NOON, after=datetime(2021, 1, 1, tzinfo=UTC)) is None
        assert rule.count_between(datetime(2021, 1, 1, tzinfo=UTC), NOON, cap=9) == (0, True)
    assert perf_counter() - begin < 5


def test_questions_over_a_gap_of_a_year_are_cheap() -> None:
    """Every second of a year: what is newest, and that there are 10,000."""
    rule = planned(CronTrigger(second="*", timezone="Europe/Berlin"))
    begin = perf_counter()
    for _ in range(20):
        assert rule.latest_until(NOON, after=NOON - 365 * DAY) == NOON
        assert rule.count_between(NOON - 365 * DAY, NOON, cap=10_000) == (10_000, False)
    assert (perf_counter() - begin) / 20 < 0.1


def test_bounds_belong_to_what_they_bound() -> None:
    """Both dates are instants of the rule if they match, and nothing is beyond them."""
    rule = planned(
        CronTrigger(minute="*/10", start_date=NOON, end_date=NOON + timedelta(minutes=30))
    )
    wanted = [NOON + n * timedelta(minutes=10) for n in range(4)]
    assert listing(rule, NOON - DAY, NOON + DAY) == wanted
    assert listing_backwards(rule, NOON - DAY, NOON + DAY) == wanted
    assert rule.count_between(NOON - DAY, NOON + DAY, cap=10) == (4, True)
    assert rule.next_after(wanted[-1]) is None


def test_a_bound_made_of_the_time_now_holds_but_is_each_process_s_own() -> None:
    """Two processes have one rule, and neither begins before its own bound."""
    early, late = (planned(cron(minute="*", start_date=NOON + n * MICRO)) for n in (1, 2))
    assert early.fingerprint == late.fingerprint == planned(cron(minute="*")).fingerprint
    assert early.next_after(NOON - DAY) == NOON + timedelta(minutes=1)
    whole = planned(cron(minute="*", start_date=NOON))
    assert whole.fingerprint != early.fingerprint


def test_fingerprints_and_words_of_cron_triggers() -> None:
    """They lie in ledgers: a release that changed the former would restart every schedule."""
    rule = planned(CronTrigger(hour=2, minute=30, timezone="Europe/Berlin", jitter=5))
    assert rule.fingerprint == "aps-cron:*;*;*;*;*;2;30;0:Europe/Berlin"
    assert rule.describe() == "cron[hour='2', minute='30'] (Europe/Berlin)"
    assert repr(rule) == "<Planned: cron[hour='2', minute='30'] (Europe/Berlin)>"
    bounded = planned(cron(hour=2, end_date=NOON))
    assert bounded.fingerprint == "aps-cron:*;*;*;*;*;2;0;0:UTC:until:2026-07-14T12:00:00+00:00"
    assert bounded.describe() == "cron[hour='2'] (UTC) until 2026-07-14T12:00:00+00:00"


# -- zones ----------------------------------------------------------------------------------------


class Named(tzinfo):
    """A zone as pytz has them: it knows its name as ``zone``, and a wrong offset."""

    def __init__(self, name: str | None) -> None:
        self.zone = name

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        """Return nothing, or pytz's fixed offset."""
        return None if self.zone else timedelta(hours=2)

    def dst(self, _: datetime | None) -> timedelta | None:
        """Return nothing."""
        return None

    def tzname(self, _: datetime | None) -> str:
        """Return some name."""
        return "LMT"


class Nameless(Named):
    """The local zone of a host that does not know what it is called."""

    def utcoffset(self, instant: datetime | None) -> timedelta | None:
        """Return an offset for an instant alone."""
        return None if instant is None else timedelta(hours=2)


def in_zone(zone: tzinfo) -> CronTrigger:
    """Return a trigger that holds a zone as older releases and job stores do."""
    trigger = CronTrigger(hour=3)
    trigger.timezone = zone
    return trigger


@pytest.mark.parametrize(
    ("zone", "name", "hour"),
    [
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin", 1),
        (Named("Europe/Berlin"), "Europe/Berlin", 1),
        (Named(None), "UTC+02:00", 1),
        (timezone(timedelta(hours=-3), "home"), "UTC-03:00", 6),
        (UTC, "UTC", 3),
        (ZoneInfo("UTC"), "UTC", 3),
    ],
)
def test_zones_of_all_kinds(zone: tzinfo, name: str, hour: int) -> None:
    """Of zoneinfo, of pytz, and fixed: one name for one zone."""
    rule = planned(in_zone(zone))
    assert rule.fingerprint.endswith(f":{name}")
    assert rule.next_after(NOON) == datetime(2026, 7, 15, hour, tzinfo=UTC)


def test_a_zone_that_can_not_be_named_is_refused() -> None:
    """Nodes could not tell whether they mean the same."""
    with pytest.raises(ConfigurationError, match=r"write its IANA name.*of the trigger, or of its"):
        planned(in_zone(Nameless(None)))


def test_the_ends_of_the_calendar_are_no_errors() -> None:
    """Before the first and after the last year there is nothing planned."""
    rule = planned(cron(minute="*"))
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert rule.next_after(last) is None
    assert rule.next_after(last - 20 * SECOND) is None
    assert rule.latest_until(first, after=first) is None
