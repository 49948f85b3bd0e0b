"""
What the guardian is worth: from kill -9 of a leader to the term of the next candidate; and its cost.

Run as ``python -m benchmarks.guardian [trials]`` with ``tests`` on the path; real processes, a real
three-member etcd cluster with its default timers, plain and secured.
"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, row
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.stores.factory import open_store
from testsupport.certificates import Authority
from testsupport.etcd import EtcdCluster
from testsupport.guarded_node import ELECTION, GuardedNode

_CLOCK = SystemClock()
_TTLS = (5.0, 15.0, 60.0)
_MEGABYTE = 1024.0


def _takeovers(
    settings: dict[str, Any], trials: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Return milliseconds from each kill to the next term, and the guardians' megabytes."""
    found, sizes = [], []
    ours = Settings.load(environ={}, node="heir", **settings)
    with closing(open_store(ours, clock=_CLOCK)) as store:
        for _ in range(trials):
            heir = Candidate(ELECTION, store=store, node="heir", ttl=ours.ttl, clock=_CLOCK)
            with GuardedNode({**settings, "node": "victim"}, log=folder / "log") as node:
                node.term()
                heir.start()
                while len(store.candidates(ELECTION, deadline=_CLOCK.now() + 5)) < 2:
                    store.wait_for_change(ELECTION, timeout=0.1)
                sizes.append(_size(node.guardian))
                killed_at = _CLOCK.now()
                node.process.kill()
                assert heir.wait_for_term(ours.ttl * 2) is not None
                found.append((_CLOCK.now() - killed_at) * 1000)
            heir.stop()
    return found, sizes


def _size(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / _MEGABYTE


def main() -> None:
    """Print the table."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    print(machine())
    print("| kill -9 of the leader → the next term | n | p50 | p99 | max | target |")
    print("|---|---|---|---|---|---|")
    sizes: list[float] = []
    with tempfile.TemporaryDirectory(prefix="guardian-") as name:
        folder = Path(name)
        timers: dict[str, Any] = {"heartbeat": 100, "election": 1000}
        with EtcdCluster(3, **timers) as cluster:
            for ttl in _TTLS:
                settings = {"store": cluster.url, "ttl": ttl}
                found, some = _takeovers(settings, trials, folder)
                sizes += some
                print(row(f"plain, ttl {ttl:g} s", found, "ms", "p99 ≤ 250 ms"), flush=True)
        authority = Authority(folder / "authority")
        with EtcdCluster(3, tls=authority, client_certificates=True, **timers) as cluster:
            cluster.enable_auth("leader-jobs/", user="app", password="hush")  # noqa: S106  made up
            pair = authority.issue("client")
            files = {"ca_file": authority.ca_file, "cert_file": pair.cert, "key_file": pair.key}
            secured = {name: str(path) for name, path in files.items()}
            settings = {"store": cluster.url, "ttl": 15.0, "user": "app", "password": "hush"}
            found, some = _takeovers({**settings, **secured}, trials, folder)
            sizes += some
            print(row("mutual TLS and a user, ttl 15 s", found, "ms", "p99 ≤ 250 ms"), flush=True)
        print(row("memory of a guardian", sizes, "MB", "≤ 12 MB"))
    print(machine())


if __name__ == "__main__":
    main()
