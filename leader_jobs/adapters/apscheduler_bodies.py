"""
The bodies of runs: what a scheduler's executors are given to call.

A body asks the store for its start when its turn comes, so that what waits in the pool of a leader
that was deposed never begins.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.job import Job as SchedulerJob
from apscheduler.util import iscoroutinefunction_partial

from leader_jobs.adapters import apscheduler_child
from leader_jobs.adapters.apscheduler_triggers import jitter_of
from leader_jobs.jobs import Restriction, admitted
from leader_jobs.ledger import Claim
from leader_jobs.planned import PlannedJob
from leader_jobs.runlog import RunLog
from leader_jobs.runs import Lost, Run, running
from leader_jobs.term import Term

__all__ = ["REFUSED", "Bodies", "InHand"]

#: What a body returns that was not to begin.
REFUSED: Final = object()


@dataclass(eq=False, slots=True)
class InHand:
    """
    A claim on its way through an executor.

    Attributes:
        claim: the claim.
        term: the term it may be started under.
        job: the job as it was when it was claimed.
        planned: what the ledger knows of the job.
        not_before: when to submit it: its planned instant, and its jitter.
        ready: whether it may be submitted; what runs in another process is started before.
        started: whether its start is recorded as ours.
        cancel: asks its coroutine to end, while there is one.
    """

    claim: Claim
    term: Term
    job: SchedulerJob
    planned: PlannedJob
    not_before: datetime
    ready: bool = True
    started: bool = False
    cancel: Callable[[], object] | None = None

    @property
    def key(self) -> tuple[str, datetime]:
        """Its job's id and its planned instant: by these, events tell of it."""
        return self.claim.job, self.claim.planned_at


class Bodies:
    """
    Makes bodies that ask before they begin.

    Args:
        log: where starts are recorded.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._closed = False

    def close(self) -> None:
        """Have nothing more begin in this process."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether nothing more begins in this process."""
        return self._closed

    def prepared(self, item: InHand, executor: BaseExecutor) -> SchedulerJob:
        """Return a copy of the job whose body asks before it begins."""
        job = item.job
        copy: SchedulerJob = SchedulerJob.__new__(SchedulerJob)
        for name in SchedulerJob.__slots__:
            if name != "__weakref__" and hasattr(job, name):
                setattr(copy, name, getattr(job, name))
        if copy.misfire_grace_time is not None:  # stock adds the jitter to the run time itself
            copy.misfire_grace_time += int(jitter_of(job.trigger)) + 1
        if isinstance(executor, ProcessPoolExecutor):
            self._send(item, copy)
        elif iscoroutinefunction_partial(job.func):
            copy.func = self._coroutine(item)
        else:
            copy.func = self._function(item, _waiting_in(executor))
        return copy

    def _function(
        self, item: InHand, wait: Callable[["Future[bool | None]"], bool | None]
    ) -> Callable[..., Any]:
        def body(*args: Any, **kwargs: Any) -> Any:
            if not self.may_begin(item, wait(self._log.start(item.claim, item.term))):
                return REFUSED
            with self._run(item):
                return item.job.func(*args, **kwargs)

        return body

    def _coroutine(self, item: InHand) -> Callable[..., Any]:
        async def body(*args: Any, **kwargs: Any) -> Any:
            told = self._log.start(item.claim, item.term)
            if not self.may_begin(item, await asyncio.wrap_future(told)):
                return REFUSED
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            if task is not None:
                item.cancel = partial(loop.call_soon_threadsafe, task.cancel)
            try:
                with self._run(item):
                    return await item.job.func(*args, **kwargs)
            finally:
                item.cancel = None

        return body

    def _run(self, item: InHand) -> AbstractContextManager[object]:
        """Return the context of a body: what it is a run of, and that it may run."""
        run = Run(**self._about(item), planned_at=item.claim.planned_at, lost=Lost(item.term))
        restriction = Restriction.of(item.job.func)
        stack = ExitStack()
        stack.enter_context(running(run))
        if restriction is not None:
            stack.enter_context(admitted(restriction))
        return stack

    def _about(self, item: InHand) -> dict[str, Any]:
        claim = item.claim
        return {
            "election": item.term.election,
            "job": claim.job,
            "occurrence": claim.occurrence,
            "token": item.term.token,
            "attempt": claim.attempt,
        }

    def may_begin(self, item: InHand, ours: bool | None) -> bool:
        """Take the store's answer; whether the body may begin."""
        if ours and item.term.active and not self._closed:
            item.started = True
            return True
        if ours is not False:
            # Perhaps recorded as started, certainly not started: whoever leads shall start it.
            self._log.release(item.claim)
        return False

    def _send(self, item: InHand, copy: SchedulerJob) -> None:
        """Make of *copy* a job that can be sent to another process."""
        state = item.job.__getstate__()  # raises ValueError with a sentence of its own
        about = self._about(item) | {
            "planned_at": item.claim.planned_at.isoformat(),
            "parent": os.getpid(),
        }
        copy.func, copy.func_ref = apscheduler_child.run, apscheduler_child.REFERENCE
        copy.args = (state["func"], about, *state["args"])


def _waiting_in(executor: BaseExecutor) -> Callable[["Future[bool | None]"], bool | None]:
    """Return how a body of *executor* waits for an answer."""
    if type(executor).__module__ == "apscheduler.executors.gevent":
        from gevent import get_hub, monkey

        if not monkey.is_module_patched("threading"):  # a greenlet would hold up all the others
            return lambda told: get_hub().threadpool.apply(told.result)
    return Future.result
