"""
Celery schedules that are asked, one instant after the other, because they are no set to compute.

`Chained` asks for the time that remains after each planned instant; `Asked` whether it is due now.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Any, Final

from celery import Celery
from celery.schedules import BaseSchedule, solar
from celery.schedules import schedule as interval

from leader_jobs.adapters.celery_crontab import clocks_of
from leader_jobs.schedules import Every, as_utc

__all__ = ["Asked", "CannotTell", "Chained"]

_log = logging.getLogger(__name__)
_SECOND: Final = timedelta(seconds=1)
#: How near a solar event may come out to where the search for it began, and be that very event:
#: the search is iterative, and its result was rounded.
_SAME_EVENT: Final = timedelta(seconds=60)
#: A chain of more steps than this is not walked but strided over.
_STRIDE: Final = 1_000
#: Where a chain is tried out.
_TRIAL: Final = datetime(2025, 1, 1, tzinfo=UTC)
#: How soon, and how late at the latest (beat's own longest pause), a schedule is asked again.
_SOONEST: Final = 0.1
_LATEST: Final = 300.0
_AFTER_ERROR: Final = 60.0


class CannotTell(Exception):
    """A schedule object does not say when it is planned; the message says why not."""


class Chained:
    """
    Instants each of which follows from the one before, by the schedule's own ``remaining_estimate``.

    Args:
        schedule: the schedule object; asked on a copy for which the former instant is now.
        name: the entry's name, for messages.
        app: its application. Former instants are given in its time zone, since
            ``relative=True`` rounds to whole minutes, hours or days of the zone it is given.

    Raises:
        CannotTell: no chain can be made of it: it is no ``BaseSchedule``, fails, goes by another
            clock than its ``nowfun``, answers differently if asked twice, does not move on, or
            decides in ``is_due`` what its ``remaining_estimate`` does not know.

    From the same cursor every node has the same chain. Solar instants are rounded to whole seconds,
    and one that comes out less than a minute after the former one is taken for the same event.

    A chain whose schedule fails, or does not move on, is broken: from then on, in this process, the
    entry is `Asked`.
    """

    def __init__(self, schedule: object, *, name: str, app: Celery) -> None:
        if not isinstance(schedule, BaseSchedule):
            msg = "it is no subclass of celery's BaseSchedule"
            raise CannotTell(msg)
        self._schedule: Final = schedule
        self._name: Final = name
        self._app: Final = app
        self._zone: Final[tzinfo] = UTC if isinstance(schedule, solar) else app.timezone
        self._zone_name: Final = clocks_of(self._zone).name
        self._asked: Asked | None = None
        self.fingerprint: Final = f"celery-chain:{_identity(schedule)}:{self._zone_name}"
        _check_override(type(schedule))
        if self._step(_TRIAL) != self._step(_TRIAL):
            msg = "asked twice for the time that remains it gives two answers"
            raise CannotTell(msg)

    def __repr__(self) -> str:
        return f"<Chained: {self.describe()}>"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant that follows *instant*; None after the year 9999."""
        try:
            return self._step(as_utc(instant))
        except CannotTell as why:
            return self._ask_instead(why).next_after(instant)

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """
        Return the newest instant of the chain from *after* that is not later than *instant*.

        Of a chain of more than 1,000 steps, the first 1,000 are taken as a stride, and as many
        whole strides as fit are taken at once. That is exact for what is even (minutes, seconds);
        otherwise it is an instant that all who begin at *after* agree on.
        """
        after, until = as_utc(after), as_utc(instant)
        try:
            steps = list(islice(self._walk(after, until), _STRIDE))
            if len(steps) < _STRIDE:
                return steps[-1] if steps else None
            stride = steps[-1] - after
            begin = after + (until - after) // stride * stride
            rest = deque(islice(self._walk(begin, until), _STRIDE), maxlen=1)
        except CannotTell as why:
            return self._ask_instead(why).latest_until(instant, after=after)
        return rest[0] if rest else begin

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Count the instants of the chain from *after* not later than *until*, up to *cap*."""
        try:
            steps = self._walk(as_utc(after), as_utc(until))
            total = sum(1 for _ in islice(steps, cap))
        except CannotTell as why:
            return self._ask_instead(why).count_between(after, until, cap=cap)
        return total, total < cap

    def describe(self) -> str:
        """Return the rule in words: ``sunrise at 48.1, 11.6``."""
        given = vars(self._schedule)
        if isinstance(self._schedule, solar):
            return f"{given['event']} at {given['lat']}, {given['lon']}"
        if type(self._schedule) is interval:
            return f"{Every(given['run_every']).describe()}, rounded ({self._zone_name})"
        return _class_name(self._schedule)

    def _walk(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the instants that follow *after*, up to *until*."""
        instant = self._step(after)
        while instant is not None and instant <= until:
            yield instant
            instant = self._step(instant)

    def _step(self, instant: datetime) -> datetime | None:
        if self._asked is not None:
            msg = "it failed before"
            raise CannotTell(msg)
        try:
            found = instant + self._remaining(instant)
            if isinstance(self._schedule, solar):
                found = _rounded(found)
                if found - instant < _SAME_EVENT:
                    begin = instant + _SAME_EVENT
                    found = _rounded(begin + self._remaining(begin))
        except OverflowError:
            return None
        if found <= instant:
            msg = f"after {instant.isoformat()} it does not move on but names {found.isoformat()}"
            raise CannotTell(msg)
        return found

    def _remaining(self, instant: datetime) -> timedelta:
        """Return what remains at *instant* if the entry ran at *instant*."""
        asked_for_now = False
        local = instant.astimezone(self._zone)
        # Celery before 5.7 subtracts wall times where both are in one zone: a day that follows a
        # change of the clocks would begin an hour off. Subclasses may read the local time of day.
        present = instant if type(self._schedule) is interval else local

        def now() -> datetime:
            nonlocal asked_for_now
            asked_for_now = True
            return present

        try:
            left: object = _copy(self._schedule, now).remaining_estimate(local)
        except OverflowError:
            raise
        except Exception as error:
            msg = f"its remaining_estimate failed: {type(error).__name__}: {error}"
            raise CannotTell(msg) from error
        if not isinstance(left, timedelta):
            msg = f"its remaining_estimate is {left!r}"
            raise CannotTell(msg)
        if not asked_for_now:
            msg = "its remaining_estimate goes by another clock than its nowfun"
            raise CannotTell(msg)
        return left

    def _ask_instead(self, why: Exception) -> "Asked":
        if self._asked is None:
            self._asked = Asked(self._schedule, name=self._name, app=self._app, why=str(why))
        return self._asked


class Asked:
    """
    Due when the schedule says so: for schedules that can not tell when they are planned.

    Args:
        schedule: any object with Celery's ``is_due``.
        name: the entry's name, for messages.
        app: its application; its ``now()`` is the present, as it is for ``is_due`` itself.
        why: what is wrong with the schedule, for the warning that is logged.

    The planned instant is the whole second in which this node saw the entry due, and stays the same
    until the ledger's cursor has reached it. Before that, and before the time to look again that
    ``is_due`` named (0.1 s to 5 min), it is not asked again. So an occurrence is run at most once, at
    most one in a second, and what was missed is not caught up.
    """

    def __init__(self, schedule: object, *, name: str, app: Celery, why: str) -> None:
        self._schedule: Final[Any] = schedule
        self._name: Final = name
        self._app: Final = app
        #: When the entry was seen due, and when to look again.
        self._seen: datetime | None = None
        self._look_at: datetime | None = None
        self.fingerprint: Final = f"celery-asked:{_identity(schedule)}"
        _log.warning(
            "entry %r: schedule %s can not tell when it is planned (%s); it is run at most once each "
            "time that it is seen due, and what is missed is not caught up",
            name,
            _class_name(schedule),
            why,
        )

    def __repr__(self) -> str:
        return f"<Asked: {self.describe()}>"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return when the entry was seen due, if after *instant*; otherwise when to look again."""
        seen = self._look(as_utc(instant))
        if seen is not None:
            return seen
        soonest = as_utc(instant) + timedelta(seconds=_SOONEST)
        return soonest if self._look_at is None else max(self._look_at, soonest)

    def latest_until(self, instant: datetime, *, after: datetime) -> datetime | None:
        """Return when the entry was seen due, if later than *after* and not later than *instant*."""
        if instant <= after:
            return None
        seen = self._look(as_utc(after))
        return seen if seen is not None and seen <= instant else None

    def count_between(self, after: datetime, until: datetime, *, cap: int) -> tuple[int, bool]:
        """Return 1 if the entry was seen due later than *after* and until *until*, or 0."""
        return int(self._seen is not None and after < self._seen <= until), True

    def describe(self) -> str:
        """Return the rule in words: ``when pack.module.Tides says so``."""
        return f"when {_class_name(self._schedule)} says so"

    def _look(self, after: datetime) -> datetime | None:
        """Return when the entry, run last at *after*, was seen due since."""
        if self._seen is not None and self._seen > after:
            return self._seen
        now = as_utc(self._app.now())
        if self._look_at is None or now >= self._look_at:
            due, pause = self._ask(after)
            self._look_at = now + timedelta(seconds=pause)
            second = now.replace(microsecond=0)
            if due and second > after:
                self._seen = second
                return second
            if due:
                self._look_at = second + _SECOND
        return None

    def _ask(self, after: datetime) -> tuple[bool, float]:
        """Return whether the entry is due, and in how many seconds to ask again."""
        try:
            due, pause = self._schedule.is_due(after.astimezone(self._app.timezone))
            pause = float(pause)
        except Exception:  # noqa: BLE001  one entry's trouble may not hold up the others
            _log.exception(
                "entry %r: its schedule failed; it is asked again in %.0f s",
                self._name,
                _AFTER_ERROR,
            )
            return False, _AFTER_ERROR
        if math.isnan(pause):
            pause = _LATEST
        return bool(due), min(max(pause, _SOONEST), _LATEST)


def _check_override(kind: type) -> None:
    """
    Raise `CannotTell` if ``is_due`` was overridden, but ``remaining_estimate`` was not.

    Whatever such a class adds (holidays, opening hours), its ``remaining_estimate`` knows nothing
    of it.
    """
    for base in kind.__mro__:
        if "remaining_estimate" in vars(base):
            return
        if "is_due" in vars(base):
            msg = f"{base.__qualname__} decides in is_due what its remaining_estimate does not know"
            raise CannotTell(msg)


def _copy(schedule: BaseSchedule, now: Callable[[], datetime]) -> BaseSchedule:
    """Return a copy for which it is *now*; not by ``__reduce__``, which loses the application."""
    copy: Any = object.__new__(type(schedule))
    copy.__dict__.update(vars(schedule))
    copy.nowfun = now
    return copy  # type: ignore[no-any-return]  # an attribute that celery's stubs do not have


def _rounded(instant: datetime) -> datetime:
    return (instant + _SECOND / 2).replace(microsecond=0)


def _class_name(schedule: object) -> str:
    return f"{type(schedule).__module__}.{type(schedule).__qualname__}"


def _identity(schedule: object) -> str:
    """
    Return a text that is the same on every node: the class and what it was given.

    What it was given are its public attributes of plain types; all else (functions, the app, caches)
    differs from process to process or from hour to hour.
    """
    given = getattr(schedule, "__dict__", {})
    words = ",".join(
        f"{key}={value}"
        for key, value in sorted(given.items())
        if isinstance(value, (str, int, float, timedelta, datetime))
        and not key.startswith("_")
        and not hasattr(getattr(type(schedule), key, None), "__get__")  # a cached property
    )
    return f"{_class_name(schedule)}:{words}"
