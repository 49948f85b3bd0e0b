"""
Real Celery workers with guarded tasks, a leader that claims and publishes, and what bodies wrote.

The leader is this process: it claims as beat does, and publishes what a test wants published.
"""

from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from celery import Celery

from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims
from leader_jobs.config import Settings
from leader_jobs.dispatches import Dispatches
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.occurrences import Policy
from leader_jobs.planned import PlannedJob
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.schedules import Every
from leader_jobs.stores.factory import open_store
from leader_jobs.tickets import Ticket
from testsupport.brokers import Broker
from testsupport.pool_fleet import PoolFleet, PoolWorker

__all__ = ["GuardedFleet", "Line", "ticket_of"]

_ELECTION = "default"
_LONG = timedelta(hours=1)


class Line(NamedTuple):
    """What a body wrote."""

    word: str
    task: str
    job: str
    attempt: int
    token: int
    pid: int
    extra: str


def ticket_of(claim: Claim) -> Ticket:
    """Return the ticket that a leader's message for *claim* carries."""
    return Ticket(
        election=_ELECTION,
        job=claim.job,
        planned_at=claim.planned_at,
        sequence=claim.sequence,
        attempt=claim.attempt,
        token=claim.token,
    )


class GuardedFleet(PoolFleet):
    """
    Starts workers on one broker and one store, and leads; used as a context manager.

    Args:
        folder: for evidence and logs.
        broker: where messages are.
        settings: name the store and the ttl.
        pool: Celery's name of the pool, as for ``celery worker -P``.
        concurrency: processes, threads or greenlets of each worker.
        config: more of Celery's configuration.
    """

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        settings: Settings,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        **config: Any,
    ) -> None:
        super().__init__(folder, pool=pool, width=concurrency)
        options = {**broker.settings, **config}
        transport = {**broker.transport_options, **config.get("broker_transport_options", {})}
        self._config = {
            **options,
            "broker_transport_options": transport,
            "broker_connection_retry_on_startup": True,
            "leader_jobs_store": settings.store,
            "leader_jobs_namespace": settings.namespace,
            "leader_jobs_ttl": settings.ttl,
        }
        self._stack = ExitStack()
        self._stack.callback(self.kill_all)
        self.store = self._stack.enter_context(closing(open_store(settings, clock=self.clock)))
        self.app = self._stack.enter_context(Celery("sender", set_as_current=False))
        self.app.conf.update({**options, "broker_transport_options": transport})
        self._candidate = Candidate(
            _ELECTION, store=self.store, node="leader", ttl=settings.ttl, clock=self.clock
        )
        self.ledger = Ledger(
            self.store,
            _ELECTION,
            node="leader",
            owner=self._candidate.proposal.incarnation,
            clock=self.clock,
        )
        self._claims: dict[str, Claims] = {}
        self._jobs: dict[str, PlannedJob] = {}

    def __enter__(self) -> Self:
        self.term = self._candidate.campaign(10.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._candidate.stop()
        self._stack.close()

    def start_all(self, *names: str) -> list[PoolWorker]:
        """Start workers, and wait until all are ready."""
        nodes = [
            self.spawn(name, "testsupport.guarded_app", "GUARDED", self._config) for name in names
        ]
        for node in nodes:
            self.wait_log(node, " ready.", within=40.0)
        return nodes

    # -- what the leader does ---------------------------------------------------------------------

    def claim(self, task: str, job: str = "job", *, rerun: bool = False, **policy: Any) -> Claim:
        """Claim the occurrence of a new *job*, which runs *task*."""
        now = self.clock.utcnow()
        planned = PlannedJob(
            name=job,
            schedule=Every(_LONG),
            policy=Policy(**policy),
            rerun_on_crash=rerun,
            guarded=True,
            task=task,
            since=now - _LONG,
        )
        self._jobs[job] = planned
        self._claims[job] = Claims(self.ledger, self.term, [planned], clock=self.clock)
        (claim,) = self._claims[job].tick(now).claims
        return claim

    def publish(self, claim: Claim, *args: Any, copies: int = 1, **options: Any) -> None:
        """Send messages for *claim*, and record that they were sent."""
        headers = {HEADER: ticket_of(claim).encode()}
        options = {"headers": headers, "task_id": claim.occurrence} | options
        for _ in range(copies):
            self.send(self._jobs[claim.job].task, *args, retries=claim.retries, **options)
        dispatches = Dispatches(self.ledger, self.term, clock=self.clock)
        dispatches.sent(claim)
        assert dispatches.record()

    def send(self, task: str, *args: Any, **options: Any) -> None:
        """Send one message."""
        self.app.send_task(task, args, **options)

    def look_after(self, job: str, *args: Any, within: float = 20.0) -> OccurrenceRecord:
        """Tick, and publish what is claimed again, until the occurrence of *job* is closed."""

        def closed() -> bool:
            self._claims[job].look_again(job)
            self.ledger.forget((job,))
            for claim in self._claims[job].tick(self.clock.utcnow()).claims:
                self.publish(claim, *args)
            return self.last(job).ended_at is not None

        self.wait(closed, f"{job} was never closed", within)
        return self.last(job)

    # -- what happened ----------------------------------------------------------------------------

    def lines(self, word: str = "begin", *, job: str | None = None) -> list[Line]:
        """Return what bodies wrote, of all jobs or of one, in the order of writing."""
        found = []
        for text in self.evidence():
            f = text.split()
            found.append(Line(f[0], f[1], f[2], int(f[3]), int(f[4]), int(f[5]), f[6]))
        return [line for line in found if line.word == word and job in (None, line.job)]

    def wait_lines(self, count: int, word: str = "begin", within: float = 15.0) -> list[Line]:
        """Wait until so many lines are there."""
        self.wait(
            lambda: len(self.lines(word)) >= count, f"{word!r} not written {count} times", within
        )
        return self.lines(word)

    def last(self, job: str = "job") -> OccurrenceRecord:
        """Return what the ledger has of the last occurrence of *job*."""
        return self.ledger.history(job)[-1]

    def logged(self, text: str) -> int:
        """Return how many times workers logged *text*."""
        return sum(node.log.read_text().count(text) for node in self.nodes)

    def wait_logged(self, text: str, times: int = 1, within: float = 15.0) -> None:
        """Wait until workers have logged *text* so many times."""
        self.wait(lambda: self.logged(text) >= times, f"{text!r} not logged {times} times", within)

    def wait_state(self, state: State, job: str = "job", within: float = 15.0) -> OccurrenceRecord:
        """Wait until the last occurrence of *job* is in *state*."""

        def reached() -> bool:
            entries = self.ledger.history(job)
            return bool(entries) and entries[-1].state is state

        self.wait(reached, f"{job} is not {state}", within)
        return self.last(job)

    def wait_log(self, node: PoolWorker, text: str, times: int = 1, within: float = 15.0) -> None:
        """Wait until *node* logged *text* so many times."""
        self.wait(
            lambda: node.log.read_text().count(text) >= times,
            f"{node.name} did not log {text!r} {times} times",
            within,
        )
