"""
What an outsider sees: the election in the store, the ledger, and the shop's own database.

Looking takes no part in the election, and any number may look.
"""

from collections import defaultdict
from typing import Final

from leader_jobs import Leader, Settings, open_store
from leader_jobs.clock import Clock
from leader_jobs.ledger import Ledger
from leader_jobs.records import JobRecord, OccurrenceRecord
from shop.models import WorkLog

__all__ = ["Observer"]

_PATIENCE: Final = 5.0


class Observer:
    """
    Looks at everything, and remembers what the ledger's bounded history forgets.

    Args:
        settings: of the site.
        clock: where moments come from.

    Attributes:
        work: every row of the `WorkLog`, in the order they were committed, as of the last `look`.
        jobs: the ledger's job records, by name, likewise.
        entries: all occurrence records ever seen, by job and number, likewise.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.election: Final = settings.election
        self.work: list[WorkLog] = []
        self.jobs: dict[str, JobRecord] = {}
        self.entries: dict[str, dict[int, OccurrenceRecord]] = defaultdict(dict)
        self._clock = clock
        self._store = open_store(settings, clock=clock)
        self._ledger = Ledger(self._store, self.election, node="demo", owner="", clock=clock)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def candidates(self) -> list[Leader]:
        """Return the living candidates in order of succession; the first one leads."""
        deadline = self._clock.now() + _PATIENCE
        entrants = self._store.candidates(self.election, deadline=deadline, leases=True)
        return [Leader.of(self.election, entrant) for entrant in entrants]

    def leader(self) -> Leader | None:
        """Return the leader, or None if nobody leads."""
        return next(iter(self.candidates()), None)

    def look(self) -> None:
        """Read what is new."""
        self.read_work()
        self.jobs = self._ledger.jobs()
        for job in self.jobs:
            self.entries[job].update({e.sequence: e for e in self._ledger.history(job)})

    def read_work(self) -> None:
        """Read what the jobs wrote since the last look."""
        # One writer at a time: whoever commits later has the greater key.
        last = self.work[-1].pk if self.work else 0
        self.work.extend(WorkLog.objects.filter(pk__gt=last).order_by("pk"))
