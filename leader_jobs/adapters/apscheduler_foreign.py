"""Triggers of which nothing is known but their ``get_next_fire_time``, and what any trigger holds."""

import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron.fields import BaseField

from leader_jobs.schedules import as_utc

__all__ = ["Foreign", "jitter_of"]

_log = logging.getLogger(__name__)


def jitter_of(trigger: BaseTrigger) -> float:
    """Return the largest jitter of a trigger and of all that it is made of, in seconds."""
    found = [0.0]
    for name, value in _attributes(trigger):
        if name == "jitter" and value:
            found.append(float(value))
        parts = value if isinstance(value, (list, tuple)) else (value,)
        found.extend(jitter_of(part) for part in parts if isinstance(part, BaseTrigger))
    return max(found)


class Foreign:
    """
    The steps of a trigger of which nothing is known but its ``get_next_fire_time``.

    Args:
        trigger: asked for what follows the former instant, as if that were now, in the trigger's
            own ``timezone`` if it has one. If it has a jitter, a copy without it is asked.

    Attributes:
        fingerprint: its class and its public attributes of plain types. An instant that has
            microseconds is left out: that is when this process made the trigger.

    A trigger that fails, names no aware datetime, or does not move on is logged once and ends.
    """

    def __init__(self, trigger: BaseTrigger) -> None:
        self._trigger: Final = _unjittered(trigger) if jitter_of(trigger) else trigger
        zone = getattr(trigger, "timezone", None)
        self._zone: Final[tzinfo] = zone if isinstance(zone, tzinfo) else UTC
        self._name: Final = _class_name(trigger)
        self._failed = False
        self.fingerprint: Final = f"aps-chain:{_identity(trigger)}"

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the instant that the trigger names after *instant*; None if it has ended."""
        try:
            return self._ask(as_utc(instant))
        except OverflowError:  # the end of the calendar
            return None
        except Exception as error:  # noqa: BLE001  whatever a trigger of the user's raises
            if not self._failed:
                self._failed = True
                _log.error(
                    "trigger %s can not tell what follows %s and is taken to have ended: %s: %s",
                    self._name,
                    instant.isoformat(),
                    type(error).__name__,
                    error,
                )
            return None

    def describe(self) -> str:
        """Return the rule in words: ``when pack.module.Tides says so``."""
        return f"when {self._name} says so"

    def _ask(self, instant: datetime) -> datetime | None:
        former = instant.astimezone(self._zone)
        found = self._trigger.get_next_fire_time(former, former)
        if found is None:
            return None
        if not isinstance(found, datetime) or found.utcoffset() is None:
            msg = f"it names {found!r}, which is no datetime with a time zone"
            raise TypeError(msg)
        if found <= instant:
            msg = f"it does not move on but names {found.isoformat()}"
            raise ValueError(msg)
        return as_utc(found)


def _attributes(trigger: BaseTrigger) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a trigger's attributes, slots or not, in the names' order."""
    names = set(getattr(trigger, "__dict__", ()))
    for kind in type(trigger).__mro__:
        slots = vars(kind).get("__slots__", ())
        names.update((slots,) if isinstance(slots, str) else slots)
    for name in sorted(names - {"__dict__", "__weakref__"}):
        if hasattr(trigger, name):
            yield name, getattr(trigger, name)


def _unjittered(trigger: BaseTrigger) -> BaseTrigger:
    """Return a copy without jitter; not by ``__getstate__``, which subclasses seldom complete."""
    copy = object.__new__(type(trigger))
    for name, value in _attributes(trigger):
        object.__setattr__(copy, name, 0 if name == "jitter" else _without_jitter(value))
    return copy


def _without_jitter(value: Any) -> Any:
    if isinstance(value, BaseTrigger):
        return _unjittered(value)
    if type(value) in (list, tuple):
        return type(value)(map(_without_jitter, value))
    return value


def _identity(trigger: BaseTrigger) -> str:
    """Return a text that is the same on every node: the class and what it was given."""
    told = (
        (name, _told(value))
        for name, value in _attributes(trigger)
        if name != "jitter" and not name.startswith("_")
    )
    given = ",".join(f"{name}={text}" for name, text in told if text is not None)
    return f"{_class_name(trigger)}({given})"


def _told(value: object) -> str | None:
    """Return *value* as a text that is the same on every node; None if it has none."""
    text: str | None = None
    if isinstance(value, datetime):
        text = None if value.microsecond else value.isoformat()
    elif value is None or isinstance(value, (str, int, float, timedelta, date, time, BaseField)):
        text = str(value)
    elif isinstance(value, tzinfo):
        text = str(getattr(value, "key", None) or getattr(value, "zone", None) or value)
    elif isinstance(value, BaseTrigger):
        text = _identity(value)
    elif isinstance(value, (list, tuple)):
        text = str([_told(each) for each in value])
    elif isinstance(value, (set, frozenset)):
        text = str(sorted(str(_told(each)) for each in value))
    return text


def _class_name(trigger: object) -> str:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"
