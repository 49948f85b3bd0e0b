"""Pages of text: plain in a pipe, drawn by rich on a terminal, and nothing a stranger wrote is obeyed."""

import io
import re
import sys

import pytest

from leader_jobs.tables import Cell, Line, Page, Screen, Table, Tone, plain

HOSTILE = "[bold red]x[/] :boom: \x1b[2J\u202e<script>"
HARMLESS = "[bold red]x[/] :boom: \N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}<script>"
PAGE: Page = [
    Line("two of them", Tone.STRONG),
    Table(("node", "token"), (("a", Cell("7", Tone.BAD)), ("b" * 200, "12"))),
]


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def shown(out: io.StringIO, page: Page, color: bool | None = None) -> str:
    """Show a page; return what was written."""
    Screen(out, color=color).show(page)
    return out.getvalue()


def test_in_a_pipe_columns_are_as_wide_as_what_is_in_them() -> None:
    """Nothing is cut off, whatever COLUMNS says, nothing is coloured, and no line ends in blanks."""
    text = shown(io.StringIO(), PAGE)

    assert text == f"two of them\nnode{' ' * 198}token\na{' ' * 201}7\n{'b' * 200}  12\n"
    assert text == plain(PAGE)


def test_on_a_terminal_a_long_cell_is_folded() -> None:
    """It goes on below: all of it can be read, in colours."""
    text = shown(Terminal(), PAGE)

    assert "\x1b[1;31m7" in text
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())) <= 80
    assert text.count("b") == 200


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that all programs share, and by the option of the way in."""
    assert "31m" not in shown(Terminal(), PAGE, color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(Terminal(), PAGE)


def test_forced_colours_cut_nothing_off_in_a_pipe() -> None:
    """As ``--force-color`` asks for."""
    text = shown(io.StringIO(), PAGE, color=True)

    assert "\x1b[1;31m" in text
    assert "b" * 200 in text


@pytest.mark.parametrize("terminal", [False, True])
def test_what_a_stranger_wrote_is_text(*, terminal: bool) -> None:
    """No markup, no emoji, no escape sequence, nothing that turns the direction of the text."""
    page: Page = [
        Line(HOSTILE),
        Table((HOSTILE,), ((HOSTILE,), (Cell(HOSTILE),))),
        Table((), ((HOSTILE,),)),
    ]
    text = shown(Terminal() if terminal else io.StringIO(), page)

    assert text.count(HARMLESS) == 5
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["pipe", "terminal"])
def test_empty_tables(out: io.StringIO) -> None:
    """They are no trouble."""
    assert shown(out, [Table((), ()), Table(("node",), ())], color=False).split() == ["node"]


def test_a_terminal_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plain columns, and a live page clears the screen first."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert shown(Terminal(), PAGE) == plain(PAGE)

    out = Terminal()
    with Screen(out).live() as replace:
        replace([Line("one")])
        replace([Line("two")])
    assert out.getvalue() == "\x1b[H\x1b[2Jone\n\x1b[H\x1b[2Jtwo\n"


def test_a_live_page_takes_the_place_of_the_one_before() -> None:
    """The cursor goes up and lines are erased, and the last page stays."""
    out = Terminal()
    with Screen(out).live() as replace:
        replace([Line("one"), Table((), (("x",),))])
        replace([Line("two"), Table((), (("x",),))])
    text = out.getvalue()

    assert re.search(r"one.*\x1b\[2K.*two", text, re.DOTALL)
    assert "one" not in text.partition("two")[2]
