"""
One job store, as the leader reads and writes it.

What others share is a database, and databases hang. Such a store is called on a thread of its own,
and without APScheduler's lock on all stores: while it does not answer, the jobs of the other stores
go on, and so does the program that adds jobs to them.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from apscheduler.events import EVENT_JOB_REMOVED, JobEvent
from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import BaseJobStore, JobLookupError
from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.adapters.apscheduler_jobs import zone_for
from leader_jobs.adapters.apscheduler_stores import is_shared
from leader_jobs.exceptions import StoreError
from leader_jobs.schedules import as_utc

__all__ = ["Shelf", "Writer", "shown_of"]

T = TypeVar("T")

_log = logging.getLogger(__name__)
#: So long the leader waits for a shared store, and everything else with it, once: after that it only
#: looks whether the answer has come.
_PATIENCE: Final = 2.0
#: Who calls a job store that hangs holds the lock on all of them.
_LOCKED_FOR: Final = 0.2


def shown_of(job: SchedulerJob) -> datetime | None:
    """Return the next run time that *job* was read with, in UTC; None if it is paused."""
    return None if job.next_run_time is None else as_utc(job.next_run_time)


@dataclass(frozen=True, slots=True)
class Writer:
    """
    How the leader writes.

    Attributes:
        may_write: whether this process leads at this very moment.
        begin: called with a store's alias before it is read: writes what was held back until now.
        settle: called with a store that was just read: writes what is left to be written there.
    """

    may_write: Callable[[], bool]
    begin: Callable[[str], None]
    settle: Callable[[BaseJobStore], None]


class _LockedError(Exception):
    """Somebody holds the lock on all job stores for long."""


class Shelf:
    """
    The jobs of one store.

    Args:
        alias: the store's.
        store: the store.
        scheduler: whose it is.
        writer: says whether we may write.

    Attributes:
        alias: as given.
        blind: whether the store could not be read when it was last asked.
        shared: whether other processes see it.
    """

    def __init__(
        self, alias: str, store: BaseJobStore, scheduler: BaseScheduler, writer: Writer
    ) -> None:
        self.alias: Final = alias
        self.shared: Final = is_shared(store)
        self.blind = False
        self._store = store
        self._scheduler = scheduler
        self._writer = writer
        self._thread = _Thread(f"leader-jobs-store-{alias}") if self.shared else None

    def close(self) -> None:
        """Call the store no more."""
        if self._thread is not None:
            self._thread.close()

    # -- reading: None if the store can not be read, which is said ----------------------------------

    def all(self) -> list[SchedulerJob] | None:
        """Return every job, those that were held back until now included."""
        return self._read("all", self._all)

    def due(self, now: datetime) -> list[SchedulerJob] | None:
        """Return the jobs that the store itself takes to be due."""
        return self._read("due", partial(self._store.get_due_jobs, now))

    def find(self, name: str) -> list[SchedulerJob] | None:
        """Return the job *name*, or nothing."""
        found = self._read(f"find {name}", lambda: [self._store.lookup_job(name)])
        return found if found is None else [job for job in found if job is not None]

    def _all(self) -> list[SchedulerJob]:
        self._writer.begin(self.alias)
        jobs: list[SchedulerJob] = self._store.get_all_jobs()
        with suppress(StoreError):  # nor is anything started while the ledger is away
            self._writer.settle(self._store)
        return jobs

    def _read(
        self, question: str, answer: Callable[[], list[SchedulerJob]]
    ) -> list[SchedulerJob] | None:
        try:
            found = self._ask(question, answer)
        except Exception as error:  # noqa: BLE001  whatever a database raises when it is away
            if not self.blind:
                _log.warning(
                    "job store %r can not be read, and none of its jobs is started until it can: %s",
                    self.alias,
                    error,
                )
            self.blind = True
            return None
        if self.blind:
            _log.info("job store %r can be read again", self.alias)
        self.blind = False
        return found

    # -- writing ----------------------------------------------------------------------------------

    def advance(self, job: SchedulerJob, shown: datetime | None, due: datetime) -> bool:
        """
        Have the store say that *job* is next due at *due*.

        Args:
            job: as it was last read; the rest of what the store has of it stays as it is there.
            shown: the next run time that is to be replaced.
            due: the new one.

        Returns:
            False if the store has another one than *shown*, or we may not write, or it could not be
            written, which is said.
        """
        question = f"advance {job.id} to {due.isoformat()}"
        return self._write(question, partial(self._advance, job.id, shown, due), job)

    def remove(self, job: SchedulerJob, shown: datetime | None) -> bool:
        """
        Remove *job*, of which nothing more will ever be due, as APScheduler does.

        Returns:
            False if its next run time is not *shown*, or we may not write, or it could not be removed,
            which is said.
        """
        return self._write(f"remove {job.id}", partial(self._remove, job.id, shown), job)

    def _write(self, question: str, answer: Callable[[], bool], job: SchedulerJob) -> bool:
        if self.blind:
            return False
        try:
            return self._ask(question, answer)
        except JobLookupError:
            return True  # somebody removed it meanwhile
        except _LockedError:
            return False
        except Exception as error:  # noqa: BLE001  whatever a database raises when it is away
            _log.warning("job %s can not be written to store %r: %s", job.id, self.alias, error)
            return False

    def _advance(self, name: str, shown: datetime | None, due: datetime) -> bool:
        with self._locked() as locked:  # nobody of this process shall come between
            return locked and self._replace(name, shown, due)

    def _replace(self, name: str, shown: datetime | None, due: datetime) -> bool:
        job = self._present(name, shown)
        if job is None:
            return False
        job._modify(next_run_time=due.astimezone(zone_for(job, self._scheduler)))
        self._store.update_job(job)
        return True

    def _remove(self, name: str, shown: datetime | None) -> bool:
        with self._locked() as locked:
            if not locked or self._present(name, shown) is None:
                return False
            self._store.remove_job(name)
        # For listeners alone: that the leader changed it itself is no reason for it to look again.
        event = JobEvent(EVENT_JOB_REMOVED, name, self.alias)
        BaseScheduler._dispatch_event(self._scheduler, event)
        return True

    def _present(self, name: str, shown: datetime | None) -> SchedulerJob | None:
        """Return the job as the store has it at this moment, if it still is what it was to us."""
        job = self._store.lookup_job(name)
        if job is None:
            raise JobLookupError(name)
        return job if shown_of(job) == shown and self._writer.may_write() else None

    # -- calling ----------------------------------------------------------------------------------

    def _ask(self, question: str, answer: Callable[[], T]) -> T:
        if self._thread is not None:
            return self._thread.ask(question, answer)
        with self._locked() as locked:
            if not locked and question != "all":
                raise _LockedError
            return answer()

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold APScheduler's lock on all stores, if it can be had soon; whether it is held."""
        lock = self._scheduler._jobstores_lock
        locked: bool = lock.acquire(timeout=_LOCKED_FOR)
        try:
            yield locked
        finally:
            if locked:
                lock.release()


class _Thread:
    """
    Calls a store, one call after the other.

    Args:
        name: for the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._pending: tuple[str, Future[Any]] | None = None
        self._thread: threading.Thread | None = None

    def ask(self, question: str, answer: Callable[[], T]) -> T:
        """
        Return what *answer* returns, or raise what it raises.

        Raises:
            TimeoutError: it, or what was asked before it, takes too long. Asking the same *question*
                again brings what comes of it then.
        """
        pending = self._pending
        if pending is not None and pending[0] != question and pending[1].done():
            pending = None  # nobody wants to know any more
        patience = _PATIENCE if pending is None else 0.0
        asked, future = self._pending = pending or (question, self._call(answer))
        done, _ = wait([future], patience)
        if not done or asked != question:
            msg = f"it does not answer (to {asked!r})"
            raise TimeoutError(msg)
        self._pending = None
        found: T = future.result()
        return found

    def close(self) -> None:
        """Have the thread end once it has come back from the store; nothing waits for that."""
        self._calls.put(None)

    def _call(self, answer: Callable[[], Any]) -> Future[Any]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._calls.put((answer, future))
        return future

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            answer, future = call
            try:
                future.set_result(answer())
            except BaseException as error:  # noqa: BLE001  whoever asked gets it
                future.set_exception(error)
        django = sys.modules.get("django.db")
        if django is not None:  # each thread has connections of its own
            django.connections.close_all()
