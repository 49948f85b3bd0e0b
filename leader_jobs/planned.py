"""What the ledger has to know of a job, whoever runs it."""

from dataclasses import dataclass
from datetime import datetime

from leader_jobs.occurrences import Policy
from leader_jobs.schedules import Schedule

__all__ = ["PlannedJob"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """
    A job as the ledger sees it.

    Attributes:
        name: unique in its election; part of every occurrence's identity.
        schedule: when it is due.
        policy: what happens to occurrences that are late, missed or overlapping.
        rerun_on_crash: whether a run whose process died is attempted again.
        guarded: of a job whose occurrences are dispatched to other processes, whether these record
            in the ledger what becomes of them. If not, dispatching is the last that is known.
        task: the name of what it runs, where that has one of its own.
        since: from when on its occurrences count when the ledger does not know the job, or knows
            another schedule of it; None for from now on, and never later than that.
        not_before: until when its occurrences do not count, even if the ledger knows the job and its
            schedule: it was switched off then; None for no such bound.
        once: whether only the first occurrence counts.
    """

    name: str
    schedule: Schedule
    policy: Policy
    rerun_on_crash: bool = False
    guarded: bool = False
    task: str = ""
    since: datetime | None = None
    not_before: datetime | None = None
    once: bool = False
