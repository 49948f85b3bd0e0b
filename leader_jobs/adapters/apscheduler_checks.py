"""What is refused, with a sentence, before it could go wrong in the leader's thread later on."""

import logging
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import BaseJobStore

from leader_jobs.adapters.apscheduler_stores import host_of, is_shared
from leader_jobs.config import Settings, redact
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Restriction

__all__ = ["check_id_is_free", "check_restriction", "check_serialisable", "check_stores"]

_log = logging.getLogger(__name__)


def check_restriction(job: SchedulerJob, election: str | None) -> None:
    """
    Refuse a job whose ``@leader_only`` function is for leaders of another election than *election*.

    Raises:
        ConfigurationError: it would be skipped each time.
    """
    restriction = Restriction.of(job.func)
    if restriction is not None and restriction.election not in (None, election):
        msg = (
            f"job {job.id} is for leaders of election {restriction.election!r}, and this "
            f"scheduler stands in {election!r}; add it to a scheduler of that election"
        )
        raise ConfigurationError(msg)


def check_id_is_free(
    name: str,
    alias: str,
    *,
    pending: Iterable[tuple[SchedulerJob, str, Any]],
    stores: Mapping[str, BaseJobStore],
) -> None:
    """
    Refuse an id that a job of another job store has, as far as this process knows without asking.

    Args:
        name: the id.
        alias: the job store it is for.
        pending: the jobs that wait for the scheduler's start, and the aliases of their stores.
        stores: the job stores that are started, by alias.

    Raises:
        ConfigurationError: APScheduler allows it, but here an id is a job's identity everywhere.
    """
    found = {other for job, other, _ in pending if job.id == name}
    found |= {o for o, store in stores.items() if not is_shared(store) and store.lookup_job(name)}
    for other in sorted(found - {alias}):
        msg = (
            f"job {name} is in job store {other!r} already; give the one for {alias!r} another id="
        )
        raise ConfigurationError(msg)


def check_serialisable(job: SchedulerJob, alias: str) -> None:
    """
    Refuse what can not be kept in the job store *alias*, which other processes see.

    Raises:
        ConfigurationError: saying what it is about.
    """
    try:
        # Not the whole job yet: what it leaves to the scheduler's defaults is not filled in.
        pickle.dumps((job.trigger, job.args, job.kwargs))
        why = None if job.func_ref else f"{job.func!r} can not be imported by a name"
    except Exception as error:  # noqa: BLE001  pickle raises whatever an argument's class does
        why = str(error)
    if why is not None:
        msg = (
            f"job {job.id} can not be kept in job store {alias!r}, which others share: {why}; use a "
            "function at the top of its module and plain arguments, or a MemoryJobStore"
        )
        raise ConfigurationError(msg)


def check_stores(stores: Mapping[str, BaseJobStore], settings: Settings) -> None:
    """
    Refuse job stores that more processes share than the ledger, or warn if that may be so.

    Args:
        stores: the job stores, by alias.
        settings: where the ledger is.

    Raises:
        ConfigurationError: the ledger is in the memory of this process.
    """
    for alias, store in stores.items():
        if is_shared(store) and settings.store.startswith("memory:"):
            msg = (
                f"job store {alias!r} can be shared by processes, but the ledger at "
                f"{settings.store} can not: name a store= that all of them reach"
            )
            raise ConfigurationError(msg)
        host = host_of(store) if settings.store.startswith("sqlite:") else None
        if host is not None:
            _log.warning(
                "job store %r is on %s, where other hosts may share it, but the election is held "
                "in a file of this host (%s): if schedulers run on several hosts, each of these "
                "elects one; name a store= that all of them reach, such as etcd://",
                alias,
                host,
                redact(settings.store),
            )
