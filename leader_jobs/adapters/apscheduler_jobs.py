"""
APScheduler's jobs as the ledger sees them: their names, and what their options mean.

=====================================  =============================================================
``coalesce=True`` (the default)        ``catch_up="latest"``: of what was missed, the newest is run
``coalesce=False``                     ``catch_up="all"``: each is run, in order
``misfire_grace_time=n``               ``window``: what is later than n seconds is not run
``misfire_grace_time=None``            no window; the default here, where stock has one second
``max_instances=1`` (the default)      ``overlap=False``, in all processes together
``max_instances=n``                    ``overlap=True``; n at a time in the process that leads
=====================================  =============================================================
"""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

from apscheduler.job import Job as SchedulerJob
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.util import obj_to_ref

from leader_jobs.adapters.apscheduler_triggers import Planned, ScheduleTrigger, planned
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Job, Restriction
from leader_jobs.names import check_job
from leader_jobs.occurrences import CatchUp, Policy
from leader_jobs.planned import PlannedJob

__all__ = [
    "arguments_of",
    "beginning",
    "is_made_up",
    "named",
    "planned_job",
    "stable_id",
    "zone_for",
]

_MICRO: Final = timedelta(microseconds=1)
_LONGEST: Final = 100
_MADE_UP: Final = re.compile("[0-9a-f]{32}")
_ALL_NEED_ONE: Final = "every process has to know the job by the same id"


def planned_job(job: SchedulerJob, *, max_burst: int, ours: Job | None = None) -> PlannedJob:
    """
    Return what the ledger has to know of *job*.

    Args:
        job: the job, as its store has it.
        max_burst: how many missed run times are run at most.
        ours: the ``@leader_only`` job it was made of, whose policy counts then.

    Raises:
        ConfigurationError: its id, trigger or options make no sense to the ledger.
    """
    restriction = Restriction.of(job.func)
    policy = ours.policy if ours is not None else _policy(job, max_burst)
    rerun = ours or restriction
    return PlannedJob(
        name=check_job(job.id),
        schedule=planned(job.trigger),
        policy=policy,
        rerun_on_crash=rerun is not None and rerun.rerun_on_crash,
        task=job.func_ref or "",
    )


def beginning(job: PlannedJob, first: datetime) -> PlannedJob:
    """Return *job* with *first*, in UTC, as a run time before which none counts."""
    return replace(job, schedule=Planned(job.schedule, first), since=first - _MICRO)


def is_made_up(job_id: str) -> bool:
    """Whether APScheduler made *job_id* up, because the job was given none."""
    return _MADE_UP.fullmatch(job_id) is not None


def zone_for(job: SchedulerJob, scheduler: BaseScheduler) -> tzinfo:
    """Return the time zone in which listeners and job stores are told of the run times of *job*."""
    zone = getattr(job.trigger, "timezone", None)
    return zone if isinstance(zone, tzinfo) else scheduler.timezone


def arguments_of(job: Job) -> dict[str, Any]:
    """Return what to add a ``@leader_only`` job to a scheduler with, in `add_job`'s own words."""
    window = job.policy.window
    return {
        "func": _reference(job.function) or job.function,
        "trigger": ScheduleTrigger(job.schedule),
        "id": job.name,
        "name": job.name,
        "coalesce": job.policy.catch_up is not CatchUp.ALL,
        "misfire_grace_time": None if window is None else max(1, round(window.total_seconds())),
        "max_instances": job.policy.max_burst if job.policy.overlap else 1,
        "replace_existing": True,
    }


def stable_id(
    func: Callable[..., Any] | str,
    trigger: BaseTrigger,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
) -> str:
    """
    Return an id for a job that was given none: the same in every process that adds the same job.

    It is made of the function's qualified name, and of the trigger and the arguments.

    Raises:
        ConfigurationError: it can not be the same everywhere; the message says why.
    """
    has_name = isinstance(func, str) or hasattr(func, "__qualname__")
    reference = func if isinstance(func, str) else _reference(func)
    if reference is None or not has_name:
        msg = f"add_job({func!r}) needs id=: {_ALL_NEED_ONE}, and this function can not be imported by a name"
        raise ConfigurationError(msg)
    if inspect.ismethod(func) and not inspect.isclass(func.__self__):
        msg = f"add_job({reference}) needs id=: {_ALL_NEED_ONE}, and this is a method of one object of many"
        raise ConfigurationError(msg)
    if isinstance(trigger, DateTrigger) and trigger.run_date.microsecond:
        msg = (
            f"add_job({reference}) needs id=: {_ALL_NEED_ONE}, and its run time "
            f"({trigger.run_date.isoformat()}) is this process's own"
        )
        raise ConfigurationError(msg)
    try:
        given = json.dumps([list(args or ()), dict(kwargs or {})], sort_keys=True)
    except (TypeError, ValueError):
        msg = f"add_job({reference}) needs id=: {_ALL_NEED_ONE}, and its arguments are not plain values"
        raise ConfigurationError(msg) from None
    text = json.dumps([reference, planned(trigger).fingerprint, given])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return check_job(f"{reference[-_LONGEST:].lstrip('.:')} ({digest})")


def named(
    pending: Iterable[tuple[SchedulerJob, str, bool]],
) -> list[tuple[SchedulerJob, str, bool]]:
    """
    Return the jobs that wait for a scheduler's start, with ids that are the same in every process.

    Args:
        pending: jobs, the aliases of their stores, and whether they replace what is there.

    Raises:
        ConfigurationError: one needs an id; none is changed then.
    """
    pending = tuple(pending)
    made = {
        job.id: stable_id(job.func, job.trigger, job.args, job.kwargs)
        for job, _, _ in pending
        if is_made_up(job.id)
    }
    if len(set(made.values())) < len(made):
        msg = "the same job is added twice without an id; if both are meant, give each an id="
        raise ConfigurationError(msg)
    result = [(job, alias, replace or job.id in made) for job, alias, replace in pending]
    for job, _, _ in pending:
        job.id = made.get(job.id, job.id)
    return result


def _policy(job: SchedulerJob, max_burst: int) -> Policy:
    return Policy(
        catch_up=CatchUp.LATEST if job.coalesce else CatchUp.ALL,
        window=job.misfire_grace_time,
        max_burst=max_burst,
        overlap=job.max_instances > 1,
    )


def _reference(func: Callable[..., Any]) -> str | None:
    try:
        reference: str = obj_to_ref(func)
    except (ValueError, TypeError):
        return None
    return reference
