"""
Who may start: messages that carry a ticket are admitted to their occurrence's run, or turned away.

A broker may deliver a message several times, to several workers, and the leader may have sent it
again under the same id. All copies come here, and the version of the job's record in the ledger lets
one of them start. A message that was turned away wrongly is made good by the leader, who sees that
nobody started the occurrence; a start that is granted twice is made good by nobody. So whatever is
in doubt is not started.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from leader_jobs.batches import Change
from leader_jobs.clock import Clock
from leader_jobs.exceptions import Conflict, StoreError
from leader_jobs.ledger import Claim, Edit, Ledger, find_claimed
from leader_jobs.names import check_job
from leader_jobs.recorder import Recorder
from leader_jobs.records import (
    MOST_ATTEMPTS,
    JobRecord,
    OccurrenceRecord,
    State,
    UnreadableRecord,
    history_key,
)
from leader_jobs.restores import Notice
from leader_jobs.stores.base import Write
from leader_jobs.term import Term
from leader_jobs.tickets import Ticket
from leader_jobs.verdicts import Judge, Later, Message, Refused, Verdict

__all__ = ["Admissions", "Later", "Message", "Refused"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.2
_TRIES: Final = 3
_CALL: Final = 5.0
_SOON: Final = 1.0
_MUCH_LATER: Final = 5.0


@dataclass(slots=True)
class _Hold:
    """An occurrence in the hands of this process; *returning*: what becomes of it is not final."""

    retries: int
    returning: bool = False


class Admissions:
    """
    Admits messages, and records what becomes of the runs.

    Args:
        ledger: the election's ledger, of this process alone.
        clock: where moments and instants come from.
        start_within: seconds that `admit` may wait for a store that is away.
        record_within: seconds that the end of a run may wait for it; after that it is recorded
            behind the caller's back, for as long as the process lives.

    Each claim that `admit` returns is to be given to exactly one of `succeed`, `fail`, `interrupt`,
    `retry` and `hand_back`. None of them raises for a store that is away.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        clock: Clock,
        start_within: float = 10.0,
        record_within: float = 30.0,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._start_within = start_within
        self._recorder = Recorder(clock=clock, patience=record_within)
        self._notice = Notice(ledger.store, ledger.election, clock=clock)
        self._hands: dict[str, _Hold] = {}
        self._lock = threading.Lock()

    # -- before a run -----------------------------------------------------------------------------

    def admit(self, message: Message, term: Term) -> Claim:
        """
        Record that the body *message* asks for is about to start here.

        Args:
            message: what was delivered.
            term: a term of this process's presence: while it is active others see that it lives.

        Returns:
            The claim: this call, and no other anywhere, is to start the body, once, now.

        Raises:
            Refused: this message starts nothing.
            Later: it may start its occurrence later; give it back to the broker.
        """
        hearing = _Hearing(self._ledger, message, self._notice, self._clock)
        self._take(message)
        try:
            return hearing.conclude(term, self._start_within)
        except BaseException:
            self._turn_away(message, perhaps_started=hearing.perhaps_started)
            raise

    def _take(self, message: Message) -> None:
        """Take the occurrence into this process's hands, if it is not there yet."""
        with self._lock:
            hold = self._hands.get(message.id)
            if hold is None:
                self._hands[message.id] = _Hold(message.retries)
                return
            again = hold.returning or message.retries == hold.retries + 1
        if again:
            msg = "what became of it last is not recorded yet"
            raise Later(msg, delay=_SOON)
        msg = "it is in the hands of this process"
        raise Refused(msg)

    def _turn_away(self, message: Message, *, perhaps_started: bool) -> None:
        """Let go of an occurrence that is not started, after undoing a start that may stand."""
        if not perhaps_started:
            self._let_go(message.id)
            return
        with self._lock:
            self._hands[message.id].returning = True
        ticket = message.ticket

        def unstart(record: JobRecord) -> Edit:
            entry = record.find(ticket.sequence)
            if entry is None or entry.planned_at != ticket.planned_at:
                return None
            if entry.state is State.STARTED and entry.owner == self._ledger.owner:
                return record.with_open(entry.back()), ()
            # A start may still be on its way to the store: a new version refuses it.
            return replace(record), ()

        self._recorder.later(
            f"job {ticket.job}",
            lambda: self._ledger.change(ticket.job, unstart, None),
            lambda: self._let_go(message.id),
        )

    # -- after a run ------------------------------------------------------------------------------

    def succeed(self, claim: Claim, reason: str = "") -> None:
        """Record that the run of *claim* ended well."""
        self._close(claim, State.SUCCEEDED, reason)

    def fail(self, claim: Claim, reason: str) -> None:
        """Record that the body of *claim* failed."""
        self._close(claim, State.FAILED, reason)

    def interrupt(self, claim: Claim, reason: str, *, rerun: bool) -> None:
        """Record that the body of *claim* was stopped from outside, to be attempted again if *rerun*."""
        if rerun and claim.attempt < MOST_ATTEMPTS:
            self._return(claim, lambda: self._ledger.release(claim, again=True))
        else:
            self._close(claim, State.INTERRUPTED, reason)

    def retry(self, claim: Claim, due: datetime) -> None:
        """Record that the body of *claim* asked to be retried at *due*, by a message already sent."""

        def waiting(record: JobRecord) -> Edit:
            entry = find_claimed(record, claim)
            if entry is None or (entry.state, entry.owner) != (State.STARTED, self._ledger.owner):
                return None
            return record.with_open(entry.retried(claim.retries + 1, due)), ()

        self._return(claim, lambda: self._ledger.change(claim.job, waiting, None))

    def hand_back(self, claim: Claim) -> None:
        """Record that what was started for *claim* does not count; a message will ask for it again."""
        self._return(claim, lambda: self._ledger.release(claim))

    def close(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until everything is recorded; return whether it is."""
        return self._recorder.flush(timeout)

    def _close(self, claim: Claim, state: State, reason: str) -> None:
        self._record(claim, lambda: self._ledger.finish(claim, state, reason), state)

    def _return(self, claim: Claim, record: Callable[[], bool]) -> None:
        with self._lock:
            self._hands[claim.occurrence].returning = True
        self._record(claim, record, "is to be started again")

    def _record(self, claim: Claim, record: Callable[[], bool], what: str) -> None:
        tried = False

        def attempt() -> None:
            nonlocal tried
            again, tried = tried, True
            # A try whose reply was lost has changed the record itself.
            if not record() and not again:
                _log.warning(
                    "job %s (%s) %s, but its run had been taken for dead meanwhile",
                    claim.job,
                    claim.planned_at,
                    what,
                )

        self._recorder.record(f"job {claim.job}", attempt, lambda: self._let_go(claim.occurrence))

    def _let_go(self, occurrence: str) -> None:
        with self._lock:
            self._hands.pop(occurrence, None)

    def discard(self, ticket: Ticket, reason: str) -> None:
        """
        Record that no message will start the occurrence of *ticket*, if it is not started yet.

        Args:
            ticket: of a message that was thrown away, as all its copies will be.
            reason: why.
        """

        def closing(record: JobRecord) -> Edit:
            entry = record.find(ticket.sequence)
            if entry is None or entry.planned_at != ticket.planned_at:
                return None
            if entry.state not in (State.CLAIMED, State.DISPATCHED):
                return None
            closed = entry.closed(State.SKIPPED, self._clock.utcnow(), reason)
            return record.without(entry.sequence), (closed,)

        self._recorder.later(
            f"job {ticket.job}",
            lambda: self._ledger.change(ticket.job, closing, None),
            lambda: None,
        )

    # -- without a run ----------------------------------------------------------------------------

    def skip(self, job: str, reason: str, *, task: str = "") -> None:
        """
        Note in the history of *job* that a call without a ticket was not run.

        Args:
            job: the job's name; it need not be known to the ledger.
            reason: why it was not run.
            task: the name of what it runs, where that has one of its own.

        Raises:
            ConfigurationError: no job can have that name.
            StoreError: it is not known to be noted.
        """
        check_job(job)
        for _ in range(_TRIES):
            self._ledger.forget((job,))
            found = self._ledger.load((job,))[job]
            if isinstance(found, UnreadableRecord):
                return
            try:
                self._note(found.record or self._called(job, task), found.version, reason)
            except Conflict:
                continue
            return

    def _called(self, job: str, task: str) -> JobRecord:
        now = self._clock.utcnow()
        return JobRecord(job=job, schedule="", words="when called", cursor=now, task=task)

    def _note(self, record: JobRecord, version: int, reason: str) -> None:
        now = self._clock.utcnow()
        if self._count_in(record, reason, now):
            return
        entry = OccurrenceRecord(
            sequence=record.sequence,
            planned_at=now,
            state=State.SKIPPED,
            token=0,
            node=self._ledger.node,
            claimed_at=now,
        )
        change = Change(
            # The cursor stays: what is due by the schedule is due all the same.
            replace(record, sequence=record.sequence + 1),
            version,
            closed=[entry.closed(State.SKIPPED, now, reason)],
        )
        self._ledger.store.commit(
            self._ledger.election,
            change.writes(),
            candidacy=None,
            deadline=self._clock.now() + _CALL,
        )

    def _count_in(self, record: JobRecord, reason: str, now: datetime) -> bool:
        """Count one more into the newest entry of the history if that is the same: keep the others."""
        limit = self._clock.now() + _CALL
        key = history_key(record.job, record.sequence - 1)
        store, election = self._ledger.store, self._ledger.election
        row = store.read(election, key, deadline=limit).get(key)
        entry = None if row is None else OccurrenceRecord.decode(row.value)
        if row is None or entry is None or (entry.token, entry.state) != (0, State.SKIPPED):
            return False
        again = replace(
            entry.closed(State.SKIPPED, now, reason),
            planned_at=now,
            first=entry.first or entry.planned_at,
            count=entry.count + 1,
        )
        if again.reason != entry.reason or entry.sequence != record.sequence - 1:
            return False
        store.commit(
            election, [Write(key, again.encode(), row.version)], candidacy=None, deadline=limit
        )
        return True


class _Hearing:
    """
    The way of one message through the ledger.

    Attributes:
        perhaps_started: whether the ledger may say, or come to say, that the occurrence is started
            by this process.
    """

    def __init__(self, ledger: Ledger, message: Message, notice: Notice, clock: Clock) -> None:
        self._ledger = ledger
        self._message = message
        self._notice = notice
        self._clock = clock
        self._judge = Judge(
            message, node=ledger.node, owner=ledger.owner, living=self._ledger.living
        )
        self._verdict: Verdict | None = None
        self.perhaps_started = False

    def conclude(self, term: Term, within: float) -> Claim:
        """Return the claim if its start is recorded within so many seconds, and *term* is active."""
        limit = self._clock.now() + within
        in_doubt = False
        while True:
            try:
                outcome = self._ask()
            except UnreadableRecord as error:
                msg = f"the record of its job can not be read: {error}"
                raise Refused(msg) from None
            except StoreError as error:
                in_doubt = self.perhaps_started
                if error.lasting or self._clock.now() >= limit:
                    msg = f"the ledger can not be reached: {error}"
                    raise Later(msg, delay=_MUCH_LATER) from None
                self._clock.wait(threading.Event(), _RETRY)
            else:
                if not isinstance(outcome, Claim):
                    self.perhaps_started = in_doubt
                    raise outcome
                if not term.active:
                    msg = "the lease that shows that this process lives has lapsed"
                    raise Later(msg, delay=_SOON)
                return outcome

    def _ask(self) -> Claim | Refused | Later:
        """Have the ledger changed as is judged, and return what is the outcome."""
        ticket = self._message.ticket
        since = self._notice.since()
        if since is not None and ticket.planned_at < since:
            return Refused(f"the ledger was restored {since.isoformat()}: it may have run before")
        self._verdict = None
        self._ledger.forget((ticket.job,))
        stands = self._ledger.change(ticket.job, self._decide, None)
        verdict: Verdict | None = self._verdict
        outcome = verdict.outcome if verdict is not None else None
        if isinstance(outcome, Claim) and not stands:
            outcome = None  # the record was removed meanwhile
        return outcome if outcome is not None else self._explain(ticket)

    def _decide(self, record: JobRecord) -> Edit:
        verdict = self._judge.judge(record, self._clock.utcnow())
        if isinstance(verdict.outcome, Claim):
            self.perhaps_started = True
        self._verdict = verdict
        return verdict.change

    def _explain(self, ticket: Ticket) -> Refused:
        """Say what became of an occurrence that is not open."""
        key = history_key(ticket.job, ticket.sequence)
        rows = self._ledger.store.read(
            self._ledger.election, key, deadline=self._clock.now() + _CALL
        )
        entry = OccurrenceRecord.decode(rows[key].value) if key in rows else None
        if entry is None or entry.sequence < ticket.sequence:
            return Refused("it was never claimed", forged=True)
        if entry.sequence > ticket.sequence:
            return Refused("it was closed long ago")
        if entry.planned_at != ticket.planned_at:
            return Refused("the ledger has it otherwise", forged=True)
        why = f": {entry.reason}" if entry.reason else ""
        return Refused(f"it {entry.state} on node {entry.node}{why}")
