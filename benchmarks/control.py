"""
How fast orders are obeyed, and how long nobody leads when leadership is handed over.

Run as ``python -m benchmarks.control [trials]`` with ``tests`` on the path; five nodes with jobs twice a
second as real processes, on the embedded store and on a real three-member etcd cluster.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import machine, percentile, row
from leader_jobs.clock import SystemClock
from leader_jobs.control import Control
from leader_jobs.orders import Answer
from leader_jobs.terms import TERMS_PREFIX, read_terms
from testsupport.etcd import EtcdCluster
from testsupport.node_fleet import Fleet

_CLOCK = SystemClock()
_WITHIN = 10.0
_NODES = 5


@contextmanager
def _fleet(folder: Path, url: str) -> Iterator[Fleet]:
    with Fleet(folder, url, ttl=15.0, namespace=folder.name) as fleet:
        for number in range(_NODES):
            fleet.start(f"node-{number}")
        _, leader = fleet.leader()
        fleet.await_run(leader.token)
        fleet.await_that(lambda: len(_line(fleet)) == _NODES, "not all stand")
        yield fleet


def _line(fleet: Fleet) -> list[str]:
    entrants = fleet.store.candidates("default", deadline=_CLOCK.now() + _WITHIN)
    return [entrant.id for entrant in entrants]


def _orders(fleet: Fleet, control: Control, trials: int) -> list[float]:
    """Pause and resume; return the seconds until the leader had acknowledged."""
    took: list[float] = []
    for _ in range(trials // 2):
        for order in (control.pause, control.resume):
            began = _CLOCK.now()
            assert control.wait_heard(order(), within=_WITHIN)
            took.append(_CLOCK.now() - began)
            fleet.pause(0.1)
    return took


def _runs(fleet: Fleet, control: Control, trials: int) -> list[float]:
    """Have a job run; return the seconds until the leader had answered."""
    took: list[float] = []
    while len(took) < trials:
        began = _CLOCK.now()
        request = control.wait_answer(control.run_now("latest"), within=_WITHIN)
        if request.answer is Answer.OBEYED:
            took.append(_CLOCK.now() - began)
        fleet.pause(0.13)
    return took


def _transfers(fleet: Fleet, control: Control, trials: int) -> tuple[list[float], list[float]]:
    """Hand over to the last in line; return the seconds without a leader, and until the heir led."""
    begun = _CLOCK.utcnow()
    took: list[float] = []
    for _ in range(trials):
        heir = _line(fleet)[-1]
        began = _CLOCK.now()
        request = control.wait_answer(control.transfer(heir), within=_WITHIN)
        assert request.answer is Answer.OBEYED, request
        while _line(fleet)[0] != heir:
            fleet.store.wait_for_change("default", timeout=0.02)
        took.append(_CLOCK.now() - began)
        fleet.pause(0.5)
    rows = fleet.store.read("default", TERMS_PREFIX, deadline=_CLOCK.now() + _WITHIN)
    gaps = [
        record.took
        for record, _ in read_terms(rows)
        if record.took is not None and record.began_at > begun
    ]
    return gaps, took


def _show(name: str, fleet: Fleet, trials: int) -> None:
    control = Control(fleet.store, "default", by="benchmark", clock=_CLOCK)
    heard = _orders(fleet, control, trials)
    print(row(f"{name}: pause, resume → acknowledged", heard, "s", _p95(heard, 0.5)))
    run = _runs(fleet, control, trials)
    print(row(f"{name}: run-now → claimed and answered", run, "s", _p95(run, 0.5)))
    gaps, led = _transfers(fleet, control, trials)
    print(
        row(f"{name}: transfer past {_NODES - 2} others, nobody leads", gaps, "s", _p95(gaps, 0.3))
    )
    print(row(f"{name}: transfer asked → the heir is first in line", led, "s", ""))
    verdict = fleet.stop()
    print(f"\n{name}: doubled {len(verdict.doubled)}, missed {len(verdict.missed)}\n")


def _p95(values: list[float], aim: float) -> str:
    return f"p95 ≤ {aim:g} s: {percentile(values, 0.95):.3g} s"


def main() -> None:
    """Print the table."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    print(machine())
    print("| what | n | p50 | p99 | max | aimed at |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="control-") as name:
        folder = Path(name)
        with _fleet(folder, f"sqlite:///{folder}/store.sqlite3") as fleet:
            _show("embedded store", fleet, trials)
    with (
        tempfile.TemporaryDirectory(prefix="control-") as name,
        EtcdCluster(3, heartbeat=100, election=1000) as cluster,
        _fleet(Path(name), cluster.url) as fleet,
    ):
        _show("etcd (3 members)", fleet, trials)
    print(machine())


if __name__ == "__main__":
    main()
