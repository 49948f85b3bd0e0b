"""A store, jobs and views for tests that look at elections from outside."""

from collections.abc import Callable, Mapping

from leader_jobs.jobs import Job
from leader_jobs.overview import ElectionView, JobView
from leader_jobs.stores.base import Record, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.ledgers import CountingStore, LedgerNode, run
from testsupport.place import ELECTION

__all__ = ["WatchedStore", "go", "one", "put"]


class WatchedStore(CountingStore):
    """A store that notes what is read, and by when, and does something after a read if asked to."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.reads: list[str] = []
        self.deadlines: set[float] = set()
        self.after_read: list[Callable[[], object]] = []

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return the records under *prefixes*."""
        self.reads += prefixes
        self.deadlines.add(deadline)
        found = super().read(election, *prefixes, deadline=deadline)
        if self.after_read:
            self.after_read.pop()()
        return found

    def histories(self) -> list[str]:
        """Return which histories were read since the last time."""
        found = [prefix for prefix in self.reads if prefix.startswith("history/")]
        self.reads.clear()
        return found


def put(store: MemoryStore, clock: ManualClock, key: str, value: bytes) -> None:
    """Write a record past the ledger."""
    store.commit(ELECTION, [Write(key, value)], candidacy=None, deadline=clock.now() + 1)


def go(node: LedgerNode, times: int, *jobs: Job) -> None:
    """Have all occurrences of *jobs*, which are due every second, run for some seconds."""
    claims = node.claims(*jobs)
    node.tick(claims)
    for _ in range(times):
        node.clock.advance(1)
        run(node, *node.tick(claims))


def one(view: ElectionView, name: str = "job") -> JobView:
    """Return what is seen of a job."""
    (found,) = [job for job in view.jobs if job.name == name]
    return found
