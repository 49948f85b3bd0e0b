"""
Compare schedulers: ``python -m benchmarks.apscheduler [--scenario NAME…] [--rounds N] [--seconds N]``.

Run it with ``tests`` on the path. What is compared takes turns in each round, so that the load of the
machine, which is printed, hits all alike.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from benchmarks.beat.fleet import Node
from benchmarks.figures import machine, percentile
from testsupport.etcd import EtcdCluster

_MODULE: Final = "benchmarks.apscheduler.node"
_SIZE: Final = 1000
_BODIES: Final = (0.0, 0.01)
_SETTLED: Final = 8.0
_serial: Final = count()


@dataclass(frozen=True)
class Peer:
    """
    A way to run a scheduler.

    Attributes:
        name: what to call it.
        store: where its election is held: ``sqlite``, ``etcd``, or nowhere, as it is stock.
        shared: whether its jobs are in a database, not in memory.
    """

    name: str
    store: str
    shared: bool = False

    def options(self, folder: Path, cluster: str) -> list[str]:
        """Return the options of a process that starts afresh."""
        number = next(_serial)
        urls = {"": "", "sqlite": f"sqlite:///{folder}/{number}.sqlite3", "etcd": cluster}
        jobs = f"sqlite:///{folder}/{number}-jobs.sqlite3" if self.shared else ""
        return ["--store", urls[self.store], "--namespace", f"n{number}", "--jobstore", jobs]


PEERS: Final = (
    Peer("stock, memory", ""),
    Peer("stock, SQLAlchemy on SQLite", "", shared=True),
    Peer("elected on the embedded store, memory", "sqlite"),
    Peer("elected on the embedded store, SQLAlchemy on SQLite", "sqlite", shared=True),
    Peer("elected on etcd (1 member), memory", "etcd"),
)


class Bench:
    """
    What measurements need.

    Args:
        folder: for databases.
        cluster: the URL of an etcd cluster.
        rounds: how often each is measured.
        seconds: for how long, where that matters.
    """

    def __init__(self, folder: Path, cluster: str, *, rounds: int, seconds: float) -> None:
        self.folder = folder
        self.cluster = cluster
        self.rounds = rounds
        self.seconds = seconds

    def run(self, peer: Peer, scenario: str, *arguments: object) -> dict[str, Any]:
        """Run one process to its end; return what it says."""
        own = peer.options(self.folder, self.cluster)
        command = [sys.executable, "-m", _MODULE, scenario, *own, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def start(self, name: str, options: list[str]) -> Node:
        """Start an idle process."""
        command = [sys.executable, "-m", _MODULE, "idle", *options, "--jobs", "5"]
        environment = {"PYTHONPATH": ":".join(sys.path)}
        return Node(name, command, environment, self.folder / f"{name}.log")


def burst(bench: Bench) -> Iterator[str]:
    """Have 1,000 jobs due at once, 10 threads for their bodies."""
    yield "| bodies | scheduler, job store | n | first body begins | last body ends | of stock |"
    yield "|---|---|---|---|---|---|"
    for body in _BODIES:
        found: dict[Peer, list[dict[str, Any]]] = defaultdict(list)
        for _ in range(bench.rounds):
            for peer in PEERS:
                took = bench.run(peer, "burst", "--jobs", _SIZE, "--body", body)
                if took["runs"] != _SIZE:
                    took["last"] = float("nan")
                found[peer].append(took)
        for peer, rows in found.items():
            stock = found[next(p for p in PEERS if not p.store and p.shared == peer.shared)]
            ratios = [a["last"] / b["last"] for a, b in zip(rows, stock, strict=True)]
            first = statistics.median(row["first"] for row in rows)
            ends = [row["last"] for row in rows]
            yield (
                f"| {1000 * body:g} ms | {peer.name} | {len(rows)} | {first:.3f} s "
                f"| {statistics.median(ends):.3f} s (least {min(ends):.3f} s) "
                f"| {statistics.median(ratios):.2f} x |"
            )


def claim(bench: Bench) -> Iterator[str]:
    """Have some jobs due every second: how late bodies begin, and the store's part of it."""
    yield "| jobs due | scheduler, job store | runs | body begins late, p50 | p99 | store, each job | processor |"
    yield "|---|---|---|---|---|---|---|"
    for jobs in (1, 10, 100):
        for peer in PEERS:
            found = bench.run(peer, "steady", "--jobs", jobs, "--seconds", bench.seconds)
            late = [1000 * value for value in found["late"]]
            yield (
                f"| {jobs} | {peer.name} | {len(late)} | {percentile(late, 0.5):.1f} ms "
                f"| {percentile(late, 0.99):.1f} ms "
                f"| {found['store_ms']:.2f} ms in {found['calls']:.2f} calls "
                f"| {100 * found['cpu']:.1f} % |"
            )


def idle(bench: Bench) -> Iterator[str]:
    """Leave two processes alone with five hourly jobs; the first to start leads."""
    yield "| scheduler, job store | leading | standing by | resident |"
    yield "|---|---|---|---|"
    with ExitStack() as stack:
        pairs = [(peer, _pair(bench, peer, stack)) for peer in PEERS if not peer.shared]
        time.sleep(_SETTLED)
        before = [[node.processor_time() for node in nodes] for _, nodes in pairs]
        threading.Event().wait(bench.seconds)
        for (peer, nodes), used in zip(pairs, before, strict=True):
            shares = [
                100 * (node.processor_time() - a) / bench.seconds
                for node, a in zip(nodes, used, strict=True)
            ]
            memory = " / ".join(f"{node.memory():.0f}" for node in nodes)
            yield f"| {peer.name} | {shares[0]:.2f} % | {shares[1]:.2f} % | {memory} MB |"


def _pair(bench: Bench, peer: Peer, stack: ExitStack) -> list[Node]:
    options = peer.options(bench.folder, bench.cluster)
    nodes = []
    for role in ("leading", "standing"):
        node = bench.start(f"{role}-{peer.store or 'stock'}", options)
        stack.callback(node.kill)
        node.wait_idle()
        nodes.append(node)
    return nodes


_SCENARIOS: Final[dict[str, Callable[[Bench], Iterator[str]]]] = {
    "burst": burst,
    "claim": claim,
    "idle": idle,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.apscheduler")
    parser.add_argument("--scenario", nargs="+", choices=_SCENARIOS, default=list(_SCENARIOS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EtcdCluster(1) as cluster:
        bench = Bench(Path(folder), cluster.url, rounds=options.rounds, seconds=options.seconds)
        for name in options.scenario:
            print(f"\n### {name}: {_SCENARIOS[name].__doc__}\n\n{machine()}\n", flush=True)
            for line in _SCENARIOS[name](bench):
                print(line, flush=True)
            print(f"\nthen: {machine()}", flush=True)


if __name__ == "__main__":
    main()
