"""An application with guarded tasks, and a leader that claims for it, in one process."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.app import trace as celery_trace

from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.adapters.celery_worker import install
from leader_jobs.claims import Claims
from leader_jobs.clock import SystemClock
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.occurrences import Policy
from leader_jobs.planned import PlannedJob
from leader_jobs.records import OccurrenceRecord
from leader_jobs.runs import Run, current_run
from leader_jobs.schedules import Every
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import Term
from leader_jobs.tickets import Ticket

__all__ = ["CLOCK", "HOUR", "Shop", "deliver", "ticket_of", "trace"]

CLOCK: Final = SystemClock()
HOUR: Final = timedelta(hours=1)


class Shop:
    """An application with the guard, and a leader that claims for it, on a store in memory."""

    def __init__(self, **config: Any) -> None:
        name = uuid.uuid4().hex
        self.store = MemoryStore.named(name, CLOCK)
        self.app: Any = Celery("shop", set_as_current=False)
        self.app.conf.update(
            broker_url="memory://",
            leader_jobs_store=f"memory://{name}",
            leader_jobs_node="here",
            **config,
        )
        install(self.app)
        self.seen: list[Run | None] = []
        self._terms: dict[str, Term] = {}

    def task(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """Return a decorator that makes a task of this application alone."""
        decorator: Callable[[Callable[..., Any]], Any] = self.app.task(shared=False, **options)
        return decorator

    def see(self) -> None:
        """Note which run this is; for bodies."""
        self.seen.append(current_run())

    def term(self, election: str = "default") -> Term:
        """Lead *election*, somewhere else."""
        if election not in self._terms:
            limit = CLOCK.now() + 60
            candidacy = self.store.enrol(election, b"{}", 60.0, deadline=limit)
            self._terms[election] = Term(candidacy=candidacy, deadline=limit, clock=CLOCK)
        return self._terms[election]

    def ledger(self, election: str = "default") -> Ledger:
        """Return a ledger that remembers nothing."""
        return Ledger(self.store, election, node="leader", owner="leader", clock=CLOCK)

    def claim(self, task: Any, election: str = "default", job: str = "job") -> Claim:
        """Claim an occurrence of a new *job* that runs *task*."""
        now = CLOCK.utcnow()
        planned = PlannedJob(
            name=job,
            schedule=Every(HOUR),
            policy=Policy(),
            guarded=True,
            task=task.name,
            since=now - HOUR,
        )
        ledger, term = self.ledger(election), self.term(election)
        (claim,) = Claims(ledger, term, [planned], clock=CLOCK).tick(now).claims
        return claim

    def last(self, job: str = "job", election: str = "default") -> OccurrenceRecord:
        """Return what the ledger has of the last occurrence of *job*."""
        return self.ledger(election).history(job)[-1]


def ticket_of(claim: Claim, election: str = "default") -> Ticket:
    """Return the ticket of a leader's message for *claim*."""
    return Ticket(
        election=election,
        job=claim.job,
        planned_at=claim.planned_at,
        sequence=claim.sequence,
        attempt=claim.attempt,
        token=claim.token,
    )


def deliver(task: Any, claim: Claim, *args: Any, ticket: object = None, **options: Any) -> Any:
    """Have Celery's tracer run *task* as by a message for *claim*; return the result."""
    found = ticket_of(claim).encode() if ticket is None else ticket
    options = {"task_id": claim.occurrence, "headers": {HEADER: found}} | options
    return task.apply(args=args, **options)


def trace(task: Any, claim: Claim) -> Any:
    """Have *task* run as in a worker, not eagerly."""
    request = {
        "id": claim.occurrence,
        "task": task.name,
        HEADER: ticket_of(claim).encode(),
        "retries": 0,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "reply_to": None,
        "correlation_id": claim.occurrence,
    }
    tracer = celery_trace.build_tracer(task.name, task, app=task.app)
    return tracer(claim.occurrence, [4], {}, request)
