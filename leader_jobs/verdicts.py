"""
What is decided about a message that asks to start an occurrence, from the job's record alone.

Nothing is written here. A verdict says what is to be written, and what follows if it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from leader_jobs.exceptions import LeaderJobsError
from leader_jobs.ledger import Claim, Edit
from leader_jobs.occurrences import CatchUp, Policy, Reason
from leader_jobs.records import JobRecord, OccurrenceRecord, State
from leader_jobs.tickets import Ticket

__all__ = ["Judge", "Later", "Message", "Refused", "Verdict"]

_SOON: Final = 1.0
_AFTER_A_RUN: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """
    A message that asks to start an occurrence.

    Attributes:
        ticket: what it carries.
        id: its own id, the occurrence's.
        task: the name of what it asks to run.
        retries: how many times the body asked to be retried before, as the message has it.
        policy: what happens to occurrences that are late or overlap.
        rerun_on_crash: whether a run whose process died is attempted again.

    Raises:
        Refused: its ticket is of another occurrence.
    """

    ticket: Ticket
    id: str
    task: str
    retries: int
    policy: Policy
    rerun_on_crash: bool

    def __post_init__(self) -> None:
        if self.id != self.ticket.occurrence:
            msg = f"its ticket is of occurrence {self.ticket.occurrence}"
            raise Refused(msg, forged=True)


class Refused(LeaderJobsError):
    """
    This message starts nothing, now or later.

    Args:
        reason: why.
        forged: whether no leader can have sent it, as far as the ledger can tell.
    """

    def __init__(self, reason: str, *, forged: bool = False) -> None:
        super().__init__(reason)
        self.forged = forged


class Later(LeaderJobsError):
    """
    This message may start its occurrence later: give it back to the broker.

    Args:
        reason: why not now.
        delay: seconds after which it is worth another try.
    """

    def __init__(self, reason: str, *, delay: float) -> None:
        super().__init__(reason)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What is decided.

    Attributes:
        change: what to write, in the terms of `leader_jobs.ledger.Ledger.change`.
        outcome: what follows once that is written: a claim to start, or why not; None if the
            occurrence is not open, which the job's history may explain.
    """

    change: Edit
    outcome: Claim | Refused | Later | None


class Judge:
    """
    Decides about one message.

    Args:
        message: the message.
        node: this node's label.
        owner: the incarnation of this process. It has the message's occurrence in hand, so a run
            recorded as its own is one that it is about to start.
        living: returns the incarnations that are alive now; asked only when it matters, and anew
            for each record, because who started something after we asked is not dead.
    """

    def __init__(
        self, message: Message, *, node: str, owner: str, living: Callable[[], frozenset[str]]
    ) -> None:
        self._message = message
        self._node = node
        self._owner = owner
        self._ask_living = living

    def judge(self, record: JobRecord, now: datetime) -> Verdict:
        """
        Decide by the job's *record*, at *now*.

        Raises:
            StoreError: who is alive matters, and can not be found out.
        """
        entry = record.find(self._message.ticket.sequence)
        forged = self._mismatch(record, entry)
        if forged:
            return _refuse(forged, forged=True)
        if entry is None:
            return Verdict(None, None)
        if entry.state is State.STARTED:
            return self._judge_started(record, entry, now)
        if entry.retries != self._message.retries:
            return self._refuse_stale(entry)
        if self._is_late(entry, now):
            return _close(record, entry.closed(State.SKIPPED, now, Reason.WINDOW))
        return self._start(record, entry, now)

    def _mismatch(self, record: JobRecord, entry: OccurrenceRecord | None) -> str | None:
        """Say what the ledger has otherwise than the message, if no leader can have sent it."""
        message, ticket = self._message, self._message.ticket
        if record.task and record.task != message.task:
            return f"its job runs task {record.task}"
        if entry is not None and entry.planned_at != ticket.planned_at:
            return f"occurrence {entry.sequence} of its job is that of {entry.planned_at}"
        if entry is not None and entry.attempt < ticket.attempt:
            return f"there was no attempt {ticket.attempt}"
        return None

    def _judge_started(self, record: JobRecord, entry: OccurrenceRecord, now: datetime) -> Verdict:
        ahead = self._message.retries - entry.retries
        if entry.owner == self._owner and ahead == 0:
            # The reply to an earlier try was lost.
            return Verdict((record, ()), self._claim(entry))
        if entry.owner in self._living():
            if ahead == 1:  # a retry is sent before it is recorded
                reason = f"the run on node {entry.node} that asked for this retry has not ended"
                return Verdict(None, Later(reason, delay=_SOON))
            return _refuse(f"it runs on node {entry.node} since {entry.started_at}")
        if ahead not in (0, 1):
            return self._refuse_stale(entry)
        late = self._is_late(entry, now)
        why = entry.why_not_again(rerun=self._message.rerun_on_crash, late=late)
        if why is not None:
            return _close(record, entry.closed(State.INTERRUPTED, now, why))
        return self._start(record, replace(entry.again(), retries=self._message.retries), now)

    def _refuse_stale(self, entry: OccurrenceRecord) -> Verdict:
        return _refuse(f"it is of retry {self._message.retries}; retry {entry.retries} counts")

    def _start(self, record: JobRecord, entry: OccurrenceRecord, now: datetime) -> Verdict:
        policy = self._message.policy
        other = None if policy.overlap else self._other_run(record, entry)
        if other is None:
            started = entry.starting(
                token=entry.token,
                node=self._node,
                owner=self._owner,
                now=now,
            )
            return Verdict((record.with_open(started), ()), self._claim(started))
        if policy.catch_up is CatchUp.ALL or entry.attempt > 1:
            reason = f"the run of {other.planned_at} has not ended on node {other.node}"
            return Verdict(None, Later(reason, delay=_AFTER_A_RUN))
        return _close(record, entry.closed(State.SKIPPED, now, Reason.OVERLAP))

    def _other_run(self, record: JobRecord, entry: OccurrenceRecord) -> OccurrenceRecord | None:
        """Return another run of the job that is alive."""
        others = [
            other
            for other in record.open
            if other.sequence != entry.sequence and other.state is State.STARTED
        ]
        living = self._living() if others else frozenset()
        return next((other for other in others if other.owner in living), None)

    def _living(self) -> frozenset[str]:
        return self._ask_living() | {self._owner}

    def _is_late(self, entry: OccurrenceRecord, now: datetime) -> bool:
        window = self._message.policy.window
        # A body that was in time may be retried for as long as it asks for.
        return window is not None and not entry.retries and now - entry.planned_at > window

    def _claim(self, entry: OccurrenceRecord) -> Claim:
        return Claim(
            job=self._message.ticket.job,
            occurrence=self._message.id,
            planned_at=entry.planned_at,
            sequence=entry.sequence,
            attempt=entry.attempt,
            token=entry.token,
            retries=entry.retries,
        )


def _refuse(reason: str, *, forged: bool = False) -> Verdict:
    return Verdict(None, Refused(reason, forged=forged))


def _close(record: JobRecord, closed: OccurrenceRecord) -> Verdict:
    """Close the occurrence, and say how to whoever asked to start it."""
    reason = f"it is {closed.state} ({closed.reason})"
    return Verdict((record.without(closed.sequence), (closed,)), Refused(reason))
