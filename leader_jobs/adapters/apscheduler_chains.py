"""
Triggers made of others, and those that have to be asked.

``or`` and ``and`` of rules that are sets are sets again: `Either` and `Both`. Where one of the rules
goes by the ledger's cursor (an interval), and for triggers of which nothing is known but their
``get_next_fire_time``, the instants are a `Chain`: each follows from the one before.
"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from threading import Lock
from typing import Final, Protocol

from leader_jobs.schedules import Schedule, as_utc

__all__ = ["Both", "Chain", "Either", "Steps", "by_cursor"]

_log = logging.getLogger(__name__)
_MICRO: Final = timedelta(microseconds=1)
#: Rules that do not agree after so many steps are taken never to agree.
_ROUNDS: Final = 2_000
#: So many instants of a set made of others are counted at most: one takes up to 0.1 ms.
_COUNTED: Final = 1_000
#: A chain of more steps than this is not walked but leapt over, and how often.
_STRIDE: Final = 1_000
_LEAPS: Final = 50


class Steps(Protocol):
    """What a `Chain` is made of: a rule that tells which instant follows one of its own."""

    @property
    def fingerprint(self) -> str:
        """See `leader_jobs.schedules.Schedule`."""
        ...

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant that follows *instant*; None if none does."""
        ...

    def describe(self) -> str:
        """Return the rule in words."""
        ...


def by_cursor(rule: object) -> bool:
    """Return whether the instants of *rule* are counted from where one begins: it is no set."""
    return bool(getattr(rule, "by_cursor", False))


class Either:
    """
    The instants of any of the *rules*: APScheduler's ``OrTrigger``.

    A set, if all of the rules are. Of more than 1,000 instants no more are counted.
    """

    def __init__(self, rules: Sequence[Schedule]) -> None:
        self._rules: Final = tuple(rules)
        self.fingerprint: Final = f"aps-or:{_sorted(rules)}"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if there is none."""
        found = (rule.next_after(instant) for rule in self._rules)
        return min((each for each in found if each is not None), default=None)

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        found = (rule.latest_until(instant, after=after) for rule in self._rules)
        return max((each for each in found if each is not None), default=None)

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*."""
        return _count(self, after, until, cap)

    def describe(self) -> str:
        """Return the rule in words."""
        return " or ".join(rule.describe() for rule in self._rules)


class Both:
    """
    The instants that all of the *rules* have in common: APScheduler's ``AndTrigger``.

    A set, if all of the rules are. Rules that do not agree within 2,000 steps are taken never to
    agree, and warned of once: stock APScheduler looks on for ever. Of more than 1,000 instants no
    more are counted.
    """

    def __init__(self, rules: Sequence[Schedule]) -> None:
        self._rules: Final = tuple(rules)
        self._warned = False
        #: Since when it was last found that the rules do not agree.
        self._barren: datetime | None = None
        self.fingerprint: Final = f"aps-and:{_sorted(rules)}"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first planned instant strictly after *instant*; None if there is none."""
        after = as_utc(instant)
        if after == self._barren:
            return None
        former = after
        for _ in range(_ROUNDS):
            found = [_first_after(rule, former, cursor=after) for rule in self._rules]
            agreed = _agreed(found)
            if agreed is not None or None in found:
                return agreed
            former = max(each for each in found if each is not None) - _MICRO
        self._warn(after)
        self._barren = after
        return None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest planned instant later than *after* and not later than *instant*."""
        until = as_utc(instant)
        first = self.next_after(after)
        if first is None or first > until:
            return None
        for _ in range(_ROUNDS):
            found = [rule.latest_until(until, after=after) for rule in self._rules]
            agreed = _agreed(found)
            if agreed is not None or None in found:
                return agreed
            until = min(each for each in found if each is not None)
        return first

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the planned instants later than *after* and not later than *until*."""
        return _count(self, after, until, cap)

    def describe(self) -> str:
        """Return the rule in words."""
        return " and ".join(rule.describe() for rule in self._rules)

    def _warn(self, after: datetime) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "trigger %r: its parts do not agree on any instant soon after %s; it is taken to "
                "have ended",
                self.describe(),
                after.isoformat(),
            )


class Chain:
    """
    Instants each of which follows from the one before.

    Args:
        steps: says what follows an instant.

    From the same cursor every node has the same chain; *after* must be the cursor, as it is for
    `leader_jobs.occurrences.plan`. The last walk is kept, so that going through what came due, in
    either direction, asks for each instant once.

    Of a chain of more than 1,000 steps only about the last are walked, on from a leap of as many
    strides of 1,000 steps as fit. That is exact for even steps, and for those that do not depend on
    where one asks from; otherwise the newest instants are some that could be planned.
    """

    by_cursor: Final = True

    def __init__(self, steps: Steps) -> None:
        self._steps: Final = steps
        self._lock: Final = Lock()
        self._head = _Walk(steps, [datetime.min.replace(tzinfo=UTC)])
        self._tail = self._head
        #: The cursor that the tail's leap began at.
        self._tail_of: datetime | None = None
        self.fingerprint: Final = steps.fingerprint

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant that follows *instant*; None if none does."""
        with self._lock:
            known = self._walk(as_utc(instant)).grown(1)
            return known[1] if len(known) > 1 else None

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return the newest instant of the chain from *after* that is not later than *instant*."""
        after, until = as_utc(after), as_utc(instant)
        with self._lock:
            known = self._walk(after).grown(_STRIDE, until)
            number = bisect_right(known, until) - 1
            if number < _STRIDE:
                return known[number] if number > 0 else None
            if self._tail_of != after or not self._tail.spans(until):
                self._tail, self._tail_of = self._leap(known, until), after
            return self._tail.latest(until)

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the instants of the chain from *after* not later than *until*, up to *cap*."""
        until = as_utc(until)
        with self._lock:
            known = self._walk(as_utc(after)).grown(cap, until)
            total = max(0, bisect_right(known, until) - 1)
        return min(total, cap), total < cap

    def describe(self) -> str:
        """Return the rule in words."""
        return self._steps.describe()

    def _walk(self, after: datetime) -> "_Walk":
        """Return the walk from *after*, with what is known of it."""
        for walk in (self._head, self._tail):
            onward = walk.onward(after)
            if onward is not None:
                self._head = onward
                return onward
        self._head = _Walk(self._steps, [after])
        return self._head

    def _leap(self, known: Sequence[datetime], until: datetime) -> "_Walk":
        """Return a walk that leads to *until* and begins not long before it."""
        begin, base = known[0], known[_STRIDE]
        for _ in range(_LEAPS):
            walk = _Walk(self._steps, [self._landing(base, base - begin, until)])
            walk.grown(2 * _STRIDE, until)
            if walk.spans(until):
                break
            begin, base = walk.known[0], walk.known[-1]
        return walk

    def _landing(self, base: datetime, stride: timedelta, until: datetime) -> datetime:
        """Return an instant of the chain, far ahead of *base* and not later than *until*."""
        leaps = (until - base) // stride - 1
        while leaps > 0:
            found = self._steps.next_after(base + leaps * stride)
            if found is not None and found <= until:
                return found
            leaps //= 2
        return base


class _Walk:
    """
    A part of a chain, as far as it was asked for.

    Attributes:
        known: where it begins, and the instants that follow.
    """

    def __init__(self, steps: Steps, known: list[datetime], *, ended: bool = False) -> None:
        self._steps: Final = steps
        self._ended = ended
        self.known: Final = known

    def grown(self, most: int, until: datetime | None = None) -> Sequence[datetime]:
        """Return what is known after going on for *most* steps, or just past *until*."""
        while not self._ended and len(self.known) <= most:
            last = self.known[-1]
            if until is not None and last > until:
                break
            found = self._steps.next_after(last)
            if found is None:
                self._ended = True
            else:
                self.known.append(found)
        return self.known

    def spans(self, until: datetime) -> bool:
        """Return whether the newest instant not later than *until* is known."""
        return self.known[0] <= until and (self._ended or until < self.known[-1])

    def latest(self, until: datetime) -> datetime:
        """Return the newest known instant not later than *until*."""
        return self.known[bisect_right(self.known, until) - 1]

    def onward(self, after: datetime) -> "_Walk | None":
        """Return the part that begins at *after*; None if that is no known instant of the walk."""
        place = bisect_left(self.known, after)
        if place == len(self.known) or self.known[place] != after:
            return None
        return _Walk(self._steps, self.known[place:], ended=self._ended) if place else self


def _first_after(rule: Schedule, instant: datetime, *, cursor: datetime) -> datetime | None:
    """Return the first instant of *rule* after *instant*, counted from *cursor* if it is no set."""
    if by_cursor(rule):
        instant = rule.latest_until(instant, after=cursor) or cursor
    return rule.next_after(instant)


def _agreed(found: Sequence[datetime | None]) -> datetime | None:
    """Return the instant that all of *found* are; None if they differ."""
    return found[0] if len(set(found)) == 1 else None


def _count(rule: Steps, after: datetime, until: datetime, cap: int) -> tuple[int, bool]:
    cap = min(cap, _COUNTED)
    total = sum(1 for _ in islice(_walk(rule, after, until), cap))
    return total, total < cap


def _walk(rule: Steps, after: datetime, until: datetime) -> Iterator[datetime]:
    instant = rule.next_after(after)
    while instant is not None and instant <= until:
        yield instant
        instant = rule.next_after(instant)


def _sorted(rules: Sequence[Schedule]) -> str:
    return f"[{'|'.join(sorted(rule.fingerprint for rule in rules))}]"
