"""
Where a ledger comes from: the record by which nodes notice that an older copy was put in its place.

A restored copy says of occurrences that ran since it was taken that they never came due. So whoever
leads first after a restore writes down *since when* the ledger can be gone by, and whatever was
planned before that is closed without a run.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from leader_jobs.jsonrecords import dump, plain, restore
from leader_jobs.stores.base import Origin

__all__ = ["LINEAGE_KEY", "Lineage"]

#: Beside the orders, so that the leader, who watches those, hears of it at once.
LINEAGE_KEY: Final = "control/lineage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """
    What is recorded of an election's ledger.

    Attributes:
        cluster: the store's name for the history that the ledger is part of.
        since: from when on the ledger can be gone by: what was planned before may have run without
            a trace in it. None if it was never restored, as far as anybody noticed.
        noted_by: the node that noted *since*, or who had it noted.
    """

    cluster: str
    since: datetime | None = None
    noted_by: str = ""

    def holds(self, origin: Origin) -> bool:
        """Whether a process whose store's answers are of *origin* may go by this."""
        if self.cluster != origin.cluster:
            return False
        seen = origin.seen_until
        return seen is None or (self.since is not None and self.since > seen)

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read it back; raise `UnreadableRecord` if that is not certain."""
        return restore(cls, raw, instants=("since",))
