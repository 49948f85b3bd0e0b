"""
How frozen dataclasses are written down in a register: as JSON, for people with a store's own tools.

What is at its default is left out; instants are ISO 8601 in UTC. What can not be read back with
certainty is `UnreadableRecord`, never a guess.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar, get_origin, get_type_hints

from leader_jobs.exceptions import LeaderJobsError

__all__ = ["UnreadableRecord", "checked", "dump", "instant", "load", "plain", "restore"]

_FORMAT: Final = 1
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))

T = TypeVar("T")


class UnreadableRecord(LeaderJobsError):
    """A record is not one this version can read; what it is about is left alone."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Of one kind of record: the names of its fields, their defaults, their types."""

    defaults: tuple[tuple[str, Any], ...]
    types: tuple[tuple[str, Any], ...]


#: Looked up once for each kind: a tick writes a thousand records.
_shapes: Final[dict[type[Any], _Shape]] = {}


def _shape(kind: type[Any]) -> _Shape:
    found = _shapes.get(kind)
    if found is None:
        hints = get_type_hints(kind)
        found = _shapes[kind] = _Shape(
            tuple((f.name, f.default) for f in fields(kind)),
            tuple((f.name, _simple(hints[f.name])) for f in fields(kind)),
        )
    return found


def _simple(hint: Any) -> Any:
    """Return what `isinstance` can look for: of ``tuple[T, ...]``, just the tuple."""
    return tuple if get_origin(hint) is tuple else hint


def plain(record: Any) -> dict[str, Any]:
    """Return the JSON object of a dataclass without what is at its default; with the format."""
    found: dict[str, Any] = {"v": _FORMAT}
    for name, default in _shape(type(record)).defaults:
        value = getattr(record, name)
        if isinstance(value, datetime):
            value = (value if value.tzinfo is UTC else value.astimezone(UTC)).isoformat()
        elif value == default:
            continue
        found[name] = value
    return found


def dump(found: Mapping[str, Any]) -> bytes:
    """Return the bytes of a JSON object."""
    return _ENCODER.encode(found).encode()


def load(raw: bytes) -> dict[str, Any]:
    """Return the JSON object in *raw* without its format; raise `UnreadableRecord` if it is none."""
    try:
        found = json.loads(raw)
        known = found["v"] == _FORMAT
    except (ValueError, TypeError, KeyError, RecursionError):
        msg = "not a record of this library"
        raise UnreadableRecord(msg) from None
    if not known:
        msg = f"format {found['v']!r} is not {_FORMAT}: written by another version of this library"
        raise UnreadableRecord(msg)
    assert isinstance(found, dict)  # noqa: S101  for mypy: only a dict has a "v"
    del found["v"]
    return found


def instant(text: str) -> datetime:
    """Return the instant that *text* names; raise `ValueError` if it has no time zone."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        msg = f"{text!r} has no time zone"
        raise ValueError(msg)
    return found.astimezone(UTC)


def checked(record: T) -> T:
    """Return *record*; raise `TypeError` if a field is not of the kind it is declared to be."""
    for name, kind in _shape(type(record)).types:
        value = getattr(record, name)
        if not isinstance(value, kind):
            msg = f"{name} can not be a {type(value).__name__}"
            raise TypeError(msg)
    return record


def restore(
    kind: type[T],
    raw: bytes,
    *,
    instants: Iterable[str] = (),
    enums: Mapping[str, type[StrEnum]] | None = None,
) -> T:
    """
    Read a dataclass back from what `dump` of `plain` made of it.

    Args:
        kind: the dataclass.
        raw: the bytes.
        instants: the fields that are instants.
        enums: the fields that are members of an enumeration.

    Raises:
        UnreadableRecord: it is not certain what the bytes say.
    """
    found = load(raw)
    try:
        for key in instants:
            if found.get(key) is not None:
                found[key] = instant(found[key])
        for key, enum in (enums or {}).items():
            if found.get(key) is not None:
                found[key] = enum(found[key])
        return checked(kind(**found))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        msg = f"not a record this version can read ({error})"
        raise UnreadableRecord(msg) from None
