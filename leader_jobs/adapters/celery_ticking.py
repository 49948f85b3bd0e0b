"""
One term of beat: what is due is claimed, published and marked, a batch at a time.

While the broker is away nothing more is claimed: what was missed then is caught up on by each job's
own policy, and the batch in hand goes first.
"""

import logging
from collections import deque
from datetime import timedelta
from typing import Final

from leader_jobs.adapters.celery_entries import BeatJob
from leader_jobs.adapters.celery_publisher import BrokerTrouble, Publisher
from leader_jobs.adapters.celery_timetable import Timetable
from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims
from leader_jobs.clock import Clock
from leader_jobs.dispatches import Dispatches
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.term import Term
from leader_jobs.wallclock import WallClock

__all__ = ["BeatTerm"]

_log = logging.getLogger(__name__)
#: So many jobs are claimed in one go: the first message of a burst need not wait for all claims.
_BATCH: Final = 125
_AT_MOST: Final = 1.0
_SOON: Final = 0.2
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: Stopping while the broker is away, in seconds of trying: the next leader goes on with it.
_LAST_TRY: Final = 1.0


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
    ) -> None:
        self._term = term
        self._timetable = timetable
        self._publisher = publisher
        self._clock = clock
        self._look_every = look_every
        self._look_at = clock.now() + look_every
        self._wall = WallClock(candidate, clock)
        self._jobs = {job.name: job for job in timetable.jobs()}
        self._claims = Claims(ledger, term, self._jobs.values(), clock=clock)
        self._dispatches = Dispatches(ledger, term, clock=clock)
        self._ledger = ledger
        self._retired = set(timetable.switched_off())
        self._outbox: deque[Claim] = deque()
        self._pause = 0.0
        self._complaint = ""

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
        if self._outbox and not self._send():
            return self._pause
        tick = self._claims.tick(self._clock.utcnow(), most=_BATCH)
        self._outbox.extend(tick.claims)
        sent = self._send()
        self._timetable.keep_books()
        if not sent:
            return self._pause
        if tick.more:
            return 0.0
        return self._until_next(unsettled=tick.unsettled or not recorded)

    @property
    def stuck(self) -> bool:
        """Whether claims wait in hand because the broker does not take their messages."""
        return bool(self._outbox)

    def finish(self) -> None:
        """Bring the batch in hand to an end, as the term is going to be given up by will."""
        limit = self._clock.now() + _LAST_TRY
        while self._outbox and self._clock.now() < limit and self._term.may_start:
            if not self._send():
                break
        if self._term.active:
            self._dispatches.record()
            self._timetable.keep_books(force=True)

    def drop(self) -> None:
        """Let go of everything, as the term is over."""
        for claim in self._outbox:
            self._ledger.let_go(claim)
        self._outbox.clear()
        self._dispatches.drop()

    # -- the schedule -----------------------------------------------------------------------------

    def _look_at_schedule(self) -> None:
        if self._retired and self._claims.retire(self._retired):
            self._retired.clear()
        if self._clock.now() < self._look_at:
            return
        self._look_at = self._clock.now() + self._look_every
        former = self._jobs
        try:
            self._jobs = {job.name: job for job in self._timetable.jobs()}
        except Exception:  # noqa: BLE001  its database may be away, and what was read of it is still good
            _log.exception("the schedule can not be read; going on with what it was")
            return
        self._retired |= former.keys() - self._jobs.keys()
        self._retired -= self._jobs.keys()
        self._claims.plan(self._jobs.values())

    # -- the batch in hand ------------------------------------------------------------------------

    def _send(self) -> bool:
        """Publish what is in the outbox, and mark it; False if the broker is away."""
        troubles = 0
        for _ in range(len(self._outbox)):
            # Before every single message: a freeze may have cost us the term since the last one.
            if not self._term.may_start:
                break
            claim = self._outbox.popleft()
            trouble = self._publish(claim)
            if trouble is not None:
                self._outbox.append(claim)
                self._complain(f"a message is not sent, the broker is away: {trouble}")
                troubles += 1
                if troubles > 1:  # it is not the first one's queue that is the matter
                    break
            else:
                troubles = 0
        self._dispatches.record()
        if not self._outbox:
            self._pause = 0.0
            self._complaint = ""
            return True
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        return False

    def _publish(self, claim: Claim) -> BrokerTrouble | None:
        job = self._jobs.get(claim.job)
        entry = self._timetable.entry(job) if job is not None else None
        if job is None or entry is None:
            self._dispatches.refused(claim, "the entry was removed before its message was sent")
            return None
        try:
            self._publisher.publish(claim, job, entry)
        except BrokerTrouble as trouble:
            return trouble
        except Exception as error:  # noqa: BLE001  one bad entry may not hold up the others
            _log.exception("entry %s (%s) can not be sent", job.entry, claim.planned_at)
            self._dispatches.refused(claim, f"no message could be made: {error!r}")
            return None
        _log.info("sent %s (%s), due at %s", job.entry, job.task, claim.planned_at.isoformat())
        self._dispatches.sent(claim)
        self._note(job)
        return None

    def _note(self, job: BeatJob) -> None:
        try:
            self._timetable.sent(job)
        except Exception:  # noqa: BLE001  its books are for people; the ledger is what counts
            _log.exception("entry %s was sent, and could not be noted as such", job.entry)

    def _complain(self, complaint: str) -> None:
        """Say what is the matter when it begins, not at every try."""
        level = logging.DEBUG if complaint == self._complaint else logging.WARNING
        self._complaint = complaint
        _log.log(level, complaint)

    # -- time -------------------------------------------------------------------------------------

    def _may_go_on(self) -> bool:
        if not self._term.may_start:
            return False
        jump = self._wall.settle()
        if jump is not None and jump < 0:
            self._claims.look_at_all()
        return jump is not None

    def _until_next(self, *, unsettled: bool) -> float:
        if unsettled:
            return _SOON
        instant = self._claims.next_instant()
        if instant is None:
            return _AT_MOST
        # Not later than in a second: the wall clock may be stepped while we wait.
        left = (instant - self._clock.utcnow()) / timedelta(seconds=1)
        return min(max(left, 0.0), _AT_MOST)
