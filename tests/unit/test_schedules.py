"""Schedules: the arithmetic of `Every`, what `Cron` accepts, and what both have in common."""

import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import cronsim
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leader_jobs.exceptions import ConfigurationError, LeaderJobsError
from leader_jobs.schedules import EPOCH, Cron, Every, Schedule, as_utc

MICRO = timedelta(microseconds=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE_LINE = r"[^\n]*"

instants = st.datetimes(
    min_value=datetime(1900, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)
periods = st.one_of(
    st.sampled_from([100_000, 1_000_000, 30_000_000, 86_400_000_000, 100_001]),
    st.integers(100_000, 10**15),
).map(lambda micros: timedelta(microseconds=micros))


# -- every ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(period=periods, anchor=instants, instant=instants)
def test_every_finds_the_neighbours_of_any_instant(
    period: timedelta, anchor: datetime, instant: datetime
) -> None:
    """The next instant is the first later one, the latest the last earlier one, both on the grid."""
    every = Every(period, anchor=anchor)
    later = every.next_after(instant)
    assert later is not None
    assert (later - anchor) % period == timedelta()
    assert timedelta() < later - instant <= period
    former = every.latest_until(instant, after=instant - period)
    assert former == later - period
    assert every.latest_until(instant, after=former) is None
    assert every.count_between(former - 5 * period, instant, cap=1) == (5, True)


@given(period=periods, steps=st.integers(-(10**6), 10**6))
def test_every_does_not_drift(period: timedelta, steps: int) -> None:
    """However far from its anchor, an instant is a whole number of periods away."""
    assume(abs(steps * period.total_seconds()) < 5e10)
    planned = EPOCH + steps * period
    every = Every(period)
    assert every.next_after(planned - MICRO) == planned
    assert every.latest_until(planned, after=planned - MICRO) == planned


def test_every_falls_on_round_instants_by_default() -> None:
    """A period of 30 s is due at :00 and :30 in UTC; a tenth of a second does not creep."""
    assert Every(30).next_after(NOON) == NOON + timedelta(seconds=30)
    assert Every(30).next_after(NOON - MICRO) == NOON
    tenth = Every(0.1)
    assert tenth.count_between(NOON, NOON + timedelta(days=1), cap=1) == (864_000, True)
    assert tenth.latest_until(NOON, after=EPOCH) == NOON


def test_an_anchor_means_the_same_in_any_zone_and_any_period_away() -> None:
    """The fingerprint follows the set of instants, not the way it was written."""
    anchor = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
    same = Every(timedelta(minutes=1), anchor=anchor)
    berlin = anchor.astimezone(ZoneInfo("Europe/Berlin"))
    assert Every(60, anchor=berlin).fingerprint == same.fingerprint
    assert Every(60.0, anchor=anchor + timedelta(hours=5)).fingerprint == same.fingerprint
    others = [Every(60), Every(60, anchor=anchor + MICRO), Every(61, anchor=anchor)]
    assert len({same.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_fingerprints_are_written_down() -> None:
    """They lie in ledgers: a release that changed them would restart every schedule."""
    assert Every(30).fingerprint == "every:30000000:0"
    berlin = Cron(" 0  3 * *  mon ", timezone="Europe/Berlin")
    assert berlin.fingerprint == "cron:0 3 * * MON:Europe/Berlin"


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (Every(30), "every 30 s"),
        (Every(0.25), "every 0.25 s"),
        (Every(100), "every 100 s"),
        (Every(300), "every 5 min"),
        (Every(timedelta(hours=36)), "every 36 h"),
        (Every(86_400), "every 1 d"),
        (
            Every(60, anchor=NOON + timedelta(seconds=5)),
            "every 1 min, through 1970-01-01T00:00:05+00:00",
        ),
    ],
)
def test_every_in_words(every: Every, words: str) -> None:
    """The largest unit that divides the period is used."""
    assert every.describe() == words
    assert words in repr(every)


@pytest.mark.parametrize(
    "period",
    [
        0,
        -5,
        0.0999,
        math.nan,
        math.inf,
        -math.inf,
        True,
        10**30,
        timedelta(),
        timedelta(days=36_526),
        timedelta.max,
        "30",
        None,
    ],
)
def test_every_refuses_what_is_no_period(period: Any) -> None:
    """The message names key, value and the way out, in one line."""
    with pytest.raises(
        ConfigurationError, match=rf"^every is {ONE_LINE}seconds{ONE_LINE}$"
    ) as info:
        Every(period)
    assert repr(period) in str(info.value)


def test_the_shortest_and_the_longest_period_are_fine() -> None:
    """The ends of the range belong to it."""
    assert Every(0.1).next_after(EPOCH) == EPOCH + timedelta(milliseconds=100)
    assert Every(36_525 * 86_400).next_after(EPOCH) == EPOCH + timedelta(days=36_525)


# -- both -----------------------------------------------------------------------------------------

schedules: st.SearchStrategy[Schedule] = st.one_of(
    periods.map(Every),
    st.builds(Every, periods, anchor=instants),
    st.builds(
        lambda line, zone: Cron(line, timezone=zone),
        st.sampled_from(["* * * * *", "*/7 1-5 * * *", "0 3 * * MON", "5 4 31 * *", "0 0 29 2 *"]),
        st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    ),
)


@settings(deadline=None)
@given(schedule=schedules, instant=instants)
def test_going_on_and_looking_back_agree(schedule: Schedule, instant: datetime) -> None:
    """Ten steps on are strictly later each; each is the latest of its time, and they are ten."""
    found: list[datetime] = []
    last: datetime | None = instant
    for _ in range(10):
        assert last is not None
        last = schedule.next_after(last)
        assert last is not None
        found.append(last)
    assert all(former < later for former, later in pairwise([instant, *found]))
    for former, later in pairwise(found):
        assert schedule.latest_until(later - MICRO, after=instant) == former
        assert schedule.latest_until(later, after=former) == later
    assert schedule.count_between(instant, found[-1], cap=1000) == (10, True)


@pytest.mark.parametrize("schedule", [Every(60), Cron("0 0 1 1 *"), Cron("* * * * *")])
def test_the_ends_of_the_calendar_are_no_errors(schedule: Schedule) -> None:
    """Before the first and after the last year there is nothing planned."""
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    assert schedule.next_after(last) is None
    assert schedule.latest_until(first, after=first) is None


@pytest.mark.parametrize("schedule", [Every(60), Cron("* * * * *")])
def test_an_empty_or_backward_range_has_nothing(schedule: Schedule) -> None:
    """A range that ends before it begins is empty, not negative."""
    later = NOON + timedelta(hours=1)
    assert schedule.latest_until(NOON, after=later) is None
    assert schedule.latest_until(NOON, after=NOON) is None
    assert schedule.count_between(later, NOON, cap=10) == (0, True)


@pytest.mark.parametrize("schedule", [Every(60), Cron("* * * * *")])
def test_naive_instants_are_refused(schedule: Schedule) -> None:
    """An instant without a zone is another one on each node."""
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(ConfigurationError, match="aware"):
        schedule.next_after(naive)
    with pytest.raises(ConfigurationError, match="aware"):
        schedule.latest_until(NOON, after=naive)
    with pytest.raises(ConfigurationError, match="aware"):
        schedule.count_between(naive, NOON, cap=1)
    with pytest.raises(ConfigurationError, match="aware"):
        Every(60, anchor=naive)


def test_instants_of_any_zone_are_understood() -> None:
    """What is asked in local time is answered in UTC."""
    local = NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    assert as_utc(local).tzinfo is UTC
    for schedule in (Every(60), Cron("* * * * *", timezone="Asia/Tokyo")):
        found = schedule.next_after(local)
        assert found == NOON + timedelta(minutes=1)
        assert found is not None
        assert found.tzinfo is UTC


# -- cron -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@Monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_words_stand_for_lines(word: str, line: str) -> None:
    """A word is the same schedule as its line, and is shown as it was written."""
    assert Cron(word).fingerprint == Cron(line).fingerprint
    assert Cron(word).next_after(NOON) == Cron(line).next_after(NOON)
    assert Cron(word).describe() == f"{word} (UTC)"


def test_cron_fingerprints_follow_line_and_zone() -> None:
    """Case and spacing mean nothing; the line and the zone do."""
    base = Cron("*/5 * * * mon", timezone="Europe/Paris")
    assert (
        Cron(" */5  * * * MON ", timezone=ZoneInfo("Europe/Paris")).fingerprint == base.fingerprint
    )
    others = [Cron("*/5 * * * mon"), Cron("*/6 * * * mon", timezone="Europe/Paris")]
    assert all(other.fingerprint != base.fingerprint for other in others)
    assert base.describe() == "*/5 * * * mon (Europe/Paris)"
    assert repr(base) == "<Cron: */5 * * * mon (Europe/Paris)>"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("0 0 30 2 *", "never fires; name a day that the month has"),
        ("0 0 31 4,6 *", "never fires; name a day that the month has"),
        ("0 0 0 1 1 *", "six fields, but seconds are not supported.*every="),
        ("* * *", "3 fields; write five fields: minute hour day month weekday"),
        ("", "0 fields"),
        ("61 * * * *", "bad minute; write five fields"),
        ("* * 32 * *", "bad day-of-month; write five fields"),
        ("* * * MOO *", "bad month"),
        ("*/0 * * * *", "bad minute"),
        ("@reboot", "not a known word; known are @hourly"),
        ("@dayly", "did you mean @daily"),
        (5, "write five fields"),
        (None, "write five fields"),
    ],
)
def test_lines_that_are_none_are_refused(line: Any, hint: str) -> None:
    """The message shows the line and says what to write, in one line."""
    with pytest.raises(ConfigurationError, match=rf"^cron is {ONE_LINE}{hint}{ONE_LINE}$"):
        Cron(line)


def test_a_line_that_always_falls_into_the_gap_is_refused() -> None:
    """On the last Sunday of March Berlin has no such hour; UTC has."""
    line = "*/5 2 * 3 7L"
    with pytest.raises(ConfigurationError, match=r"Europe/Berlin.*never fires"):
        Cron(line, timezone="Europe/Berlin")
    assert Cron(line).next_after(NOON) == datetime(2026, 3, 29, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Pariss", "did you mean 'Europe/Paris'"),
        ("europe/paris", "did you mean 'Europe/Paris'"),
        ("America/New York", "did you mean 'America/New_York'"),
        ("Nowhere at all", "no such zone; write an IANA name"),
        ("Europe", "no such zone"),
        ("../../etc/passwd", "no such zone"),
        ("", "no such zone"),
        ("localtime", "differs from node to node"),
        (7, "write its IANA name"),
        (None, "write its IANA name"),
    ],
)
def test_unknown_zones_are_refused(zone: Any, hint: str) -> None:
    """The message shows the zone and the nearest one there is."""
    with pytest.raises(ConfigurationError, match=rf"^timezone is {ONE_LINE}{hint}{ONE_LINE}$"):
        Cron("0 3 * * *", timezone=zone)


def test_a_zone_without_a_name_is_refused() -> None:
    """Nodes could not tell whether they mean the same zone."""

    class Homemade(tzinfo):
        def utcoffset(self, _: datetime | None) -> timedelta:
            return timedelta(hours=1)

        def dst(self, _: datetime | None) -> timedelta:
            return timedelta()

        def tzname(self, _: datetime | None) -> str:
            return "home"

    with pytest.raises(ConfigurationError, match="write its IANA name"):
        Cron("0 3 * * *", timezone=Homemade())


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        (UTC, "UTC"),
        ("UTC", "UTC"),
        (timezone(timedelta(hours=-3, minutes=-30), "home"), "UTC-03:30"),
        (ZoneInfo("Asia/Tokyo"), "Asia/Tokyo"),
    ],
)
def test_zones_go_by_a_name_that_all_nodes_share(zone: str | tzinfo, name: str) -> None:
    """A fixed offset goes by the offset, not by what somebody called it."""
    assert Cron("0 3 * * *", timezone=zone).describe() == f"0 3 * * * ({name})"


def test_a_fixed_offset_is_kept() -> None:
    """Three in the morning at UTC-03:30 is half past six."""
    zone = timezone(timedelta(hours=-3, minutes=-30))
    assert Cron("0 3 * * *", timezone=zone).next_after(NOON) == datetime(
        2026, 3, 2, 6, 30, tzinfo=UTC
    )


def test_without_cronsim_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing extra is a configuration error, not an import error."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigurationError, match=r'pip install "leader-jobs\[cron\]"'):
        Cron("* * * * *")


def test_a_walk_that_does_not_move_on_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that steps back must not keep the leader busy for ever (APScheduler#1036)."""

    class Stuck:
        def __init__(self, *args: object) -> None:
            pass

        def __next__(self) -> datetime:
            return datetime(2000, 1, 1)  # noqa: DTZ001 - a wall time

    monkeypatch.setattr(cronsim, "CronSim", Stuck)
    with pytest.raises(LeaderJobsError, match="does not move on"):
        Cron("* * * * *")


_ELSEWHERE = """
import sys
from datetime import UTC, datetime
import leader_jobs.schedules as schedules
assert "cronsim" not in sys.modules
for schedule in (
    schedules.Every(7), schedules.Cron("30 2 * * *"),
    schedules.Cron("30 2 * * *", timezone="Europe/Berlin"),
):
    print(schedule.fingerprint, schedule.describe())
    instant = datetime(2026, 3, 28, tzinfo=UTC)
    for _ in range(3):
        instant = schedule.next_after(instant)
        print(instant.isoformat(), schedule.latest_until(instant, after=schedules.EPOCH))
"""


def test_nodes_in_different_zones_plan_the_same() -> None:
    """The local time zone of a node changes nothing; cronsim is not loaded before it is needed."""
    printed = {
        subprocess.run(
            [sys.executable, "-c", _ELSEWHERE],
            env={**os.environ, "TZ": zone},
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
        for zone in ("Asia/Tokyo", "America/New_York")
    }
    assert len(printed) == 1
    assert "2026-03-29T01:00:00+00:00" in printed.pop()
