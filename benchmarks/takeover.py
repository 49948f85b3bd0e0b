"""
How long nothing runs: from the end of a leader to the first job start on its successor.

Run as ``python -m benchmarks.takeover [trials]`` with ``tests`` on the path; real processes, the
embedded store and a real three-member etcd cluster with its default timers.
"""

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.figures import machine, row
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.leaders import find_leader
from leader_jobs.stores.factory import open_store
from testsupport.etcd import EtcdCluster

_CLOCK = SystemClock()


class Pair:
    """Two nodes at a time on one store; the leader of them is ended again and again."""

    def __init__(self, url: str, ttl: float, folder: Path, *, guardian: bool) -> None:
        self._url = url
        self._options = [str(ttl), str(folder / "notes"), str(guardian)]
        self._notes = folder / "notes"
        self._notes.touch()
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._store = open_store(Settings(store=url, namespace=folder.name), clock=_CLOCK)
        self._namespace = folder.name

    def start(self) -> None:
        """Start one more node, and wait until it stands in the election."""
        before = len(self._candidates())
        command = [sys.executable, "-m", "benchmarks.beat_node", self._url, self._namespace]
        node = subprocess.Popen([*command, *self._options], stderr=subprocess.DEVNULL)
        self._nodes[node.pid] = node
        while len(self._candidates()) <= before:
            self._store.wait_for_change("default", timeout=0.1)

    def _candidates(self) -> tuple[object, ...]:
        return self._store.candidates("default", deadline=_CLOCK.now() + 5)

    def end_leader(self, number: signal.Signals) -> float:
        """Send the leader *number*; return the seconds until its successor started a job."""
        leader = find_leader("default", store=self._store)
        assert leader is not None
        assert leader.proposal is not None
        while not any(token == leader.token for token, _ in self._starts()):
            _pause(0.02)
        node = self._nodes.pop(leader.proposal.pid)
        sent = _CLOCK.now()
        node.send_signal(number)
        while True:
            later = [moment for token, moment in self._starts() if token > leader.token]
            if later:
                node.wait()
                return later[0] - sent
            _pause(0.01)

    def _starts(self) -> Iterator[tuple[int, float]]:
        for line in self._notes.read_text().splitlines():
            token, moment = line.split()
            yield int(token), float(moment)

    def close(self) -> None:
        """End everything."""
        for node in self._nodes.values():
            node.kill()
            node.wait()
        self._store.close()


def _pause(seconds: float) -> None:
    _CLOCK.wait(threading.Event(), seconds)


@contextmanager
def _pair(url: str, ttl: float, *, guardian: bool) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="takeover-") as name:
        folder = Path(name)
        url = url or f"sqlite:///{folder}/store.sqlite3"
        with closing(Pair(url, ttl, folder, guardian=guardian)) as pair:
            pair.start()
            pair.start()
            yield pair


def _measure(
    url: str, ttl: float, number: signal.Signals, trials: int, *, guardian: bool = True
) -> list[float]:
    found = []
    with _pair(url, ttl, guardian=guardian) as pair:
        for _ in range(trials):
            found.append(pair.end_leader(number))
            pair.start()
    return found


def main() -> None:
    """Print the table."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(machine())
    print("| end of leader → first job start elsewhere | n | p50 | p99 | max | target |")
    print("|---|---|---|---|---|---|")
    found = _measure("", 15.0, signal.SIGKILL, trials)
    print(row("embedded store, kill -9, ttl 15 s", found, "s", "p99 ≤ 0.3 s"), flush=True)
    found = _measure("", 15.0, signal.SIGTERM, trials)
    print(row("embedded store, SIGTERM", found, "s", ""), flush=True)
    with EtcdCluster(3, heartbeat=100, election=1000) as cluster:
        found = _measure(cluster.url, 15.0, signal.SIGTERM, trials)
        print(row("etcd, SIGTERM, ttl 15 s", found, "s", "p99 ≤ 0.3 s"), flush=True)
        found = _measure(cluster.url, 60.0, signal.SIGKILL, trials)
        print(row("etcd, kill -9, ttl 60 s", found, "s", ""), flush=True)
        found = _measure(cluster.url, 5.0, signal.SIGKILL, trials, guardian=False)
        print(row("etcd, kill -9, ttl 5 s, no guardian", found, "s", "≤ 5.8 s"), flush=True)


if __name__ == "__main__":
    main()
