"""
One process with a scheduler of APScheduler, stock or elected; run by the benchmarks alone.

``python -m benchmarks.apscheduler.node burst|steady|idle …``. With jobs to run it prints, as JSON, when
bodies began and ended after the instants that they were planned for.
"""

import argparse
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.stores.etcd import EtcdStore
from leader_jobs.stores.sqlite import SqliteStore

_LEADS_WITHIN: Final = 10.0
_ENDS_WITHIN: Final = 60.0
#: Jobs are due so many seconds after the first of them is added, and so many more for each.
_AHEAD: Final = 1.5
_TO_ADD: Final = 0.002
_TO_ADD_SHARED: Final = 0.015
#: How many seconds before that all have to be added.
_CALM: Final = 0.3


class Notes:
    """When bodies began and ended."""

    def __init__(self, expected: int) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.over = threading.Event()
        self._expected = expected

    def work(self, seconds: float) -> None:
        """Be a body."""
        self.begun.append(time.time())
        if seconds:
            time.sleep(seconds)
        self.ended.append(time.time())
        if len(self.ended) >= self._expected:
            self.over.set()


_notes = Notes(0)


def work(seconds: float) -> None:
    """Be a body, wherever it was loaded from."""
    _notes.work(seconds)


class StoreTime:
    """How long this process waits for the ledger's store."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls = 0
        for kind in (SqliteStore, EtcdStore):
            for name in ("read", "commit"):
                setattr(kind, name, self._timed(getattr(kind, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began
                self.calls += 1

        return timed


def make(options: argparse.Namespace) -> BaseScheduler:
    """Return a scheduler that is not started: stock if there is no store."""
    config: dict[str, Any] = {"timezone": "UTC", "job_defaults": {"misfire_grace_time": None}}
    if options.jobstore:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        config["jobstores"] = {"default": SQLAlchemyJobStore(options.jobstore)}
    if not options.store:
        return BackgroundScheduler(**config)
    from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler

    own = {"store": options.store, "namespace": options.namespace, "ttl": options.ttl}
    return LeaderBackgroundScheduler(**config, leader_jobs=own)


def burst(scheduler: BaseScheduler, options: argparse.Namespace) -> dict[str, Any]:
    """Have many jobs due at the same instant."""
    _await_lead(scheduler)
    ahead = _AHEAD + options.jobs * (_TO_ADD_SHARED if options.jobstore else _TO_ADD)
    due = datetime.now(UTC) + timedelta(seconds=ahead)
    for number in range(options.jobs):
        given = {"start_date": due, "args": [options.body], "id": f"job{number}"}
        scheduler.add_job(work, "interval", hours=1, **given)
    left = (due - datetime.now(UTC)).total_seconds()
    if left < _CALM:
        msg = f"the jobs were added {left:.1f} s before they were due: too late to tell"
        raise RuntimeError(msg)
    _notes.over.wait(ahead + _ENDS_WITHIN)
    return {
        "first": min(_notes.begun) - due.timestamp(),
        "last": max(_notes.ended) - due.timestamp(),
        "runs": len(_notes.ended),
    }


def steady(scheduler: BaseScheduler, options: argparse.Namespace) -> dict[str, Any]:
    """Have some jobs due at every full second."""
    _await_lead(scheduler)
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    for number in range(options.jobs):
        given = {"start_date": start, "args": [options.body], "id": f"job{number}"}
        scheduler.add_job(work, "interval", seconds=1, **given)
    time.sleep(2.5)
    stores = StoreTime()
    _notes.begun.clear()
    used = time.process_time()
    time.sleep(options.seconds)
    used = time.process_time() - used
    late = [began % 1 for began in _notes.begun]
    return {
        "late": late,
        "store_ms": 1000 * stores.seconds / max(1, len(late)),
        "calls": stores.calls / max(1, len(late)),
        "cpu": used / options.seconds,
    }


def idle(scheduler: BaseScheduler, options: argparse.Namespace) -> dict[str, Any]:
    """Have nothing to do: five hourly jobs."""
    for number in range(options.jobs):
        scheduler.add_job(work, "cron", minute=number, args=[0.0], id=f"job{number}")
    threading.Event().wait()
    return {}


def _await_lead(scheduler: BaseScheduler) -> None:
    limit = time.monotonic() + _LEADS_WITHIN
    while not getattr(scheduler, "leads", True):
        if time.monotonic() > limit:
            msg = "it is not elected"
            raise RuntimeError(msg)
        time.sleep(0.01)


_SCENARIOS: Final = {"burst": burst, "steady": steady, "idle": idle}


def main() -> None:
    """Run one scenario."""
    global _notes  # noqa: PLW0603  bodies out of a job store find it by its name
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=_SCENARIOS)
    parser.add_argument("--store", default="")
    parser.add_argument("--namespace", default="bench")
    parser.add_argument("--jobstore", default="")
    parser.add_argument("--ttl", default="15")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--body", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    _notes = Notes(options.jobs if options.scenario == "burst" else 1 << 62)
    scheduler = make(options)
    scheduler.start()
    print(json.dumps(_SCENARIOS[options.scenario](scheduler, options)), flush=True)
    scheduler.shutdown()


if __name__ == "__main__":
    main()
