"""
What type checkers see of the public names; checked by mypy, never run.

A decorated function keeps its parameters, and returns None besides what it returned before.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, assert_type

from leader_jobs import Candidate, Run, Term, assert_leader, current_run, leader_only
from leader_jobs.adapters import apscheduler
from leader_jobs.adapters.apscheduler import (
    LeaderAsyncIOScheduler,
    LeaderBackgroundScheduler,
    LeaderBlockingScheduler,
    LeaderGeventScheduler,
    LeaderMixin,
    LeaderQtScheduler,
    LeaderTornadoScheduler,
    LeaderTwistedScheduler,
    elect,
)
from leader_jobs.jobs import Job, JobRegistry, registry


@leader_only
def bare(number: int, *, word: str = "") -> list[str]:
    """Guarded, and no job."""
    return [word] * number


@leader_only(every=30, window=timedelta(hours=1), catch_up="all", on_crash="rerun")
def periodic() -> bool:
    """Run as a job."""
    return True


@leader_only(cron="0 3 * * *", timezone="Europe/Paris")
def nightly() -> None:
    """Return nothing either way."""


@leader_only
async def bare_coroutine(number: int) -> str:
    """Guarded when it is awaited."""
    return str(number)


@leader_only(every=timedelta(minutes=5))
async def periodic_coroutine() -> int:
    """Run as a job, in a loop of its own."""
    return 1


def functions() -> None:
    """Look at calls of the above."""
    assert_type(bare(1, word="a"), list[str] | None)
    assert_type(periodic(), bool | None)
    assert_type(periodic, Callable[[], bool | None])
    assert_type(nightly, Callable[[], None])
    bare("one")  # type: ignore[arg-type]  # the parameters are still checked
    bare(1, "a")  # type: ignore[call-arg]  # word is still to be named
    leader_only(every="30")  # type: ignore[call-overload]  # a text is no period


async def coroutines() -> None:
    """Look at what is awaited."""
    assert_type(await bare_coroutine(1), str | None)
    assert_type(await periodic_coroutine(), int | None)


def runs(candidate: Candidate) -> None:
    """Look at what a body and an owner of a candidate get to see."""
    run = current_run()
    assert_type(run, Run | None)
    if run is not None:
        assert_type(run.planned_at, datetime)
        assert_type(run.lost.wait(1.0), bool)
        run.token = 1  # type: ignore[misc]  # a run is not to be changed
    assert_type(assert_leader("mail"), int)
    assert_type(candidate.term, Term | None)
    assert_type(candidate.require_term(), Term)
    assert_type(candidate.terms(), Iterator[Term])
    assert_type(registry, JobRegistry)
    assert_type(registry.of("mail"), tuple[Job, ...])


class OwnScheduler(LeaderBackgroundScheduler):
    """A scheduler class of a user's."""

    def greet(self) -> str:
        """Say hello."""
        return "hello"


def schedulers(own: OwnScheduler) -> None:
    """Look at the schedulers: those of APScheduler have no types, and neither have their jobs."""
    scheduler = LeaderBackgroundScheduler(leader_jobs={"ttl": 5}, timezone="UTC")
    assert_type(scheduler, LeaderBackgroundScheduler)
    assert_type(scheduler.leads, bool)
    assert_type(scheduler.join(1.0), bool)
    assert_type(scheduler.add_leader_jobs(registry, jobstore="default"), list[Any])
    assert_type(elect(own, election="mail", ttl=5), OwnScheduler)
    assert_type(elect(own).greet(), str)
    scheduler.add_job(periodic, "interval", seconds=5, id="a", max_instances=2)
    scheduler.add_job("module:function", "date", args=[1], kwargs={"b": 2})
    scheduler.add_job(5)  # type: ignore[arg-type]  # no function, and no name of one
    scheduler.add_job(periodic, id=5)  # type: ignore[arg-type]  # an id is a text
    elect()  # type: ignore[call-arg]  # what?
    kinds: list[type[LeaderMixin]] = [
        LeaderAsyncIOScheduler,
        LeaderBlockingScheduler,
        LeaderGeventScheduler,
        LeaderQtScheduler,
        LeaderTornadoScheduler,
        LeaderTwistedScheduler,
    ]
    for kind in kinds:
        assert_type(kind(), LeaderMixin)
    assert_type(apscheduler.LeaderQtScheduler(), LeaderQtScheduler)

    @scheduler.scheduled_job("cron", hour=3)
    def decorated(number: int) -> str:
        return str(number)

    assert_type(decorated(1), str)
