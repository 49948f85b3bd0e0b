"""
Jobs that every process adds before it starts its scheduler, to job stores that all of them share.

They wait until this process leads: in a rolling deploy, a leader with the old code shall not meet
jobs of the new one, and a process that adds its jobs anew shall put off nobody's next run time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import BaseJobStore

from leader_jobs.adapters.apscheduler_triggers import planned

__all__ = ["Held", "HeldBack", "is_there"]

#: What makes two jobs the same, besides the rule of their triggers.
_SAME: Final = (
    "func_ref",
    "args",
    "kwargs",
    "name",
    "executor",
    "misfire_grace_time",
    "coalesce",
    "max_instances",
)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A job, the alias of the store it is for, and whether it replaces one that is there."""

    job: SchedulerJob
    alias: str
    replace: bool


class HeldBack:
    """The jobs of one scheduler that are held back."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def keep(self, held: Held) -> None:
        """Hold one back."""
        self._held.append(held)

    def of(self, alias: str | None, job_id: str | None = None) -> list[Held]:
        """Return those for store *alias*, or for any; of id *job_id*, or any."""
        return [
            held
            for held in self._held
            if alias in (None, held.alias) and job_id in (None, held.job.id)
        ]

    def let_go(self, held: Held) -> None:
        """Hold one back no more."""
        if held in self._held:
            self._held.remove(held)


def is_there(
    job: SchedulerJob,
    alias: str,
    store: BaseJobStore,
    *,
    defaults: Mapping[str, Any],
    repeated: bool = False,
) -> bool:
    """
    Whether a store has this very job; if it has another of this id, its next run time is kept.

    Args:
        job: the job that is to be added; what it leaves open is filled in.
        alias: the store's.
        store: the store.
        defaults: what a job is that does not say otherwise.
        repeated: whether every process adds it when it starts, so that a next run time of its own
            is meant for the first of them.
    """
    try:
        existing = store.lookup_job(job.id)
    except Exception:  # noqa: BLE001  it can not be read back, so it is to be replaced
        return False
    if existing is None or (hasattr(job, "next_run_time") and not repeated):
        return False
    if planned(existing.trigger).fingerprint != planned(job.trigger).fingerprint:
        return False
    for key, value in defaults.items():
        if not hasattr(job, key):
            job._modify(**{key: value})
    job.next_run_time = existing.next_run_time
    job._jobstore_alias = alias
    return all(_plain(getattr(existing, key)) == _plain(getattr(job, key)) for key in _SAME)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
