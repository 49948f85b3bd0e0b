"""APScheduler's combinations of triggers, and triggers of which nothing is known."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from leader_jobs.adapters.apscheduler_triggers import jitter_of, planned
from leader_jobs.occurrences import CatchUp, Policy, plan
from leader_jobs.schedules import Schedule
from testsupport.clock_changes import listing, listing_backwards

MICRO = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)

cron = partial(CronTrigger, timezone="UTC")
interval = partial(IntervalTrigger, timezone="UTC")

parts = st.builds(
    lambda minute, second: cron(minute=minute, second=second),
    st.sampled_from(["*", "*/2", "*/7", "10-20", "0", "5,25,45"]),
    st.sampled_from(["0", "*/15", "0,20"]),
)
seconds = st.integers(-7200, 7200)


def together(
    combine: Callable[..., set[datetime]], rules: list[Schedule], since: datetime, until: datetime
) -> list[datetime]:
    """Return in order what sets of instants make together."""
    return sorted(combine(*(set(listing(rule, since, until)) for rule in rules)))


@pytest.mark.parametrize(
    ("trigger", "combine"),
    [(OrTrigger, set.union), (AndTrigger, set.intersection)],
    ids=["or", "and"],
)
@settings(deadline=None, max_examples=40)
@given(members=st.lists(parts, min_size=1, max_size=3), ends=st.tuples(seconds, seconds))
def test_combinations_of_sets_are_sets(
    trigger: type, combine: Any, members: list[Any], ends: tuple[int, int]
) -> None:
    """Forward, backward and counted they are what their parts make together."""
    since, until = sorted(NOON + end * SECOND for end in ends)
    rule = planned(trigger(members))
    wanted = together(combine, [planned(member) for member in members], since, until)
    assert listing(rule, since, until) == wanted
    assert listing_backwards(rule, since, until)[-30:] == wanted[-30:]
    assert rule.count_between(since, until, cap=1000) == (len(wanted), len(wanted) < 1000)


def test_a_combination_follows_the_rules_of_its_parts_where_clocks_change() -> None:
    """Half past two in Berlin comes once in autumn, though stock would have it twice."""
    berlin = partial(CronTrigger, timezone="Europe/Berlin")
    rule = planned(OrTrigger([berlin(hour=2, minute=30), berlin(hour=12)]))
    midnight = datetime(2026, 10, 25, tzinfo=ZoneInfo("Europe/Berlin"))
    assert listing(rule, midnight, midnight + DAY) == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 11, tzinfo=UTC),
    ]


def test_a_date_counts_in_a_combination() -> None:
    """Stock forgets it after the first run."""
    rule = planned(OrTrigger([cron(hour=18), DateTrigger(NOON + HOUR)]))
    assert listing(rule, NOON, NOON + DAY) == [NOON + HOUR, NOON + 6 * HOUR]


def test_the_order_of_the_parts_means_nothing() -> None:
    """The fingerprint is that of the set; the words are as they were given."""
    one, other = (
        OrTrigger([cron(hour=3), cron(minute=5)]),
        OrTrigger([cron(minute=5), cron(hour=3)]),
    )
    assert planned(one) == planned(other)
    assert planned(one).describe() == "cron[hour='3'] (UTC) or cron[minute='5'] (UTC)"
    assert planned(AndTrigger([cron(hour=3), cron(minute=5)])).describe() == (
        "cron[hour='3'] (UTC) and cron[minute='5'] (UTC)"
    )


def test_an_interval_in_an_or_is_counted_from_the_run_before() -> None:
    """As in stock, whichever part that run came from; and from the cursor all nodes agree."""
    trigger = OrTrigger([cron(minute=0), interval(minutes=25)])
    rule = planned(trigger)
    wanted = [NOON + n * MINUTE for n in (25, 50, 60, 85, 110, 120)]
    assert listing(rule, NOON, NOON + 2 * HOUR) == wanted
    assert listing_backwards(planned(trigger), NOON, NOON + 2 * HOUR) == wanted
    assert rule.count_between(NOON, NOON + 2 * HOUR, cap=100) == (6, True)
    assert rule.fingerprint.startswith("aps-or:[aps-cron:")
    assert (
        rule.fingerprint == planned(OrTrigger([interval(minutes=25), cron(minute=0)])).fingerprint
    )


def test_an_interval_in_an_and_is_counted_from_the_cursor() -> None:
    """Every two hours of weekends, as in APScheduler's own guide."""
    trigger = AndTrigger([interval(hours=2), cron(day_of_week="sat,sun", hour="*")])
    rule = planned(trigger)
    friday = datetime(2026, 7, 17, 12, tzinfo=UTC)
    wanted = [friday + (12 + 2 * n) * HOUR for n in range(24)]
    assert listing(rule, friday, friday + 3 * DAY) == wanted
    assert listing_backwards(planned(trigger), friday, friday + 3 * DAY) == wanted


@pytest.mark.parametrize(
    "members",
    [
        [cron(second="*/2"), cron(second="1-59/2")],
        [interval(hours=2), cron(minute=0)],
        [interval(seconds=2), interval(seconds=2, start_date=NOON)],
    ],
    ids=["never", "not from this cursor", "not anchored"],
)
def test_parts_that_never_agree_come_to_an_end(
    members: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Stock looks on for ever; this is said once and takes no time again."""
    rule, cursor = planned(AndTrigger(members)), NOON + 7 * MICRO
    with caplog.at_level(logging.WARNING):
        assert rule.next_after(cursor) is None
        begin = perf_counter()
        assert rule.next_after(cursor) is None
        assert rule.latest_until(NOON + 300 * DAY, after=cursor) is None
        assert rule.count_between(cursor, NOON + 300 * DAY, cap=100) == (0, True)
        assert perf_counter() - begin < 0.5
    assert len(caplog.records) == 1
    assert "do not agree" in caplog.text


def test_counting_a_combination_of_seconds_over_a_year_stops_early() -> None:
    """A thousand is enough to say that there are many."""
    rule = planned(OrTrigger([cron(second="*/2"), cron(second="*/3")]))
    assert rule.count_between(NOON - 365 * DAY, NOON, cap=10_000) == (1_000, False)
    assert rule.latest_until(NOON, after=NOON - 365 * DAY) == NOON


# -- triggers of which nothing is known -----------------------------------------------------------


class Custom(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """A trigger made of a function, that remembers when it was asked."""

    def __init__(self, follow: Callable[[datetime], Any], **given: Any) -> None:
        self.__dict__.update(given)
        self._follow = follow
        self._asked: list[datetime] = []

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> Any:
        """Return what follows the former run time, which is also now."""
        assert previous_fire_time is not None
        assert previous_fire_time == now
        self._asked.append(now)
        return self._follow(now)


class Workdays(CronTrigger):  # type: ignore[misc]  # APScheduler has no types
    """A cron trigger that leaves out weekends, and some days off."""

    def __init__(self, off: tuple[int, ...] = (), **given: Any) -> None:
        super().__init__(timezone="UTC", **given)
        self.off = off
        self._asked = 0

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> Any:
        """Return the next time on a day that counts."""
        self._asked += 1
        found = super().get_next_fire_time(previous_fire_time, now)
        while found is not None and (found.weekday() > 4 or found.day in self.off):
            midnight = found.replace(hour=0, minute=0, second=0) + DAY
            found = super().get_next_fire_time(None, midnight)
        return found


def uneven(instant: datetime) -> datetime:
    """Return an instant 4 to 10 minutes on."""
    return instant + timedelta(minutes=4 + instant.minute % 7)


def test_the_instants_of_a_custom_trigger_are_a_chain() -> None:
    """Each follows from the one before, in the trigger's own zone."""
    trigger = Custom(uneven, timezone=ZoneInfo("Asia/Tokyo"))
    rule = planned(trigger)
    found = listing(rule, NOON, NOON + HOUR)
    assert found[:3] == [NOON + n * MINUTE for n in (4, 12, 21)]
    assert trigger._asked[0].tzinfo == ZoneInfo("Asia/Tokyo")
    assert all(instant.tzinfo is UTC for instant in found)
    assert listing_backwards(planned(Custom(uneven)), NOON, NOON + HOUR) == found
    assert rule.count_between(NOON, NOON + HOUR, cap=100) == (len(found), True)
    assert rule.describe() == f"when {__name__}.Custom says so"


def test_catching_up_asks_for_each_instant_once() -> None:
    """A hundred at once, and then on from the last of them: no instant is walked to twice."""
    trigger = Custom(lambda instant: instant + MINUTE)
    rule = planned(trigger)
    policy = Policy(catch_up=CatchUp.ALL, max_burst=100)
    made = plan(rule, policy, cursor=NOON, now=NOON + 16 * HOUR)
    assert made.run == tuple(NOON + 16 * HOUR - n * MINUTE for n in reversed(range(100)))
    assert [each.count for each in made.passed] == [860]
    plan(rule, policy, cursor=made.cursor, now=NOON + 17 * HOUR)
    rule.next_after(NOON + 17 * HOUR)
    assert trigger._asked == [NOON + n * MINUTE for n in range(1021)]


@pytest.mark.parametrize("step", [SECOND, 7 * SECOND, timedelta(seconds=0.3)])
def test_a_long_gap_of_even_steps_is_leapt_over_exactly(step: timedelta) -> None:
    """Over half a year: the newest instant, and the ninety-nine before it, in few questions."""
    trigger = Custom(lambda instant: instant + step)
    rule, now = planned(trigger), NOON + 180 * DAY + timedelta(seconds=0.1)
    made = plan(rule, Policy(catch_up=CatchUp.ALL, max_burst=100), cursor=NOON, now=now)
    newest = NOON + (now - NOON) // step * step
    assert made.run == tuple(newest - n * step for n in reversed(range(100)))
    assert [(each.count, each.exact) for each in made.passed] == [(10_000, False)]
    assert len(trigger._asked) < 20_000


@pytest.mark.parametrize(
    "until",
    [
        datetime(2026, 7, 17, 23, 0, tzinfo=UTC),
        datetime(2026, 7, 19, 18, 0, tzinfo=UTC),
        datetime(2026, 7, 20, 0, 1, tzinfo=UTC),
        datetime(2026, 9, 6, 12, 0, tzinfo=UTC),
    ],
)
def test_a_long_gap_of_a_trigger_that_is_a_set_is_leapt_over_exactly(until: datetime) -> None:
    """Seconds of workdays, seen from a weekend: the newest is the last one on Friday."""
    trigger = Workdays(off=(27, 28), second="*/5")
    newest = planned(trigger).latest_until(until, after=NOON)
    assert trigger._asked < 20_000
    day = until - 5 * SECOND
    friday = (day - max(0, day.weekday() - 4) * DAY).replace(hour=23, minute=59, second=55)
    assert newest == min(friday, until)


def test_a_leap_finds_what_was_dense_only_at_first() -> None:
    """A million seconds, and then nothing for years."""
    end = NOON + 10**6 * SECOND
    trigger = Custom(lambda instant: instant + SECOND if instant < end else None)
    rule = planned(trigger)
    assert rule.latest_until(NOON + 4000 * DAY, after=NOON) == end
    assert len(trigger._asked) < 20_000
    assert rule.next_after(end) is None
    assert rule.latest_until(NOON + 4000 * DAY, after=end) is None


def fail(_: datetime) -> datetime:
    """Raise as a trigger with a fault would."""
    msg = "no tide tables"
    raise LookupError(msg)


@pytest.mark.parametrize(
    ("follow", "words"),
    [
        (lambda instant: instant, "does not move on"),
        (lambda instant: instant - SECOND, "does not move on"),
        (lambda instant: (instant + SECOND).replace(tzinfo=None), "no datetime with a time zone"),
        (lambda _: "tomorrow", "no datetime with a time zone"),
        (fail, "LookupError: no tide tables"),
    ],
    ids=["stays", "back", "naive", "text", "fails"],
)
def test_a_trigger_that_can_not_tell_ends(
    follow: Callable[[datetime], Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and nothing loops."""
    rule = planned(Custom(follow))
    for cursor in (NOON, NOON + SECOND):
        assert rule.next_after(cursor) is None
        assert rule.latest_until(NOON + DAY, after=cursor) is None
        assert rule.count_between(cursor, NOON + DAY, cap=10) == (0, True)
    assert len(caplog.records) == 1
    assert words in caplog.text
    assert f"{__name__}.Custom" in caplog.text


def test_the_end_of_the_calendar_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A trigger that would step beyond it has ended, without a word."""
    last = datetime.max.replace(tzinfo=UTC)
    for trigger in (Custom(uneven), OrTrigger([interval(hours=1)]), AndTrigger([cron(minute=0)])):
        assert planned(trigger).next_after(last) is None
    assert not caplog.records


def test_two_processes_agree_on_a_custom_trigger() -> None:
    """What is made of the time now, is private or no plain value, is no part of the fingerprint."""

    def trigger(**given: Any) -> str:
        return planned(Custom(lambda i: i + MINUTE, **given)).fingerprint

    assert trigger() == f"aps-chain:{__name__}.Custom()"
    assert trigger(start_date=NOON + MICRO) == trigger(start_date=NOON + 2 * MICRO)
    assert trigger(lookup=object()) == trigger(lookup=object())
    assert trigger(jitter=3) == trigger()
    days = trigger(days={"mon", "tue"}, zone=ZoneInfo("Asia/Tokyo"), off=[NOON.date()])
    assert (
        days
        == f"aps-chain:{__name__}.Custom(days=['mon', 'tue'],off=['2026-07-14'],zone=Asia/Tokyo)"
    )
    assert trigger(inner=cron(hour=3)) != trigger(inner=cron(hour=4))
    assert trigger(start_date=NOON) != trigger(start_date=NOON + SECOND)
    slotted = planned(Workdays(hour=3)).fingerprint
    assert slotted != planned(Workdays(hour=4)).fingerprint
    assert slotted != planned(Workdays(off=(1,), hour=3)).fingerprint


class Delayed(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Another trigger's times, a little later; holds it in slots, and knows no ``__getstate__``."""

    __slots__ = ("inner", "jitter")

    def __init__(self, inner: list[Any], jitter: int) -> None:
        self.inner, self.jitter = inner, jitter

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> Any:
        """Return the inner trigger's time with a jitter."""
        found = self.inner[0].get_next_fire_time(previous_fire_time, now)
        return self._apply_jitter(found, self.jitter, now)


def test_a_custom_trigger_is_asked_without_its_jitter_and_left_as_it_is() -> None:
    """Nor with that of what it is made of; a subclass may have no complete state to copy."""
    trigger = Delayed([Workdays(minute="*", jitter=30)], jitter=900)
    assert jitter_of(trigger) == 900
    rule = planned(trigger)
    wanted = [NOON + n * MINUTE for n in range(1, 61)]
    assert listing(rule, NOON, NOON + HOUR) == wanted
    assert (trigger.jitter, trigger.inner[0].jitter) == (900, 30)
