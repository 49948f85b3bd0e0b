"""
The Celery application of workers in tests of leader-only consuming; everything comes by environment.

``CONSUMING_CONFIG`` is Celery's configuration as JSON, ``CONSUMING_EVIDENCE`` the file that bodies
write a line to when they begin.
"""

import json
import os
import time

from celery import Celery

from leader_jobs import leader_only
from leader_jobs.adapters import celery_consuming
from leader_jobs.clock import SystemClock
from leader_jobs.runs import current_run
from leader_jobs.term import held_terms

__all__ = ["ELECTION", "app"]

#: The election that the workers stand in.
ELECTION = "reports"

app = Celery("consuming")
app.conf.update(json.loads(os.environ.get("CONSUMING_CONFIG", "{}")))
app.conf.task_routes = {
    "consuming.*": {"queue": celery_consuming.queue_of(ELECTION)},
    "everywhere.*": {"queue": "celery"},
}
celery_consuming.install(app)

_CLOCK = SystemClock()


def _write(word: str, name: str) -> None:
    """Append one line: what happened to which message, when, on which node and under which term."""
    run, term = current_run(), held_terms.find(ELECTION)
    token = run.token if run is not None else term.token if term is not None else 0
    left = term.remaining if term is not None else 0.0
    node = os.environ.get("LEADER_JOBS_NODE", "?")
    line = f"{word} {name} {_CLOCK.now():.6f} {node} {token} {left:.3f}\n"
    descriptor = os.open(os.environ["CONSUMING_EVIDENCE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@app.task(name="consuming.early")
def early(name: str, seconds: float = 0.0) -> None:
    """Write a line and take some time; the message is acknowledged when this starts."""
    _write("begin", name)
    time.sleep(seconds)  # noqa: TID251  a body takes real time
    _write("end", name)


@app.task(name="consuming.late", acks_late=True)
def late(name: str, seconds: float = 0.0) -> None:
    """Write a line and take some time; the message is acknowledged when this ends."""
    _write("begin", name)
    time.sleep(seconds)  # noqa: TID251  a body takes real time
    _write("end", name)


@app.task(name="consuming.stubborn")
def stubborn(name: str) -> None:
    """Write when the leadership is lost, and go on for half a minute all the same."""
    _write("begin", name)
    run = current_run()
    assert run is not None
    if run.lost.wait(30.0):
        _write("lost", name)
    time.sleep(30.0)  # noqa: TID251  a body takes real time
    _write("end", name)


@app.task(name="everywhere.guarded")
@leader_only(election=ELECTION)
def guarded(name: str) -> None:
    """Write a line, where this node leads."""
    _write("begin", name)
