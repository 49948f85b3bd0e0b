"""Where the collaborators of one node's part in an election are put together."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from leader_jobs.clock import Clock
from leader_jobs.command import CommandRunner, Outcome, Restart
from leader_jobs.config import Settings
from leader_jobs.events import Observer
from leader_jobs.jobs import Job
from leader_jobs.runner import LEAVE_WITHIN, JobRunner, Timer
from leader_jobs.runpool import RunPool
from leader_jobs.service import Part
from leader_jobs.standing import place_of
from leader_jobs.stores.base import Store
from leader_jobs.term import Term

__all__ = ["CommandWork", "command_part", "job_part"]


def job_part(
    settings: Settings,
    election: str,
    *,
    store: Store,
    clock: Clock,
    jobs: Iterable[Job],
    timer: Callable[[], Timer],
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    run_async: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    observers: Iterable[Observer] = (),
) -> Part:
    """
    Return this node's part in *election*: running *jobs* while it leads.

    Args:
        settings: node, ttl and number of workers.
        election: the election's name.
        store: where it is held.
        clock: where moments and instants come from.
        jobs: the jobs of the election.
        timer: makes what tells the runner that it is time to look.
        around: entered around each body, on its thread.
        run_async: runs the coroutine of an asynchronous body to its end.
        observers: told of the candidate's events.
    """
    place = place_of(
        settings, election, store=store, clock=clock, observers=observers, guarded=True
    )

    def pool(freed: Callable[[Job, bool], None], fenced: Callable[[Term], None]) -> RunPool:
        return RunPool(
            place.ledger,
            workers=settings.workers,
            clock=clock,
            freed=freed,
            fenced=fenced,
            around=around,
            run_async=run_async,
        )

    runner = JobRunner(
        candidate=place.candidate,
        ledger=place.ledger,
        orders=place.orders,
        jobs=jobs,
        timer=timer,
        pool=pool,
        clock=clock,
    )
    place.steward.leave_by(runner.leave, within=LEAVE_WITHIN)
    return Part(place.candidate, runner)


class CommandWork:
    """
    A command as the work of a part; see `leader_jobs.command`.

    Args:
        runner: runs the command.
        store: where the term is held. As long as the command lives, a store that sees processes
            does not take this node for dead, so that there are never two of the command.
        resign: called when the command was ended because an operator wants another node to lead.
    """

    def __init__(self, runner: CommandRunner, store: Store, *, resign: Callable[[], None]) -> None:
        self.runner = runner
        self._resign = resign
        self._store = store
        self._done = False

    @property
    def exit_status(self) -> int:
        """What the command ended with, if it ended for good by itself; 0 if it was stopped."""
        status = self.runner.last_exit if self._done else None
        # As shells report a command that was ended by a signal.
        return 0 if status is None else status if status >= 0 else 128 - status

    def run(self, term: Term) -> bool:
        """Run the command while *term* lasts; False when it is done for good."""
        hold = self._store.lifeline(term.candidacy)
        outcome = self.runner.run(term, hold=hold)
        self._done = outcome is Outcome.DONE
        if outcome is Outcome.LEFT:
            self._resign()
        return not self._done

    def stop(self, *, now: bool = False) -> None:
        """End the command; with *now*, at once."""
        self.runner.stop(now=now)

    def drain(self, grace: float) -> bool:
        """Nothing is left to wait for: `run` returns when the command is gone."""
        return True


def command_part(
    settings: Settings,
    argv: Sequence[str],
    *,
    restart: Restart,
    store: Store,
    clock: Clock,
    observers: Iterable[Observer] = (),
) -> Part:
    """
    Return this node's part in its election: running the command *argv* while it leads.

    Raises:
        ConfigurationError: there is no such command, or it can not be executed.
    """
    place = place_of(
        settings, settings.election, store=store, clock=clock, observers=observers, guarded=True
    )
    runner = CommandRunner(
        argv,
        election=settings.election,
        node=settings.node,
        clock=clock,
        restart=restart,
        grace=settings.grace,
        paused=place.orders.is_paused,
    )
    place.steward.leave_by(runner.leave, within=settings.grace + LEAVE_WITHIN)
    return Part(place.candidate, CommandWork(runner, store, resign=place.candidate.resign))
