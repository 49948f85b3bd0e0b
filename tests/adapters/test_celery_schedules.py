"""Celery's schedules other than crontabs: intervals, chains, single instants, and those asked."""

import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedstate, schedule, solar
from hypothesis import given
from hypothesis import strategies as st

from leader_jobs.adapters.celery_schedules import Asked, Chained, Crontab, Once, Paced, planned
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.occurrences import CatchUp, Policy, Reason, next_due, plan
from leader_jobs.schedules import Schedule

MICRO = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 7, 14, 12, tzinfo=UTC)


class Application(Celery):
    """An application whose present is set by hand."""

    present = NOON

    def now(self) -> datetime:
        """Return the present in the application's time zone."""
        return self.present.astimezone(self.timezone)


def application(zone: str = "UTC") -> Application:
    """Return an application in a time zone."""
    app = Application("test", set_as_current=False)
    app.conf.update(timezone=zone)
    return app


@cache
def shared() -> Application:
    """Return an application that nobody changes."""
    return application()


def chain(rule: Schedule, cursor: datetime) -> Iterator[datetime]:
    """Yield the planned instants that follow *cursor*, step by step."""
    instant = rule.next_after(cursor)
    while instant is not None:
        yield instant
        instant = rule.next_after(instant)


def steps(rule: Schedule, cursor: datetime, number: int) -> list[datetime]:
    """Return so many planned instants after *cursor*."""
    return list(islice(chain(rule, cursor), number))


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
    period, now = micros * MICRO, cursor + late * MICRO
    rule = planned(schedule(period), name="entry", app=shared())
    assert rule.next_after(cursor) == cursor + period
    number = late // micros
    assert rule.count_between(cursor, now, cap=1) == (number, True)
    newest = rule.latest_until(now, after=cursor)
    assert newest == (cursor + number * period if number else None)


def test_an_interval_may_be_a_number_and_is_described() -> None:
    """Seconds are the same rule as the timedelta."""
    rule = planned(schedule(90), name="entry", app=shared())
    assert isinstance(rule, Paced)
    assert rule.fingerprint == "celery-interval:90000000"
    assert rule.fingerprint == planned(schedule(90 * SECOND), name="e", app=shared()).fingerprint
    assert rule.describe() == "every 90 s"
    assert repr(rule) == "<Paced: every 90 s>"
    assert rule.next_after(datetime.max.replace(tzinfo=UTC)) is None


def test_an_interval_goes_by_elapsed_time_in_any_zone() -> None:
    """The hour that Berlin skips does not count, though both arguments are local times."""
    berlin = ZoneInfo("Europe/Berlin")
    rule = planned(schedule(timedelta(hours=1)), name="entry", app=application("Europe/Berlin"))
    begin = datetime(2026, 3, 29, 1, tzinfo=berlin)
    end = datetime(2026, 3, 29, 4, tzinfo=berlin)
    assert rule.count_between(begin, end, cap=10) == (2, True)
    assert rule.latest_until(end, after=begin) == end
    assert rule.next_after(begin) == datetime(2026, 3, 29, 3, tzinfo=berlin)


@pytest.mark.parametrize("period", [0, 0.05, -1, timedelta(days=40_000), None])
@pytest.mark.parametrize("relative", [False, True])
def test_an_interval_that_is_none_is_refused(period: Any, relative: bool) -> None:
    """The message names the entry."""
    with pytest.raises(ConfigurationError, match=r"^entry 'nightly': run_every is "):
        planned(schedule(period, relative=relative), name="nightly", app=shared())


# -- relative intervals ---------------------------------------------------------------------------


def test_relative_days_begin_at_local_midnight() -> None:
    """Also on the days when the clocks change, from wherever the entry was first seen."""
    app = application("Europe/Berlin")
    daily = planned(schedule(DAY, relative=True), name="entry", app=app)
    assert isinstance(daily, Chained)
    for first in ("2026-03-27T15:12:01+00:00", "2026-10-23T15:12:01+00:00"):
        found = steps(daily, datetime.fromisoformat(first), 4)
        midnights = [instant.astimezone(ZoneInfo("Europe/Berlin")) for instant in found]
        assert {(midnight.hour, midnight.minute, midnight.second) for midnight in midnights} == {
            (0, 0, 0)
        }
        assert [(b.date() - a.date()).days for a, b in pairwise(midnights)] == [1, 1, 1]
        assert daily.latest_until(found[-1] + DAY / 2, after=found[0]) == found[-1]
        assert daily.count_between(found[0], found[-1], cap=10) == (3, True)
    assert daily.describe() == "every 1 d, rounded (Europe/Berlin)"


def test_a_relative_interval_is_another_rule_in_another_zone() -> None:
    """Rounding goes by the zone, and the fingerprint says so."""
    rules = [
        planned(schedule(period, relative=True), name="entry", app=application(zone))
        for zone in ("UTC", "Europe/Berlin")
        for period in (DAY, timedelta(hours=1))
    ]
    assert len({rule.fingerprint for rule in rules}) == 4
    again = planned(schedule(DAY, relative=True), name="other", app=application("UTC"))
    assert again.fingerprint == rules[0].fingerprint


def test_a_chain_ends_with_the_calendar() -> None:
    """After the year 9999 there is no instant, and no exception."""
    rule = planned(schedule(DAY, relative=True), name="entry", app=shared())
    last = datetime.max.replace(tzinfo=UTC)
    assert rule.next_after(last) is None
    assert rule.latest_until(last, after=last - DAY / 4) is None
    assert isinstance(rule, Chained)


@pytest.mark.parametrize("missed", [999, 1_000, 1_001, 25_000, 100_000])
def test_a_long_chain_is_strided_over(missed: int) -> None:
    """After days of missed seconds the newest one is exact, and found in some thousand steps."""
    rule = planned(schedule(10 * SECOND, relative=True), name="entry", app=shared())
    newest = NOON + missed * 10 * SECOND
    assert rule.latest_until(newest + 9 * SECOND, after=NOON) == newest
    assert rule.latest_until(newest - MICRO, after=NOON) == newest - 10 * SECOND
    assert rule.count_between(NOON, newest, cap=1_000) == (min(missed, 1_000), missed < 1_000)


# -- solar ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland"])
def test_the_sun_rises_once_a_day_at_the_same_second_on_all_nodes(zone: str) -> None:
    """Two nodes, one of which has asked before, plan the same whole seconds in any zone."""
    app = application(zone)
    used = solar("sunrise", 48.1, 11.6, app=app)
    used.remaining_estimate(NOON - 100 * DAY)
    nodes = [
        planned(rule, name="entry", app=app)
        for rule in (used, solar("sunrise", 48.1, 11.6, nowfun=lambda: NOON, app=application()))
    ]
    first, second = (steps(node, NOON, 40) for node in nodes)
    assert first == second
    assert abs(first[0] - datetime(2026, 7, 15, 3, 29, tzinfo=UTC)) < MINUTE  # as in almanacs
    assert all(abs(b - a - DAY) < 3 * MINUTE for a, b in pairwise(first))
    assert all(instant.microsecond == 0 for instant in first)
    assert nodes[0].fingerprint == nodes[1].fingerprint
    assert nodes[0].latest_until(first[-1] + MINUTE, after=NOON) == first[-1]
    assert nodes[0].describe() == "sunrise at 48.1, 11.6"
    assert repr(nodes[0]) == "<Chained: sunrise at 48.1, 11.6>"


def test_an_event_is_the_same_wherever_one_begins() -> None:
    """Found from a minute before it or from the day before, it is the same second."""
    rule = planned(solar("sunset", 48.1, 11.6), name="entry", app=shared())
    event = steps(rule, NOON, 1)[0]
    assert rule.next_after(event - DAY / 3) == event
    assert rule.next_after(event - 2 * MINUTE) == event
    assert rule.next_after(event - SECOND) == rule.next_after(event)


def test_the_sun_may_not_rise_for_months() -> None:
    """In the polar night the next sunrise is months away, and the one after it a day."""
    rule = planned(solar("sunrise", 78.2, 15.6), name="entry", app=shared())
    first, second = steps(rule, datetime(2026, 11, 15, tzinfo=UTC), 2)
    assert datetime(2027, 2, 10, tzinfo=UTC) < first < datetime(2027, 2, 25, tzinfo=UTC)
    assert second - first < DAY


# -- one instant ----------------------------------------------------------------------------------


def test_a_clocked_entry_has_one_instant() -> None:
    """It is due at its time and at no other, and tells that time."""
    from django_celery_beat.clockedschedule import (
        clocked,
    )

    berlin = ZoneInfo("Europe/Berlin")
    rule = planned(clocked(NOON.astimezone(berlin)), name="entry", app=shared())
    assert isinstance(rule, Once)
    assert rule.instant == NOON
    assert rule.instant.tzinfo is UTC
    assert rule.next_after(NOON - MICRO) == NOON
    assert rule.next_after(NOON) is None
    assert rule.latest_until(NOON, after=NOON - DAY) == NOON
    assert rule.latest_until(NOON - MICRO, after=NOON - DAY) is None
    assert rule.latest_until(NOON + DAY, after=NOON) is None
    assert rule.count_between(NOON - DAY, NOON, cap=10) == (1, True)
    assert rule.count_between(NOON, NOON + DAY, cap=10) == (0, True)
    assert rule.fingerprint == "celery-clocked:2026-07-14T12:00:00+00:00"
    assert rule.describe() == "once at 2026-07-14T12:00:00+00:00"
    assert repr(rule) == "<Once: once at 2026-07-14T12:00:00+00:00>"


# -- schedules of one's own -----------------------------------------------------------------------


class Tides(BaseSchedule):
    """Every so many minutes of the day, counted from midnight, as somebody may write it."""

    def __init__(self, minutes: int, **kwargs: Any) -> None:
        self.minutes = minutes
        super().__init__(**kwargs)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time until the next tide after the last."""
        midnight = last_run_at.replace(hour=0, minute=0, second=0, microsecond=0)
        number = (last_run_at - midnight) // (self.minutes * MINUTE) + 1
        return midnight + number * self.minutes * MINUTE - self.now()

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell whether the tide is in."""
        left = self.remaining_estimate(last_run_at).total_seconds()
        return schedstate(left <= 0, max(left, 0))


def test_an_unknown_schedule_is_chained(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever answers from its nowfun can be asked about any cursor; nobody is warned."""
    rule = planned(Tides(370), name="entry", app=shared())
    assert isinstance(rule, Chained)
    midnight = NOON.replace(hour=0)
    expected = [midnight + number * 370 * MINUTE for number in (2, 3)]
    assert steps(rule, NOON, 2) == expected
    assert rule.latest_until(expected[-1], after=NOON) == expected[-1]
    assert rule.latest_until(expected[0] - MICRO, after=NOON) is None
    assert rule.describe().endswith(".Tides")
    assert not caplog.records


def test_the_schedule_itself_is_left_alone() -> None:
    """It is a copy that is asked: the entry's own object keeps its clock."""
    theirs = Tides(370, nowfun=lambda: NOON)
    before = dict(vars(theirs))
    steps(planned(theirs, name="entry", app=shared()), NOON - DAY, 3)
    assert vars(theirs) == before


def test_what_a_schedule_was_given_is_its_fingerprint() -> None:
    """Equal on two nodes, whatever they did with it; another as soon as an argument differs."""
    used = Tides(370, nowfun=lambda: NOON, app=shared())
    assert used.utc_enabled
    assert used.tz == shared().timezone
    fingerprint = planned(used, name="entry", app=shared()).fingerprint
    assert fingerprint == planned(Tides(370), name="entry", app=shared()).fingerprint
    assert fingerprint != planned(Tides(371), name="entry", app=shared()).fingerprint
    assert "0x" not in fingerprint


def test_a_subclass_of_a_known_schedule_is_not_taken_for_it() -> None:
    """A subclass may answer otherwise, so that it is asked."""

    class Late(crontab):
        """A crontab that is five minutes late."""

        def remaining_estimate(self, last_run_at: datetime, *_: Any) -> timedelta:
            """Return five minutes more than a crontab."""
            return super().remaining_estimate(last_run_at - 5 * MINUTE) + 5 * MINUTE

    rule = planned(Late(minute=0, app=shared()), name="entry", app=shared())
    assert not isinstance(rule, Crontab)
    assert steps(rule, NOON, 2) == [
        NOON + 5 * MINUTE,
        NOON + 65 * MINUTE,
    ]


# -- schedules that can not tell ------------------------------------------------------------------


class Opaque:
    """What Celery can do with, and no more: it says whether it is due."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[datetime] = []

    def is_due(self, last_run_at: datetime) -> Any:
        """Give the next answer, the last one for ever."""
        self.asked.append(last_run_at)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_object_that_can_not_tell_is_asked_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is one warning, when it is made, with the name of the entry."""
    app = application("Europe/Berlin")
    rule = planned(Opaque((False, 30)), name="night watch", app=app)
    assert isinstance(rule, Asked)
    assert rule.next_after(NOON) == NOON + 30 * SECOND
    assert rule.describe().endswith(".Opaque says so")
    assert repr(rule).startswith("<Asked: when ")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "entry 'night watch'" in caplog.text
    assert "Opaque" in caplog.text


def test_it_is_asked_when_it_wants_to_be_and_not_before() -> None:
    """The second part of its answer says when; it gets the cursor in local time."""
    app = application("Europe/Berlin")
    theirs = Opaque(schedstate(is_due=False, next=30.0))
    rule = planned(theirs, name="entry", app=app)
    assert rule.next_after(NOON) == NOON + 30 * SECOND
    app.present = NOON + 29 * SECOND
    assert rule.latest_until(app.present, after=NOON) is None
    assert len(theirs.asked) == 1
    app.present = NOON + 30 * SECOND
    assert rule.latest_until(app.present, after=NOON) is None
    assert theirs.asked == [NOON, NOON]
    assert theirs.asked[0].utcoffset() == timedelta(hours=2)
    assert rule.next_after(NOON) == NOON + 60 * SECOND


def test_seen_due_it_is_planned_once() -> None:
    """The second it was seen due in stays its instant until the cursor is there, then it is over."""
    app = application()
    theirs = Opaque((True, 20), (False, 10))
    rule = planned(theirs, name="entry", app=app)
    cursor = NOON - DAY
    app.present = NOON + 0.7 * SECOND
    for later in range(3):  # as after commits that failed
        now = app.present + later * SECOND
        assert plan(rule, Policy(), cursor=cursor, now=now).run == (NOON,)
        assert next_due(rule, cursor) == NOON
        assert rule.count_between(cursor, now, cap=10) == (1, True)
    done = plan(rule, Policy(), cursor=NOON, now=app.present)
    assert (done.run, done.cursor) == ((), NOON)
    assert next_due(rule, NOON) == app.present + 20 * SECOND
    assert len(theirs.asked) == 1


@pytest.mark.parametrize("catch_up", list(CatchUp))
@pytest.mark.parametrize("window", [None, 1, 3600])
def test_every_policy_runs_what_is_due_now(catch_up: CatchUp, window: float | None) -> None:
    """It was seen due just now, so it is neither late nor missed, even a day after the last run."""
    app = application()
    app.present = NOON + 0.9 * SECOND
    rule = planned(Opaque((True, 60)), name="entry", app=app)
    policy = Policy(catch_up=catch_up, window=window)
    found = plan(rule, policy, cursor=NOON - DAY, now=app.present)
    assert (found.run, found.passed) == ((NOON,), ())


def test_a_busy_job_passes_it_over() -> None:
    """What is not run because a run is alive is accounted for as one occurrence."""
    app = application()
    rule = planned(Opaque((True, 60)), name="entry", app=app)
    found = plan(rule, Policy(), cursor=NOON - DAY, now=NOON, busy=True)
    assert found.cursor == NOON
    (passed,) = found.passed
    assert (passed.first, passed.last, passed.count) == (NOON, NOON, 1)
    assert passed.reason is Reason.OVERLAP


def test_what_is_always_due_is_due_once_a_second() -> None:
    """A schedule that never says no has no more than one occurrence a second."""
    app = application()
    rule = planned(Opaque((True, 0)), name="entry", app=app)
    cursor, found = NOON - DAY, []
    for tenth in range(31):
        app.present = NOON + tenth * SECOND / 10
        instant = rule.latest_until(app.present, after=cursor)
        if instant is not None:
            found.append(instant)
            cursor = instant
    assert found == [NOON + number * SECOND for number in range(4)]


def test_a_schedule_that_fails_is_asked_again_later(caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged under the entry's name, and holds up nothing."""
    app = application()
    rule = planned(Opaque(ValueError("low tide"), (True, 60)), name="entry", app=app)
    caplog.clear()
    assert rule.latest_until(NOON, after=NOON - DAY) is None
    assert rule.next_after(NOON - DAY) == NOON + MINUTE
    assert "low tide" in caplog.text
    assert "entry 'entry'" in caplog.text
    app.present = NOON + MINUTE
    assert rule.latest_until(app.present, after=NOON - DAY) == NOON + MINUTE


@pytest.mark.parametrize(
    ("pause", "seconds"),
    [(0, 0.1), (-5, 0.1), (1e8, 300), (float("inf"), 300), (float("nan"), 300), (None, 60)],
)
def test_pauses_are_neither_endless_nor_none(pause: Any, seconds: float) -> None:
    """An odd pause makes the tick neither spin nor sleep for ever; one that is none is a failure."""
    rule = planned(Opaque((False, pause)), name="entry", app=application())
    assert rule.next_after(NOON - DAY) == NOON + timedelta(seconds=seconds)


def test_a_clock_set_back_makes_nobody_due() -> None:
    """With a cursor in the future nothing is planned before it, and the next look lies after it."""
    rule = planned(Opaque((True, 60)), name="entry", app=application())
    cursor = NOON + DAY
    assert rule.latest_until(NOON, after=cursor) is None
    coming = rule.next_after(cursor)
    assert coming is not None
    assert coming > cursor


class Careless(Tides):
    """Does not go by its nowfun."""

    def now(self) -> datetime:
        """Return what it thinks is the present."""
        return NOON


class Random(Tides):
    """Answers differently each time."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return about a minute from now."""
        return last_run_at + random.uniform(1, 60) * SECOND - self.now()


class Stuck(Tides):
    """Does not move on."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return no time at all."""
        return last_run_at - self.now()


class Silent(Tides):
    """Has nothing to say."""

    def remaining_estimate(self, last_run_at: datetime) -> Any:
        """Return nothing."""


class Failing(Tides):
    """Can not be asked."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Fail."""
        raise NotImplementedError


class Holidays(crontab):
    """A crontab that rests on some days: only is_due knows which."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell that it rests."""
        return schedstate(is_due=False, next=60.0)


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (Careless(5), "another clock"),
        (Random(5), "two answers"),
        (Stuck(5), "does not move on"),
        (Silent(5), "is None"),
        (Failing(5), "NotImplementedError"),
        (Holidays(), "decides in is_due"),
        (Opaque((False, 1)), "no subclass"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_not_be_chained_is_asked_and_the_warning_says_why(
    theirs: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A chain that would differ from node to node, or never end, is not made at all."""
    rule = planned(theirs, name="entry", app=application())
    assert isinstance(rule, Asked)
    assert why in caplog.text
    assert len(caplog.records) == 1


class Ending(Tides):
    """A chain that comes to its end at noon."""

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time to the next tide, or to noon at the last."""
        coming = last_run_at + self.minutes * MINUTE
        return min(coming, NOON.astimezone(coming.tzinfo)) - self.now()

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Tell that it is over."""
        return schedstate(is_due=False, next=60.0)


@pytest.mark.parametrize("method", ["next_after", "latest_until", "count_between"])
def test_a_chain_that_breaks_is_asked_from_then_on(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it does not move on it is not walked for ever, and one warning names the entry."""
    app = application()
    rule = planned(Ending(60), name="ebb", app=app)
    assert isinstance(rule, Chained)
    fingerprint = rule.fingerprint
    begin = NOON - timedelta(hours=2)
    assert steps(rule, begin, 2) == [NOON - timedelta(hours=1), NOON]
    assert not caplog.records
    answers: dict[str, Any] = {
        "next_after": lambda: rule.next_after(NOON),
        "latest_until": lambda: rule.latest_until(NOON + DAY, after=begin),
        "count_between": lambda: rule.count_between(begin, NOON + DAY, cap=100),
    }
    expected = {"next_after": NOON + MINUTE, "latest_until": None, "count_between": (0, True)}
    assert answers[method]() == expected[method]
    assert rule.next_after(NOON) == NOON + MINUTE
    assert rule.fingerprint == fingerprint
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "entry 'ebb'" in caplog.text


@pytest.mark.parametrize("theirs", [None, "every day", 30, object()])
def test_what_is_no_schedule_is_refused(theirs: object) -> None:
    """The message names the entry."""
    with pytest.raises(ConfigurationError, match=r"^entry 'odd': .* is no schedule"):
        planned(theirs, name="odd", app=shared())
