"""
From a claim to the end of its run, through APScheduler's own executors.

A claimed run time is submitted on the scheduler's own thread. Its body asks the store for a start
when its turn comes, so that what waits in a pool of a leader that was deposed never begins. How it
ends is heard from the events that executors send.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_JOB_SUBMITTED,
    JobExecutionEvent,
    JobSubmissionEvent,
    SchedulerEvent,
)
from apscheduler.executors.base import BaseExecutor, MaxInstancesReachedError
from apscheduler.executors.pool import ProcessPoolExecutor
from apscheduler.job import Job as SchedulerJob
from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.adapters.apscheduler_board import Entry
from leader_jobs.adapters.apscheduler_bodies import REFUSED, Bodies, InHand, RunId
from leader_jobs.adapters.apscheduler_jobs import zone_for
from leader_jobs.adapters.apscheduler_triggers import jitter_of
from leader_jobs.clock import Clock
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.occurrences import CatchUp
from leader_jobs.records import State
from leader_jobs.runlog import RunLog
from leader_jobs.schedules import as_utc
from leader_jobs.term import Term

__all__ = ["Runs"]

_log = logging.getLogger(__name__)
_LOOK: Final = 0.2


class Runs:
    """
    What this process has claimed, and not yet brought to an end.

    Args:
        scheduler: whose executors run it.
        ledger: knows what is in this process's hands.
        log: records starts and ends.
        clock: where instants come from.
        freed: called with a job when a claim of it is out of hand, and whether looking at the job
            again is worth while.
    """

    def __init__(
        self,
        scheduler: BaseScheduler,
        *,
        ledger: Ledger,
        log: RunLog,
        clock: Clock,
        freed: Callable[[str, bool], None],
    ) -> None:
        self._scheduler = scheduler
        self._ledger = ledger
        self._log = log
        self._clock = clock
        self._freed = freed
        self._bodies = Bodies(log)
        self._changed = threading.Condition(threading.RLock())
        self._items: dict[tuple[str, datetime], InHand] = {}
        self._queue: list[InHand] = []
        self._events: list[SchedulerEvent] = []
        self._rung_at: float | None = None

    def put(self, claims: Iterable[Claim], term: Term, find: Callable[[str], Entry | None]) -> None:
        """Take *claims* in, to be submitted soon; *find* returns a job's entry on the board."""
        for claim in claims:
            entry = find(claim.job)
            with self._changed:
                taken = (claim.job, claim.planned_at) in self._items
            if entry is None or entry.planned is None or taken:
                self._ledger.let_go(claim)
                continue
            item = InHand(claim, term, entry.job, entry.planned, _not_before(claim, entry))
            if self._is_remote(entry.job):
                item.ready = False
            with self._changed:
                self._items[item.key] = item
                self._queue.append(item)
                self._rung_at = self._rung_at or self._clock.now()

    def say(self, events: Iterable[SchedulerEvent]) -> None:
        """Have listeners hear of *events*, on the scheduler's own thread."""
        with self._changed:
            self._events.extend(events)

    def holds(self, job: str) -> bool:
        """Whether anything of *job* is in hand."""
        with self._changed:
            return any(name == job for name, _ in self._items)

    def waits(self, job: str) -> bool:
        """Whether anything of *job* is in hand that has not begun."""
        with self._changed:
            return any(n == job and not item.started for (n, _), item in self._items.items())

    def ignored_since(self) -> float | None:
        """Return since which moment the scheduler's own thread takes nothing; None if it does."""
        with self._changed:
            return self._rung_at

    def next_ready(self) -> datetime | None:
        """Return the instant until which the next claim in the queue is held back by its jitter."""
        with self._changed:
            return min((item.not_before for item in self._queue if item.ready), default=None)

    def submit(self) -> None:
        """Hand to their executors what is ready; to be called on the scheduler's own thread."""
        now = self._clock.utcnow()
        blocked: set[str] = set()
        with self._changed:
            queue, self._queue = self._queue, []
            events, self._events = self._events, []
            self._rung_at = None
            has_room = self._room(queue)
        for event in events:
            self._scheduler._dispatch_event(event)
        left = []
        try:
            while queue:
                item = queue.pop(0)
                waits = item.not_before > now or item.claim.job in blocked
                if waits or not self._is_ready(item, has_room) or not self._submit(item):
                    blocked.add(item.claim.job)
                    left.append(item)
        finally:
            with self._changed:
                everything = (*left, *queue, *self._queue)
                self._queue = [item for item in everything if not item.settled]

    # -- the end of a term, or of the process -----------------------------------------------------

    def drop(self) -> None:
        """Let go of what was not submitted; if the term is over, have coroutines cancelled."""
        with self._changed:
            queue = [item for item in self._queue if not item.asked]
            # What is just being started goes on; whoever hears of it looks at the term again.
            self._queue = [item for item in self._queue if item not in queue]
            items = tuple(self._items.values())
        for item in queue:
            self._pass_on(item)
        for item in items:
            cancel = item.cancel
            if cancel is not None and not item.term.active:
                with suppress(RuntimeError):  # its event loop is closed
                    cancel()

    def close(self) -> None:
        """Have nothing more begin in this process."""
        self._bodies.close()

    @property
    def closed(self) -> bool:
        """Whether nothing more begins in this process."""
        return self._bodies.closed

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until nothing that began is left; whether nothing is."""
        limit = self._clock.now() + timeout
        with self._changed:
            while self._begun() and self._clock.now() < limit:
                self._changed.wait(_LOOK)
            return not self._begun()

    def give_up(self) -> None:
        """Record of what is still running that it was stopped, or have it run elsewhere again."""
        with self._changed:
            items = [item for item in self._items.values() if item.started]
        for item in items:
            if item.outcome is not None:  # an event loop that was closed sends no more events
                self._finish(item, *item.outcome)
            else:
                _log.warning("job %s (%s) was stopped before it ended", *item.key)
                self._finish(item, State.INTERRUPTED, "the node was stopped")

    def _begun(self) -> bool:
        with self._changed:
            items = self._items.values()
            return any(i.asked or (i.started and i.outcome is None) for i in items)

    # -- submitting -------------------------------------------------------------------------------

    def _submit(self, item: InHand) -> bool:
        """Submit one; False to keep it in the queue."""
        scheduler, job = self._scheduler, item.job
        if self._bodies.closed or not item.term.active:
            return self._pass_on(item)
        if item.term.suspended:
            return False
        run_time = self._local(item)
        try:
            executor = scheduler._lookup_executor(job.executor)
            self._listen(executor)
            executor.submit_job(self._bodies.prepared(item, executor), [run_time])
        except MaxInstancesReachedError:
            return self._too_many(item, run_time)
        except Exception as error:  # noqa: BLE001  any executor's trouble; stock logs it, and goes on
            self._not_submitted(item, error)
            return True
        self._scheduler._dispatch_event(
            JobSubmissionEvent(EVENT_JOB_SUBMITTED, job.id, job._jobstore_alias, [run_time])
        )
        return True

    def _pass_on(self, item: InHand) -> bool:
        """Leave to who leads next what is not submitted. Always True."""
        if not item.started:
            return self._let_go(item, again=True)
        told = self._log.release(item.claim)
        told.add_done_callback(partial(self._over, item, again=True))
        return True

    def _too_many(self, item: InHand, run_time: datetime) -> bool:
        policy = item.planned.policy
        if item.started or policy.catch_up is CatchUp.ALL or not policy.overlap:
            return False  # it is to be run, when another one has ended
        job = item.job
        _log.warning(
            'Execution of job "%s" skipped: maximum number of running instances reached (%d)',
            job,
            job.max_instances,
        )
        self._scheduler._dispatch_event(
            JobSubmissionEvent(EVENT_JOB_MAX_INSTANCES, job.id, job._jobstore_alias, [run_time])
        )
        self._skip(item, "max_instances")
        return True

    def _not_submitted(self, item: InHand, error: Exception) -> None:
        if isinstance(error, RuntimeError) and "shutdown" in str(error):
            _log.info("job %s waits for another node: %s", item.job.id, error)
            self._bodies.close()
            self._pass_on(item)
            return
        _log.error(
            "job %s could not be submitted to executor %r: %s",
            item.job.id,
            item.job.executor,
            error,
        )
        reason = f"it could not be submitted: {error}"
        if item.started:
            self._finish(item, State.FAILED, reason)
        else:
            self._skip(item, reason)
        self._scheduler._dispatch_event(self._event(EVENT_JOB_ERROR, item, exception=error))

    def _local(self, item: InHand) -> datetime:
        return item.claim.planned_at.astimezone(zone_for(item.job, self._scheduler))

    def _event(self, code: int, item: InHand, **more: Any) -> JobExecutionEvent:
        job = item.job
        return JobExecutionEvent(code, job.id, job._jobstore_alias, self._local(item), **more)

    # -- bodies in other processes ----------------------------------------------------------------

    def _is_remote(self, job: SchedulerJob) -> bool:
        return isinstance(self._scheduler._executors.get(job.executor), ProcessPoolExecutor)

    def _room(self, queue: Iterable[InHand]) -> Callable[[InHand], bool]:
        """Return what tells whether a body would begin in another process as soon as it is sent."""
        if all(item.ready for item in queue):
            return lambda _: True
        begun = [item.job for item in self._items.values() if item.asked or item.started]
        jobs, pools = Counter(job.id for job in begun), Counter(job.executor for job in begun)

        def has_room(item: InHand) -> bool:
            job = item.job
            pool = getattr(self._scheduler._executors.get(job.executor), "_pool", None)
            workers = getattr(pool, "_max_workers", 1)
            if jobs[job.id] >= job.max_instances or pools[job.executor] >= workers:
                return False
            jobs[job.id] += 1
            pools[job.executor] += 1
            return True

        return has_room

    def _is_ready(self, item: InHand, has_room: Callable[[InHand], bool]) -> bool:
        """Whether to submit *item*: what is sent to another process is recorded as started before."""
        if item.ready or self._bodies.closed or not item.term.active:
            return not item.asked
        if not item.asked and has_room(item):
            told = self._bodies.ask(item)
            told.add_done_callback(partial(self._started_ahead, item))
        return False

    def _started_ahead(self, item: InHand, told: "Future[bool | None]") -> None:
        if self._bodies.may_begin(item, told.result()):
            item.ready = True
            self._scheduler.wakeup()
            return
        item.settled = True  # before we look: it may be on its way back into the queue
        with self._changed:
            self._queue = [other for other in self._queue if other is not item]
        self._refused(item)

    def _listen(self, executor: BaseExecutor) -> None:
        """Hear of it when an executor's processes die: there is no event for that."""
        if isinstance(executor, ProcessPoolExecutor):
            original = executor._run_job_error
            if isinstance(original, partial):  # ours, perhaps of a former start of the scheduler
                original = original.args[0]
            executor._run_job_error = partial(self._broken, original)

    def _broken(
        self, original: Callable[..., None], job_id: str, error: BaseException, *rest: Any
    ) -> None:
        original(job_id, error, *rest)
        if isinstance(job_id, RunId):
            event = self._event(EVENT_JOB_ERROR, job_id.item, exception=error)
            self._scheduler._dispatch_event(event)

    # -- how it ended -----------------------------------------------------------------------------

    def heard(self, event: SchedulerEvent) -> SchedulerEvent:
        """Take note of how a run ended; return what listeners shall hear of it."""
        if not isinstance(event, JobExecutionEvent) or not self._items:
            return event
        with self._changed:
            item = self._items.get((event.job_id, as_utc(event.scheduled_run_time)))
        if item is None or item.settled:
            return event
        if event.code == EVENT_JOB_MISSED and item.started:  # in another process, before its body
            self._finish(item, State.SKIPPED, "window")
        elif event.code == EVENT_JOB_MISSED:
            self._skip(item, "window")
        elif event.code == EVENT_JOB_EXECUTED and event.retval is not REFUSED:
            self._finish(item, *(item.outcome or (State.SUCCEEDED, "")))
        elif event.code == EVENT_JOB_ERROR and item.started:
            error = event.exception
            self._finish(
                item, *(item.outcome or (State.FAILED, f"{type(error).__name__}: {error}"))
            )
        else:  # it was not to begin
            self._refused(item)
            return self._event(EVENT_JOB_MISSED, item)
        return event

    def _refused(self, item: InHand) -> None:
        """Let go of what did not begin, once it is handed back."""
        item.settled = True
        if item.asked:  # a greenlet was killed while it waited for the answer
            self._bodies.hand_back(item)
        if item.back is None:
            self._let_go(item, again=True)
        else:
            item.back.add_done_callback(partial(self._over, item, again=True))

    def _finish(self, item: InHand, state: State, reason: str) -> None:
        again = state is State.INTERRUPTED and item.planned.rerun_on_crash
        item.settled = True
        if again:
            told = self._log.release(item.claim, again=True)
        else:
            told = self._log.finish(item.claim, state, reason)
        told.add_done_callback(partial(self._over, item, again=again))

    def _skip(self, item: InHand, reason: str) -> None:
        item.settled = True
        told = self._log.skip(item.claim, item.term, reason)
        told.add_done_callback(partial(self._over, item, again=False))

    def _over(self, item: InHand, told: "Future[bool | None]", *, again: bool) -> None:
        if told.result() is False and item.started:
            again = True  # what somebody made of it meanwhile may be ours to run
            _log.warning(
                "job %s (%s) ended, but its run had been closed as dead meanwhile", *item.key
            )
        self._let_go(item, again=again)

    def _let_go(self, item: InHand, *, again: bool) -> bool:
        """Have *item* out of hand; with *again*, its job is worth another look. Always True."""
        self._ledger.let_go(item.claim)
        with self._changed:
            self._items.pop(item.key, None)
            waiting = any(
                other.claim.job == item.claim.job or not other.ready for other in self._queue
            )
            self._changed.notify_all()
        self._freed(item.claim.job, again or item.planned.policy.catch_up is CatchUp.ALL)
        if waiting:
            self._scheduler.wakeup()
        return True


def _not_before(claim: Claim, entry: Entry) -> datetime:
    """Return when to submit *claim*: at its run time, or up to its job's jitter later."""
    jitter = jitter_of(entry.job.trigger)
    if not jitter:
        return claim.planned_at
    late = random.Random(claim.occurrence).uniform(0, jitter)  # noqa: S311  jitter
    return claim.planned_at + timedelta(seconds=late)
