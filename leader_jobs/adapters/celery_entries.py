"""
Beat entries as the ledger's jobs.

An entry says what is sent and when; what happens to occurrences that are late, missed or overlapping
is said beside it: in the entry's ``options={"leader_jobs": {...}}`` (in the admin of
django-celery-beat, as ``{"leader_jobs": {...}}`` in the headers), or by `leader_only` on the task.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.schedules import crontab

from leader_jobs.adapters.celery_schedules import Once, planned
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import OnCrash, Restriction
from leader_jobs.names import check_job, nearest
from leader_jobs.occurrences import Policy
from leader_jobs.planned import PlannedJob

__all__ = ["HEADER", "BeatJob", "job_name", "job_of", "own_options"]

#: The header that carries the ticket, and the option that carries what is said here.
HEADER: Final = "leader_jobs"
_POLICY: Final = ("catch_up", "window", "max_burst", "overlap")
_KNOWN: Final = (*_POLICY, "on_crash", "guarded")
_MICRO: Final = timedelta(microseconds=1)
_LEAST_WINDOW: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatJob(PlannedJob):
    """
    An entry of the schedule as a job.

    Attributes:
        entry: the entry's name.
    """

    entry: str


def job_of(entry: Any, app: Celery) -> BeatJob:
    """
    Return the job that *entry*, a `celery.beat.ScheduleEntry` of any kind, is.

    Raises:
        ConfigurationError: its options make no sense.
    """
    restriction = _restriction(entry.task, app)
    options = own_options(entry)
    if restriction is None and options.get("guarded") and entry.task in app.tasks:
        msg = f"entry {entry.name!r}: guarded is set, but task {entry.task!r} is not @leader_only"
        raise ConfigurationError(msg)
    guarded = options.get("guarded", restriction is not None)
    rerun = restriction is not None and restriction.rerun_on_crash
    if "on_crash" in options:
        rerun = options["on_crash"] == OnCrash.RERUN
    schedule = planned(entry.schedule, name=entry.name, app=app)
    since = None
    if isinstance(schedule, Once):
        since = schedule.instant - _MICRO  # however late it is seen for the first time
    return BeatJob(
        name=job_name(entry.name),
        entry=entry.name,
        task=entry.task,
        schedule=schedule,
        policy=_policy(entry, app, restriction, options),
        rerun_on_crash=rerun,
        guarded=bool(guarded),
        since=since,
    )


def job_name(entry: str) -> str:
    """Return the name in the ledger of the entry called *entry*, which may be any text."""
    try:
        return check_job(entry)
    except ConfigurationError:
        readable = re.sub(r"[^A-Za-z0-9 ._:@-]", "_", entry)[:80]
        return f"_{readable}@{hashlib.sha256(entry.encode()).hexdigest()[:16]}"


def own_options(entry: Any) -> dict[str, Any]:
    """
    Return what the entry says to this library.

    Raises:
        ConfigurationError: it says something that is unknown.
    """
    options: Mapping[str, Any] = entry.options or {}
    headers = options.get("headers") or {}
    found = options.get(HEADER, headers.get(HEADER) if isinstance(headers, Mapping) else None)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        msg = f"entry {entry.name!r}: leader_jobs is {found!r}; it must be a mapping"
        raise ConfigurationError(msg)
    for key in found:
        if key not in _KNOWN:
            near = nearest(str(key), _KNOWN)
            hint = f"did you mean {near!r}?" if near else f"known are {', '.join(_KNOWN)}"
            msg = f"entry {entry.name!r}: leader_jobs has {key!r}, which is not an option; {hint}"
            raise ConfigurationError(msg)
    if found.get("on_crash", OnCrash.RERUN) not in tuple(OnCrash):
        msg = (
            f"entry {entry.name!r}: on_crash is {found['on_crash']!r}; "
            "it must be 'interrupt' or 'rerun'"
        )
        raise ConfigurationError(msg)
    return dict(found)


def _restriction(task: str, app: Celery) -> Restriction | None:
    registered = app.tasks.get(task)
    return None if registered is None else Restriction.of(registered.run)


def _policy(
    entry: Any, app: Celery, restriction: Restriction | None, options: Mapping[str, Any]
) -> Policy:
    base = Policy(overlap=True) if restriction is None else restriction.policy
    values = {name: options.get(name, getattr(base, name)) for name in _POLICY}
    deadline = app.conf.beat_cron_starting_deadline  # Celery's own word for it, for crontabs
    if values["window"] is None and deadline and isinstance(entry.schedule, crontab):
        values["window"] = float(deadline)
    try:
        policy = Policy(**values)
    except ConfigurationError as error:
        msg = f"entry {entry.name!r}: {error}"
        raise ConfigurationError(msg) from None
    expires = (entry.options or {}).get("expires")
    if isinstance(expires, (int, float)):  # a message that late would not be run
        bound = max(timedelta(seconds=expires), _LEAST_WINDOW)
        policy = replace(policy, window=min(policy.window or bound, bound))
    return policy
