"""
APScheduler's triggers, as `leader_jobs.schedules.Schedule`, and a trigger made of a schedule.

APScheduler asks a trigger for the run time after the last one; the ledger asks for planned
instants. `planned` answers for every kind of trigger, always without jitter:

=============================================  ====================================================
``IntervalTrigger`` with a ``start_date``      start_date + n * period
``IntervalTrigger`` without                    a pace: cursor + n * period
``CronTrigger``, ``CalendarIntervalTrigger``   a set of wall times: `leader_jobs.adapters.apscheduler_cron`
``DateTrigger``                                that one instant
``OrTrigger``, ``AndTrigger``                  what their parts make together, and
all others                                     a chain: `leader_jobs.adapters.apscheduler_chains`
`ScheduleTrigger`                              its schedule's own
=============================================  ====================================================

A set is the same wherever one begins. The others go by the ledger's cursor, which is the last
planned instant, or the instant at which the job was new: nodes agree because they all begin at the
cursor, and phase is kept because the cursor is itself planned.

A subclass of APScheduler's triggers counts as what it is made of, as long as ``get_next_fire_time``
is not its own.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from leader_jobs.adapters.apscheduler_chains import Both, Chain, Either, by_cursor
from leader_jobs.adapters.apscheduler_cron import CalendarClock, CronClock
from leader_jobs.adapters.apscheduler_foreign import Foreign, jitter_of
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.pacing import Once, Paced
from leader_jobs.schedules import Every, Schedule, as_utc, microseconds

__all__ = ["Planned", "ScheduleTrigger", "jitter_of", "planned"]

_MICRO: Final = timedelta(microseconds=1)
_SHORTEST: Final = timedelta(seconds=0.1)


def planned(trigger: BaseTrigger, *, first: datetime | None = None) -> Schedule:
    """
    Return the planned instants of a trigger, without its jitter.

    Args:
        trigger: it is not changed, and not asked unless there is no other way.
        first: the instant with which they begin, whether or not the rule has it; APScheduler's
            explicit ``next_run_time``. None for those of the rule alone.

    Returns:
        A schedule. Two are equal if the rule and *first* are.

    Raises:
        ConfigurationError: an interval is shorter than 0.1 s or does not lead forward, a time zone
            has no name, or the object is no trigger.
    """
    return Planned(_rule(trigger), None if first is None else as_utc(first))


class ScheduleTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """
    An APScheduler trigger whose run times are a schedule's instants.

    Args:
        schedule: a set, such as `leader_jobs.schedules.Every` or `leader_jobs.schedules.Cron`.

    Attributes:
        schedule: it.
    """

    __slots__ = ("schedule",)

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def get_next_fire_time(
        self, previous_fire_time: datetime | None, now: datetime
    ) -> datetime | None:
        """Return the first instant after *previous_fire_time*, or without one from *now* on."""
        return self.schedule.next_after(previous_fire_time or now - _MICRO)

    def __getstate__(self) -> dict[str, Any]:
        return {"version": 1, "schedule": self.schedule}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["version"] != 1:
            msg = f"a ScheduleTrigger of version {state['version']}; upgrade leader-jobs to read it"
            raise ValueError(msg)
        self.schedule = state["schedule"]

    def __str__(self) -> str:
        return f"schedule[{self.schedule.describe()}]"

    def __repr__(self) -> str:
        return f"<ScheduleTrigger ({self.schedule.describe()})>"


class Planned:
    """
    The instants of a rule, perhaps from a given one on.

    Args:
        rule: the rule.
        first: instants before it do not count, and it is one itself; None for the rule's alone.

    Attributes:
        fingerprint: the rule's: *first* is no part of it.
    """

    def __init__(self, rule: Schedule, first: datetime | None = None) -> None:
        self._rule: Final = rule
        self._first: Final = first
        self.fingerprint: Final = rule.fingerprint

    def __repr__(self) -> str:
        first = f", first at {self._first.isoformat()}" if self._first is not None else ""
        return f"<Planned: {self.describe()}{first}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Planned):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, datetime | None]:
        return self.fingerprint, self._first

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if there is none."""
        if self._first is not None and as_utc(instant) < self._first:
            return self._first
        return self._rule.next_after(instant)

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        if self._first is None or as_utc(after) >= self._first:
            return self._rule.latest_until(instant, after=after)
        if as_utc(instant) < self._first:
            return None
        return self._rule.latest_until(instant, after=self._first) or self._first

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*, up to *cap*."""
        if self._first is None or as_utc(after) >= self._first:
            return self._rule.count_between(after, until, cap=cap)
        if as_utc(until) < self._first:
            return 0, True
        if cap == 1:
            return 1, False
        total, exact = self._rule.count_between(self._first, until, cap=cap - 1)
        return total + 1, exact

    def describe(self) -> str:
        """Return the rule in words."""
        return self._rule.describe()


class Bounded:
    """
    The instants of a rule that are not before *start* and not after *end*.

    Args:
        rule: the rule; a set, if there is a start.
        start: the first instant that may be one; None for no bound.
        end: the last one; None for no bound.
        like: whose fingerprint and words are used, with the bounds; None for the rule's.

    A bound that has microseconds was made of the time when this process came to it: it holds, but
    is no part of the fingerprint, or each process would have a rule of its own.
    """

    def __init__(
        self,
        rule: Schedule,
        start: datetime | None,
        end: datetime | None,
        *,
        like: Schedule | None = None,
    ) -> None:
        like = like or rule
        self._rule: Final = rule
        self._before: Final = None if start is None else as_utc(start) - _MICRO
        self._end: Final = None if end is None else as_utc(end)
        self.by_cursor: Final = by_cursor(rule)
        bounds = (("from", start), ("until", end))
        given = [(word, as_utc(bound)) for word, bound in bounds if bound is not None]
        words = [like.describe(), *(f"{word} {bound.isoformat()}" for word, bound in given)]
        told = [f":{word}:{bound.isoformat()}" for word, bound in given if not bound.microsecond]
        self._words: Final = " ".join(words)
        self.fingerprint: Final = like.fingerprint + "".join(told)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if there is none."""
        found = self._rule.next_after(self._later(instant))
        return found if found is not None and found == self._earlier(found) else None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        return self._rule.latest_until(self._earlier(instant), after=self._later(after))

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*, up to *cap*."""
        return self._rule.count_between(self._later(after), self._earlier(until), cap=cap)

    def describe(self) -> str:
        """Return the rule in words, with its bounds."""
        return self._words

    def _later(self, instant: datetime) -> datetime:
        return as_utc(instant) if self._before is None else max(as_utc(instant), self._before)

    def _earlier(self, instant: datetime) -> datetime:
        return as_utc(instant) if self._end is None else min(as_utc(instant), self._end)


def _interval(trigger: IntervalTrigger) -> Schedule:
    """
    Return the instants of an interval.

    Whether ``start_date`` was given can not be told from the trigger. APScheduler's default is the
    time now and the interval, which has microseconds; a whole second was given.
    """
    length = microseconds("interval", trigger.interval, least=_SHORTEST)
    start, end = trigger.start_date, trigger.end_date
    paced = Paced(timedelta(microseconds=length), kind="aps-interval")
    if start is None or start.microsecond:
        return _bounded(paced, None, end)
    return Bounded(Every(trigger.interval, anchor=start), start, end, like=paced)


def _cron(trigger: CronTrigger) -> Schedule:
    return _bounded(CronClock(trigger), trigger.start_date, trigger.end_date)


def _bounded(rule: Schedule, start: datetime | None, end: datetime | None) -> Schedule:
    return rule if start is None and end is None else Bounded(rule, start, end)


def _either(trigger: OrTrigger) -> Schedule:
    rules = [_rule(part) for part in trigger.triggers]
    return Chain(Either(rules)) if any(map(by_cursor, rules)) else Either(rules)


def _both(trigger: AndTrigger) -> Schedule:
    rules = [_rule(part) for part in trigger.triggers]
    return Chain(Both(rules)) if any(map(by_cursor, rules)) else Both(rules)


def _known() -> dict[Any, Callable[[Any], Schedule]]:
    """Return the rules of APScheduler's own triggers, by the method that makes them what they are."""
    rules: dict[Any, Callable[[Any], Schedule]] = {
        IntervalTrigger: _interval,
        CronTrigger: _cron,
        DateTrigger: lambda trigger: Once(trigger.run_date, kind="aps-date"),
        OrTrigger: _either,
        AndTrigger: _both,
        ScheduleTrigger: lambda trigger: trigger.schedule,
    }
    try:
        from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
    except ImportError:  # pragma: no cover  # new in APScheduler 3.11
        pass
    else:
        rules[CalendarIntervalTrigger] = CalendarClock
    return {kind.get_next_fire_time: rule for kind, rule in rules.items()}


_RULES: Final = _known()


def _rule(trigger: BaseTrigger) -> Schedule:
    if not isinstance(trigger, BaseTrigger):
        msg = f"{trigger!r} is no trigger; give an instance of one of apscheduler.triggers"
        raise ConfigurationError(msg)
    rule = _RULES.get(type(trigger).get_next_fire_time)
    return Chain(Foreign(trigger)) if rule is None else rule(trigger)
