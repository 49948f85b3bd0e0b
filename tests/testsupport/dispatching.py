"""
Beats, a broker and workers in one process, moved by hand, and what they must never do.

Each step of a beat (claim, publish, mark) and of a worker (start, end) is one call, so that a crash
can come between any two of them. The ledger, the claims and the store are the real ones.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from leader_jobs.claims import Claims
from leader_jobs.dispatches import Dispatches
from leader_jobs.exceptions import CandidacyLost, Fenced, StoreError, StoreUnavailable
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import occurrence_id
from leader_jobs.planned import PlannedJob
from leader_jobs.records import JOBS_PREFIX, JobRecord, OccurrenceRecord, State
from leader_jobs.schedules import Schedule
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.fleet import Commit
from testsupport.ledgers import LedgerNode, Worker
from testsupport.place import ELECTION
from testsupport.promises import check_accounting, closed_by

__all__ = ["Beat", "Broker", "DispatchPromises", "Hand", "Message"]

_IN_FLIGHT = (State.DISPATCHED, State.STARTED)
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_ENDS = (State.SUCCEEDED, State.FAILED)


@dataclass(frozen=True)
class Message:
    """What a broker keeps: whose occurrence it starts, and the moment before which it waits."""

    claim: Claim
    not_before: float = 0.0


class Broker:
    """Keeps messages until a worker takes them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        #: How many messages beats have sent for each occurrence.
        self.sent: Counter[tuple[str, datetime]] = Counter()
        #: The occurrences of which a start was called back: they may be sent again at once.
        self.called_back: set[tuple[str, datetime]] = set()
        self._ids: dict[tuple[str, datetime], tuple[str, int]] = {}

    def put(self, message: Message) -> None:
        """Keep a message, which is for the same occurrence as all of its id."""
        claim = message.claim
        this = claim.job, claim.planned_at
        assert claim.occurrence == occurrence_id(ELECTION, *this)
        assert self._ids.setdefault(this, (claim.occurrence, claim.sequence)) == (
            claim.occurrence,
            claim.sequence,
        ), f"{this} has two ids"
        self.messages.append(message)


class Beat(LedgerNode):
    """A node that stands in the election and, leading, has occurrences dispatched."""

    def __init__(
        self, name: str, store: MemoryStore, clock: ManualClock, jobs: Sequence[PlannedJob]
    ) -> None:
        super().__init__(name, store, clock)
        self.jobs = tuple(jobs)
        self.off: frozenset[str] = frozenset()
        self.outbox: deque[Claim] = deque()
        self._leading: tuple[Claims, Dispatches] | None = None
        self._sent_at: dict[tuple[str, datetime, int, int], datetime] = {}

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self._leading is not None

    def mind(self) -> None:
        """Stand, and begin a term when it is our turn."""
        with suppress(StoreUnavailable):
            try:
                standing = self.store.standing(self.candidacy, deadline=self.clock.now() + 1)
            except CandidacyLost:
                if not self.leads:  # else it learns of it by being fenced
                    self.stand()
                return
            if standing.leads and not self.leads:
                term = self.term()
                claims = Claims(self.ledger, term, self._wanted(), clock=self.clock)
                self._leading = claims, Dispatches(self.ledger, term, clock=self.clock)

    def lose(self) -> None:
        """Let go of everything, as the term is over."""
        if self._leading is not None:
            self._leading[1].drop()
        for claim in self.outbox:
            self.ledger.let_go(claim)
        self.outbox.clear()
        self._sent_at.clear()
        self._leading = None

    def claim(self, broker: Broker, most: int | None = None) -> None:
        """Claim what is due."""
        if self._leading is None:
            return
        with self._led():
            for claim in self._leading[0].tick(self.clock.utcnow(), most=most).claims:
                self._check_patience(claim, broker)
                self.outbox.append(claim)

    def _check_patience(self, claim: Claim, broker: Broker) -> None:
        """Check that what was sent in this term is not sent again within a minute."""
        sent_at = self._sent_at.get(_message_of(claim))
        assert (
            sent_at is None
            or self.clock.utcnow() - sent_at >= timedelta(seconds=60)
            or (claim.job, claim.planned_at) in broker.called_back
        ), f"{claim} is sent again"

    def publish(self, broker: Broker, *, refused: bool = False) -> None:
        """Send the next message, or find that there can be none."""
        if self._leading is None or not self.outbox:
            return
        claim = self.outbox.popleft()
        if refused:
            self._leading[1].refused(claim, "no message could be made")
            return
        self._sent_at[_message_of(claim)] = self.clock.utcnow()
        broker.sent[claim.job, claim.planned_at] += 1
        broker.put(Message(claim))
        self._leading[1].sent(claim)

    def mark(self) -> None:
        """Record what was sent."""
        if self._leading is not None:
            with self._led():
                self._leading[1].record()

    def switch(self, jobs: Iterable[PlannedJob], off: Iterable[str]) -> None:
        """Go by other jobs, some of which are switched off."""
        self.jobs, self.off = tuple(jobs), frozenset(off)
        if self._leading is not None:
            self._leading[0].plan(self._wanted())
            with self._led():
                self._leading[0].retire(self.off)

    def work(self, broker: Broker) -> None:
        """Do all there is to do now."""
        self.mind()
        self.mark()
        self.claim(broker)
        while self.outbox and self.leads:
            self.publish(broker)
        self.mark()

    def _wanted(self) -> list[PlannedJob]:
        return [job for job in self.jobs if job.name not in self.off]

    def _led(self) -> "_Led":
        return _Led(self)


class _Led:
    """What a leader makes of troubles with the store."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        if kind is not None and issubclass(kind, Fenced):
            self._beat.lose()
        return kind is not None and issubclass(kind, StoreError)


class Hand(Worker):
    """A worker that runs bodies until it is told that they end."""

    def __init__(
        self, name: str, store: MemoryStore, clock: ManualClock, promises: "DispatchPromises"
    ) -> None:
        super().__init__(name, store, clock)
        self._promises = promises
        self.bodies: list[Claim] = []
        #: Starts of which it is not known whether they were recorded.
        self.in_doubt: list[Claim] = []

    def take(self, message: Message, broker: Broker) -> None:
        """Start what a message asks for, if the ledger admits it."""
        claim = message.claim
        in_hand = {each.occurrence for each in (*self.bodies, *self.in_doubt)}
        if not self._promises.jobs[claim.job].guarded or claim.occurrence in in_hand:
            return  # a copy, perhaps of another term: what is in doubt must not be started by it
        try:
            admitted = self.starts(claim)
        except StoreUnavailable:
            self.in_doubt.append(claim)
        else:
            if admitted:
                self._promises.begins(self.name, claim)
                self.bodies.append(claim)
        self.settle(broker)

    def settle(self, broker: Broker) -> None:
        """Call back what is in doubt, and give its message back to the broker."""
        for claim in tuple(self.in_doubt):
            broker.called_back.add((claim.job, claim.planned_at))
            with suppress(StoreUnavailable):
                self.ledger.release(claim)
                self.in_doubt.remove(claim)
                broker.put(Message(claim))

    def end(self, claim: Claim, how: str, broker: Broker) -> None:
        """Have the body of *claim* end well, badly, by asking for a retry or for another attempt."""
        try:
            if how == "retry":
                broker.put(Message(replace(claim, retries=claim.retries + 1), self.clock.now() + 5))
                self.retries(claim, self.clock.utcnow() + timedelta(seconds=5))
            elif how == "again" and self._promises.jobs[claim.job].rerun_on_crash:
                self.ledger.release(claim, again=True)
            else:
                self.ends(claim, State.FAILED if how == "fail" else State.SUCCEEDED)
        except StoreUnavailable:
            return  # it is tried again with the next call
        self.bodies.remove(claim)

    def lapse(self) -> None:
        """Be taken for dead, although it goes on running."""
        self._promises.lapsed.add(self.name)
        self.dies()


class DispatchPromises:
    """
    What no commit and no body may ever do.

    Args:
        jobs: the jobs by name.
        schedules: all schedules they ever have, by fingerprint.
        broker: which knows how many messages were sent.
        most_open: how many occurrences of a job may be open.

    Attributes:
        records: the record of each job as it stands in the store.
        lapsed: the workers that were ever taken for dead.
    """

    def __init__(
        self,
        jobs: Mapping[str, PlannedJob],
        schedules: Mapping[str, Schedule],
        broker: Broker,
        most_open: int,
    ) -> None:
        self.jobs = jobs
        self.records: dict[str, JobRecord] = {}
        self.lapsed: set[str] = set()
        self._schedules = schedules
        self._broker = broker
        self._most_open = most_open
        self._claimed: set[tuple[str, datetime]] = set()
        self._begun: set[tuple[str, datetime, int, int]] = set()
        self._once: Counter[str] = Counter()

    def begins(self, worker: str, claim: Claim) -> None:
        """Check a body that begins: once for each occurrence, attempt and retry."""
        this = _message_of(claim)
        assert this not in self._begun, f"{worker} starts {claim} again"
        self._begun.add(this)

    def seen(self, commit: Commit) -> None:
        """Check a commit."""
        for key, row in commit.after.items():
            if key.startswith(JOBS_PREFIX) and commit.before.get(key) != row:
                new = JobRecord.decode(row.value)
                old, self.records[new.job] = self.records.get(new.job), new
                self._check_job(old, new, closed_by(commit, new.job))

    def _check_job(
        self, old: JobRecord | None, new: JobRecord, closed: Mapping[int, OccurrenceRecord]
    ) -> None:
        job = self.jobs[new.job]
        known = {entry.sequence: entry for entry in old.open} if old else {}
        added = [entry for entry in new.open if entry.sequence not in known]
        if old is not None and _fingerprint(old) == _fingerprint(new) != "":
            passed = [entry for number, entry in closed.items() if number not in known]
            check_accounting(self._schedules[_fingerprint(new)], old, new, added, passed)
        for entry in added:
            assert entry.state is State.CLAIMED
            assert (new.job, entry.planned_at) not in self._claimed, "an occurrence claimed twice"
            self._claimed.add((new.job, entry.planned_at))
        for number, before in known.items():
            after = closed.get(number) or new.find(number)
            assert after is not None, f"occurrence {number} of {new.job} has vanished"
            assert (number in closed) == (new.find(number) is None), f"{number} closed and open"
            self._check_entry(job, before, after)
        self._check_whole(job, new, added)

    def _check_whole(
        self, job: PlannedJob, record: JobRecord, added: Sequence[OccurrenceRecord]
    ) -> None:
        assert len(record.open) <= self._most_open, f"{len(record.open)} of {job.name} are open"
        if job.guarded and not job.policy.overlap:
            flying = [entry for entry in record.open if entry.state in _IN_FLIGHT]
            assert len(flying) <= 1, f"several are in flight: {flying}"
            assert not flying or flying[0] is record.open[0], f"{flying[0]} has overtaken"
        if job.once:
            if not record.schedule:
                self._once[job.name] = 0
            self._once[job.name] += len(added)
            assert self._once[job.name] <= 1, f"{job.name} is for once"

    def _check_entry(self, job: PlannedJob, old: OccurrenceRecord, new: OccurrenceRecord) -> None:
        """Check the step one open occurrence took."""
        again, retried = new.attempt - old.attempt, new.retries - old.retries
        sent = self._broker.sent[job.name, old.planned_at]
        assert new.planned_at == old.planned_at
        assert 0 <= again <= job.rerun_on_crash
        assert new.copies <= sent, f"{new}: {sent} were sent"
        match (old.state, new.state):
            case (State.CLAIMED | State.DISPATCHED, State.DISPATCHED):
                allowed = new.ended_at is None or not job.guarded
                allowed = allowed and old.copies <= new.copies <= old.copies + 1
                # A message waits its time: a retry is not sent before it is due.
                allowed = allowed and _sent_at(new) >= _sent_at(old)
            case (State.CLAIMED | State.DISPATCHED, State.STARTED):
                allowed = job.guarded
            case (State.CLAIMED | State.DISPATCHED, State.SKIPPED):
                late = new.reason == "window" and job.policy.window is not None
                allowed = late or (new.reason == "switched off" and old.state is State.CLAIMED)
            case (State.CLAIMED | State.DISPATCHED, State.FAILED):
                allowed = new.reason == "no message could be made"
            case (State.STARTED, State.INTERRUPTED):
                allowed = old.owner in self.lapsed
            case (State.STARTED, State.CLAIMED | State.DISPATCHED):
                allowed = (old.owner in self.lapsed or not again or job.rerun_on_crash) and (
                    retried in (0, 1)
                )
            case (State.STARTED, ended) if ended in _ENDS:
                allowed = (job.name, old.planned_at, old.attempt, old.retries) in self._begun
            case _:
                allowed = replace(old, node=new.node) == replace(new, node=new.node)
        assert allowed, f"{new} was made of {old}"
        assert not retried or old.state is State.STARTED


def _message_of(claim: Claim) -> tuple[str, datetime, int, int]:
    return claim.job, claim.planned_at, claim.attempt, claim.retries


def _sent_at(entry: OccurrenceRecord) -> datetime:
    return entry.dispatched_at or _LONG_AGO


def _fingerprint(record: JobRecord) -> str:
    return record.schedule.removeprefix("done:")
