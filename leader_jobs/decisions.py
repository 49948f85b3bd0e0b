"""
What is decided about one job in one tick: about what is open, about what was missed, what is due.

A decision is made from the job's record alone, and from who is alive; nothing is written here.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple

from leader_jobs.batches import Change
from leader_jobs.ledger import Ledger, Versioned
from leader_jobs.occurrences import Passed, Plan, Reason, next_due, passed_before, plan
from leader_jobs.orders import Request
from leader_jobs.planned import PlannedJob
from leader_jobs.records import JobRecord, OccurrenceRecord, State
from leader_jobs.schedules import Schedule

__all__ = ["Decider", "Decision", "Recheck", "Start"]

_log = logging.getLogger(__name__)
_TOO_LATE: Final = "window"
_AHEAD: Final = timedelta(seconds=1)
_MICRO: Final = timedelta(microseconds=1)
#: How many occurrences of one job may be open, so that all of them can be closed in one commit.
_MOST_OPEN: Final = 100
#: After so long a message that nobody took may be lost: the occurrence is dispatched once more, under
#: its own id. Each copy doubles the wait, so that a long queue is not flooded.
_PATIENCE: Final = timedelta(seconds=60)
_MOST_PATIENCE: Final = timedelta(hours=1)
_MOST_DOUBLINGS: Final = 6
#: What stands for the schedule of a job that ran the one time it had to.
_DONE: Final = "done:"


class Recheck(IntEnum):
    """How soon a job's record, which other processes may change, is worth another look."""

    NEVER = 0
    LATER = 1
    SOON = 2


class Start(NamedTuple):
    """An open occurrence that is to be started: its number, instant, attempt and retries so far."""

    sequence: int
    planned_at: datetime
    attempt: int = 1
    retries: int = 0


@dataclass(slots=True)
class Decision(Change):
    """
    What is to change about one job in one tick.

    Attributes:
        job: the job.
        now: the instant of the decision.
        claims: what is to be started.
        changed: whether there is anything to write.
        recheck: how soon to look again, because of what others may do meanwhile.
        due: the next planned instant that is not accounted for.
        asked: the instant that an operator's request to run the job now was given.
        refused: why such a request is not obeyed.
    """

    job: PlannedJob = field(kw_only=True)
    now: datetime = field(kw_only=True)
    claims: list[Start] = field(default_factory=list)
    changed: bool = False
    recheck: Recheck = Recheck.NEVER
    due: datetime | None = None
    asked: datetime | None = None
    refused: str = ""

    @property
    def done(self) -> bool:
        """Whether the job is to be run once, and was."""
        return self.record.schedule.startswith(_DONE)

    def close(self, entry: OccurrenceRecord) -> None:
        """Move *entry* to the job's history."""
        self.record = self.record.without(entry.sequence)
        self.closed.append(entry)
        self.changed = True

    def claim(self, entry: OccurrenceRecord) -> None:
        """Have the open occurrence *entry* started."""
        self.claims.append(Start(entry.sequence, entry.planned_at, entry.attempt, entry.retries))

    def look_again(self, recheck: Recheck) -> None:
        """Ask for another look, no later than asked for before."""
        self.recheck = max(self.recheck, recheck)


class Decider:
    """
    Decides about jobs, one at a time, during one term.

    Args:
        ledger: whose label decisions carry, and which knows what is in this process's hands.
        token: the term's.
        living: returns the incarnations that are alive; asked only when it matters.
    """

    def __init__(self, ledger: Ledger, token: int, *, living: Callable[[], frozenset[str]]) -> None:
        self._ledger = ledger
        self._token = token
        self._living = living
        self._warned: set[str] = set()

    def decide(
        self,
        job: PlannedJob,
        found: Versioned,
        now: datetime,
        *,
        request: Request | None = None,
        paused: bool = False,
        since: datetime | None = None,
    ) -> Decision:
        """
        Return what is to change about *job*, whose record was *found*, at *now*.

        Args:
            job: the job.
            found: its record.
            now: the present instant.
            request: an operator's, to run it now.
            paused: whether its schedule is paused: then it is run only on request.
            since: from when on the ledger can be gone by, if it was restored: nothing is run that was
                planned before.
        """
        record = _record(job, found.record, now)
        decision = Decision(
            record, found.version, job=job, now=now, changed=record is not found.record
        )
        if since is not None:
            self._close_restored(decision, since)
        if not paused:
            self._recover_all(decision)
            self._plan(decision)
            if job.guarded and not job.policy.overlap:
                self._one_at_a_time(decision)
        if request is not None:
            self._run_now(decision, request)
        if job.guarded and decision.record.open:
            decision.look_again(Recheck.LATER)  # others start and end what is open
        decision.due = None if decision.done else next_due(job.schedule, decision.record.cursor)
        if decision.changed:
            decision.record = replace(decision.record, due=decision.due)
        return decision

    # -- what is open -----------------------------------------------------------------------------

    def _close_restored(self, decision: Decision, since: datetime) -> None:
        """Close what was planned before *since*: whether it ran is not in a restored ledger."""
        job, now = decision.job, decision.now
        for entry in decision.record.open:
            if entry.planned_at < since and not self._ledger.holds(job.name, entry):
                ran = entry.state is State.STARTED
                state = State.INTERRUPTED if ran else State.SKIPPED
                decision.close(entry.closed(state, now, Reason.RESTORED))
        if decision.done:
            return
        passed = passed_before(job.schedule, decision.record.cursor, since)
        if passed is not None:
            self._pass_over(decision, passed)

    def _recover_all(self, decision: Decision) -> None:
        """Decide about the open occurrences that are not in the hands of this process."""
        job = decision.job
        loose = [e for e in decision.record.open if not self._ledger.holds(job.name, e)]
        others: list[OccurrenceRecord] = []
        busy = False
        for entry in loose:
            if entry.state is State.DISPATCHED:
                busy = self._wait_for(decision, entry) or busy
            elif self._runs_elsewhere(entry):
                busy = True
                if job.rerun_on_crash or not job.guarded:
                    decision.look_again(Recheck.SOON)
            else:
                others.append(entry)
        if busy and not job.policy.overlap:
            if others:  # what else is open has to wait for the end of that run
                decision.look_again(Recheck.SOON)
            return
        for entry in others:
            self._recover(decision, entry)

    def _recover(self, decision: Decision, entry: OccurrenceRecord) -> None:
        """Decide about an open occurrence that nobody works on."""
        job, now = decision.job, decision.now
        late = _is_late(job, entry, now)
        if entry.state is State.CLAIMED:
            if late:
                decision.close(entry.closed(State.SKIPPED, now, _TOO_LATE))
            else:
                decision.claim(entry)
            return
        why = entry.why_not_again(rerun=job.rerun_on_crash, late=late)
        if why is not None:
            decision.close(entry.closed(State.INTERRUPTED, now, why))
            return
        again = replace(entry.again(), token=self._token)
        decision.record = decision.record.with_open(again)
        decision.claim(again)
        decision.changed = True

    def _wait_for(self, decision: Decision, entry: OccurrenceRecord) -> bool:
        """Decide about an occurrence whose message nobody took yet; whether it may still start."""
        job, now = decision.job, decision.now
        if not job.guarded:
            return False  # that it was dispatched is all there is to know
        if _is_late(job, entry, now):
            decision.close(entry.closed(State.SKIPPED, now, _TOO_LATE))
            return False
        if entry.dispatched_at is None or now - entry.dispatched_at >= _patience(entry):
            decision.claim(entry)
        return True

    def _runs_elsewhere(self, entry: OccurrenceRecord) -> bool:
        if entry.state is not State.STARTED or entry.owner == self._ledger.owner:
            return False
        return entry.owner in self._living()

    # -- what is due ------------------------------------------------------------------------------

    def _plan(self, decision: Decision) -> None:
        record, job, now = decision.record, decision.job, decision.now
        if record.schedule.startswith(_DONE):
            return
        self._warn_of_the_future(record, now)
        room = _MOST_OPEN - sum(not _is_settled(job, entry) for entry in record.open)
        if room <= 0:
            decision.look_again(Recheck.SOON)
            return  # what is due stays due; bodies that never end may not fill the store
        policy = job.policy
        if room < policy.max_burst:
            policy = replace(policy, max_burst=room)
        busy = self._is_busy(decision)
        planned = plan(job.schedule, policy, cursor=record.cursor, now=now, busy=busy)
        if busy and job.guarded and job.schedule.latest_until(now, after=planned.cursor):
            decision.look_again(Recheck.SOON)  # it was put off until a run ends elsewhere
        self._carry_out(decision, planned)

    def _carry_out(self, decision: Decision, planned: Plan) -> None:
        """Have the record account for everything that came due."""
        job, now = decision.job, decision.now
        run = planned.run[:1] if job.once else planned.run
        if run:
            self._close_settled(decision)
        for passed in planned.passed:
            self._pass_over(decision, passed)
        record = decision.record
        token, node = self._token, self._ledger.node
        for instant in run:
            decision.claims.append(Start(record.sequence, instant))
            record = record.claim(instant, token=token, node=node, now=now)
        if run and job.once:
            record = replace(record, schedule=f"{_DONE}{record.schedule}")
        decision.changed = decision.changed or record is not decision.record
        decision.record = record

    def _pass_over(self, decision: Decision, passed: Passed) -> None:
        """Have the record account for a range that is not run."""
        decision.record, entry = decision.record.pass_over(
            passed, token=self._token, node=self._ledger.node, now=decision.now
        )
        decision.closed.append(entry)
        decision.changed = True

    def _is_busy(self, decision: Decision) -> bool:
        """Whether a run of the job is alive, or an occurrence waits to be started."""
        # What was recovered just now waits to be started, and what was missed waits behind it. What
        # is dispatched once more does not count as recovered: a worker may start it any moment.
        recovered = {start.sequence for start in decision.claims}
        return any(
            not _is_settled(decision.job, entry)
            and (entry.state is State.DISPATCHED or entry.sequence not in recovered)
            for entry in decision.record.open
        )

    def _close_settled(self, decision: Decision) -> None:
        """Let go of what was dispatched to others that do not say what became of it."""
        for entry in decision.record.open:
            if _is_settled(decision.job, entry):
                decision.close(replace(entry, ended_at=entry.dispatched_at))

    def _run_now(self, decision: Decision, request: Request) -> None:
        """Claim an occurrence beside those of the schedule, unless a run is in its way."""
        decision.changed = True  # if only by the answer
        job, now = decision.job, decision.now
        self._close_settled(decision)
        record = decision.record
        if record.open and not job.policy.overlap:
            other = record.open[0]
            since = other.started_at or other.claimed_at
            decision.refused = (
                f"the occurrence of {other.planned_at.isoformat()} is {other.state} on node "
                f"{other.node} since {since.isoformat()}, and runs of the job may not overlap"
            )
        elif len(record.open) >= _MOST_OPEN:
            decision.refused = f"{len(record.open)} occurrences of the job are open already"
        else:
            instant = _free_instant(record, job.schedule, now)
            decision.claims.append(Start(record.sequence, instant))
            decision.asked = instant
            decision.record = record.claim_beside(
                instant,
                token=self._token,
                node=self._ledger.node,
                now=now,
                asked_by=request.by,
            )

    def _one_at_a_time(self, decision: Decision) -> None:
        """Have no more than the first claim dispatched: the next one waits for its end."""
        first = next(iter(decision.record.open), None)
        kept = [c for c in decision.claims if first is not None and c.sequence == first.sequence]
        if len(kept) < len(decision.claims):
            decision.look_again(Recheck.SOON)
        decision.claims = kept

    def _warn_of_the_future(self, record: JobRecord, now: datetime) -> None:
        if record.cursor - now > _AHEAD and record.job not in self._warned:
            self._warned.add(record.job)
            _log.warning(
                "job %s is accounted for until %s, %.0f s ahead of this node's clock: a clock was or "
                "is wrong; it is not due before that again",
                record.job,
                record.cursor.isoformat(),
                (record.cursor - now).total_seconds(),
            )


def _record(job: PlannedJob, record: JobRecord | None, now: datetime) -> JobRecord:
    """Return the job's record as its present schedule has it."""
    fingerprint = job.schedule.fingerprint
    known = (fingerprint, f"{_DONE}{fingerprint}") if job.once else (fingerprint,)
    if record is not None and record.schedule in known:
        cursor = max(record.cursor, job.not_before or record.cursor)
        if (cursor, job.task) == (record.cursor, record.task):
            return record
        return replace(record, cursor=cursor, task=job.task)
    # A new or changed schedule starts from now: it never fires for the past, nor at once.
    begin = now if job.since is None else min(now, job.since)
    words = job.schedule.describe()
    if record is None:
        return JobRecord(
            job=job.name, schedule=fingerprint, words=words, cursor=begin, task=job.task
        )
    cursor = max(begin, record.cursor)
    return replace(record, schedule=fingerprint, words=words, cursor=cursor, task=job.task)


def _free_instant(record: JobRecord, schedule: Schedule, instant: datetime) -> datetime:
    """Return the first instant from *instant* on that is no other occurrence's identity."""
    taken = {entry.planned_at for entry in record.open}
    while instant in taken or schedule.latest_until(instant, after=instant - _MICRO) is not None:
        instant += _MICRO
    return instant


def _is_late(job: PlannedJob, entry: OccurrenceRecord, now: datetime) -> bool:
    window = job.policy.window
    # A body that was in time may be retried for as long as it asks for.
    return window is not None and not entry.retries and now - entry.planned_at > window


def _is_settled(job: PlannedJob, entry: OccurrenceRecord) -> bool:
    """Whether nothing more will ever be known of an open occurrence."""
    return entry.state is State.DISPATCHED and not job.guarded


def _patience(entry: OccurrenceRecord) -> timedelta:
    """Return how long the message for *entry* is waited for."""
    if entry.retries:  # ours would have the entry's arguments, and the retry may have had others
        return _MOST_PATIENCE
    copies = entry.copies
    doublings = min(max(copies - 1, 0), _MOST_DOUBLINGS)
    return min(_PATIENCE * (1 << doublings), _MOST_PATIENCE)
