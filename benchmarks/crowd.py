"""
What five hundred candidates cost a cluster, idle and at successions.

Run as ``python -m benchmarks.crowd [candidates]`` with ``tests`` on the path. Each candidate has a
store of its own, so connections of its own, as the nodes of a fleet have; they share this process.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import machine, row
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.stores._etcd_wire import Json
from leader_jobs.stores.etcd import EtcdStore
from testsupport.etcd import EtcdCluster

T = TypeVar("T")

_CLOCK = SystemClock()
_SPELL = 60.0
_SUCCESSIONS = 20
_TICK = os.sysconf("SC_CLK_TCK")


class Requests:
    """Counts what is asked of the cluster, and by how many."""

    def __init__(self) -> None:
        self.by_path: Counter[str] = Counter()
        self.by_store: Counter[int] = Counter()

    def clear(self) -> None:
        """Begin anew."""
        self.by_path.clear()
        self.by_store.clear()

    def count(self, store: EtcdStore) -> None:
        """Count what *store* asks from now on."""
        call: Callable[..., Any] = store._client.call  # noqa: SLF001  there is no other place to count at

        def counted(path: str, body: Json, read: Callable[[Json], T], **options: Any) -> T:
            self.by_path[path] += 1
            self.by_store[id(store)] += path.endswith("/txn")
            answer: T = call(path, body, read, **options)
            return answer

        store._client.call = counted  # type: ignore[method-assign]  # noqa: SLF001  see above


class Usage:
    """Processor time and memory of the members."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self._pids = [member.process.pid for member in cluster.members]

    def processor(self) -> float:
        """Return the seconds of processor time that all members took so far."""
        total = 0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / _TICK

    def memory(self) -> list[int]:
        """Return the megabytes of each member."""
        lines = [Path(f"/proc/{pid}/status").read_text().splitlines() for pid in self._pids]
        return [int(line.split()[1]) // 1024 for some in lines for line in some if "VmRSS" in line]


@contextmanager
def _crowd(cluster: EtcdCluster, size: int, requests: Requests) -> Iterator[list[Candidate]]:
    with ExitStack() as stack:
        crowd = []
        for number in range(size):
            store = EtcdStore(cluster.endpoints, namespace="crowd", clock=_CLOCK)
            stack.enter_context(closing(store))
            requests.count(store)
            crowd.append(Candidate("e", store=store, node=f"n{number}", clock=_CLOCK))
        for candidate in crowd:
            # One after the other: it is this one process, with a thousand threads, that could not cope.
            candidate.start()
            stack.callback(candidate.stop, 0.0)
            while candidate.candidacy is None:
                _pause(0.01)
        _pause(3.0)
        yield crowd


def _idle(cluster: EtcdCluster, size: int, requests: Requests) -> None:
    usage = Usage(cluster)
    requests.clear()
    before = usage.processor()
    _pause(_SPELL)
    share = (usage.processor() - before) / _SPELL * 100
    print(f"{size} candidates, idle for {_SPELL:g} s: requests {dict(requests.by_path)}")
    print(f"etcd, all members together: {share:.1f} % of a core; memory {usage.memory()} MB each")


def _successions(crowd: list[Candidate], requests: Requests) -> None:
    woken, took = [], []
    for _ in range(_SUCCESSIONS):
        leader = next(candidate for candidate in crowd if candidate.term is not None)
        crowd.remove(leader)
        requests.clear()
        began = _CLOCK.now()
        leader.stop()
        while not any(candidate.term is not None for candidate in crowd):
            _pause(0.001)
        took.append((_CLOCK.now() - began) * 1000)
        _pause(0.3)
        # The one that left asks, too: to be withdrawn.
        woken.append(float(sum(1 for looks in requests.by_store.values() if looks) - 1))
    print("| succession among many | n | p50 | p99 | max | target |\n|---|---|---|---|---|---|")
    print(row("woken per succession", woken, "", "1"))
    print(row("stop → successor's term", took, "ms", ""))


def _pause(seconds: float) -> None:
    _CLOCK.wait(threading.Event(), seconds)


def main() -> None:
    """Print the figures."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(machine())
    requests = Requests()
    with EtcdCluster(3, heartbeat=100, election=1000) as cluster:
        print(f"etcd without candidates: memory {Usage(cluster).memory()} MB each")
        with _crowd(cluster, size, requests) as crowd:
            _idle(cluster, size, requests)
            _successions(crowd, requests)
    print(machine())


if __name__ == "__main__":
    main()
