"""
Pages of text for people: as plain aligned columns, or drawn by rich on a terminal.

What goes into a pipe or a file is the same whether rich is installed or not: columns as wide as what
is in them, nothing cut off, no colours. Cells may hold what strangers wrote: what can not be printed is
replaced, and nothing in them is ever taken for markup.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TextIO

from leader_jobs.texts import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Cell", "Line", "Page", "Screen", "Table", "Tone", "plain"]

_GAP: Final = "  "
_CLEAR: Final = "\x1b[H\x1b[2J"
#: Wide enough for whatever there is, where colours are wanted in a pipe.
_ANY_WIDTH: Final = 10_000


class Tone(StrEnum):
    """How a text is meant; where there are colours, what they say is also in the words."""

    PLAIN = ""
    GOOD = "green"
    WARN = "yellow"
    BAD = "bold red"
    STRONG = "bold"
    FAINT = "dim"


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and how it is meant."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Line:
    """A line of its own; too long for a terminal, it is continued below."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Table:
    """
    Rows of cells under the names of the columns.

    Attributes:
        columns: the names; none for a table without a heading.
        rows: as many cells each as there are columns, or as the first row has.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]


Page = Sequence[Line | Table]


def plain(page: Page) -> str:
    """Return a page as text, each line with its end."""
    lines: list[str] = []
    for block in page:
        lines += [printable(block.text)] if isinstance(block, Line) else _aligned(block)
    return "".join(f"{line}\n" for line in lines)


def _aligned(table: Table) -> list[str]:
    heading = [table.columns] if table.columns else []
    shown = [[printable(_cell(cell).text) for cell in row] for row in (*heading, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


class Screen:
    """
    Where pages are shown.

    Args:
        out: where they are written.
        color: False for no colours even on a terminal, True for colours even elsewhere.

    On a terminal rich draws them, if it is installed; it heeds ``NO_COLOR`` and the width.
    """

    def __init__(self, out: TextIO, *, color: bool | None = None) -> None:
        self._out = out
        self.is_terminal: Final = out.isatty()
        self._color = color
        self._console: Console | None = None
        if self.is_terminal or color:
            self._console = self._open_console()

    def show(self, page: Page) -> None:
        """Write a page."""
        if self._console is None:
            self._out.write(plain(page))
        else:
            for block in page:
                self._console.print(_renderable(block))
        self._out.flush()

    @contextmanager
    def live(self) -> Iterator[Callable[[Page], None]]:
        """Lend what shows a page in the place of the one before; on a terminal only."""
        if self._console is None:
            yield self._replace
            return
        from rich.console import Group
        from rich.live import Live

        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda page: live.update(Group(*map(_renderable, page)), refresh=True)

    def _replace(self, page: Page) -> None:
        self._out.write(_CLEAR + plain(page))
        self._out.flush()

    def _open_console(self) -> "Console | None":
        try:
            from rich.console import Console
        except ImportError:
            return None
        return Console(
            file=self._out,
            force_terminal=self._color,
            no_color=True if self._color is False else None,
            width=None if self.is_terminal else _ANY_WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
        )


def _renderable(block: Line | Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(block, Line):
        return Text(printable(block.text), style=block.tone)
    table = RichTable(box=None, show_header=bool(block.columns), header_style="dim", pad_edge=False)
    first = block.rows[0] if block.rows else ()
    for name in block.columns or [""] * len(first):
        table.add_column(Text(printable(name)), overflow="fold")
    for row in block.rows:
        cells = map(_cell, row)
        table.add_row(*(Text(printable(cell.text), style=cell.tone) for cell in cells))
    return table
