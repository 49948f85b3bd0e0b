"""
What it costs to see elections: 20 of them with 50 jobs each and 100 occurrences of each job.

Cold is a process that looks for the first time; warm, one that has looked before. Run as
``python -m benchmarks.pages`` with ``tests`` on the path.
"""

import json
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.figures import machine, row
from benchmarks.filled import change, fill
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.observatory import Observatory
from leader_jobs.report import election_report, elections_report
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from testsupport.etcd import EtcdCluster

_CLOCK = SystemClock()
_TARGET = "≤ 150 ms"


def _times(call: Callable[[], object], times: int, before: Callable[[], object]) -> list[float]:
    """Return how many milliseconds *call* takes, each time after *before*."""
    took = []
    for _ in range(times):
        before()
        began = _CLOCK.now()
        call()
        took.append((_CLOCK.now() - began) * 1000)
    return took


def _measure(where: str, store: Store, times: int) -> None:
    name = fill(store, clock=_CLOCK)[0]
    warm = Observatory(store, clock=_CLOCK)
    warm.elections()
    view = warm.election(name)

    def cold() -> Observatory:
        return Observatory(store, clock=_CLOCK)

    def print_row(
        what: str, call: Callable[[], object], before: Callable[[], object] = lambda: None
    ) -> None:
        print(row(f"{where}, {what}", _times(call, times, before), "ms", _TARGET), flush=True)

    print_row("all elections, cold", lambda: cold().elections())
    print_row("all elections", warm.elections)
    print_row("one election, cold", lambda: cold().election(name))
    print_row("one election", lambda: warm.election(name))
    for jobs in (10, 50):
        print_row(
            f"one election, {jobs} jobs changed",
            lambda: warm.election(name),
            lambda jobs=jobs: change(store, name, jobs, clock=_CLOCK),  # type: ignore[misc]
        )
    print_row("JSON of all elections", lambda: json.dumps(elections_report(warm.elections())))
    print_row("JSON of one election", lambda: json.dumps(election_report(warm.election(name))))
    print_row("JSON of one election, encoding alone", lambda: json.dumps(election_report(view)))


def main() -> None:
    """Print the table."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    print(machine())
    print(
        "| looking at 20 elections, 50 jobs each, 100 occurrences of each job | n | p50 | p99 | max | target |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(store=f"sqlite:///{Path(folder)}/store.sqlite3")
        with closing(open_store(settings, clock=_CLOCK)) as store:
            _measure("embedded store", store, times)
    for size in (1, 3):
        with EtcdCluster(size, heartbeat=100, election=1000) as cluster:
            settings = Settings(store=cluster.url, namespace=uuid.uuid4().hex)
            with closing(open_store(settings, clock=_CLOCK)) as store:
                _measure(f"etcd, {size} member(s)", store, times)


if __name__ == "__main__":
    main()
