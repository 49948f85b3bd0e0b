"""
Periodic jobs on a fleet of identical nodes, each occurrence exactly once, whatever dies.

One node is elected, periodic jobs start only there, and a fenced ledger of planned occurrences sees
to it that crashes, freezes, partitions and deploys neither repeat a job nor lose one. What is
promised and what is not is said in the documentation, under "Guarantees and limits".
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leader_jobs.candidate import Candidate
    from leader_jobs.config import Settings
    from leader_jobs.exceptions import LeaderJobsError, LeadershipLost, NotLeader
    from leader_jobs.jobs import leader_only
    from leader_jobs.leaders import Leader, find_leader, watch_leader
    from leader_jobs.runs import Run, assert_leader, current_run
    from leader_jobs.stores.factory import open_store
    from leader_jobs.term import Term

    __version__: str

__all__ = [
    "Candidate",
    "Leader",
    "LeaderJobsError",
    "LeadershipLost",
    "NotLeader",
    "Run",
    "Settings",
    "Term",
    "__version__",
    "assert_leader",
    "current_run",
    "find_leader",
    "leader_only",
    "open_store",
    "watch_leader",
]

#: Where each public name lives; looked up when first used, so that importing costs next to nothing.
_PLACES = {
    "Candidate": "leader_jobs.candidate",
    "Leader": "leader_jobs.leaders",
    "LeaderJobsError": "leader_jobs.exceptions",
    "LeadershipLost": "leader_jobs.exceptions",
    "NotLeader": "leader_jobs.exceptions",
    "Run": "leader_jobs.runs",
    "Settings": "leader_jobs.config",
    "Term": "leader_jobs.term",
    "assert_leader": "leader_jobs.runs",
    "current_run": "leader_jobs.runs",
    "find_leader": "leader_jobs.leaders",
    "leader_only": "leader_jobs.jobs",
    "open_store": "leader_jobs.stores.factory",
    "watch_leader": "leader_jobs.leaders",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from leader_jobs.version import version

        return version()
    place = _PLACES.get(name)
    if place is None:
        msg = f"module 'leader_jobs' has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    value = getattr(import_module(place), name)
    globals()[name] = value
    return value
