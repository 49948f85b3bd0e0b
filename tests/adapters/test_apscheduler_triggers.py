"""APScheduler's intervals, dates and schedules of ours, and what the ledger's planning makes of all."""

import pickle
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from leader_jobs.adapters.apscheduler_triggers import ScheduleTrigger, jitter_of, planned
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.occurrences import CatchUp, Policy, Reason, plan
from leader_jobs.schedules import Cron, Every, Schedule
from testsupport.clock_changes import listing, listing_backwards

MICRO = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)
ODD = NOON + timedelta(microseconds=271_828)

interval = partial(IntervalTrigger, timezone="UTC")
cron = partial(CronTrigger, timezone="UTC")


# -- intervals ------------------------------------------------------------------------------------


@given(
    micros=st.integers(100_000, 10**12),
    late=st.integers(0, 10**15),
    cursor=st.datetimes(
        min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001 - likewise
        timezones=st.just(UTC),
    ),
)
def test_an_interval_keeps_the_phase_of_its_cursor(
    micros: int, late: int, cursor: datetime
) -> None:
    """However late, the newest instant is a whole number of periods from the cursor."""
    trigger = interval(start_date=ODD)
    trigger.interval = period = micros * MICRO
    rule, now = planned(trigger), cursor + late * MICRO
    assert rule.next_after(cursor) == cursor + period
    number = late // micros
    assert rule.count_between(cursor, now, cap=1) == (number, True)
    newest = rule.latest_until(now, after=cursor)
    assert newest == (cursor + number * period if number else None)


def test_two_processes_agree_on_an_interval_that_each_of_them_made() -> None:
    """Their default start dates differ; neither is any part of the rule."""
    one, other = (interval(seconds=30, start_date=start) for start in (ODD, ODD + MINUTE))
    assert planned(one) == planned(other)
    assert planned(one).fingerprint == planned(other).fingerprint == "aps-interval:30000000"
    assert listing(planned(one), NOON, NOON + HOUR) == listing(planned(other), NOON, NOON + HOUR)
    fresh = planned(interval(seconds=30))
    assert fresh.next_after(NOON) == NOON + 30 * SECOND
    assert fresh.describe() == "every 30 s"


def test_a_start_date_on_a_whole_second_was_given_and_counts() -> None:
    """Instants are a whole number of periods from it, and none is before it."""
    rule = planned(interval(minutes=7, start_date=NOON))
    assert rule.next_after(NOON - DAY) == NOON
    assert rule.next_after(ODD) == NOON + 7 * MINUTE
    assert rule.latest_until(NOON + HOUR, after=NOON - DAY) == NOON + 56 * MINUTE
    assert rule.latest_until(NOON - MICRO, after=NOON - DAY) is None
    assert rule.count_between(NOON - DAY, NOON + HOUR, cap=100) == (9, True)
    assert rule.fingerprint == "aps-interval:420000000:from:2026-07-14T12:00:00+00:00"
    assert rule.describe() == "every 7 min from 2026-07-14T12:00:00+00:00"
    assert rule != planned(interval(minutes=7, start_date=NOON + SECOND))


@pytest.mark.parametrize("start", [ODD, NOON])
def test_an_end_date_ends_an_interval(start: datetime) -> None:
    """It may itself be the last instant."""
    rule = planned(interval(minutes=10, start_date=start, end_date=NOON + HOUR))
    wanted = [NOON + n * 10 * MINUTE for n in range(1, 7)]
    assert listing(rule, NOON, NOON + DAY) == wanted
    assert listing_backwards(rule, NOON, NOON + DAY) == wanted
    assert rule.count_between(NOON, NOON + DAY, cap=100) == (6, True)
    assert rule.latest_until(NOON + DAY, after=NOON + HOUR) is None
    assert rule.fingerprint.endswith(":until:2026-07-14T13:00:00+00:00")


def test_an_interval_goes_by_elapsed_time_in_any_zone() -> None:
    """The hour that Berlin skips does not count."""
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 3, 29, 1, tzinfo=berlin)
    rule = planned(IntervalTrigger(hours=1, start_date=start))
    assert rule.next_after(start) == datetime(2026, 3, 29, 3, tzinfo=berlin)
    assert rule.count_between(start, datetime(2026, 3, 29, 4, tzinfo=berlin), cap=9) == (2, True)


@pytest.mark.parametrize("seconds", [0.05, -1, 10**10])
def test_an_interval_that_is_none_is_refused(seconds: float) -> None:
    """The message says what it may be."""
    with pytest.raises(ConfigurationError, match=r"interval is .*between 0\.1 s and 100 years"):
        planned(interval(seconds=seconds, start_date=NOON))


# -- dates, schedules, and what is none of these ---------------------------------------------------


def test_a_date_is_one_instant() -> None:
    """Before it, it is next; after it, nothing is."""
    rule = planned(DateTrigger(NOON.astimezone(ZoneInfo("Asia/Tokyo"))))
    assert listing(rule, NOON - DAY, NOON + DAY) == [NOON]
    assert listing_backwards(rule, NOON - DAY, NOON + DAY) == [NOON]
    assert rule.count_between(NOON - DAY, NOON, cap=9) == (1, True)
    assert rule.count_between(NOON, NOON + DAY, cap=9) == (0, True)
    assert rule.next_after(NOON) is None
    assert rule.fingerprint == "aps-date:2026-07-14T12:00:00+00:00"
    assert rule.describe() == "once at 2026-07-14T12:00:00+00:00"


@pytest.mark.parametrize("schedule", [Every(45), Cron("30 2 * * *", timezone="Europe/Berlin")])
def test_a_trigger_made_of_a_schedule_is_that_schedule(schedule: Schedule) -> None:
    """Instants, fingerprint and words are the schedule's own, also after a job store."""
    trigger = pickle.loads(pickle.dumps(ScheduleTrigger(schedule)))
    rule = planned(trigger)
    assert rule == planned(ScheduleTrigger(schedule))
    assert rule.fingerprint == trigger.schedule.fingerprint == schedule.fingerprint
    assert rule.describe() == schedule.describe()
    until = NOON + 3 * DAY
    assert listing(rule, NOON, until) == listing(schedule, NOON, until)
    assert rule.latest_until(until, after=NOON) == schedule.latest_until(until, after=NOON)
    assert str(trigger) == f"schedule[{schedule.describe()}]"
    assert repr(trigger) == f"<ScheduleTrigger ({schedule.describe()})>"


def test_apscheduler_goes_by_a_schedule() -> None:
    """A job's first run time is the next instant, the present included; then one after the other."""
    trigger = ScheduleTrigger(Every(45))
    assert trigger.get_next_fire_time(None, NOON) == NOON
    assert trigger.get_next_fire_time(None, ODD) == NOON + 45 * SECOND
    assert trigger.get_next_fire_time(NOON, NOON + HOUR) == NOON + 45 * SECOND
    both = pickle.loads(pickle.dumps(OrTrigger([trigger, ScheduleTrigger(Every(60))])))
    assert both.get_next_fire_time(NOON, NOON) == NOON + 45 * SECOND
    assert planned(both).next_after(NOON + 45 * SECOND) == NOON + MINUTE


def test_a_schedule_is_shown_among_a_scheduler_s_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """By the words of the schedule."""
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_job(print, ScheduleTrigger(Every(45)), id="refresh")
    scheduler.print_jobs()
    assert "schedule[every 45 s]" in capsys.readouterr().out


def test_a_trigger_of_a_later_release_is_refused() -> None:
    """A job store shared by two releases says which one to upgrade."""
    with pytest.raises(ValueError, match="version 2; upgrade leader-jobs"):
        ScheduleTrigger(Every(45)).__setstate__({"version": 2})


@pytest.mark.parametrize("trigger", ["interval", None, CronTrigger])
def test_what_is_no_trigger_is_refused(trigger: Any) -> None:
    """The message says what to give."""
    with pytest.raises(ConfigurationError, match="is no trigger; give an instance"):
        planned(trigger)


def test_a_subclass_is_what_it_is_made_of() -> None:
    """One that only chooses other arguments means what they mean."""

    class Nightly(CronTrigger):  # type: ignore[misc]  # APScheduler has no types
        def __init__(self) -> None:
            super().__init__(hour=3, timezone="UTC")

    assert planned(Nightly()) == planned(cron(hour=3))


def test_the_jitter_is_the_largest_and_no_part_of_the_rule() -> None:
    """Occurrences are known by their instants; those are without it."""
    assert jitter_of(cron(hour=3)) == 0.0
    assert jitter_of(DateTrigger(NOON)) == 0.0
    assert jitter_of(interval(seconds=30, jitter=7)) == 7.0
    assert jitter_of(OrTrigger([cron(jitter=3), AndTrigger([cron(jitter=8)])], jitter=5)) == 8.0
    assert jitter_of(OrTrigger([cron(jitter=3), cron()], jitter=5)) == 5.0
    for plain, jittery in (
        (interval(seconds=30), interval(seconds=30, jitter=9)),
        (cron(hour=3), cron(hour=3, jitter=9)),
        (OrTrigger([cron(hour=3)]), OrTrigger([cron(hour=3, jitter=9)], jitter=9)),
    ):
        assert planned(plain) == planned(jittery)
        assert listing(planned(plain), NOON, NOON + DAY) == listing(
            planned(jittery), NOON, NOON + DAY
        )


# -- the first run time ---------------------------------------------------------------------------

kinds: dict[str, Any] = {
    "interval": interval(minutes=50),
    "anchored": interval(minutes=50, start_date=NOON - DAY),
    "cron": CronTrigger(minute=5, timezone="Europe/Berlin"),
    "calendar": CalendarIntervalTrigger(days=1, hour=3, start_date="2026-01-01", timezone="UTC"),
    "date": DateTrigger(NOON + 5 * HOUR),
    "or": OrTrigger([cron(hour=5), cron(minute=0)]),
    "or by cursor": OrTrigger([cron(minute=0), interval(minutes=25)]),
    "and": AndTrigger([cron(minute="*/10"), cron(minute="*/4")]),
    "schedule": ScheduleTrigger(Every(400)),
}
each_kind = pytest.mark.parametrize("trigger", kinds.values(), ids=kinds.keys())


@each_kind
def test_a_first_run_time_comes_before_all_others(trigger: Any) -> None:
    """What the rule has before it does not count; it does, and after it the rule's."""
    first = NOON + 90 * MINUTE + 3 * SECOND
    rule, plain = planned(trigger, first=first), planned(trigger)
    assert rule.next_after(NOON) == rule.next_after(first - MICRO) == first
    until = NOON + DAY
    wanted = [first, *listing(plain, first, until)]
    assert listing(rule, NOON, until) == wanted
    assert listing_backwards(rule, NOON, until) == wanted
    assert rule.count_between(NOON, until, cap=100_000) == (len(wanted), True)
    assert rule.count_between(NOON, first - MICRO, cap=9) == (0, True)
    assert rule.count_between(NOON, first, cap=1) == (1, False)
    assert rule.latest_until(first - MICRO, after=NOON) is None
    assert rule.latest_until(first, after=first) is None


@each_kind
def test_rules_are_equal_if_they_are_and_begin_alike(trigger: Any) -> None:
    """The first run time distinguishes schedules, but not their fingerprints."""
    copy = pickle.loads(pickle.dumps(trigger))
    rules = [planned(trigger), planned(copy), planned(trigger, first=NOON)]
    assert rules[0] == rules[1]
    assert hash(rules[0]) == hash(rules[1])
    assert rules[0] != rules[2] != planned(trigger, first=ODD)
    assert rules[2] == planned(copy, first=NOON.astimezone(ZoneInfo("Asia/Tokyo")))
    assert len({*rules}) == 2
    assert len({rule.fingerprint for rule in rules}) == 1
    assert rules[0] != trigger
    assert repr(rules[2]).endswith(", first at 2026-07-14T12:00:00+00:00>")


def test_every_other_rule_has_another_fingerprint() -> None:
    """Nearly the same is not the same."""
    others = [
        *kinds.values(),
        interval(minutes=51),
        interval(minutes=50, end_date=NOON),
        interval(minutes=50, start_date=NOON),
        CronTrigger(minute=5, timezone="Europe/Paris"),
        CronTrigger(minute=6, timezone="Europe/Berlin"),
        CalendarIntervalTrigger(days=1, hour=4, start_date=date(2026, 1, 1), timezone="UTC"),
        DateTrigger(NOON),
        AndTrigger([cron(hour=5), cron(minute=0)]),
    ]
    assert len({planned(trigger).fingerprint for trigger in others}) == len(others)
    assert all(planned(t).fingerprint.startswith("aps-") for t in others if t is not others[8])


# -- the ledger's planning ------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("first", [None, NOON + 40 * MINUTE])
@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_planning_accounts_for_each_instant_of_a_gap_once(
    trigger: Any, first: datetime | None, catch_up: CatchUp
) -> None:
    """What is run and what is passed over are, together, all that came due."""
    rule = planned(trigger, first=first)
    now = NOON + 17 * HOUR + 11 * SECOND
    made = plan(rule, Policy(catch_up=catch_up, max_burst=5), cursor=NOON, now=now)
    due = listing(rule, NOON, now)
    covered = [i for i in due for range_ in made.passed if range_.first <= i <= range_.last]
    assert sorted([*made.run, *covered]) == due
    assert sum(each.count for each in made.passed) == len(covered)
    assert all(each.exact for each in made.passed)
    assert made.cursor == due[-1]
    reasons = {each.reason for each in made.passed}
    if catch_up is CatchUp.SKIP:
        assert made.run == ()
        assert reasons == {Reason.CATCH_UP_SKIP}
    else:
        assert made.run == tuple(due[-5:] if catch_up is CatchUp.ALL else due[-1:])
        assert reasons <= {Reason.COALESCED, Reason.BURST}


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(sorted(kinds)),
    pauses=st.lists(st.integers(1, 6 * 3600), min_size=1, max_size=8),
)
def test_leaders_that_follow_one_another_run_what_one_would(kind: str, pauses: list[int]) -> None:
    """Each takes over at the cursor, with a trigger of its own; nothing is doubled or missed."""
    policy = Policy(catch_up=CatchUp.ALL, max_burst=100)
    now = cursor = NOON
    run: list[datetime] = []
    for pause in pauses:
        now += pause * SECOND
        successor = planned(pickle.loads(pickle.dumps(kinds[kind])))
        made = plan(successor, policy, cursor=cursor, now=now)
        run, cursor = [*run, *made.run], made.cursor
        assert all(each.reason is Reason.BURST for each in made.passed)
    everything = listing(planned(kinds[kind]), NOON, now)
    assert len(set(run)) == len(run)
    if len(everything) <= 100:
        assert run == everything
