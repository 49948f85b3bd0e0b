"""
One term of a scheduler: what is due is claimed, handed to the executors, and shown in the job stores.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobExecutionEvent,
    JobSubmissionEvent,
    SchedulerEvent,
)
from apscheduler.schedulers.base import BaseScheduler

from leader_jobs.adapters.apscheduler_board import Board, Entry
from leader_jobs.adapters.apscheduler_django import Executions
from leader_jobs.adapters.apscheduler_nudges import Nudges
from leader_jobs.adapters.apscheduler_runs import Runs
from leader_jobs.adapters.apscheduler_shelf import Writer
from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims, Tick
from leader_jobs.clock import Clock
from leader_jobs.exceptions import LeaderJobsError
from leader_jobs.jobs import Job
from leader_jobs.ledger import Ledger, Versioned
from leader_jobs.occurrences import Reason
from leader_jobs.orderbook import OrderBook
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.term import Term
from leader_jobs.wallclock import WallClock

__all__ = ["SchedulerTerm"]

_log = logging.getLogger(__name__)
_AT_MOST: Final = 1.0
_SOON: Final = 0.2
#: Seconds between looks at job stores of which one does not answer, or changes under our hands.
_AGAIN: Final = 1.0


class SchedulerTerm:
    """
    Claims what is due during one term, and has it run.

    Args:
        term: ours.
        scheduler: whose jobs.
        candidate: asked to verify the term after a clock jump.
        ledger: the election's.
        runs: takes what was claimed.
        ours: the jobs made of ``@leader_only`` functions, by id.
        clock: where moments and instants come from.
        look_every: seconds between looks at shared job stores.
        max_burst: how many missed run times of a job are run at most.
        begin: writes what was held back for a job store, given by its alias, until somebody led.
        orders: what operators ordered.

    Raises:
        StoreError: the ledger can not be read.
    """

    def __init__(
        self,
        term: Term,
        *,
        scheduler: BaseScheduler,
        candidate: Candidate,
        ledger: Ledger,
        runs: Runs,
        ours: Mapping[str, Job],
        clock: Clock,
        look_every: float,
        max_burst: int,
        begin: Callable[[str], None],
        orders: OrderBook | None = None,
    ) -> None:
        self._term = term
        self._scheduler = scheduler
        self._runs = runs
        self._clock = clock
        self._look_every = look_every
        self._wall = WallClock(candidate, clock)
        self._ledger = ledger
        self._nudges = Nudges(ledger, clock=clock)
        self._nudges.came()
        self._board = Board(
            scheduler,
            writer=Writer(
                may_write=lambda: term.may_start,
                begin=begin,
                settle=Executions(ledger, clock=clock).settle,
            ),
            known=ledger.jobs(),
            ours=ours,
            max_burst=max_burst,
            clock=clock,
        )
        self._board.look()
        self._looked_at = clock.now()
        self._asked = False
        self._claims = Claims(ledger, term, self._board.planned(), clock=clock, orders=orders)
        self._names = self._board.names()
        self._retired = self._board.paused()
        self._finished: set[str] = set()
        self._unshown = set(self._names)
        self._forgettable = self._board.forgettable()
        self._forgotten = self._board.forgotten()

    def close(self) -> None:
        """Leave the job stores alone: the term is over."""
        self._board.close()

    def look_soon(self) -> None:
        """Have the next tick read the job stores again; any thread may ask."""
        self._asked = True

    def look_again(self, job: str) -> None:
        """Have the next tick ask the ledger about *job*, whether or not it is due; any thread may."""
        self._claims.look_again(job)

    def has_ended(self, job: str) -> bool:
        """Whether nothing more will ever be due of *job*; any thread may ask."""
        return job in self._finished

    def tick(self) -> float:
        """
        Have run what is due.

        Returns:
            Seconds until the next tick.

        Raises:
            Fenced: the term does not lead.
            StoreError: the ledger can not be read or written.
        """
        if not self._may_go_on():
            return _SOON
        self._look()
        now = self._clock.utcnow()
        due = [name for name in self._names if _is_due(self._claims.next_of(name), now)]
        if self._board.refresh(now, due):
            self._plan()
        tick = self._claims.tick(now)
        self._runs.put(tick.claims, self._term, self._board.__getitem__)
        self._runs.say(self._events(tick))
        if tick.claims or tick.passed:
            self._scheduler.wakeup()
        self._show(tick)
        return self._until_next(unsettled=tick.unsettled)

    # -- the jobs ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Read the job stores if they may have changed, and go by what is there."""
        if self._board.has_shared():
            pause = _AGAIN if self._board.unsettled() else self._look_every
            if self._nudges.came() or self._clock.now() >= self._looked_at + pause:
                self._asked = True
        if self._asked:
            self._asked = False  # before the look: who asks during it wants another one
            self._board.look()
            self._looked_at = self._clock.now()
            self._plan()
        if self._retired and self._claims.retire(self._retired):
            self._retired.clear()

    def _plan(self) -> None:
        """Go by what the board says now."""
        former, self._names = self._names, self._board.names()
        gone = former - self._names
        self._retired = (self._retired | gone | self._board.paused()) - self._finished
        self._retired -= {job.name for job in self._board.planned()}
        self._claims.plan(self._board.planned())
        self._unshown |= self._names
        self._forgotten |= self._forgettable & gone
        self._forgettable = self._board.forgettable()

    def _show(self, tick: Tick) -> None:
        """Have the job stores say when each job is next due, and forget those that are over."""
        self._unshown |= {claim.job for claim in tick.claims} | {name for name, _ in tick.passed}
        self._unshown = self._board.show(self._unshown, self._claims.next_of)
        self._finished |= self._claims.finished()
        # Not before its last run has ended: the next leader has to know what it was.
        self._finished = {name for name in self._finished if not self._goes_on(name)}
        over = {name for name in self._finished if self._is_over(name)}
        if over:
            # A successor shall see that it is over for good, should we not come to forget it.
            unmarked = over & self._forgettable
            if unmarked and not self._claims.retire(unmarked):
                over -= unmarked
            gone = self._board.remove(over)
            self._finished -= gone
            self._names -= gone
            self._claims.plan(self._board.planned())
            self._forgotten |= self._forgettable & gone
        if self._forgotten:  # a million one-shot jobs shall leave nothing behind
            self._forgotten -= self._claims.erase(self._forgotten)

    def _goes_on(self, name: str) -> bool:
        """Whether a job that was over was given another time."""
        entry, found = self._board[name], self._ledger.load((name,))[name]
        if entry is None or entry.planned is None or not isinstance(found, Versioned):
            return False
        record = found.record
        return record is None or entry.planned.schedule.next_after(record.cursor) is not None

    def _is_over(self, name: str) -> bool:
        """Whether nothing of a job is open, here or elsewhere, of which nothing more will be due."""
        found = self._ledger.load((name,))[name]
        record = found.record if isinstance(found, Versioned) else None
        return (record is None or not record.open) and not self._runs.holds(name)

    # -- what listeners hear ----------------------------------------------------------------------

    def _events(self, tick: Tick) -> Iterator[SchedulerEvent]:
        for name, entry in tick.passed:
            found = self._board[name]
            if found is not None:
                yield from _event(found, entry)

    # -- time -------------------------------------------------------------------------------------

    def _may_go_on(self) -> bool:
        return self._term.may_start and self._wall.is_steady(self._claims)

    def _until_next(self, *, unsettled: bool) -> float:
        if unsettled:
            return _SOON
        if self._board.busy:
            return 0.0
        now = self._clock.utcnow()
        # Not later than in a second: the wall clock may be stepped while we wait.
        at_most = self._nudges.look_in() if self._board.has_shared() else _AT_MOST
        instants = [
            i for i in (self._claims.next_instant(), self._held_until(now)) if i is not None
        ]
        left = (min(instants) - now) / timedelta(seconds=1) if instants else at_most
        return min(max(left, 0.0), at_most)

    def _held_until(self, now: datetime) -> datetime | None:
        """Return until when a claim is held back; it is the scheduler's to take from then on."""
        instant = self._runs.next_ready()
        if instant is not None and instant <= now:
            self._scheduler.wakeup()
            return None
        return instant


def _is_due(instant: datetime | None, now: datetime) -> bool:
    return instant is not None and instant <= now


def _event(found: Entry, entry: OccurrenceRecord) -> Iterator[SchedulerEvent]:
    """Yield what listeners hear of an occurrence that was closed without a run."""
    job, alias = found.job, found.alias
    if entry.reason == Reason.OVERLAP:
        _log.warning(
            'Execution of job "%s" skipped: a run of it is still alive, or about to begin', job
        )
        yield JobSubmissionEvent(EVENT_JOB_MAX_INSTANCES, job.id, alias, [entry.planned_at])
    elif entry.state is State.SKIPPED:
        _log.warning('Run time of job "%s" was missed (%s)', job, entry.reason)
        yield JobExecutionEvent(EVENT_JOB_MISSED, job.id, alias, entry.planned_at)
    elif entry.state is State.INTERRUPTED:
        error = LeaderJobsError(entry.reason)
        yield JobExecutionEvent(EVENT_JOB_ERROR, job.id, alias, entry.planned_at, exception=error)
