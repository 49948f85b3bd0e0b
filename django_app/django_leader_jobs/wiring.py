"""Where the collaborators of ``runleader`` are put together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from django.db import close_old_connections

from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock
from leader_jobs.command import CommandRunner, Outcome, Restart
from leader_jobs.config import Settings
from leader_jobs.jobs import Job, registry
from leader_jobs.ledger import Ledger
from leader_jobs.runner import JobRunner
from leader_jobs.runpool import RunPool
from leader_jobs.service import Part
from leader_jobs.stores.base import Store
from leader_jobs.term import Term
from leader_jobs.version import version

__all__ = ["CommandWork", "command_part", "job_part"]


@contextmanager
def database_connections() -> Iterator[None]:
    """Give a job's thread database connections that are fit to use, and leave none behind stale."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def _candidate(settings: Settings, election: str, store: Store, clock: Clock) -> Candidate:
    return Candidate(
        election,
        store=store,
        node=settings.node,
        ttl=settings.ttl,
        version=version(),
        clock=clock,
    )


def job_part(settings: Settings, election: str, store: Store, clock: Clock) -> Part:
    """Return this node's part in *election*: running its registered jobs."""
    candidate = _candidate(settings, election, store, clock)
    ledger = Ledger(
        store,
        election,
        node=settings.node,
        owner=candidate.proposal.incarnation,
        clock=clock,
    )

    def pool(freed: Callable[[Job, bool], None], fenced: Callable[[Term], None]) -> RunPool:
        return RunPool(
            ledger,
            workers=settings.workers,
            clock=clock,
            freed=freed,
            fenced=fenced,
            around=database_connections,
        )

    runner = JobRunner(
        candidate=candidate,
        ledger=ledger,
        jobs=registry.of(election),
        timer=APSchedulerTimer,
        pool=pool,
        clock=clock,
    )
    return Part(candidate, runner)


class CommandWork:
    """A command as the work of a part; see `leader_jobs.command`."""

    def __init__(self, runner: CommandRunner) -> None:
        self.runner = runner

    def run(self, term: Term) -> bool:
        """Run the command while *term* lasts; False when it is done for good."""
        return self.runner.run(term) is not Outcome.DONE

    def stop(self, *, now: bool = False) -> None:
        """End the command; with *now*, at once."""
        self.runner.stop(now=now)

    def drain(self, grace: float) -> bool:
        """Nothing is left to wait for: `run` returns when the command is gone."""
        return True


def command_part(
    settings: Settings,
    argv: Sequence[str],
    restart: Restart,
    store: Store,
    clock: Clock,
) -> Part:
    """Return this node's part in its election: running the command *argv* while it leads."""
    runner = CommandRunner(
        argv,
        election=settings.election,
        node=settings.node,
        clock=clock,
        restart=restart,
        grace=settings.grace,
    )
    candidate = _candidate(settings, settings.election, store, clock)
    return Part(candidate, CommandWork(runner))
