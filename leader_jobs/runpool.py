"""
Threads that run the bodies of claimed occurrences.

Before a body starts, the term is checked and the start is recorded under the fence, so that a body
starts at most once per occurrence. A body that is running when the term ends is told
(`current_run().lost`) and goes on in its thread; how it ends is recorded all the same, for as long
as the process lives to do it.
"""

import asyncio
import inspect
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import Fenced, LeaderJobsError, StoreError
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.records import State
from leader_jobs.runs import Lost, Run, running
from leader_jobs.term import Term

__all__ = ["RunPool"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.2
_INSIST_EVERY: Final = 1.0


class RunPool:
    """
    Runs claims, each in a thread, and those of a job that must not overlap one after the other.

    Args:
        ledger: where starts and ends are recorded.
        workers: how many bodies may run at once.
        clock: where moments come from.
        freed: called with a job when nothing of it waits or runs any more, and whether its last
            claim was run; on a thread of the pool.
        fenced: called with a term under which the store refused a start.
        around: entered around each body, on its thread; for what a framework has to set up.
        run_async: runs the coroutine of an asynchronous body to its end, on the body's thread.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        workers: int,
        clock: Clock,
        freed: Callable[[Job, bool], None],
        fenced: Callable[[Term], None],
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        run_async: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._freed = freed
        self._fenced = fenced
        self._around = around
        self._run_async = run_async
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="leader-jobs-run")
        self._changed = threading.Condition()
        self._queues: dict[str, deque[tuple[Claim, Term]]] = {}
        self._running: dict[Claim, Job] = {}
        self._begun: set[Claim] = set()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._closed = False

    def submit(self, claim: Claim, job: Job, term: Term) -> None:
        """Run *claim* under *term* when its job's turn comes: at once, or after what is running."""
        if not job.policy.overlap:
            with self._changed:
                queue = self._queues.setdefault(job.name, deque())
                queue.append((claim, term))
                if len(queue) > 1:
                    return
        self._dispatch(claim, job, term)

    def drop_waiting(self) -> None:
        """Let go of what was not started; the next leader finds it claimed, and starts it."""
        with self._changed:
            for queue in self._queues.values():
                while len(queue) > 1:  # the first one is on a thread, or about to be
                    claim, _ = queue.pop()
                    self._ledger.let_go(claim)

    def stop(self, *, now: bool = False) -> None:
        """Start nothing more; with *now*, have `drain` wait for nothing."""
        self._closing.set()
        if now:
            self._abandoned.set()

    def finish(self, within: float) -> bool:
        """Wait up to *within* seconds until no body runs; whether it came to that."""
        limit = self._clock.now() + within
        with self._changed:
            while self._running and self._clock.now() < limit:
                self._changed.wait(min(_RETRY, within))
            return not self._running

    def drain(self, grace: float) -> bool:
        """
        Let running bodies finish within *grace* seconds; close, or hand back, the runs that do not.

        Returns:
            Whether every body has ended. If not, their threads are still alive.
        """
        self._closing.set()
        limit = self._clock.now() + grace
        with self._changed:
            while self._running and not self._abandoned.is_set() and self._clock.now() < limit:
                self._changed.wait(_RETRY)
            left = {claim: (job, claim in self._begun) for claim, job in self._running.items()}
        for claim, (job, begun) in left.items():
            self._give_up(claim, job, begun=begun)
        self._abandoned.set()
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not left

    def _give_up(self, claim: Claim, job: Job, *, begun: bool) -> None:
        try:
            if not begun or job.rerun_on_crash:
                self._ledger.release(claim, again=begun)
            else:
                self._ledger.finish(claim, State.INTERRUPTED, "the node was stopped")
        except LeaderJobsError as error:
            _log.warning("job %s: could not record that it was stopped: %s", claim.job, error)
        else:
            _log.warning("job %s (%s) was stopped before it ended", claim.job, claim.planned_at)

    def _dispatch(self, claim: Claim, job: Job, term: Term) -> None:
        try:
            self._threads.submit(self._execute, claim, job, term)
        except RuntimeError as error:
            if self._closed:  # the claim stays open for the next leader
                self._ledger.let_go(claim)
            else:  # it is queued all the same, and stays in hand until a thread is free for it
                _log.warning("job %s waits: no thread could be started (%s)", job.name, error)

    def _execute(self, claim: Claim, job: Job, term: Term) -> None:
        ran = False
        try:
            ran = self._begin(claim, job, term)
            if ran:
                self._end(claim, *self._body(claim, job, term))
        except Exception:  # noqa: BLE001  one run's trouble may not end the thread of all
            _log.exception("job %s (%s): not run as planned", claim.job, claim.planned_at)
        finally:
            self._go_on(claim, job, ran)

    def _go_on(self, claim: Claim, job: Job, ran: bool) -> None:
        """Let go of *claim*, which is dealt with, and start what waits behind it."""
        following = None
        with self._changed:
            self._ledger.let_go(claim)
            self._running.pop(claim, None)
            self._begun.discard(claim)
            self._changed.notify_all()
            queue = self._queues.get(job.name)
            if queue and queue[0][0] == claim:
                queue.popleft()
                following = queue[0] if queue else None
        if following is not None:
            self._dispatch(following[0], job, following[1])
        else:
            self._freed(job, ran)

    # -- one run ----------------------------------------------------------------------------------

    def _begin(self, claim: Claim, job: Job, term: Term) -> bool:
        """Record the start; True only if the body may start now, here, and nowhere else."""
        with self._changed:
            if claim in self._running:
                return False
            self._running[claim] = job  # from here on, for `drain` to wait for a start under way
        try:
            ours = self._record_start(claim, term)
        except Fenced:
            self._fenced(term)
            ours = None
        with self._changed:
            if ours and term.active and not self._closing.is_set():
                self._begun.add(claim)
                return True
        if ours is not False:
            # Perhaps recorded as started, certainly not started: whoever leads shall start it.
            self._insist(claim, lambda: self._ledger.release(claim))
        return False

    def _record_start(self, claim: Claim, term: Term) -> bool | None:
        """Say whether the run is ours; None if that is not known."""
        ours: bool | None = False
        while term.active and not self._closing.is_set():
            if not term.suspended:
                try:
                    return self._ledger.start(claim, term)
                except Fenced:
                    raise
                except StoreError as error:
                    if ours is not None:
                        _log.warning("job %s: its start is not recorded yet: %s", claim.job, error)
                    ours = None
            self._clock.wait(term.ended, _RETRY)
        return ours

    def _body(self, claim: Claim, job: Job, term: Term) -> tuple[State, str]:
        run = Run(
            election=term.election,
            job=claim.job,
            occurrence=claim.occurrence,
            planned_at=claim.planned_at,
            token=term.token,
            attempt=claim.attempt,
            lost=Lost(term),
        )
        try:
            with running(run), self._around():
                result = job.function()
                if inspect.iscoroutine(result):
                    self._run_async(result)
        except BaseException as error:  # noqa: BLE001  not even SystemExit may end a worker thread
            _log.exception("job %s (%s) failed", claim.job, claim.planned_at)
            return State.FAILED, "".join(traceback.format_exception_only(error))
        return State.SUCCEEDED, ""

    def _end(self, claim: Claim, state: State, reason: str) -> None:
        tried = False

        def record() -> None:
            nonlocal tried
            again, tried = tried, True
            # A try whose reply was lost has closed the run itself.
            if not self._ledger.finish(claim, state, reason) and not again:
                _log.warning(
                    "job %s (%s) %s, but its run had been closed as dead meanwhile",
                    claim.job,
                    claim.planned_at,
                    state,
                )

        self._insist(claim, record)

    def _insist(self, claim: Claim, record: Callable[[], object]) -> None:
        """Record something that is true whether or not the store is there to hear it."""
        warned = False
        while True:
            try:
                record()
            except LeaderJobsError as error:
                if not warned:
                    _log.warning("job %s: its record is behind: %s", claim.job, error)
                    warned = True
            else:
                return
            if self._clock.wait(self._abandoned, _INSIST_EVERY):
                return
