"""Schedulers that somebody else made are elected in place."""

import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from flask import Flask
from flask_apscheduler import APScheduler

from leader_jobs.adapters import apscheduler
from leader_jobs.adapters.apscheduler import (
    LeaderAsyncIOScheduler,
    LeaderBackgroundScheduler,
    LeaderMixin,
    elect,
)
from leader_jobs.exceptions import ConfigurationError
from testsupport.apscheduler_rig import Body, Rig, until


def work(*args: object) -> None:
    """Do nothing."""


def test_a_scheduler_keeps_what_it_has(rig: Rig) -> None:
    """Its jobs, executors and listeners; its class is one of ours from then on."""
    body, events = Body(), list[object]()
    scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
    scheduler.add_listener(events.append)
    scheduler.add_job(body, "interval", hours=1, id="job", next_run_time=datetime.now(UTC))
    elected = elect(scheduler, store=rig.url, ttl=5)
    assert elected is scheduler
    assert type(scheduler) is LeaderBackgroundScheduler
    rig.made.append(scheduler)
    scheduler.start()
    body.wait()
    assert rig.wait_closed("job")
    assert events


def test_the_election_can_be_named(rig: Rig) -> None:
    """And wins over what is configured."""
    scheduler: Any = elect(BackgroundScheduler(), election="mail", store=rig.url)
    assert scheduler._settings().election == "mail"


def test_a_class_of_the_users_own_stays_what_it_is(rig: Rig) -> None:
    """Its methods are kept; electing it twice changes nothing."""

    class Own(BackgroundScheduler):  # type: ignore[misc]  # APScheduler is not typed
        def greet(self) -> str:
            return "hello"

    scheduler: Any = elect(elect(Own(), store=rig.url), store=rig.url)
    assert isinstance(scheduler, Own)
    assert isinstance(scheduler, LeaderMixin)
    assert scheduler.greet() == "hello"
    assert type(elect(Own())) is type(scheduler)


def test_ours_can_be_elected_again(rig: Rig) -> None:
    """What is given then counts."""
    scheduler = elect(LeaderBackgroundScheduler(leader_jobs={"ttl": 9}), store=rig.url, ttl=5)
    assert scheduler._settings().ttl == 5.0


def test_subclasses_of_the_mixin_are_ready_to_use(rig: Rig) -> None:
    """The mixin goes before any scheduler class."""

    class Own(LeaderMixin, BackgroundScheduler):  # type: ignore[misc]  # APScheduler is not typed
        pass

    body = Body()
    rig.add(rig.started(kind=Own), body)
    body.wait()


def test_jobs_without_an_id_get_a_stable_one() -> None:
    """APScheduler gave them a random one, by which no two processes know the same job."""
    ids = []
    for _ in range(2):
        scheduler = BackgroundScheduler(timezone="UTC")
        scheduler.add_job(work, "interval", seconds=5, args=[1])
        scheduler.add_job(work, "interval", seconds=5, id="given")
        elect(scheduler)
        ids.append([job.id for job in scheduler.get_jobs()])
    assert ids[0] == ids[1]
    assert ids[0][0].startswith(f"{__name__}:work (")
    assert ids[0][1] == "given"


def test_a_job_that_can_have_no_stable_id_is_refused() -> None:
    """And the scheduler stays what it was."""
    scheduler = BackgroundScheduler()
    scheduler.add_job(lambda: None, "interval", seconds=5)
    with pytest.raises(ConfigurationError, match="needs id="):
        elect(scheduler)
    assert type(scheduler) is BackgroundScheduler


def test_grace_times_that_were_given_are_kept() -> None:
    """Only the one second that nobody asked for is none."""
    given: Any = elect(BackgroundScheduler(job_defaults={"misfire_grace_time": 30}))
    assert given._job_defaults["misfire_grace_time"] == 30
    unsaid: Any = elect(BackgroundScheduler())
    assert unsaid._job_defaults["misfire_grace_time"] is None


@pytest.mark.parametrize("kind", [AsyncIOScheduler, BlockingScheduler])
def test_other_classes_become_their_own(kind: type[Any]) -> None:
    """Each is made once."""
    assert type(elect(kind())) is type(elect(kind()))
    assert type(elect(AsyncIOScheduler())) is LeaderAsyncIOScheduler


def test_a_started_scheduler_is_refused() -> None:
    """It may have run jobs already."""
    scheduler = BackgroundScheduler()
    scheduler.start()
    with pytest.raises(ConfigurationError, match=r"elect\(\) it before its start\(\)"):
        elect(scheduler)
    scheduler.shutdown()
    assert type(scheduler) is BackgroundScheduler


@pytest.mark.parametrize("thing", [None, 5, object(), BackgroundScheduler])
def test_what_is_no_scheduler_is_refused(thing: object) -> None:
    """With a sentence."""
    with pytest.raises(ConfigurationError, match="wants a scheduler of APScheduler 3, not"):
        elect(thing)


def test_a_setting_nobody_knows_is_refused() -> None:
    """And the scheduler stays what it was."""
    scheduler = BackgroundScheduler()
    with pytest.raises(ConfigurationError, match="did you mean 'store'"):
        elect(scheduler, stor="memory://")
    assert type(scheduler) is BackgroundScheduler


def test_flask_apscheduler(rig: Rig) -> None:
    """Its object is handed over as it is; jobs come from Flask's configuration."""
    body = Body()
    app = Flask(__name__)
    job = {"id": "job", "func": body, "trigger": "interval", "seconds": 0.1}
    app.config |= {"JOBS": [job], "SCHEDULER_TIMEZONE": "UTC"}
    scheduler = elect(APScheduler(), store=rig.url, ttl=5)
    scheduler.init_app(app)
    scheduler.start()
    rig.made.append(scheduler.scheduler)
    body.wait(2)
    until(lambda: rig.history("job"))
    assert scheduler.get_job("job") is not None
    logging.getLogger(__name__).handlers.clear()


def test_what_is_not_there_is_said_as_by_any_module() -> None:
    """The classes are made when they are asked for."""
    with pytest.raises(AttributeError, match="has no attribute 'LeaderTrioScheduler'"):
        _ = apscheduler.LeaderTrioScheduler
    assert set(apscheduler.__all__) >= {"LeaderQtScheduler", "elect"}
