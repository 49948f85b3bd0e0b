"""Ledgers, terms and jobs for tests that drive the ledger by hand, on a store in memory."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from leader_jobs.claims import Claims
from leader_jobs.dispatches import Dispatches
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim, Edit, Ledger, find_claimed
from leader_jobs.names import runners_of
from leader_jobs.occurrences import Policy, occurrence_id
from leader_jobs.planned import PlannedJob
from leader_jobs.proposals import Proposal
from leader_jobs.records import JobRecord, OccurrenceRecord, State
from leader_jobs.schedules import Every
from leader_jobs.stores.base import Candidacy, Limits
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import Term
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.place import ELECTION

__all__ = [
    "OVERLAPPING",
    "WIDE",
    "CountingStore",
    "LedgerNode",
    "Worker",
    "claim_one",
    "dispatch",
    "entries_of",
    "make_job",
    "make_planned",
    "passing",
    "planned",
    "reader",
    "record_of",
    "run",
    "states",
]


def make_job(
    name: str = "job",
    every: float | timedelta = 10,
    *,
    body: Callable[[], object] = lambda: None,
    rerun: bool = False,
    policy: Policy | None = None,
) -> Job:
    """Return a job that is due every *every* seconds."""
    return Job(
        name=name,
        function=body,
        schedule=Every(every),
        policy=policy or Policy(),
        rerun_on_crash=rerun,
        election=None,
        place=name,
    )


def make_planned(
    name: str = "job",
    every: float | timedelta = 10,
    *,
    guarded: bool = True,
    rerun: bool = False,
    policy: Policy | None = None,
    task: str = "",
    since: datetime | None = None,
    not_before: datetime | None = None,
    once: bool = False,
) -> PlannedJob:
    """Return a job that is due every *every* seconds, and is run by other processes."""
    return PlannedJob(
        name=name,
        schedule=Every(every),
        policy=policy or Policy(),
        rerun_on_crash=rerun,
        guarded=guarded,
        task=task,
        since=since,
        not_before=not_before,
        once=once,
    )


#: The limits of an etcd server as it comes.
WIDE = Limits(guards=128, writes=128, size=1_000_000)
OVERLAPPING = Policy(catch_up="all", overlap=True)


class CountingStore(MemoryStore):
    """A store that counts its commits, and does something before the next one if asked to."""

    def __init__(self, clock: ManualClock, limits: Limits = WIDE, *, cluster: str = "") -> None:
        super().__init__(clock, limits=limits, cluster=cluster)
        self.batches: list[int] = []
        self.before: list[Callable[[], object]] = []

    def expire_all_but(self, candidacy: Candidacy | None) -> None:
        """Have everybody else's lease run out."""
        for entrant in self.candidates(ELECTION, deadline=self._clock.now() + 1):
            if candidacy is None or entrant.id != candidacy.id:
                self.expire(Candidacy(ELECTION, entrant.id, entrant.token, 0.0))

    def commit(
        self,
        election: str,
        writes: object,
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Write a batch."""
        assert isinstance(writes, list)
        if self.before:
            self.before.pop(0)()
        version = super().commit(election, writes, candidacy=candidacy, deadline=deadline)
        self.batches.append(len(writes))
        return version


class LedgerNode:
    """
    What one process has: a ledger of its own, a candidacy, and a term once it leads.

    Args:
        name: the node's label and incarnation.
        store: the store all nodes share.
        clock: the clock all nodes share.
    """

    def __init__(self, name: str, store: MemoryStore, clock: ManualClock) -> None:
        self.name = name
        self.store = store
        self.clock = clock
        self.ledger = Ledger(store, ELECTION, node=name, owner=name, clock=clock)
        self.candidacy = self.stand()

    def stand(self) -> Candidacy:
        """Enrol, under a lease that outlives the test."""
        self.candidacy = _enrol(ELECTION, self.name, self.store, self.clock)
        return self.candidacy

    def term(self, lasts: float = 100_000.0) -> Term:
        """Return a term of the present candidacy, which may or may not lead."""
        return Term(candidacy=self.candidacy, deadline=self.clock.now() + lasts, clock=self.clock)

    def claims(self, *jobs: PlannedJob, term: Term | None = None) -> Claims:
        """Begin a term's claims."""
        return Claims(self.ledger, term or self.term(), jobs, clock=self.clock)

    def tick(self, claims: Claims) -> tuple[Claim, ...]:
        """Tick now."""
        return claims.tick(self.clock.utcnow()).claims

    def dies(self) -> None:
        """End the candidacy as the death of the process does."""
        self.store.expire(self.candidacy)

    def open_claim(self, job: Job, number: int = 0) -> Claim:
        """Return the claim of an open occurrence of *job*, the oldest one by default."""
        entry = record_of(self.store, job.name, self.clock).open[number]
        return Claim(
            job=job.name,
            occurrence=occurrence_id(ELECTION, job.name, entry.planned_at),
            planned_at=entry.planned_at,
            sequence=entry.sequence,
            attempt=entry.attempt,
            token=self.candidacy.token,
        )


class Worker:
    """
    A process that runs what others dispatch: it stands in no election, and shows that it lives.

    Args:
        name: its label and incarnation.
        store: the store all share.
        clock: the clock all share.
    """

    def __init__(self, name: str, store: MemoryStore, clock: ManualClock) -> None:
        self.name = name
        self.store = store
        self.clock = clock
        self.ledger = Ledger(store, ELECTION, node=name, owner=name, clock=clock)
        self.presence = _enrol(runners_of(ELECTION), name, store, clock)

    def starts(self, claim: Claim) -> bool:
        """Whether a message for *claim* is admitted: it starts its occurrence, once."""

        def starting(record: JobRecord) -> Edit:
            entry = find_claimed(record, claim)
            if entry is None or entry.state is State.STARTED or entry.retries != claim.retries:
                return None
            started = entry.starting(
                token=claim.token, node=self.name, owner=self.name, now=self.clock.utcnow()
            )
            return record.with_open(started), ()

        return self.ledger.change(claim.job, starting, None)

    def ends(self, claim: Claim, state: State = State.SUCCEEDED) -> bool:
        """Record the end of a run."""
        return self.ledger.finish(claim, state)

    def retries(self, claim: Claim, due: datetime) -> bool:
        """Record that a run asked for another one at *due*, by a message already sent."""

        def waiting(record: JobRecord) -> Edit:
            entry = find_claimed(record, claim)
            if entry is None or (entry.state, entry.owner) != (State.STARTED, self.name):
                return None
            return record.with_open(entry.retried(claim.retries + 1, due)), ()

        return self.ledger.change(claim.job, waiting, None)

    def dies(self) -> None:
        """End as by kill -9, its lease run out."""
        self.store.expire(self.presence)


def _enrol(electorate: str, name: str, store: MemoryStore, clock: ManualClock) -> Candidacy:
    proposal = Proposal(node=name, host="host", pid=1, version="0", incarnation=name).encode()
    return store.enrol(electorate, proposal, 100_000.0, deadline=clock.now() + 1)


def dispatch(node: LedgerNode, *claims: Claim) -> None:
    """Record that messages for *claims* are with a broker."""
    dispatches = Dispatches(node.ledger, node.term(), clock=node.clock)
    for claim in claims:
        dispatches.sent(claim)
    assert dispatches.record()


def run(node: LedgerNode, *claims: Claim) -> None:
    """Start and finish runs."""
    for claim in claims:
        assert node.ledger.start(claim, node.term())
        assert node.ledger.finish(claim, State.SUCCEEDED)
        node.ledger.let_go(claim)


def planned(claims: tuple[Claim, ...]) -> list[int]:
    """Return the planned seconds of the minute of claims."""
    return [claim.planned_at.second for claim in claims]


def reader(store: MemoryStore, clock: ManualClock) -> Ledger:
    """Return a ledger that remembers nothing."""
    return Ledger(store, ELECTION, node="reader", owner="reader", clock=clock)


def record_of(store: MemoryStore, job: str, clock: ManualClock) -> JobRecord:
    """Return the record of a job as it stands in the store."""
    return reader(store, clock).jobs()[job]


def entries_of(store: MemoryStore, job: str, clock: ManualClock) -> list[OccurrenceRecord]:
    """Return all that is kept of the occurrences of a job."""
    return reader(store, clock).history(job)


def states(store: MemoryStore, job: str, clock: ManualClock) -> list[State]:
    """Return what became of the occurrences of a job, oldest first."""
    return [entry.state for entry in entries_of(store, job, clock)]


@contextmanager
def passing(clock: ManualClock) -> Iterator[None]:
    """Let time pass by itself for the time of the block, for threads that wait and try again."""
    over = threading.Event()

    def advance() -> None:
        while not over.wait(0.002):
            clock.advance(0.05)

    advancing = Background(advance)
    try:
        yield
    finally:
        over.set()
        advancing.result()


def claim_one(node: LedgerNode, job: Job, clock: ManualClock) -> Claim:
    """Have *node* claim the next occurrence of *job*."""
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    return claim
