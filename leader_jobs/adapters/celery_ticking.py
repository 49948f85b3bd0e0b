"""
One term of beat: what is due is claimed, published and marked, a batch at a time.

While the broker is away nothing more is claimed: what was missed then is caught up on by each job's
own policy, and the batch in hand goes first. So it is for a single job whose messages the broker does
not take.
"""

import logging
from datetime import timedelta
from typing import Final

from leader_jobs.adapters.celery_entries import BeatJob
from leader_jobs.adapters.celery_outbox import Outbox
from leader_jobs.adapters.celery_publisher import NoMessage, Publisher
from leader_jobs.adapters.celery_timetable import Timetable
from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims
from leader_jobs.clock import Clock
from leader_jobs.dispatches import Dispatches
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.orderbook import OrderBook
from leader_jobs.term import Term
from leader_jobs.wallclock import WallClock

__all__ = ["BeatTerm"]

_log = logging.getLogger(__name__)
#: So many jobs are claimed in one go: the first message of a burst need not wait for all claims.
_BATCH: Final = 125
_AT_MOST: Final = 1.0
_SOON: Final = 0.2
#: Seconds from the beginning of a term to the second look at the schedule.
_SETTLED: Final = 1.0


class BeatTerm:
    """
    Publishes what is due during one term.

    Args:
        term: ours.
        candidate: asked to verify the term after a clock jump.
        ledger: the election's.
        timetable: what is to be sent.
        publisher: sends it.
        clock: where moments and instants come from.
        look_every: seconds between looks at a schedule that others may edit.
        orders: what operators ordered.
    """

    def __init__(
        self,
        term: Term,
        *,
        candidate: Candidate,
        ledger: Ledger,
        timetable: Timetable,
        publisher: Publisher,
        clock: Clock,
        look_every: float,
        orders: OrderBook | None = None,
    ) -> None:
        self._term = term
        self._timetable = timetable
        self._publisher = publisher
        self._clock = clock
        self._look_every = look_every
        # Soon: a new leader goes by what it finds at first.
        self._look_at = clock.now() + min(look_every, _SETTLED)
        self._looked_at = clock.utcnow()
        self._blind = False
        self._wall = WallClock(candidate, clock)
        self._jobs = {job.name: job for job in timetable.jobs()}
        self._claims = Claims(ledger, term, self._jobs.values(), clock=clock, orders=orders)
        self._dispatches = Dispatches(ledger, term, clock=clock)
        self._outbox = Outbox(
            term, ledger=ledger, dispatches=self._dispatches, publish=self._publish, clock=clock
        )
        self._held: frozenset[str] = frozenset()
        self._retired = set(timetable.switched_off()) - self._jobs.keys()
        self._finished: set[str] = set()

    def tick(self) -> float:
        """
        Publish what is due.

        Returns:
            Seconds until the next tick.

        Raises:
            Fenced: the term does not lead.
            StoreError: the ledger can not be read or written.
        """
        if not self._may_go_on():
            return _SOON
        self._look_at_schedule()
        recorded = self._dispatches.record()
        if not self._outbox.send():
            return self._outbox.pause
        self._hold_back()
        tick = self._claims.tick(self._clock.utcnow(), most=_BATCH)
        self._outbox.put(tick.claims)
        sent = self._outbox.send()
        self._close_books()
        if not sent:
            return self._outbox.pause
        if tick.more and not tick.unsettled:
            return 0.0
        return self._until_next(unsettled=tick.unsettled or not recorded)

    @property
    def stuck(self) -> bool:
        """Whether claims wait in hand because the broker is away."""
        return bool(self._outbox)

    def finish(self) -> None:
        """Bring the batch in hand to an end, as the term is going to be given up by will."""
        self._outbox.send()
        if self._term.active:
            self._dispatches.record()
            self._close_books(force=True)

    def drop(self) -> None:
        """Let go of everything, as the term is over."""
        self._outbox.drop()
        self._dispatches.drop()

    # -- the schedule -----------------------------------------------------------------------------

    def _look_at_schedule(self) -> None:
        if self._retired and self._claims.retire(self._retired):
            self._retired.clear()
        if self._clock.now() < self._look_at:
            return
        former, now = self._jobs, self._clock.utcnow()
        try:
            self._jobs = {job.name: job for job in self._timetable.jobs(since=self._looked_at)}
        except Exception as error:  # noqa: BLE001  its database may be away, and what was read is still good
            self._log_blindness(error)
            return
        finally:  # from its end, for it may have waited for long
            self._look_at = self._clock.now() + self._look_every
        self._log_blindness(None)
        self._looked_at = now
        self._retired |= former.keys() - self._jobs.keys()
        self._retired -= self._jobs.keys()
        self._plan()

    def _hold_back(self) -> None:
        """Claim nothing more of jobs whose messages the broker does not take."""
        if self._held != self._outbox.stuck:
            self._held = self._outbox.stuck
            self._plan()

    def _plan(self) -> None:
        self._claims.plan(job for name, job in self._jobs.items() if name not in self._held)

    def _log_blindness(self, error: Exception | None) -> None:
        """Say when the schedule can not be read, and when it can again."""
        was_blind, self._blind = self._blind, error is not None
        if error is not None:
            level = logging.DEBUG if was_blind else logging.WARNING
            _log.log(level, "the schedule can not be read; going on with what it was: %s", error)
        elif was_blind:
            _log.info("the schedule can be read again")

    def _close_books(self, *, force: bool = False) -> None:
        """Have what was sent written down, and what is finished switched off."""
        self._finished |= self._claims.finished()
        waiting = self._finished if self._outbox else self._finished & self._outbox.stuck
        over = [self._jobs[name] for name in self._finished - waiting if name in self._jobs]
        self._finished &= waiting
        self._timetable.finished(over)
        if self._blind and not force:
            return  # it would wait for what is away
        try:
            self._timetable.keep_books(force=force)
        except Exception:  # noqa: BLE001  its books are for people; the ledger is what counts
            _log.exception("what was sent could not be noted")

    # -- the batch in hand ------------------------------------------------------------------------

    def _publish(self, claim: Claim) -> None:
        job = self._jobs.get(claim.job)
        entry = self._timetable.entry(job) if job is not None else None
        if job is None or entry is None:
            msg = "the entry was removed before its message was sent"
            raise NoMessage(msg)
        self._publisher.publish(claim, job, entry)
        _log.info("sent %s (%s), due at %s", job.entry, job.task, claim.planned_at.isoformat())
        self._note(job)

    def _note(self, job: BeatJob) -> None:
        try:
            self._timetable.sent(job)
        except Exception:  # noqa: BLE001  its books are for people; the ledger is what counts
            _log.exception("entry %s was sent, and could not be noted as such", job.entry)

    # -- time -------------------------------------------------------------------------------------

    def _may_go_on(self) -> bool:
        return self._term.may_start and self._wall.is_steady(self._claims)

    def _until_next(self, *, unsettled: bool) -> float:
        if unsettled:
            return _SOON
        instant = self._claims.next_instant()
        if instant is None:
            return _AT_MOST
        # Not later than in a second: the wall clock may be stepped while we wait.
        left = (instant - self._clock.utcnow()) / timedelta(seconds=1)
        return min(max(left, 0.0), _AT_MOST)
