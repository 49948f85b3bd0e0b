"""What happens in the demo, act by act, and what each act is to prove."""

import signal
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from demo.observer import Observer
from demo.processes import Cast, Node
from demo.screen import Screen
from leader_jobs import Leader
from leader_jobs.clock import Clock
from shop.models import WorkLog

__all__ = ["PlayFailed", "Script", "Timetable"]

_LOOK: Final = 0.02
_SECOND: Final = 1.0
_LATE_IN_A_SECOND: Final = 940_000
_START_WITHIN: Final = 20.0
_STOP_WITHIN: Final = 15.0
#: What a succession may take on a slow machine, in seconds: until the next one is first in line,
#: on top of what is left of the lease where that has to run out; and from there to its first job,
#: for which one of a job each second has to fall due.
_NEXT_IN_LINE: Final = 2.0
_FIRST_JOB: Final = 4.0
_TRIES: Final = 20


class PlayFailed(Exception):
    """The play did not go as it must; the message says why in a line."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """
    How long things take.

    Attributes:
        ttl: lease time of the nodes, in seconds.
        calm: seconds between two acts.
    """

    ttl: float
    calm: float

    @property
    def frozen(self) -> float:
        """Seconds for which the leader is frozen; the lease is over well before."""
        return self.ttl + 2.0


@dataclass(frozen=True, slots=True)
class _Exit:
    """The leader that goes: who, its term, and when it went, on both clocks."""

    node: Node
    leader: Leader
    moment: float
    instant: datetime


class Script:
    """
    The play.

    Args:
        cast: the nodes.
        observer: what is seen of them.
        screen: where it is shown.
        clock: where moments and instants come from.
        times: how long things take.
        databases: the SQLite files of the store and of the shop.
    """

    def __init__(
        self,
        cast: Cast,
        observer: Observer,
        screen: Screen,
        *,
        clock: Clock,
        times: Timetable,
        databases: Sequence[Path],
    ) -> None:
        self._cast = cast
        self._observer = observer
        self._screen = screen
        self._clock = clock
        self._times = times
        self._databases = tuple(databases)

    def play(self) -> None:
        """
        Play all acts.

        Raises:
            PlayFailed: an act did not end as it must.
        """
        self._opening()
        self._kill_the_leader()
        self._freeze_the_leader()
        self._ask_the_leader_to_go()

    def stay(self) -> None:
        """Keep the show up; only an exception ends it."""
        self._watch(float("inf"))

    def close(self) -> None:
        """
        Stop all nodes, standbys first so that nobody else is elected meanwhile.

        Raises:
            PlayFailed: one did not stop, or not with exit code 0.
        """
        order = [c.proposal.pid for c in reversed(self._observer.candidates()) if c.proposal]
        for pid in order:
            node = self._cast.of_pid(pid)
            node.send(signal.SIGTERM)
            _check_end(node)
        self._observer.look()

    # -- the acts ---------------------------------------------------------------------------------

    def _opening(self) -> None:
        self._say("three nodes start: one is elected and runs the jobs, two stand by")
        for node in self._cast.nodes:
            node.start()
        everybody = len(self._cast.nodes)
        self._await(_START_WITHIN, lambda: len(self._observer.candidates()) == everybody, "stands")
        self._await(_START_WITHIN, lambda: bool(self._work_since(0)), "runs a job")
        self._watch(self._times.calm)

    def _kill_the_leader(self) -> None:
        gone = self._exit("kill -9", Node.end)
        self._say("   proves: the kernel tells the standby of the death; no lease has to run out")
        self._succession(gone, _NEXT_IN_LINE)
        self._return(gone.node)
        self._watch(self._times.calm)

    def _freeze_the_leader(self) -> None:
        gone = self._exit("SIGSTOP", self._freeze)
        self._say(
            "   proves: a leader that is alive but stuck is superseded when its lease is over"
        )
        self._succession(gone, self._times.ttl + _NEXT_IN_LINE)
        self._watch(gone.moment + self._times.frozen - self._clock.now())
        gone.node.thaw()
        self._say(f"SIGCONT: {gone.node.name} wakes up and still believes that it leads")
        self._say(
            "   proves: it knows better at its first look at the clock, and the store fences it"
        )
        self._await(_START_WITHIN, lambda: self._stands_anew(gone), f"{gone.node.name} stands anew")
        self._watch(self._times.calm)
        self._check_harmless(gone)

    def _ask_the_leader_to_go(self) -> None:
        gone = self._exit("SIGTERM", lambda node: node.send(signal.SIGTERM))
        self._say("   proves: a deploy finishes what runs, resigns, and nobody waits for a lease")
        self._succession(gone, _NEXT_IN_LINE)
        _check_end(gone.node)
        self._say(f"{gone.node.name} ended with exit code 0")
        self._return(gone.node)
        self._watch(self._times.calm)

    # -- what they are made of --------------------------------------------------------------------

    def _exit(self, how: str, do: Callable[[Node], None]) -> _Exit:
        """Do something to the leader that ends its term."""
        leader = self._observer.leader()
        if leader is None or leader.proposal is None:
            msg = f"nobody leads when the leader is to get {how}"
            raise PlayFailed(msg)
        node = self._cast.of_pid(leader.proposal.pid)
        # The next job is due in a moment: it will show how long nobody was there to run it.
        self._watch(_SECOND, lambda: self._clock.utcnow().microsecond > _LATE_IN_A_SECOND)
        do(node)
        gone = _Exit(node, leader, self._clock.now(), self._clock.utcnow())
        self._say(f"{how}: {node.name} (pid {node.pid}), leader with token {leader.token}")
        return gone

    def _succession(self, gone: _Exit, limit: float) -> None:
        """Wait for the next leader and its first job; say how long each took."""
        self._await(limit, lambda: self._next(gone) is not None, "takes over")
        in_line = self._clock.now() - gone.moment
        successor = self._next(gone)
        assert successor is not None  # noqa: S101  for mypy: it was awaited
        token = successor.token
        self._await(_FIRST_JOB, lambda: bool(self._work_since(token)), "runs a job")
        first = self._work_since(token)[0]
        ran = (first.written_at - gone.instant).total_seconds()
        due = (first.planned_at - gone.instant).total_seconds()
        self._say(
            f"{successor.node} (token {token}) took over: leader in the store after "
            f"{in_line * 1000:.0f} ms, first job after {ran * 1000:.0f} ms "
            f"({first.job}, which was due after {due * 1000:.0f} ms)"
        )

    def _next(self, gone: _Exit) -> Leader | None:
        leader = self._observer.leader()
        return leader if leader is not None and leader.token > gone.leader.token else None

    def _work_since(self, token: int) -> list[WorkLog]:
        self._observer.read_work()
        return [row for row in self._observer.work if row.token >= token]

    def _freeze(self, node: Node) -> None:
        """
        Freeze *node*, but not while it holds a lock of SQLite.

        Frozen within a transaction, which takes about a millisecond, a process keeps all others
        from writing until it goes on or is killed. That is a limit of SQLite, not a case to show.
        """
        for _ in range(_TRIES):
            node.freeze()
            if all(_is_writable(path) for path in self._databases):
                return
            node.thaw()
            self._watch(_LOOK)
        msg = f"{node.name} holds a database lock each time it is frozen"
        raise PlayFailed(msg)

    def _stands_anew(self, gone: _Exit) -> bool:
        return any(
            c.token > gone.leader.token and c.proposal and c.proposal.pid == gone.node.pid
            for c in self._observer.candidates()
        )

    def _check_harmless(self, gone: _Exit) -> None:
        """See that the node that was frozen did nothing under its former term."""
        old = gone.leader.token
        late = [
            row for row in self._work_since(0) if row.token == old and row.written_at > gone.instant
        ]
        leader = self._observer.leader()
        if late:
            msg = f"{gone.node.name} worked under token {old} after it was superseded: {late}"
            raise PlayFailed(msg)
        if leader is None or leader.token == old:
            msg = f"{gone.node.name} leads again under token {old}"
            raise PlayFailed(msg)
        self._say(f"{gone.node.name} did nothing under token {old}; {leader.node} leads")

    def _return(self, node: Node) -> None:
        node.start()
        self._say(f"{node.name} is started again (pid {node.pid}): last in line")

    def _await(self, limit: float, condition: Callable[[], bool], what: str) -> None:
        if not self._watch(limit, condition):
            msg = f"within {limit:g} s, nobody {what}"
            raise PlayFailed(msg)

    def _watch(self, seconds: float, condition: Callable[[], bool] = lambda: False) -> bool:
        """Show what goes on for so many seconds, or until *condition*; return whether it came."""
        end = self._clock.now() + seconds
        pause = threading.Event()
        while self._clock.now() < end:
            if condition():
                return True
            self._screen.show(self._cast, self._observer)
            self._clock.wait(pause, _LOOK)
        return False

    def _say(self, text: str) -> None:
        self._screen.say(text)


def _check_end(node: Node) -> None:
    """Wait for the end of a node that was asked to stop; complain if it is not a good one."""
    code = node.wait(_STOP_WITHIN)
    if code != 0:
        what = f"ended with exit code {code}"
        if code is None:
            what = f"runs on {_STOP_WITHIN:g} s after SIGTERM"
        msg = f"{node.name} {what}"
        raise PlayFailed(msg)


def _is_writable(database: Path) -> bool:
    """Whether a transaction that writes can begin within half a second."""
    with closing(sqlite3.connect(database, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True
