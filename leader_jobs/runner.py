"""
Runs the jobs of an election in this process while it leads.

A timer says when to look, the ledger says what is due, a pool of threads runs the bodies.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol

from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims
from leader_jobs.clock import Clock
from leader_jobs.exceptions import Fenced, StoreError
from leader_jobs.jobs import Job
from leader_jobs.ledger import Ledger
from leader_jobs.occurrences import CatchUp
from leader_jobs.orderbook import OrderBook
from leader_jobs.runpool import RunPool
from leader_jobs.term import Term
from leader_jobs.wallclock import WallClock

__all__ = ["LEAVE_WITHIN", "JobRunner", "Timer"]

_log = logging.getLogger(__name__)
#: Seconds that bodies under way get to finish before the term is given up by will.
LEAVE_WITHIN: Final = 2.0
_FINISH_WITHIN: Final = 1.0
_LOOK: Final = 0.2
_AT_LEAST_EVERY: Final = timedelta(seconds=1)
_SOON: Final = timedelta(seconds=0.2)


class Timer(Protocol):
    """What tells the runner that it is time to look."""

    def start(self, tick: Callable[[], None]) -> None:
        """Call *tick* now, on a thread of the timer's, and again as `wake_at` asks."""
        ...

    def wake_at(self, instant: datetime) -> None:
        """Tick at *instant*; the last call counts."""
        ...

    def stop(self) -> None:
        """Tick no more; returns without waiting for a tick that is under way."""
        ...


class JobRunner:
    """
    Runs the jobs of one election.

    Args:
        candidate: whose terms they are run under.
        ledger: the election's ledger, with the candidate's incarnation as its owner.
        jobs: the jobs to run.
        timer: makes a timer, one for each term.
        pool: makes the threads, given what to call when a job is free and when a start is refused.
        clock: where moments and instants come from.
        orders: what operators ordered.
    """

    def __init__(
        self,
        *,
        candidate: Candidate,
        ledger: Ledger,
        jobs: Iterable[Job],
        timer: Callable[[], Timer],
        pool: Callable[[Callable[[Job, bool], None], Callable[[Term], None]], RunPool],
        clock: Clock,
        orders: OrderBook | None = None,
    ) -> None:
        self._candidate = candidate
        self._ledger = ledger
        self._orders = orders
        self._jobs = {job.name: job for job in jobs}
        self._make_timer = timer
        self._pool = pool(self._freed, candidate.lose)
        self._clock = clock
        self._ticker: Ticker | None = None
        self._stopping = threading.Event()
        self._leaving = False
        self._turn = threading.Event()
        if orders is not None:
            orders.listen(self._ordered)

    @property
    def exit_status(self) -> int:
        """0: how single runs ended is in the ledger."""
        return 0

    def run(self, term: Term) -> bool:
        """
        Run what falls due until *term* ends or `stop` is called.

        Returns:
            True: there is always a next term to run.
        """
        self._leaving = False
        claims = Claims(
            self._ledger, term, self._jobs.values(), clock=self._clock, orders=self._orders
        )
        ticker = Ticker(
            term,
            claims=claims,
            timer=self._make_timer(),
            candidate=self._candidate,
            clock=self._clock,
            jobs=self._jobs,
            pool=self._pool,
        )
        self._ticker = ticker
        self._ledger.tally.turn(self._clock.now(), None)
        ticker.start()
        try:
            while term.active and not self._stopping.is_set() and not self._leaving:
                self._clock.wait(self._turn, min(_LOOK, term.remaining))
                self._turn.clear()
                ticker.watch_clock()
        finally:
            ticker.stop()
            self._ledger.tally.rest()
            self._pool.drop_waiting()
        if self._leaving and term.active and not self._stopping.is_set():
            self._pool.finish(_FINISH_WITHIN)
            self._candidate.resign()
        return True

    def leave(self) -> None:
        """
        Give up the term by will: start nothing more, and resign after a moment; returns at once.

        Bodies that end within a second are waited for; others are told (`current_run().lost`), go
        on, and are recorded when they end.
        """
        self._leaving = True
        self._turn.set()

    def stop(self, *, now: bool = False) -> None:
        """Start nothing more; with *now*, do not wait for what is running either."""
        self._stopping.set()
        self._turn.set()
        self._pool.stop(now=now)

    def drain(self, grace: float) -> bool:
        """Bring running bodies to an end, see `RunPool.drain`; call it while the term still holds."""
        return self._pool.drain(grace)

    def _ordered(self) -> None:
        """Go by what operators ordered just now."""
        if self._orders is not None and self._orders.is_paused():
            self._pool.drop_waiting()
        ticker = self._ticker
        if ticker is not None:
            ticker.look_soon()

    def _freed(self, job: Job, ran: bool) -> None:
        ticker = self._ticker
        if ticker is not None and (not ran or job.policy.catch_up is CatchUp.ALL):
            ticker.look_again(job.name)


class Ticker:
    """
    One term's ticks: each claims what is due and hands it to the pool.

    Args:
        term: ours.
        claims: decides and claims what is due.
        timer: calls `tick`.
        candidate: who is asked to verify the term after a clock jump, and told that it is lost.
        clock: where moments and instants come from.
        jobs: the jobs by name.
        pool: runs what was claimed.
    """

    def __init__(
        self,
        term: Term,
        *,
        claims: Claims,
        timer: Timer,
        candidate: Candidate,
        clock: Clock,
        jobs: dict[str, Job],
        pool: RunPool,
    ) -> None:
        self._term = term
        self._claims = claims
        self._timer = timer
        self._candidate = candidate
        self._clock = clock
        self._jobs = jobs
        self._pool = pool
        self._ticking = threading.Lock()
        self._asked = False
        self._stopped = False
        self._complaint = ""
        self._wall = WallClock(candidate, clock)

    def start(self) -> None:
        """Tick now, and then whenever something is due."""
        self._timer.start(self.tick)

    def stop(self) -> None:
        """Tick no more."""
        self._stopped = True
        self._timer.stop()

    def look_again(self, job: str) -> None:
        """Tick soon, for *job* may be run again."""
        self._claims.look_again(job)
        self.look_soon()

    def look_soon(self) -> None:
        """Tick soon, for something has changed."""
        self._asked = True
        # A tick under way looks at the flag when it ends.
        if not self._stopped and not self._ticking.locked():
            self._timer.wake_at(self._clock.utcnow())

    def watch_clock(self) -> None:
        """Tick at once if the wall clock has jumped: a timer set by it may have hours to go."""
        if self._wall.jumped and not self._stopped:
            self._timer.wake_at(self._clock.utcnow())

    def tick(self) -> None:
        """Claim what is due and hand it to the pool; of two calls at once, one does nothing."""
        if not self._ticking.acquire(blocking=False):
            return
        try:
            self._asked = False
            unsettled = self._claim()
        except Fenced:
            self._candidate.lose(self._term)
            return
        except StoreError as error:
            self._complain(f"nothing is started: the ledger can not be read ({error})")
            pause = _AT_LEAST_EVERY if error.lasting else _SOON
            self._timer.wake_at(self._clock.utcnow() + pause)
            return
        else:
            self._complaint = ""
        finally:
            self._ticking.release()
        if self._term.active and not self._stopped:
            self._timer.wake_at(self._next_look(unsettled=unsettled))

    def _complain(self, complaint: str) -> None:
        """Say what is the matter when it begins, not at every try."""
        level = logging.DEBUG if complaint == self._complaint else logging.WARNING
        self._complaint = complaint
        _log.log(level, complaint)

    def _claim(self) -> bool:
        """Claim and hand over; whether something is left to settle."""
        if self._stopped or not self._term.may_start or not self._wall.is_steady(self._claims):
            return True
        tick = self._claims.tick(self._clock.utcnow())
        for claim in tick.claims:
            self._pool.submit(claim, self._jobs[claim.job], self._term)
        return tick.unsettled

    def _next_look(self, *, unsettled: bool) -> datetime:
        now = self._clock.utcnow()
        if unsettled:
            return now + _SOON
        if self._asked:
            return now
        # Not later than in a second: the wall clock may be stepped while a timer waits.
        latest = now + _AT_LEAST_EVERY
        return min(self._claims.next_instant() or latest, latest)
