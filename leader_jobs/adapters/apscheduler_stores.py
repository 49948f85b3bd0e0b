"""
Job stores: whether other processes see them, where they are, and what they do with jobs of other code.
"""

import logging
import pickle
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.jobstores.memory import MemoryJobStore

__all__ = ["host_of", "is_shared", "keep_unrestorable", "unrestorable"]

_log = logging.getLogger(__name__)
_HERE: Final = frozenset({"", "localhost", "::1", "0.0.0.0"})  # noqa: S104  it is looked for, not bound


def is_shared(store: BaseJobStore) -> bool:
    """Whether other processes see what is in *store*."""
    return not isinstance(store, MemoryJobStore)


def host_of(store: BaseJobStore) -> str | None:
    """Return the other machine that *store* is on; None if it is on this one, or that is not known."""
    host = str(_host_of(store) or "")
    is_here = host in _HERE or host.startswith(("127.", "/")) or host == socket.gethostname()
    return None if is_here else host


def _host_of(store: BaseJobStore) -> str | None:
    engine = getattr(store, "engine", None)
    if engine is not None:  # SQLAlchemyJobStore
        return getattr(engine.url, "host", None)
    if hasattr(store, "redis"):
        found: str | None = store.redis.connection_pool.connection_kwargs.get("host")
        return found
    if type(store).__module__.startswith("django_apscheduler"):
        from django.db import connections, router
        from django_apscheduler.models import DjangoJob

        host: str | None = connections[router.db_for_write(DjangoJob)].settings_dict.get("HOST")
        return host
    return None


# -- jobs of other code -------------------------------------------------------------------------------


def unrestorable(*_: Any, **__: Any) -> NoReturn:
    """Stand for the function of a job that can not be restored in this process."""
    msg = "this job can not be restored here: its function can not be imported by this process"
    raise LookupError(msg)


def keep_unrestorable(store: BaseJobStore) -> None:
    """
    Have *store* list jobs that this process can not restore, their function being `unrestorable`.

    APScheduler's stores delete such jobs whenever they are read. In a fleet that is being deployed,
    old code would so delete the jobs of new code.
    """
    restore = getattr(store, "_reconstitute_job", None)
    if restore is not None and not isinstance(restore, partial):
        store._reconstitute_job = partial(_restored, store, restore)


def _restored(store: BaseJobStore, restore: Callable[[Any], Any], raw: Any) -> SchedulerJob:
    try:
        return restore(raw)
    except Exception as error:  # noqa: BLE001  importing a module raises whatever the module does
        why = error
    job = SchedulerJob.__new__(SchedulerJob)
    try:
        state = raw if isinstance(raw, dict) else pickle.loads(raw)  # noqa: S301  as the store does
        job.__setstate__(state | {"func": f"{__name__}:{unrestorable.__name__}"})
        job.func_ref = state["func"]  # so that it is written back as it was
    except Exception:  # noqa: BLE001  likewise, of the classes of its arguments
        _blank(job)
    job._scheduler, job._jobstore_alias = store._scheduler, store._alias
    _log.debug("job %s can not be restored: %s", job.id, why)
    return job


def _blank(job: SchedulerJob) -> None:
    """Make of *job* one of which nothing is known: without a ``func_ref``, no store will write it."""
    nothing: dict[str, Any] = dict.fromkeys(SchedulerJob.__slots__)
    del nothing["__weakref__"]
    known = {"name": "unreadable", "func": unrestorable, "args": (), "kwargs": {}}
    for name, value in (nothing | known).items():
        setattr(job, name, value)
