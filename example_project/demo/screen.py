"""How the play is shown: a live table on a terminal, now and then a line anywhere else."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from demo.observer import Observer
from demo.processes import Cast, Node
from leader_jobs import Leader
from leader_jobs.clock import Clock
from shop.models import WorkLog

__all__ = ["Screen", "open_screen"]

_LIVE_EVERY: Final = 0.25
_LINE_EVERY: Final = 2.0
_SHOWN_JOBS: Final = 3


class Screen(Protocol):
    """Shows what goes on."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def say(self, text: str) -> None:
        """Print a line that stays."""
        ...

    def show(self, cast: Cast, observer: Observer) -> None:
        """Show the present state, if it is time to."""
        ...


def open_screen(clock: Clock) -> Screen:
    """Return a screen that fits standard output."""
    if sys.stdout.isatty():
        try:
            return LiveScreen(clock)
        except ImportError:  # rich is not installed
            pass
    return PlainScreen(clock)


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


class PlainScreen:
    """
    Prints a line every two seconds: right for a file, a pipe, a CI log.

    Args:
        clock: where moments come from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._next = clock.now() + _LINE_EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print a line with the time."""
        print(f"{self._clock.now() - self._began:5.1f} s  {text}", flush=True)

    def show(self, cast: Cast, observer: Observer) -> None:
        """Print who does what, every two seconds."""
        if self._clock.now() < self._next:
            return
        self._next = self._clock.now() + _LINE_EVERY
        observer.look()
        rows = _rows(cast, observer)
        parts = [
            f"{row.node.name} {row.role}" + (f" (token {row.token}, lease {row.lease})" * (row.token != "-"))
            for row in rows
        ]
        newest = observer.work[-_SHOWN_JOBS:]
        last = ", ".join(f"{row.job} {row.planned_at:%H:%M:%S} by {row.node}" for row in newest)
        self.say(f"  {'; '.join(parts)} | {len(observer.work)} runs, last: {last or 'none'}")


class LiveScreen:
    """
    Keeps a table up to date at the foot of the terminal; what is said scrolls above it.

    Args:
        clock: where moments come from.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self, clock: Clock) -> None:
        from rich.live import Live

        self._clock = clock
        self._began = clock.now()
        self._next = 0.0
        # Without a thread of its own: children are started from a process with one thread.
        self._live = Live(auto_refresh=False)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        time = self._clock.now() - self._began
        self._live.console.print(f"{time:5.1f} s  {text}", highlight=False, markup=False)

    def show(self, cast: Cast, observer: Observer) -> None:
        """Redraw the table, four times a second."""
        from rich.table import Table

        if self._clock.now() < self._next:
            return
        self._next = self._clock.now() + _LIVE_EVERY
        observer.look()
        table = Table(title=f"election {observer.election!r}", title_justify="left")
        for heading in ("node", "pid", "role", "token", "lease left", "runs", "last occurrences"):
            table.add_column(heading)
        for row in _rows(cast, observer):
            style = {"leader": "bold green", "standby": ""}.get(row.role, "red")
            cells = (row.node.name, str(row.node.pid), row.role, row.token, row.lease)
            table.add_row(*cells, str(len(row.work)), row.last, style=style)
        self._live.update(table, refresh=True)
