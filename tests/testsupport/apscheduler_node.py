"""
A node of a test fleet: a scheduler of APScheduler whose jobs write down what they do.

Run as ``python -m testsupport.apscheduler_node --store URL --evidence FILE …``. Beside the evidence lie
the files ``plan.json`` (the jobs, see `add_jobs`), ``wall`` (by how much the host's wall clock is wrong,
see `HostClock`) and, at times, ``trap`` (see `Trap`).
"""

import ctypes
import json
import mmap
import os
import signal
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from functools import wraps
from pathlib import Path
from typing import Any, Final

from apscheduler.executors import base as executors
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers import base as schedulers
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers import interval

from leader_jobs import current_run
from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
from leader_jobs.adapters.apscheduler_bodies import Bodies
from leader_jobs.adapters.apscheduler_runs import Runs
from leader_jobs.clock import SystemClock
from leader_jobs.jobs import JobRegistry, leader_only
from leader_jobs.runlog import RunLog
from leader_jobs.runs import Run
from leader_jobs.stores import _sqlite_database
from testsupport.job_node import Evidence, node_options

__all__ = ["POINTS", "HostClock", "add_jobs"]

_WALL: Final = struct.Struct("d")
#: How long a process that asked itself to end goes on no sooner.
_SINK_IN: Final = 0.3
#: Where a `Trap` can be, on the way of a run through a process, and what comes right after it.
POINTS: Final[dict[str, tuple[type, str]]] = {
    "claimed": (Runs, "put"),
    "submitted": (Bodies, "prepared"),
    "recorded": (Bodies, "may_begin"),
    "ended": (RunLog, "finish"),
}
_now: Final = SystemClock.utcnow


class HostClock(SystemClock):
    """
    A wall clock that is wrong by what a file says, for all processes of a host at once.

    Args:
        path: the file; made if it is missing.
        skew: seconds by which this process's clock is wrong beside that.
    """

    def __init__(self, path: Path, skew: float = 0.0) -> None:
        with path.open("ab") as file:
            if file.tell() < _WALL.size:
                file.write(_WALL.pack(0.0))
        with path.open("r+b") as file:
            self._wall = mmap.mmap(file.fileno(), _WALL.size)
        self._skew = skew

    def utcnow(self) -> datetime:
        """Return the wrong time."""
        return _now(self) + timedelta(seconds=_WALL.unpack_from(self._wall)[0] + self._skew)

    def step(self, seconds: float) -> None:
        """Set the clock of the host forward, or back."""
        _WALL.pack_into(self._wall, 0, _WALL.unpack_from(self._wall)[0] + seconds)


class Trap:
    """
    A signal that a process sends itself at one of `POINTS`, or at ``begun``, in a body.

    Args:
        path: where it is laid: a file that says ``SIGNAL POINT``. The process that passes that point
            first takes it away.
        evidence: where it is written down.
    """

    def __init__(self, path: Path, evidence: Path) -> None:
        self._path = path
        self._evidence = evidence

    def lay(self) -> None:
        """Have everything that leads to a body, and away from it, pass by here."""
        for point, (kind, name) in POINTS.items():
            setattr(kind, name, self._passing(point, getattr(kind, name)))

    def _passing(self, point: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def passing(*args: Any, **kwargs: Any) -> Any:
            self.tread(point)
            return call(*args, **kwargs)

        return passing

    def tread(self, point: str) -> None:
        """Spring the trap if it is laid at *point*."""
        if not self._path.exists():
            return
        mine = self._path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        with suppress(FileNotFoundError):
            name, at = self._path.read_text().split()
            if at != point:
                return
            self._path.rename(mine)
            with self._evidence.open("a") as file:
                file.write(f"sprung {os.getpid()} {point} {name}\n")
            _send_myself(signal.Signals[name])


def _send_myself(number: signal.Signals) -> None:
    if number == signal.SIGTERM:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        threading.Event().wait(_SINK_IN)
        return
    # Not while another thread is in a transaction: the others would have to wait for us for ever.
    _sqlite_database._before_fork()
    signal.pthread_kill(threading.get_ident(), number)  # this thread, before it goes on
    _sqlite_database._after_fork_in_parent()


def go_by(clock: HostClock) -> None:
    """Have everything in this process that looks at the wall clock look at *clock*."""

    class HostTime:
        fromtimestamp = datetime.fromtimestamp

        @staticmethod
        def now(tz: tzinfo | None = None) -> datetime:
            return clock.utcnow().astimezone(tz)

    SystemClock.utcnow = lambda self: clock.utcnow()  # type: ignore[method-assign]  # as libfaketime
    for module in schedulers, executors, interval:
        module.datetime = HostTime


def add_jobs(
    scheduler: BaseScheduler, plan: dict[str, Any], evidence: Evidence, trap: Trap
) -> None:
    """
    Add the jobs of a plan.

    Args:
        scheduler: where to.
        plan: by id, a job's arguments for ``add_job``, and with them ``body``: ``[KIND, SECONDS]``. It
            ``works`` so long, ``holds`` the interpreter so long, or ``dies`` after so long; with
            ``rerun`` it is started again after that.
        evidence: where bodies write ``begin`` and ``end``.
        trap: what they step on after ``begin``.
    """
    for name, given in plan.items():
        options = dict(given)
        kind, seconds = options.pop("body", ("works", 0.0))
        body = _body(evidence, trap, kind, seconds)
        if options.pop("rerun", False):
            body = leader_only(on_crash="rerun", name=name, jobs=JobRegistry())(body)
        scheduler.add_job(body, id=name, **options)


def _body(evidence: Evidence, trap: Trap, kind: str, seconds: float) -> Callable[[], None]:
    def works(run: Run) -> None:
        run.lost.wait(seconds)

    def holds(_: Run) -> None:
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # unlike CDLL's, its calls keep the lock

    def dies(run: Run) -> None:
        run.lost.wait(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    do: dict[str, Callable[[Run], None]] = {"works": works, "holds": holds, "dies": dies}

    def body() -> None:
        run = current_run()
        assert run is not None
        evidence.note("begin", run)
        trap.tread("begun")
        if seconds or kind == "dies":
            do[kind](run)
        evidence.note("end", run)

    return body


def main() -> None:
    """Run a scheduler until SIGTERM comes."""
    options = node_options()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    folder = options.evidence.parent
    go_by(HostClock(folder / "wall", options.skew))
    trap = Trap(folder / "trap", options.evidence)
    trap.lay()
    plan = json.loads((folder / "plan.json").read_text())
    scheduler = LeaderBackgroundScheduler(
        timezone="UTC",
        executors={"default": ThreadPoolExecutor(plan["workers"])},
        leader_jobs={
            "store": options.store,
            "namespace": options.namespace,
            "node": options.node,
            "ttl": options.ttl,
        },
    )
    add_jobs(scheduler, plan["jobs"], Evidence(options.evidence, options.node), trap)
    scheduler.start()
    while not stop.wait(1.0):  # a signal may come right before a wait, and is not heard during it
        pass
    scheduler.shutdown()


if __name__ == "__main__":
    main()
