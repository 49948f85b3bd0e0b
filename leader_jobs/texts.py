"""Texts that others wrote, made fit to be shown."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["is_plain", "printable", "shown"]

T = TypeVar("T", bound="DataclassInstance")


def printable(text: str) -> str:
    """
    Return *text* with a replacement character for whatever can not be printed.

    That is: control characters, which a terminal would obey; invisible ones, which turn the direction
    of what follows; and lone surrogates, which no encoding takes.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def is_plain(raw: bytes) -> bool:
    """Whether all texts in a JSON document are printable, as far as a glance tells."""
    # Whatever else can not be printed is written as an escape.
    return raw.isascii() and b"\\" not in raw and b"\x7f" not in raw


def shown(record: T) -> T:
    """Return a dataclass with its texts made `printable`; the same one if they are."""
    texts: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, str) and not value.isprintable():
            texts[field.name] = printable(value)
    return replace(record, **texts) if texts else record
