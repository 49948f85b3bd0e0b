"""
The Celery application of test fleets of beats and workers; imported by their processes alone.

``BEAT_APP`` in the environment says as JSON what they are to do:

- ``conf``: Celery's configuration;
- ``entries``: the beat schedule, with the fields of a crontab as a mapping in ``schedule``;
- ``skew``: seconds by which the wall clock is wrong;
- ``patience``: seconds after which a message that no worker took is taken for lost;
- ``folder``: where the evidence is written to, and traps are looked for.

A trap is a file ``trap`` that says ``SIGNAL N``: the process that publishes next takes it away, and
sends itself that signal right before it hands its N-th message from then on to the broker.
"""

import faulthandler
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from celery import Celery, Task
from celery.schedules import crontab
from celery.signals import before_task_publish, task_received

from leader_jobs import decisions, leader_only
from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.clock import SystemClock

__all__ = ["Trap", "app", "guarded", "plain"]

_GIVEN: Final = json.loads(os.environ["BEAT_APP"])
_FOLDER: Final = Path(_GIVEN["folder"])
#: How long a process that asked itself to end goes on publishing no sooner.
_SINK_IN: Final = 0.3


class Trap:
    """A signal that this process sends itself when it has published so many messages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signal: signal.Signals | None = None
        self._left = 0

    def tread(self) -> None:
        """Count a message that is about to be published."""
        if self._signal is None and self._path.exists():
            self._take()
        if self._signal is None:
            return
        self._left -= 1
        if self._left == 0:
            number, self._signal = self._signal, None
            note("sprung", os.getpid())
            os.kill(os.getpid(), number)
            threading.Event().wait(_SINK_IN)

    def _take(self) -> None:
        """Take the trap away; another process may be quicker."""
        mine = self._path.with_suffix(f".{os.getpid()}")
        with suppress(FileNotFoundError):
            self._path.rename(mine)
            name, count = mine.read_text().split()
            self._signal, self._left = signal.Signals[name], int(count)


def note(*words: object) -> None:
    """Append a line to the evidence, in one write."""
    line = " ".join(map(str, words)) + "\n"
    file = os.open(_FOLDER / "evidence", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def _note_ticket(word: str, ticket: Any, *words: object) -> None:
    if isinstance(ticket, dict):
        note(word, ticket["job"], ticket["planned_at"], *words)


app = Celery("fleet")


@app.task(name="plain", bind=True, ignore_result=True)
def plain(self: "Task[..., Any]") -> None:
    """Write down that it was started, every time."""
    _note_ticket("begin", self.request.get(HEADER), self.request.id)


@app.task(name="guarded", bind=True, ignore_result=True)
@leader_only(name="guarded")
def guarded(self: "Task[..., Any]") -> None:
    """Write down that it was started, once for each occurrence."""
    _note_ticket("begin", self.request.get(HEADER), self.request.id)


@task_received.connect
def _received(request: Any = None, **_: object) -> None:
    """Write down what a worker received, once or more often."""
    _note_ticket("received", request.request_dict.get(HEADER), request.id)


_trap: Final = Trap(_FOLDER / "trap")


@before_task_publish.connect
def _about_to_publish(**_: object) -> None:
    """Step on the trap, if there is one."""
    _trap.tread()


def _schedule(given: dict[str, Any]) -> dict[str, Any]:
    """Return the beat schedule, with crontabs in the places of their fields."""
    return {
        name: entry | {"schedule": crontab(**when) if isinstance(when, dict) else when}
        for name, entry in given.items()
        for when in [entry["schedule"]]
    }


def _set_clock(skew: timedelta) -> None:
    """Have everything in this process that plans instants go by another wall clock."""
    right = SystemClock.utcnow

    def skewed(self: SystemClock) -> datetime:
        return right(self) + skew

    SystemClock.utcnow = skewed  # type: ignore[method-assign]  # as libfaketime, without the library


faulthandler.register(signal.SIGUSR1)
_set_clock(timedelta(seconds=_GIVEN["skew"]))
decisions._PATIENCE = timedelta(seconds=_GIVEN["patience"])  # type: ignore[misc]  # tests have less
app.conf.update(_GIVEN["conf"], beat_schedule=_schedule(_GIVEN["entries"]))
if "worker" in sys.argv and find_spec("leader_jobs.adapters.celery_worker"):
    from leader_jobs.adapters import celery_worker

    celery_worker.install(app)
