"""Processes that run tasks, and the messages they get, for tests on a store in memory."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from leader_jobs.admissions import Admissions, Message
from leader_jobs.exceptions import Conflict, StoreUnavailable
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.records import OccurrenceRecord
from leader_jobs.stores.base import Candidacy
from leader_jobs.testing import ManualClock
from leader_jobs.tickets import Ticket
from testsupport.ledgers import CountingStore, LedgerNode, entries_of, make_job, passing
from testsupport.place import ELECTION

__all__ = ["TASK", "LateStore", "Worker", "dispatched", "guarded", "last", "message"]

#: What the jobs run.
TASK = "shop.tasks.report"


class LateStore(CountingStore):
    """
    A store on which a commit can still arrive after its caller has given up.

    Attributes:
        withhold: whether commits are kept under way.
        after: what to do after the next commits, one thing each.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.withhold = False
        self.withheld: list[object] = []
        self.after: list[Callable[[], object]] = []

    def commit(
        self, election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        """Write a batch, or keep it under way."""
        try:
            if self.withhold:
                self.withheld.append(writes)
                msg = "no reply in time"
                raise StoreUnavailable(msg)
            return super().commit(election, writes, candidacy=candidacy, deadline=deadline)
        finally:
            if self.after:
                self.after.pop(0)()

    def deliver(self) -> None:
        """Let what is under way arrive."""
        self.withhold = False
        for writes in self.withheld:
            with suppress(Conflict):
                self.commit(ELECTION, writes, candidacy=None, deadline=float("inf"))


class Worker(LedgerNode):
    """A process that runs tasks."""

    def __init__(self, name: str, store: CountingStore, clock: ManualClock) -> None:
        super().__init__(name, store, clock)
        self.admissions = Admissions(self.ledger, clock=clock, start_within=2.0, record_within=3.0)
        self.presence = self.term()

    def admit(self, message: Message) -> Claim:
        """Have it asked."""
        return self.admissions.admit(message, self.presence)

    def settle(self) -> None:
        """Wait until everything it has to say is in the ledger."""
        with passing(self.clock):
            assert self.admissions.close(60.0)


def guarded(name: str = "job", *, rerun: bool = False, policy: Policy | None = None) -> Job:
    """Return a job whose occurrences are run by whoever gets their messages."""
    return replace(make_job(name, rerun=rerun, policy=policy), guarded=True, task=TASK)


def message(
    claim: Claim,
    *,
    retries: int | None = None,
    attempt: int | None = None,
    policy: Policy | None = None,
    rerun: bool = False,
    task: str = TASK,
) -> Message:
    """Return the message that a leader sends for *claim*."""
    ticket = Ticket(
        election=ELECTION,
        job=claim.job,
        planned_at=claim.planned_at,
        sequence=claim.sequence,
        attempt=attempt or claim.attempt,
        token=claim.token,
    )
    return Message(
        ticket=ticket,
        id=claim.occurrence,
        task=task,
        retries=claim.retries if retries is None else retries,
        policy=policy or Policy(),
        rerun_on_crash=rerun,
    )


def dispatched(node: LedgerNode, claim: Claim) -> None:
    """Record that a message for *claim* was sent."""
    node.ledger.change(
        claim.job,
        lambda record: (
            record.with_open(record.open[-1].dispatched(node.clock.utcnow(), token=claim.token)),
            (),
        ),
        None,
    )


def last(node: LedgerNode, job: str = "job") -> OccurrenceRecord:
    """Return what the store has of the last occurrence."""
    return entries_of(node.store, job, node.clock)[-1]
