"""Occurrences: identity, policies, and the accounting of everything that came due."""

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leader_jobs.exceptions import ConfigurationError
from leader_jobs.occurrences import (
    CatchUp,
    Passed,
    Plan,
    Policy,
    Reason,
    next_due,
    occurrence_id,
    plan,
)
from leader_jobs.schedules import Cron, Every, Schedule

MICRO = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return the instant so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


# -- identity -------------------------------------------------------------------------------------


def test_an_id_is_the_same_for_ever() -> None:
    """Ids lie in ledgers and brokers: a release that changed them would run things again."""
    expected = "b7440047-1f1b-5c65-8e01-bb5cf1698b05"
    assert occurrence_id("default", "shop.refresh", NOON) == expected
    berlin = NOON.astimezone(ZoneInfo("Europe/Berlin"))
    assert occurrence_id("default", "shop.refresh", berlin) == expected


names = st.text(min_size=1, max_size=8) | st.sampled_from(["a", "b", "a/b", 'a","b', "a\n", '"'])
near_noon = st.integers(-3, 3).map(lambda micros: NOON + micros * MICRO)
identities = st.tuples(names, names, near_noon)


@given(one=identities, other=identities)
def test_ids_differ_exactly_if_election_job_or_instant_do(
    one: tuple[str, str, datetime], other: tuple[str, str, datetime]
) -> None:
    """No two occurrences share an id, whatever their names look like."""
    assert (occurrence_id(*one) == occurrence_id(*other)) == (one == other)


def test_a_naive_instant_has_no_id() -> None:
    """It would be another occurrence on each node."""
    with pytest.raises(ConfigurationError, match="aware"):
        occurrence_id("default", "job", NOON.replace(tzinfo=None))


# -- policies -------------------------------------------------------------------------------------


def test_a_policy_takes_words_and_seconds() -> None:
    """What users write becomes what the planner needs."""
    policy = Policy(catch_up="all", window=90, max_burst=100, overlap=True)
    assert policy.catch_up is CatchUp.ALL
    assert policy.window == timedelta(seconds=90)
    assert policy == Policy(
        catch_up=CatchUp.ALL, window=timedelta(seconds=90), max_burst=100, overlap=True
    )
    assert replace(policy, overlap=False) == Policy(catch_up="all", window=90.0, max_burst=100)
    assert Policy() == Policy(catch_up="latest", window=None, max_burst=20, overlap=False)


def test_a_policy_does_not_change() -> None:
    """Policies are values."""
    with pytest.raises(FrozenInstanceError):
        Policy().overlap = True  # type: ignore[misc]  # that is what must fail


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"catch_up": "lates"}, "catch_up is 'lates'; did you mean 'latest'?"),
        ({"catch_up": "ALL"}, "catch_up is 'ALL'; did you mean 'all'?"),
        ({"catch_up": "xyz"}, "catch_up is 'xyz'; use 'latest', 'all', 'skip'"),
        ({"catch_up": None}, "catch_up is None; use 'latest', 'all', 'skip'"),
        ({"window": 0}, "window is 0; it must be between 1 s and 100 years"),
        ({"window": -1.5}, "window is -1.5; it must be between"),
        ({"window": math.nan}, "window is nan; it must be between"),
        ({"window": True}, "window is True; it must be a number of seconds or a timedelta"),
        ({"window": "1h"}, "window is '1h'; it must be a number of seconds or a timedelta"),
        ({"max_burst": 0}, "max_burst is 0; it must be between 1 and 100"),
        ({"max_burst": 101}, "max_burst is 101; it must be between 1 and 100"),
        ({"max_burst": 2.0}, "max_burst is 2.0; it must be a whole number"),
        ({"max_burst": True}, "max_burst is True; it must be a whole number"),
        ({"overlap": "yes"}, "overlap is 'yes'; it must be True or False"),
    ],
)
def test_a_policy_checks_itself(arguments: dict[str, Any], message: str) -> None:
    """The message names the argument, its value and what it may be."""
    with pytest.raises(ConfigurationError) as info:
        Policy(**arguments)
    assert str(info.value).startswith(message)
    assert "\n" not in str(info.value)


# -- plans, by example ----------------------------------------------------------------------------

TEN = Every(10)


def passed(first: float, last: float, count: int, reason: Reason) -> Passed:
    """Return an exactly counted range."""
    return Passed(at(first), at(last), count, exact=True, reason=reason)


@pytest.mark.parametrize("policy", [Policy(catch_up=catch_up) for catch_up in CatchUp])
@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("now", [at(0), at(9.999), at(-3600)])
def test_nothing_due_changes_nothing(policy: Policy, busy: bool, now: datetime) -> None:
    """Neither before the next instant nor after a clock was set back."""
    assert plan(TEN, policy, cursor=at(0), now=now, busy=busy) == Plan((), (), at(0))


@pytest.mark.parametrize(
    ("policy", "busy", "expected"),
    [
        # Due at 10, 20, … 60; it is 60.5.
        (
            Policy(),
            False,
            Plan((at(60),), (passed(10, 50, 5, Reason.COALESCED),), at(60)),
        ),
        (Policy(), True, Plan((), (passed(10, 60, 6, Reason.OVERLAP),), at(60))),
        (
            Policy(overlap=True),
            True,
            Plan((at(60),), (passed(10, 50, 5, Reason.COALESCED),), at(60)),
        ),
        (
            Policy(window=25),
            False,
            Plan(
                (at(60),),
                (passed(10, 30, 3, Reason.WINDOW), passed(40, 50, 2, Reason.COALESCED)),
                at(60),
            ),
        ),
        (
            Policy(catch_up="all"),
            False,
            Plan(tuple(at(s) for s in (10, 20, 30, 40, 50, 60)), (), at(60)),
        ),
        (
            Policy(catch_up="all", max_burst=2),
            False,
            Plan((at(50), at(60)), (passed(10, 40, 4, Reason.BURST),), at(60)),
        ),
        (
            Policy(catch_up="all", max_burst=2, window=25),
            False,
            Plan(
                (at(50), at(60)),
                (passed(10, 30, 3, Reason.WINDOW), passed(40, 40, 1, Reason.BURST)),
                at(60),
            ),
        ),
        (Policy(catch_up="all"), True, Plan((), (), at(0))),
        (
            Policy(catch_up="all", window=25),
            True,
            Plan((), (passed(10, 30, 3, Reason.WINDOW),), at(30)),
        ),
        (
            Policy(catch_up="skip"),
            False,
            Plan((at(60),), (passed(10, 50, 5, Reason.CATCH_UP_SKIP),), at(60)),
        ),
        (Policy(catch_up="skip"), True, Plan((), (passed(10, 60, 6, Reason.OVERLAP),), at(60))),
    ],
)
def test_the_rules(policy: Policy, busy: bool, expected: Plan) -> None:
    """Each rule, on a minute in which nobody led."""
    assert plan(TEN, policy, cursor=at(0), now=at(60.5), busy=busy) == expected


def test_the_newest_can_be_too_late_as_well() -> None:
    """Then nothing is run at all."""
    policy = Policy(window=3)
    assert plan(TEN, policy, cursor=at(0), now=at(24), busy=False) == Plan(
        (), (passed(10, 20, 2, Reason.WINDOW),), at(20)
    )


def test_the_window_and_being_on_time_include_their_ends() -> None:
    """Exactly as late as allowed is allowed; a microsecond more is not."""
    assert plan(TEN, Policy(window=5), cursor=at(0), now=at(15)).run == (at(10),)
    assert plan(TEN, Policy(window=5), cursor=at(0), now=at(15) + MICRO).run == ()
    skip = Policy(catch_up="skip")
    assert plan(TEN, skip, cursor=at(0), now=at(11)).run == (at(10),)
    assert plan(TEN, skip, cursor=at(0), now=at(11) + MICRO).run == ()
    assert plan(TEN, skip, cursor=at(0), now=at(13), on_time=3 * SECOND).run == (at(10),)


def test_skip_runs_all_that_are_on_time() -> None:
    """A period shorter than a tick has several on time, and none of them was missed."""
    half = Every(0.5)
    assert plan(half, Policy(catch_up="skip"), cursor=at(0), now=at(9.9)).run == (at(9), at(9.5))
    small = plan(half, Policy(catch_up="skip", max_burst=1), cursor=at(8.5), now=at(9.9))
    assert small.run == (at(9.5),)
    assert small.passed == (passed(9, 9, 1, Reason.BURST),)


def test_a_deferred_burst_is_run_once_the_job_is_free() -> None:
    """What a busy job put off comes in order with what came due meanwhile."""
    policy = Policy(catch_up="all")
    busy = plan(TEN, policy, cursor=at(0), now=at(20), busy=True)
    free = plan(TEN, policy, cursor=busy.cursor, now=at(30))
    assert free == Plan((at(10), at(20), at(30)), (), at(30))


def test_a_long_range_is_counted_up_to_a_limit() -> None:
    """A year of missed minutes says at least 10 000; a rule that counts by arithmetic says all."""
    year = timedelta(days=365)
    by_cron = plan(Cron("* * * * *"), Policy(), cursor=NOON - year, now=NOON)
    assert by_cron.run == (NOON,)
    assert by_cron.passed == (
        Passed(
            NOON - year + timedelta(minutes=1),
            NOON - timedelta(minutes=1),
            10_000,
            exact=False,
            reason=Reason.COALESCED,
        ),
    )
    by_period = plan(Every(60), Policy(), cursor=NOON - year, now=NOON)
    assert [(p.count, p.exact) for p in by_period.passed] == [(365 * 24 * 60 - 1, True)]


def test_next_due_is_after_the_cursor() -> None:
    """What is accounted for is not due again."""
    assert next_due(TEN, at(10)) == at(20)
    assert next_due(TEN, at(10) - MICRO) == at(10)


def test_naive_instants_are_refused() -> None:
    """A cursor without a zone is another one on each node."""
    with pytest.raises(ConfigurationError, match="aware"):
        plan(TEN, Policy(), cursor=NOON.replace(tzinfo=None), now=NOON)
    with pytest.raises(ConfigurationError, match="aware"):
        plan(TEN, Policy(), cursor=NOON, now=NOON.replace(tzinfo=None))


# -- plans, by property ---------------------------------------------------------------------------

schedules: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(
        lambda period, phase: Every(period, anchor=at(phase)),
        st.sampled_from([0.1, 0.3, 1, 7, 60, 450.5]),
        st.sampled_from([0, 0.05, 3]),
    ),
    st.builds(
        lambda line, zone: Cron(line, timezone=zone),
        st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "15,45 1-3 * * *", "5 0 1 1 *"]),
        st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]),
    ),
)
policies = st.builds(
    Policy,
    catch_up=st.sampled_from(CatchUp),
    window=st.none() | st.sampled_from([1, 10, 600, 7200]),
    max_burst=st.sampled_from([1, 2, 5, 20]),
    overlap=st.booleans(),
)
#: Around the change of Berlin's clocks at 01:00 UTC and, after 15 h, nothing special.
starts = st.sampled_from([0, 15 * 3600]).map(
    lambda seconds: datetime(2026, 3, 29, 0, 30, tzinfo=UTC) + timedelta(seconds=seconds)
)
gaps = st.one_of(
    st.sampled_from([-3600, -1, 0, 0.1, 1, 60]),
    st.integers(0, 120_000).map(lambda millis: millis / 1000),
)
on_times = st.sampled_from([timedelta(), SECOND, timedelta(seconds=30)])


def enumerate_due(schedule: Schedule, cursor: datetime, now: datetime) -> list[datetime]:
    """Return the planned instants in (cursor, now], one after the other."""
    found = []
    instant = schedule.next_after(cursor)
    while instant is not None and instant <= now:
        found.append(instant)
        instant = schedule.next_after(instant)
    return found


def by_hand(
    due: Sequence[datetime], policy: Policy, now: datetime, on_time: timedelta, busy: bool
) -> dict[datetime, str]:
    """Say of each due instant what becomes of it: a reason, ``run`` or ``deferred``."""
    fate: dict[datetime, str] = {}
    blocked = busy and not policy.overlap
    for instant in due:
        late = now - instant
        if policy.window is not None and late > policy.window:
            fate[instant] = "window"
        elif blocked:
            fate[instant] = "deferred" if policy.catch_up == "all" else "overlap"
        elif policy.catch_up == "skip" and late > on_time:
            fate[instant] = "skip"
        else:
            fate[instant] = "run"
    runnable = [instant for instant in due if fate[instant] == "run"]
    most = 1 if policy.catch_up == "latest" else policy.max_burst
    for instant in runnable[:-most]:
        fate[instant] = "coalesced" if policy.catch_up == "latest" else "max_burst"
    return fate


def told(result: Plan, due: Sequence[datetime]) -> dict[datetime, str]:
    """Return what a plan says of each due instant, checking its ranges on the way."""
    fate = dict.fromkeys(due, "deferred")
    edges: list[datetime] = []
    for part in result.passed:
        inside = [instant for instant in due if part.first <= instant <= part.last]
        assert inside[0] == part.first
        assert inside[-1] == part.last
        assert (part.count, part.exact) == (len(inside), True)
        edges += [part.first, part.last]
        fate |= dict.fromkeys(inside, part.reason.value)
    assert edges == sorted(edges)
    assert len({part.reason for part in result.passed}) == len(result.passed)
    for instant in result.run:
        assert fate[instant] == "deferred"
        fate[instant] = "run"
    assert list(result.run) == sorted(set(result.run))
    return fate


@settings(deadline=None, max_examples=300)
@given(
    schedule=schedules,
    policy=policies,
    start=starts,
    length=st.integers(0, 7_200_000).map(lambda millis: timedelta(milliseconds=millis)),
    busy=st.booleans(),
    on_time=on_times,
)
def test_every_due_instant_is_accounted_for_as_the_rules_say(
    schedule: Schedule,
    policy: Policy,
    start: datetime,
    length: timedelta,
    busy: bool,
    on_time: timedelta,
) -> None:
    """Enumerating what is due and applying the rules to each gives the plan."""
    if isinstance(schedule, Every):
        length /= 20  # keeps the enumeration short
    now = start + length
    due = enumerate_due(schedule, start, now)
    result = plan(schedule, policy, cursor=start, now=now, busy=busy, on_time=on_time)
    fate = by_hand(due, policy, now, on_time, busy)
    assert told(result, due) == fate
    settled = [instant for instant in due if fate[instant] != "deferred"]
    assert result.cursor == (settled[-1] if settled else start)
    assert next_due(schedule, result.cursor) not in settled


@settings(deadline=None, max_examples=200)
@given(
    schedule=schedules,
    policy=policies,
    start=starts,
    looks=st.lists(st.tuples(gaps, st.booleans()), min_size=1, max_size=12),
)
def test_looking_many_times_runs_nothing_twice_and_loses_nothing(
    schedule: Schedule, policy: Policy, start: datetime, looks: list[tuple[float, bool]]
) -> None:
    """However a stretch of time is cut up, busy or not, clocks set back or not: once each."""
    cursor, now, newest = start, start, start
    seen: list[datetime] = []
    # The last look is at the newest time of all, with the job free.
    steps = [*((now + timedelta(seconds=gap), busy) for gap, busy in looks), (None, False)]
    for when, busy in steps:
        now = newest if when is None else now + (when - start)
        newest = max(newest, now)
        result = plan(schedule, policy, cursor=cursor, now=now, busy=busy)
        assert result.cursor >= cursor
        due = enumerate_due(schedule, cursor, now)
        seen += [instant for instant, fate in told(result, due).items() if fate != "deferred"]
        cursor = result.cursor
    assert seen == enumerate_due(schedule, start, newest)


@settings(deadline=None)
@given(schedule=schedules, policy=policies, start=starts, cut=gaps, rest=gaps)
def test_planning_again_at_the_same_time_adds_nothing(
    schedule: Schedule, policy: Policy, start: datetime, cut: float, rest: float
) -> None:
    """A plan leaves nothing due behind for the same look."""
    now = start + timedelta(seconds=abs(cut) + abs(rest))
    first = plan(schedule, policy, cursor=start, now=now)
    assert plan(schedule, policy, cursor=first.cursor, now=now) == Plan((), (), first.cursor)
