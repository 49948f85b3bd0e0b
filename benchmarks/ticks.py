"""
One tick with 1,000 jobs due: what claiming costs, and in how many transactions.

Run as ``python -m benchmarks.ticks`` with ``tests`` on the path.
"""

import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, row
from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.ledger import Ledger, Versioned
from leader_jobs.occurrences import Policy
from leader_jobs.planned import PlannedJob
from leader_jobs.schedules import Every
from leader_jobs.stores.base import Candidacy, Store, Write
from leader_jobs.stores.factory import open_store
from testsupport.etcd import EtcdCluster

_JOBS = 1000
_CLOCK = SystemClock()


class Counting:
    """A store that counts transactions and hands everything on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Count, and commit."""
        self.commits += 1
        return self._store.commit(election, writes, candidacy=candidacy, deadline=deadline)


def _measure(url: str, ticks: int) -> tuple[list[float], set[int]]:
    settings = Settings(store=url, namespace=uuid.uuid4().hex)
    took, transactions = [], set()
    with closing(open_store(settings, clock=_CLOCK)) as opened:
        store: Any = Counting(opened)
        ledger = Ledger(store, "e", node="n", owner="o", clock=_CLOCK)
        jobs = [
            PlannedJob(name=f"job{i:04d}", schedule=Every(60), policy=Policy())
            for i in range(_JOBS)
        ]
        with Candidate("e", store=opened, node="n") as candidate:
            term = candidate.wait_for_term(10)
            assert term is not None
            claims = Claims(ledger, term, jobs, clock=_CLOCK)
            now = _CLOCK.utcnow()
            claims.tick(now)
            for _ in range(ticks):
                now += timedelta(seconds=60)
                before, store.commits = _CLOCK.now(), 0
                tick = claims.tick(now)
                took.append((_CLOCK.now() - before) * 1000)
                transactions.add(store.commits)
                assert len(tick.claims) == _JOBS
                for claim in tick.claims:
                    _close(ledger, claim.job, claim.sequence)
                    ledger.let_go(claim)
    return took, transactions


def _close(ledger: Ledger, job: str, sequence: int) -> None:
    """Have the occurrence closed in memory, as if it had run, without paying for it here."""
    found = ledger.load((job,))[job]
    assert isinstance(found, Versioned)
    assert found.record is not None
    ledger.forget((job,))
    ledger.remember(found.record.without(sequence), found.version)


def main() -> None:
    """Print the table."""
    ticks = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(machine())
    print(f"| claims of {_JOBS} jobs due in one tick | n | p50 | p99 | max | target |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        took, count = _measure(f"sqlite:///{Path(folder)}/store.sqlite3", ticks)
        print(row(f"embedded store, {count} transactions", took, "ms", ""), flush=True)
    for size in (1, 3):
        with EtcdCluster(size, heartbeat=100, election=1000) as cluster:
            took, count = _measure(cluster.url, ticks)
            name = f"etcd, {size} member(s), {count} transactions"
            print(row(name, took, "ms", "≤ 100 ms in ≤ 16"), flush=True)


if __name__ == "__main__":
    main()
