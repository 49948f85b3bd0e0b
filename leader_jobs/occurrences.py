"""
Occurrences: their identity, and which of those that came due are run.

Pure functions of time. `plan` looks at the planned instants between a cursor and now and accounts
for each exactly once: it is run, or it lies in a range that is passed over for a stated reason.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import nearest
from leader_jobs.schedules import Schedule, as_utc, microseconds

__all__ = [
    "NAMESPACE",
    "CatchUp",
    "Passed",
    "Plan",
    "Policy",
    "Reason",
    "next_due",
    "occurrence_id",
    "passed_before",
    "plan",
]

#: The namespace of occurrence ids. It never changes: a changed id would be a second occurrence.
NAMESPACE: Final = "fa144f03-f598-4f23-9c31-eb93bc355848"
_MICRO: Final = timedelta(microseconds=1)
_ON_TIME: Final = timedelta(seconds=1)
#: Counting a passed range stops here, so that a year of missed minutes costs milliseconds.
_COUNT_CAP: Final = 10_000
_MOST_AT_ONCE: Final = 100


def occurrence_id(election: str, job: str, planned_at: datetime) -> str:
    """
    Return the identity of an occurrence, the same on every node and for ever.

    It is the version 5 UUID, in `NAMESPACE`, of the JSON array of election, job and the instant in
    UTC with microseconds; no two occurrences share one text.

    Raises:
        ConfigurationError: *planned_at* is naive.
    """
    instant = as_utc(planned_at).isoformat(timespec="microseconds")
    from uuid import UUID, uuid5

    return str(uuid5(UUID(NAMESPACE), json.dumps([election, job, instant])))


class CatchUp(StrEnum):
    """What becomes of occurrences missed in a gap, when nobody led or everything was down."""

    LATEST = "latest"
    ALL = "all"
    SKIP = "skip"

    @classmethod
    def of(cls, word: str) -> Self:
        """Return the member called *word*; raise `ConfigurationError` if there is none."""
        try:
            return cls(word)
        except ValueError:
            words = [member.value for member in cls]
            near = nearest(str(word).lower(), words)
            hint = f"did you mean {near!r}?" if near else f"use {', '.join(map(repr, words))}"
            msg = f"catch_up is {word!r}; {hint}"
            raise ConfigurationError(msg) from None


@dataclass(frozen=True, slots=True, init=False)
class Policy:
    """
    What happens to occurrences that are late, missed or overlapping.

    Args:
        catch_up: ``latest`` runs the newest due occurrence, ``all`` each in order, ``skip`` only
            those that are on time.
        window: how late an occurrence may still be started, as seconds or a timedelta of at least
            one second; None for any time.
        max_burst: how many occurrences may be run at once; the newest are, 1 to 100.
        overlap: whether a run may start while another one of the job is alive.

    Raises:
        ConfigurationError: naming the argument and its value.
    """

    catch_up: CatchUp
    window: timedelta | None
    max_burst: int
    overlap: bool

    def __init__(
        self,
        *,
        catch_up: CatchUp | str = CatchUp.LATEST,
        window: timedelta | float | None = None,
        max_burst: int = 20,
        overlap: bool = False,
    ) -> None:
        if window is not None:
            window = timedelta(microseconds=microseconds("window", window, least=_ON_TIME))
        if isinstance(max_burst, bool) or not isinstance(max_burst, int):
            msg = f"max_burst is {max_burst!r}; it must be a whole number"
            raise ConfigurationError(msg)
        if not 1 <= max_burst <= _MOST_AT_ONCE:
            msg = f"max_burst is {max_burst}; it must be between 1 and {_MOST_AT_ONCE}"
            raise ConfigurationError(msg)
        if overlap not in (True, False):
            msg = f"overlap is {overlap!r}; it must be True or False"
            raise ConfigurationError(msg)
        object.__setattr__(self, "catch_up", CatchUp.of(catch_up))
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "max_burst", max_burst)
        object.__setattr__(self, "overlap", overlap)


class Reason(StrEnum):
    """Why occurrences are passed over."""

    #: A newer one is run in their place.
    COALESCED = "coalesced"
    #: They were missed, and the policy is to skip what was missed.
    CATCH_UP_SKIP = "skip"
    #: They are later than the policy's window.
    WINDOW = "window"
    #: More were due than may be run at once.
    BURST = "max_burst"
    #: A run of the job is alive.
    OVERLAP = "overlap"
    #: The ledger was taken back, so that nobody can tell whether they ran.
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Passed:
    """
    A range of occurrences that are not run.

    Attributes:
        first: the first one's planned instant.
        last: the last one's.
        count: how many there are, both included.
        exact: False if counting stopped early: there are at least *count*.
        reason: why.
    """

    first: datetime
    last: datetime
    count: int
    exact: bool
    reason: Reason


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is done about everything that came due.

    Attributes:
        run: the planned instants to run, in order.
        passed: the ranges passed over, in order; disjoint, and without any instant of *run*.
        cursor: every planned instant up to here is accounted for; never before the former cursor.
    """

    run: tuple[datetime, ...]
    passed: tuple[Passed, ...]
    cursor: datetime


def plan(
    schedule: Schedule,
    policy: Policy,
    *,
    cursor: datetime,
    now: datetime,
    busy: bool = False,
    on_time: timedelta = _ON_TIME,
) -> Plan:
    """
    Account for every planned instant later than *cursor* and not later than *now*.

    Args:
        schedule: the job's schedule.
        policy: the job's policy.
        cursor: up to where instants are already accounted for.
        now: the present instant. Before *cursor* (a clock was set back) nothing is due.
        busy: whether a run of the job is alive.
        on_time: how late an occurrence may be without having been missed.

    Returns:
        The plan. With ``catch_up="all"`` and a busy job that may not overlap, what is not too late
        stays due: it is in no part of the plan, and the cursor stays before it.

    The rules, in this order: what is later than the window is passed over; a busy job passes over
    the rest, or puts it off (``all``); ``skip`` passes over what is not on time; of what is left,
    the newest are run (one for ``latest``, otherwise up to ``max_burst``) and the older passed over.
    """
    cursor, now = as_utc(cursor), as_utc(now)
    due = _Due(schedule, cursor, now)
    if policy.window is not None:
        due.pass_over(now - policy.window - _MICRO, Reason.WINDOW)
    if busy and not policy.overlap:
        if policy.catch_up is not CatchUp.ALL:
            due.pass_over(now, Reason.OVERLAP)
        return due.plan(())
    if policy.catch_up is CatchUp.SKIP:
        due.pass_over(now - on_time - _MICRO, Reason.CATCH_UP_SKIP)
    latest = policy.catch_up is CatchUp.LATEST
    run = due.newest(1 if latest else policy.max_burst)
    if run:
        due.pass_over(run[0] - _MICRO, Reason.COALESCED if latest else Reason.BURST)
    return due.plan(run)


def passed_before(schedule: Schedule, cursor: datetime, since: datetime) -> Passed | None:
    """Return the planned instants later than *cursor* and before *since*, which a restore hides."""
    due = _Due(schedule, as_utc(cursor), as_utc(since))
    due.pass_over(as_utc(since) - _MICRO, Reason.RESTORED)
    return next(iter(due.plan(()).passed), None)


def next_due(schedule: Schedule, cursor: datetime) -> datetime | None:
    """Return the first planned instant that is not accounted for; None if there is none ever."""
    return schedule.next_after(cursor)


class _Due:
    """What is due and not yet accounted for: the planned instants in (cursor, now]."""

    def __init__(self, schedule: Schedule, cursor: datetime, now: datetime) -> None:
        self._schedule = schedule
        self._cursor = cursor
        self._now = now
        self._passed: list[Passed] = []

    def pass_over(self, until: datetime, reason: Reason) -> None:
        """Account for everything up to *until* as not run."""
        after = self._cursor
        last = self._schedule.latest_until(until, after=after)
        if last is None:
            return
        first = self._schedule.next_after(after) or last
        count, exact = self._schedule.count_between(after, last, cap=_COUNT_CAP)
        self._passed.append(Passed(first, last, count, exact, reason))
        self._cursor = last

    def newest(self, most: int) -> tuple[datetime, ...]:
        """Return the newest due instants, at most so many, in order."""
        return tuple(reversed(list(self._backwards(most))))

    def _backwards(self, most: int) -> Iterator[datetime]:
        until = self._now
        for _ in range(most):
            instant = self._schedule.latest_until(until, after=self._cursor)
            if instant is None:
                return
            yield instant
            until = instant - _MICRO

    def plan(self, run: tuple[datetime, ...]) -> Plan:
        """Return the plan that runs *run*."""
        return Plan(run, tuple(self._passed), run[-1] if run else self._cursor)
