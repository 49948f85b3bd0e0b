"""Texts that others wrote."""

import json
from dataclasses import dataclass

import pytest

from leader_jobs.texts import is_plain, printable, shown

NASTY = ["\x1b[31mred", "two\nlines", "\x7f", "a\u202eb", "\ud800", "\u200b", "\x00", "tab\t"]


@dataclass(frozen=True)
class _Note:
    text: str
    other: str = "fine"
    number: int = 0


@pytest.mark.parametrize("text", NASTY)
def test_what_can_not_be_printed_is_replaced(text: str) -> None:
    """What is left can be shown on a terminal and encoded, and is as long as it was."""
    result = printable(text)

    assert result.isprintable()
    assert len(result) == len(text)
    result.encode()
    assert shown(_Note(text, number=7)) == _Note(result, number=7)


def test_what_can_be_printed_is_left_alone() -> None:
    """Whatever the script; a dataclass is not even copied."""
    note = _Note("Ünïcödé 漢字 🙂 <script>")

    assert printable(note.text) == note.text
    assert shown(note) is note


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("text", NASTY[:4] + NASTY[5:])
def test_a_glance_at_json_misses_nothing(text: str, *, ascii_only: bool) -> None:
    """What calls itself plain has no text that can not be printed, however it was encoded."""
    assert is_plain(json.dumps(["plain text, <b>'s"]).encode())
    assert not is_plain(json.dumps([text], ensure_ascii=ascii_only).encode())
