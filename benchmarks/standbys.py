"""
What standbys cost: processor time of one, requests it makes, and who wakes up at a succession.

Run as ``python -m benchmarks.standbys`` with ``tests`` on the path.
"""

import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.figures import machine, row
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.stores.base import Candidacy, Standing
from leader_jobs.stores.etcd import EtcdStore
from leader_jobs.stores.factory import open_store
from testsupport.etcd import EtcdCluster

_CLOCK = SystemClock()
_SPELL = 60.0
_CROWD = 200

_STANDBY = """
import sys, time, threading
from leader_jobs import Candidate, Settings, open_store
settings = Settings(store=sys.argv[1], namespace="standby")
candidate = Candidate("e", store=open_store(settings), node="standby")
candidate.start()
assert candidate.wait_for_term(3) is None
before = time.process_time()
threading.Event().wait(float(sys.argv[2]))
print((time.process_time() - before) / float(sys.argv[2]) * 100)
candidate.stop()
"""


def _processor_share(url: str) -> float:
    """Return the percentage of a core that an idle standby process takes."""
    settings = Settings(store=url, namespace="standby")
    with (
        closing(open_store(settings, clock=_CLOCK)) as store,
        Candidate("e", store=store, node="leader") as leader,
    ):
        leader.wait_for_term(10)
        command = [sys.executable, "-c", _STANDBY, url, str(_SPELL)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Watched(EtcdStore):
    """A store that counts what candidates ask of it."""

    def __init__(self, cluster: EtcdCluster) -> None:
        super().__init__(cluster.endpoints, namespace="crowd", clock=_CLOCK)
        self.counts: Counter[str] = Counter()
        self.looks: Counter[str] = Counter()

    def renew(self, candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        """Count, and renew."""
        self.counts["renewals by the leader" if leading else "renewals by standbys"] += 1
        return super().renew(candidacy, leading=leading, deadline=deadline)

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """Count, and look."""
        self.counts["looks"] += 1
        self.looks[candidacy.id] += 1
        return super().standing(candidacy, deadline=deadline)


def _crowd() -> None:
    """Let many candidates stand, and see what they ask when idle and at each succession."""
    with EtcdCluster(1, heartbeat=100, election=1000) as cluster, ExitStack() as stack:
        store = stack.enter_context(closing(Watched(cluster)))
        crowd = [Candidate("e", store=store, node=f"n{i}") for i in range(_CROWD)]
        for candidate in crowd:
            candidate.start()
            stack.callback(candidate.stop)
        while len(store.looks) < _CROWD:
            _pause(0.1)
        store.counts.clear()
        _pause(_SPELL)
        print(f"{_CROWD} candidates, {_SPELL:g} s idle, requests: {dict(store.counts)}")
        woken, took = [], []
        for _ in range(20):
            leader = next(candidate for candidate in crowd if candidate.term is not None)
            crowd.remove(leader)
            store.looks.clear()
            began = _CLOCK.now()
            leader.stop()
            while not any(candidate.term is not None for candidate in crowd):
                _pause(0.001)
            took.append((_CLOCK.now() - began) * 1000)
            _pause(0.5)
            woken.append(float(len(store.looks)))
        print(row("woken per succession", woken, "", "1"))
        print(row("stop → successor's term", took, "ms", ""))


def _pause(seconds: float) -> None:
    _CLOCK.wait(threading.Event(), seconds)


def main() -> None:
    """Print the figures."""
    print(machine())
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        share = _processor_share(f"sqlite:///{Path(folder)}/store.sqlite3")
        print(f"standby on the embedded store: {share:.2f} % of a core (target < 0.5 %)")
    with EtcdCluster(3, heartbeat=100, election=1000) as cluster:
        share = _processor_share(cluster.url)
        print(f"standby on etcd: {share:.2f} % of a core (target < 0.5 %)", flush=True)
    print("| succession among many | n | p50 | p99 | max | target |\n|---|---|---|---|---|---|")
    _crowd()
    print(f"took {time.monotonic() - began:.0f} s, then: {machine()}")


if __name__ == "__main__":
    main()
