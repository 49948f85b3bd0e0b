"""
The Celery application of workers in tests of the guard; everything comes by environment.

``GUARDED_CONFIG`` is Celery's configuration as JSON, ``GUARDED_EVIDENCE`` the file that bodies write
lines to, each in one write.
"""

import json
import os
import time

from celery import Celery, chain
from celery.exceptions import Reject

from leader_jobs import leader_only
from leader_jobs.adapters import celery_worker
from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.runs import current_run

__all__ = ["app"]

app = Celery("guarded")
app.conf.update(json.loads(os.environ.get("GUARDED_CONFIG", "{}")))
celery_worker.install(app)


def note(word: str, task: str, extra: object = "-") -> None:
    """Append one line: what happened to which run, in which process."""
    run = current_run()
    job, attempt, token = (run.job, run.attempt, run.token) if run else ("-", 0, 0)
    line = f"{word} {task} {job} {attempt} {token} {os.getpid()} {extra}\n"
    descriptor = os.open(os.environ["GUARDED_EVIDENCE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def work(task: str, seconds: float) -> None:
    """Begin, take some time, and end."""
    note("begin", task)
    time.sleep(seconds)  # noqa: TID251  a body takes real time
    note("end", task)


@app.task(name="early")
@leader_only
def early(seconds: float = 0.0) -> str:
    """Take some time; the message is acknowledged when this starts."""
    work("early", seconds)
    return "done"


@app.task(name="late", acks_late=True)
@leader_only
def late(seconds: float = 0.0) -> None:
    """Take some time; the message is acknowledged when this ends."""
    work("late", seconds)


@app.task(name="fragile", acks_late=True, reject_on_worker_lost=True)
@leader_only
def fragile(seconds: float = 0.0) -> None:
    """Take some time; the message comes again if the process dies."""
    work("fragile", seconds)


@app.task(name="sturdy", acks_late=True, reject_on_worker_lost=True)
@leader_only(on_crash="rerun")
def sturdy(seconds: float = 0.0) -> None:
    """Take some time at the first attempt; it may be attempted again."""
    run = current_run()
    work("sturdy", seconds if run is not None and run.attempt == 1 else 0.0)


@app.task(name="retrying", bind=True, acks_late=True, max_retries=5)
@leader_only
def retrying(self, times: int) -> None:  # type: ignore[no-untyped-def]  # bound by Celery
    """Ask to be retried so many times."""
    note("begin", "retrying", self.request.retries)
    if self.request.retries < times:
        raise self.retry(countdown=0)


@app.task(name="requeued", bind=True, acks_late=True)
@leader_only
def requeued(self) -> None:  # type: ignore[no-untyped-def]  # bound by Celery
    """Have the broker deliver the message once more."""
    redelivered = self.request.delivery_info["redelivered"]
    note("begin", "requeued", redelivered)
    if not redelivered:
        reason = "once more"
        raise Reject(reason, requeue=True)


@app.task(name="led")
@leader_only(election="reports")
def led() -> None:
    """Say which node this is, where it leads the election that workers stand in."""
    note("begin", "led", os.environ["LEADER_JOBS_NODE"])


@app.task(name="parent", bind=True)
@leader_only
def parent(self) -> None:  # type: ignore[no-untyped-def]  # bound by Celery
    """Call other tasks."""
    note("begin", "parent")
    child.apply_async()
    chain(child.si(), child.si())()


@app.task(name="child", bind=True)
def child(self) -> None:  # type: ignore[no-untyped-def]  # bound by Celery
    """Say whether the ticket came along."""
    note("begin", "child", HEADER in (self.request.headers or {}))


@app.task(name="plain")
def plain() -> None:
    """Say what the ticket says, unrestricted."""
    run = current_run()
    note("begin", "plain", run.planned_at.isoformat() if run is not None else "-")
