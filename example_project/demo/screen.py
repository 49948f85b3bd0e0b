"""How the play is shown: a live table on a terminal, now and then a line anywhere else."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from demo.observer import Observer
from demo.processes import Cast, Node
from leader_jobs import Leader
from leader_jobs.clock import Clock
from shop.models import WorkLog

__all__ = ["LiveScreen", "Screen", "open_screen"]

_TABLE_EVERY: Final = 0.25
_LINE_EVERY: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Row:
    """A node as it is shown."""

    node: Node
    role: str
    leader: Leader | None
    work: list[WorkLog]

    @property
    def token(self) -> str:
        """Its token, if it stands."""
        return str(self.leader.token) if self.leader is not None else "-"

    @property
    def lease(self) -> str:
        """What is left of its lease."""
        left = self.leader.remaining if self.leader is not None else None
        return f"{left:.1f} s" if left is not None else "-"

    @property
    def short(self) -> str:
        """The node in a few words."""
        term = f" (token {self.token}, lease {self.lease})" if "leader" in self.role else ""
        return f"{self.node.name} {self.role}{term}"

    @property
    def last(self) -> str:
        """The newest occurrence of each job it ran."""
        newest = {row.job: row.planned_at for row in self.work}
        return ", ".join(f"{job} {at:%H:%M:%S}" for job, at in sorted(newest.items())) or "-"


def _rows(cast: Cast, observer: Observer) -> list[_Row]:
    standing = observer.candidates()
    rows = []
    for node in cast.nodes:
        place, candidate = next(
            ((n, c) for n, c in enumerate(standing) if c.proposal and c.proposal.pid == node.pid),
            (None, None),
        )
        role = "starting" if place is None else "standby" if place else "leader"
        if not node.alive:
            role = "gone"
        elif node.frozen:
            role = "frozen" if place is None else f"{role}, frozen"
        work = [row for row in observer.work if row.pid == node.pid]
        rows.append(_Row(node, role, candidate, work))
    return rows


class Screen:
    """
    Prints a line every two seconds: right for a file, a pipe, a CI log.

    Args:
        clock: where moments come from.
    """

    every = _LINE_EVERY

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._next = self._began + self.every

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print a line that stays, with the time."""
        self.print(f"{self._clock.now() - self._began:5.1f} s  {text}")

    def show(self, cast: Cast, observer: Observer) -> None:
        """Show the present state, if it is time to."""
        if self._clock.now() >= self._next:
            self._next = self._clock.now() + self.every
            observer.look()
            self.draw(_rows(cast, observer), observer)

    def print(self, line: str) -> None:
        """Print *line*."""
        print(line, flush=True)

    def draw(self, rows: Sequence[_Row], observer: Observer) -> None:
        """Print who does what."""
        nodes = ", ".join(row.short for row in rows)
        last = observer.work[-1] if observer.work else "none"
        self.say(f"  {nodes} | {len(observer.work)} runs, the last: {last}")


class LiveScreen(Screen):
    """
    Keeps a table up to date at the foot of a terminal; what is said scrolls above it.

    Args:
        clock: where moments come from.

    Raises:
        ImportError: rich is not installed.
    """

    every = _TABLE_EVERY

    def __init__(self, clock: Clock) -> None:
        from rich.live import Live

        super().__init__(clock)
        # Without a thread of its own: a process that starts others with `preexec_fn` has only one.
        self._live = Live(auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def print(self, line: str) -> None:
        """Print *line* above the table."""
        self._live.console.print(line, highlight=False, markup=False)

    def draw(self, rows: Sequence[_Row], observer: Observer) -> None:
        """Draw the table anew."""
        from rich.table import Table

        table = Table(title=f"election {observer.election!r}", title_justify="left")
        for heading in ("node", "pid", "role", "token", "lease left", "runs", "last occurrences"):
            table.add_column(heading)
        for row in rows:
            style = {"leader": "bold green", "standby": ""}.get(row.role, "red")
            cells = (row.node.name, str(row.node.pid), row.role, row.token, row.lease)
            table.add_row(*cells, str(len(row.work)), row.last, style=style)
        self._live.update(table, refresh=True)


def open_screen(clock: Clock) -> Screen:
    """Return a screen that fits standard output."""
    if sys.stdout.isatty():
        try:
            return LiveScreen(clock)
        except ImportError:
            print("rich is not installed; showing lines instead of a table")
    return Screen(clock)
