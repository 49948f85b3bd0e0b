"""Which id a job gets, what is refused, and jobs made of ``@leader_only`` functions."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from apscheduler.jobstores.base import ConflictingIdError
from apscheduler.jobstores.memory import MemoryJobStore

from leader_jobs import current_run, leader_only
from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import JobRegistry
from testsupport.apscheduler_rig import Body, Rig

_TESTS = Path(__file__).parents[1]
WHOLE = datetime(2100, 1, 1, 12, tzinfo=UTC)


def work(*args: object, **kwargs: object) -> None:
    """Do nothing."""


class Shop:
    """A class with functions to run."""

    def sell(self) -> None:
        """Do nothing."""

    @classmethod
    def buy(cls) -> None:
        """Do nothing."""

    @staticmethod
    def count() -> None:
        """Do nothing."""


@pytest.fixture(name="registry")
def _registry() -> Iterator[JobRegistry]:
    yield JobRegistry()
    application.configure(None)


def test_ids_are_the_same_in_every_process() -> None:
    """They are made of what all processes have in common, whatever the hash seed or the time."""
    program = """
from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
import json
scheduler = LeaderBackgroundScheduler(timezone="Europe/Paris")
work = json.dumps
for trigger, more in (
    ("interval", {"seconds": 5, "args": [0]}), ("cron", {"hour": "2,3", "minute": 5, "args": [0]}),
    ("interval", {"seconds": 5, "args": [1], "kwargs": {"indent": 2, "cls": None}}),
    ("date", {"run_date": "2100-01-01 12:00:00", "args": [0]}),
    ("interval", {"minutes": 5, "start_date": "2026-01-01 00:00:00", "args": [0]}),
):
    print(scheduler.add_job(work, trigger, **more).id)
"""
    made = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=_TESTS,
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert made[0] == made[1]
    assert len(set(made[0].splitlines())) == 5


def test_an_id_says_which_function_it_is() -> None:
    """And no more than that changes it: a policy can be changed without losing the plan."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    one = scheduler.add_job(work, "interval", seconds=5)
    other = LeaderBackgroundScheduler(timezone="UTC")
    two = other.add_job(work, "interval", seconds=5, coalesce=False, name="x", max_instances=3)
    assert one.id == two.id
    assert one.id.startswith(f"{__name__}:work (")


@pytest.mark.parametrize("func", [Shop.buy, Shop.count, f"{__name__}:work"])
def test_what_can_be_imported_by_a_name_gets_an_id(func: Any) -> None:
    """Class methods, static methods and references are functions like any other."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    assert scheduler.add_job(func, "interval", seconds=5).id


@pytest.mark.parametrize(
    "func",
    [lambda: None, partial(work, 1), Body()],
    ids=["lambda", "partial", "object"],
)
def test_what_can_not_be_imported_by_a_name_needs_an_id(func: Any) -> None:
    """Or each process would know it by another one."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    with pytest.raises(ConfigurationError, match=r"needs id=: .*can not be imported by a name"):
        scheduler.add_job(func, "interval", seconds=5)
    assert scheduler.add_job(func, "interval", seconds=5, id="given").id == "given"


def test_a_method_of_an_object_needs_an_id() -> None:
    """There may be several objects, and one id would stand for all of them."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    with pytest.raises(ConfigurationError, match=r"needs id=: .*a method of one object of many"):
        scheduler.add_job(Shop().sell, "interval", seconds=5)


def test_arguments_that_are_not_plain_need_an_id() -> None:
    """How they are written down may differ between processes."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    with pytest.raises(ConfigurationError, match=r"needs id=: .*arguments are not plain values"):
        scheduler.add_job(work, "interval", seconds=5, args=[{1, 2}])


@pytest.mark.parametrize("more", [{}, {"run_date": datetime(2100, 1, 1, 0, 0, 0, 5, UTC)}])
def test_a_run_time_of_the_process_itself_needs_an_id(more: dict[str, Any]) -> None:
    """``add_job(f)`` means now, which is another time in each process."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    with pytest.raises(ConfigurationError, match=r"needs id=: .*is this process's own"):
        scheduler.add_job(work, "date", **more)
    assert scheduler.add_job(work, "date", run_date=WHOLE).id


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129, " a", "é", 5])
def test_an_id_that_can_not_name_a_job_is_refused(name: Any) -> None:
    """It is part of keys in the ledger."""
    with pytest.raises(ConfigurationError, match="job name"):
        LeaderBackgroundScheduler(timezone="UTC").add_job(work, "interval", seconds=5, id=name)


def test_an_interval_without_a_plan_is_refused(rig: Rig) -> None:
    """When it is given, not by the leader later on."""
    scheduler = rig.started()
    with pytest.raises(ConfigurationError, match="interval"):
        scheduler.add_job(work, "interval", seconds=0.01, id="a")
    scheduler.add_job(work, "interval", seconds=5, id="a")
    with pytest.raises(ConfigurationError, match="interval"):
        scheduler.reschedule_job("a", trigger="interval", seconds=0.01)


def test_the_same_job_twice_needs_ids() -> None:
    """One of them would never be run."""
    scheduler = LeaderBackgroundScheduler(timezone="UTC")
    scheduler.add_job(work, "interval", seconds=5)
    with pytest.raises(ConfigurationError, match="the same job is added twice"):
        scheduler.add_job(work, "interval", seconds=5)


def test_the_same_id_twice_is_refused_as_ever(rig: Rig) -> None:
    """By APScheduler itself, when the scheduler starts or is running."""
    scheduler = rig.started()
    scheduler.add_job(work, "interval", seconds=5, id="a")
    with pytest.raises(ConflictingIdError):
        scheduler.add_job(work, "interval", seconds=5, id="a")
    scheduler.add_job(work, "interval", seconds=7, id="a", replace_existing=True)
    with pytest.raises(ConflictingIdError):
        scheduler.add_job(work, "interval", seconds=7, id="a")


@pytest.mark.parametrize("started", [False, True])
def test_an_id_is_refused_that_another_job_store_has(rig: Rig, started: bool) -> None:
    """One of the two would never be run: they would be one job in the ledger."""
    scheduler = rig.scheduler(jobstores={"default": MemoryJobStore(), "extra": MemoryJobStore()})
    if started:
        scheduler.start()
    scheduler.add_job(work, "interval", seconds=5, id="a")
    with pytest.raises(ConfigurationError, match="job a is in job store 'default' already"):
        scheduler.add_job(work, "interval", seconds=5, id="a", jobstore="extra")


def test_the_decorator_makes_jobs(rig: Rig) -> None:
    """``scheduled_job`` replaces what is there, so that a reloaded module is none the worse."""
    scheduler, ran = rig.scheduler(), Body()

    @scheduler.scheduled_job("interval", hours=1, id="a", next_run_time=datetime.now(UTC))
    def job() -> None:
        ran()

    scheduler.start()
    assert ran.wait().job == "a"
    scheduler.scheduled_job("interval", hours=2, id="a")(job)
    (found,) = scheduler.get_jobs()
    assert found.trigger.interval == timedelta(hours=2)


def test_leader_only_jobs_are_added_with_their_schedules(rig: Rig, registry: JobRegistry) -> None:
    """Name, schedule and policy are the decorator's; those of other elections are left out."""

    @leader_only(every=1, name="frequent", jobs=registry)
    def frequent() -> None:
        runs.append(current_run())

    @leader_only(
        cron="0 3 * * *", name="nightly", catch_up="all", window=3600, overlap=True, jobs=registry
    )
    def nightly() -> None: ...

    @leader_only(every=1, name="foreign", election="other", jobs=registry)
    def foreign() -> None: ...

    runs: list[Any] = []
    scheduler, body = rig.scheduler(), Body()
    jobs = {job.id: job for job in scheduler.add_leader_jobs(registry)}
    assert jobs.keys() == {"frequent", "nightly"}
    assert (jobs["nightly"].coalesce, jobs["nightly"].misfire_grace_time) == (False, 3600)
    assert jobs["nightly"].max_instances > 1
    assert (jobs["frequent"].coalesce, jobs["frequent"].max_instances) == (True, 1)
    assert "0 3 * * *" in str(jobs["nightly"].trigger)
    scheduler.start()
    rig.add(scheduler, body, seconds=1)
    body.wait(2)
    assert rig.wait_closed("frequent")
    assert runs[0].planned_at.microsecond == 0
    assert runs[0].job == "frequent"


def test_it_is_said_when_no_job_is_for_this_election(
    rig: Rig, registry: JobRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduler with an election of its own does not take jobs that name none."""

    @leader_only(every=1, name="of-the-default", jobs=registry)
    def body() -> None: ...

    assert rig.scheduler(lj_election="mail").add_leader_jobs(registry) == []
    assert "no job is for leaders of election 'mail', there are some of default" in caplog.text


def test_a_guarded_function_is_run_as_any_job(rig: Rig) -> None:
    """Its guard is satisfied by the claim, also if it raises on a standby."""
    body = Body()

    @leader_only(on_standby="raise")
    def guarded() -> str:
        return body()

    rig.add(rig.started(), guarded)
    body.wait()


@pytest.mark.parametrize("started", [False, True])
def test_a_function_of_another_election_is_refused(rig: Rig, started: bool) -> None:
    """It would be skipped each time."""

    @leader_only(election="other")
    def foreign() -> None: ...

    scheduler = rig.started() if started else rig.scheduler()

    def add() -> None:
        rig.add(scheduler, foreign)
        scheduler.start()

    with pytest.raises(ConfigurationError, match="is for leaders of election 'other', and this"):
        add()
