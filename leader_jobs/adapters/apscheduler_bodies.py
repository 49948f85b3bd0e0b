"""
The bodies of runs: what a scheduler's executors are given to call.

A body asks the store for its start when its turn comes, so that what waits in the pool of a leader
that was deposed never begins.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.job import Job as SchedulerJob
from apscheduler.util import iscoroutinefunction_partial

from leader_jobs.adapters import apscheduler_child
from leader_jobs.adapters.apscheduler_executors import awaits, waiting_in
from leader_jobs.adapters.apscheduler_triggers import jitter_of
from leader_jobs.jobs import Restriction, admitted
from leader_jobs.ledger import Claim
from leader_jobs.planned import PlannedJob
from leader_jobs.records import State
from leader_jobs.runlog import RunLog
from leader_jobs.runs import Lost, Run, running
from leader_jobs.term import Term

__all__ = ["REFUSED", "Bodies", "InHand", "RunId"]

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
        asked: whether it waits for the store's word on its start.
        started: whether its start is recorded as ours, and it is to begin.
        outcome: how its body ended, and why; None as long as it has not.
        back: is told when it was handed back; None if it was not.
        settled: whether what became of it is on its way into the ledger.
        cancel: asks its coroutine to end, while there is one.
    """

    claim: Claim
    term: Term
    job: SchedulerJob
    planned: PlannedJob
    not_before: datetime
    ready: bool = True
    asked: bool = False
    started: bool = False
    outcome: tuple[State, str] | None = None
    back: "Future[bool | None] | None" = None
    settled: bool = False
    cancel: Callable[[], object] | None = None

    @property
    def key(self) -> tuple[str, datetime]:
        """Its job's id and its planned instant: by these, events tell of it."""
        return self.claim.job, self.claim.planned_at


class RunId(str):
    """
    A job's id that knows for which run it stands: all that an executor tells of one that broke down.

    Attributes:
        item: the run.
    """

    __slots__ = ("item",)
    item: InHand

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # in another process it is an id, and no more


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
        elif awaits(executor) and iscoroutinefunction_partial(job.func):
            copy.func = self._coroutine(item)
        else:
            copy.func = self._function(item, waiting_in(type(executor)))
        return copy

    def _function(
        self, item: InHand, wait: Callable[[Callable[[], bool | None]], bool | None]
    ) -> Callable[..., Any]:
        def body(*args: Any, **kwargs: Any) -> Any:
            if not self.may_begin(item, wait(self.ask(item).result)):
                return REFUSED
            with self._run(item):
                result = item.job.func(*args, **kwargs)
                return asyncio.run(result) if inspect.iscoroutine(result) else result

        return body

    def _coroutine(self, item: InHand) -> Callable[..., Any]:
        async def body(*args: Any, **kwargs: Any) -> Any:
            told = self.ask(item)
            try:
                ours = await asyncio.wrap_future(told)
            except asyncio.CancelledError:  # before it began: who leads next begins it
                self.hand_back(item)
                return REFUSED
            if not self.may_begin(item, ours):
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

    @contextmanager
    def _run(self, item: InHand) -> Iterator[None]:
        """Give a body its context: what it is a run of, and that it may run; note how it ends."""
        run = Run(**self._about(item), planned_at=item.claim.planned_at, lost=Lost(item.term))
        restriction = Restriction.of(item.job.func)
        may = admitted(restriction) if restriction is not None else nullcontext()
        try:
            with running(run), may:
                yield
        except BaseException as error:
            item.outcome = self._how(item, error)
            raise
        item.outcome = State.SUCCEEDED, ""

    def _how(self, item: InHand, error: BaseException) -> tuple[State, str]:
        """Return how a body ended that raised *error*, and why."""
        if isinstance(error, asyncio.CancelledError):
            if not item.term.active:
                return State.INTERRUPTED, "cancelled, as the term was over"
            if self._closed:
                return State.INTERRUPTED, "cancelled, as the node was stopped"
        return State.FAILED, f"{type(error).__name__}: {error}"

    def _about(self, item: InHand) -> dict[str, Any]:
        claim = item.claim
        return {
            "election": item.term.election,
            "job": claim.job,
            "occurrence": claim.occurrence,
            "token": item.term.token,
            "attempt": claim.attempt,
        }

    def ask(self, item: InHand) -> "Future[bool | None]":
        """Ask the store for the start of *item*; what `may_begin` is to be called with."""
        if self._closed or not item.term.active:
            told = Future[bool | None]()
            told.set_result(False)
            return told
        item.asked = True
        return self._log.start(item.claim, item.term)

    def may_begin(self, item: InHand, ours: bool | None) -> bool:
        """Take the store's answer; whether the body may begin."""
        item.started = bool(ours) and item.term.active and not self._closed
        if not item.started and ours is not False:
            self.hand_back(item)
        item.asked = False
        return item.started

    def hand_back(self, item: InHand) -> None:
        """Have *item*, perhaps recorded as started, certainly not started, be started by who leads."""
        item.back = self._log.release(item.claim)
        item.asked = False

    def _send(self, item: InHand, copy: SchedulerJob) -> None:
        """Make of *copy* a job that can be sent to another process."""
        state = item.job.__getstate__()  # raises ValueError with a sentence of its own
        about = self._about(item) | {"planned_at": item.claim.planned_at.isoformat()}
        copy.func, copy.func_ref = apscheduler_child.run, apscheduler_child.REFERENCE
        copy.args = (state["func"], about, *state["args"])
        copy.id = RunId(copy.id)
        copy.id.item = item
