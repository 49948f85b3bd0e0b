"""Beat entries as jobs: names, policies, what is said in options and by `leader_only`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from celery.beat import ScheduleEntry
from celery.schedules import crontab

from leader_jobs import leader_only
from leader_jobs.adapters.celery_entries import HEADER, job_name, job_of, own_options
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import check_job
from leader_jobs.occurrences import CatchUp, Policy


def nothing() -> None:
    """Do nothing."""


@pytest.fixture(name="app")
def _app() -> Iterator[Celery]:
    app: Any = Celery("entries", set_as_current=False, broker="memory://")
    restricted = leader_only(name="body", catch_up="all", window=60, on_crash="rerun")(nothing)
    app.task(restricted, name="restricted", shared=False)
    app.task(nothing, name="free", shared=False)
    yield app
    app.close()


def entry(app: Celery, **fields: Any) -> ScheduleEntry:
    """Return an entry called "job"."""
    return ScheduleEntry(app=app, **{"name": "job", "task": "free", "schedule": 10.0, **fields})


# -- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["job", "every 10 s", "proj.tasks.add", "celery.backend_cleanup"])
def test_plain_names_stay(name: str) -> None:
    """What may be the name of a job is its name."""
    assert job_name(name) == name


@pytest.mark.parametrize("name", ["", "a/b", "é" * 300, "x" * 500, "..", "line\nbreak", "_@"])
def test_any_text_has_a_name(name: str) -> None:
    """Other text has one that is readable and its own."""
    found = job_name(name)

    assert check_job(found) == found
    assert found == job_name(name)


def test_names_that_look_alike_are_told_apart() -> None:
    """Two entries never share a job."""
    assert len({job_name(name) for name in ("a/b", "a_b", "a\\b", "a\nb")}) == 4


# -- policies -----------------------------------------------------------------------------------------


def test_an_entry_of_an_unrestricted_task(app: Celery) -> None:
    """It is not guarded, overlaps as it always did, and catches up on the latest."""
    job = job_of(entry(app), app)

    assert (job.name, job.entry, job.task) == ("job", "job", "free")
    assert (job.guarded, job.rerun_on_crash, job.once) == (False, False, False)
    assert job.policy == Policy(catch_up="latest", overlap=True)


def test_an_entry_of_a_task_that_beat_does_not_know(app: Celery) -> None:
    """The same: it may be restricted where it runs, and says so with an option if it matters."""
    assert not job_of(entry(app, task="elsewhere"), app).guarded
    options = {HEADER: {"guarded": True, "overlap": False}}
    job = job_of(entry(app, task="elsewhere", options=options), app)
    assert (job.guarded, job.policy.overlap) == (True, False)


def test_an_entry_of_a_restricted_task(app: Celery) -> None:
    """What `leader_only` says holds, and what the entry says holds before it."""
    job = job_of(entry(app, task="restricted"), app)
    assert (job.guarded, job.rerun_on_crash) == (True, True)
    assert job.policy == Policy(catch_up="all", window=60)

    options = {HEADER: {"catch_up": "skip", "on_crash": "interrupt", "max_burst": 3}}
    job = job_of(entry(app, task="restricted", options=options), app)
    assert (job.guarded, job.rerun_on_crash) == (True, False)
    assert job.policy == Policy(catch_up=CatchUp.SKIP, window=60, max_burst=3)


@pytest.mark.parametrize(
    ("options", "schedule", "expected"),
    [
        ({"expires": 90}, 10.0, 90),
        ({"expires": 0.2}, 10.0, 1),
        ({"expires": 90, HEADER: {"window": 5}}, 10.0, 5),
        ({"expires": 5, HEADER: {"window": 90}}, 10.0, 5),
        ({"expires": 5}, crontab(), 5),
        ({}, 10.0, None),
        ({}, crontab(), 30),
        ({HEADER: {"window": timedelta(minutes=2)}}, crontab(), 120),
    ],
)
def test_the_window_of_an_entry(
    app: Celery, options: dict[str, Any], schedule: Any, expected: float | None
) -> None:
    """Its own option or Celery's deadline for crontabs, and never more than until it has expired."""
    app.conf.beat_cron_starting_deadline = 30
    window = job_of(entry(app, options=options, schedule=schedule), app).policy.window

    assert window == (None if expected is None else timedelta(seconds=expected))


def test_options_in_the_headers_count_too(app: Celery) -> None:
    """That is where the admin of django-celery-beat has room for them."""
    found = own_options(entry(app, options={"headers": {HEADER: {"catch_up": "all"}}}))

    assert found == {"catch_up": "all"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("all", "it must be a mapping"),
        ({"catchup": "all"}, "did you mean 'catch_up'?"),
        ({"colour": 1}, "known are catch_up, window"),
        ({"catch_up": "everything"}, "catch_up is 'everything'"),
        ({"window": 0}, "window"),
        ({"max_burst": 0}, "max_burst is 0"),
        ({"overlap": "no"}, "overlap is 'no'"),
        ({"on_crash": "explode"}, "on_crash is 'explode'"),
    ],
)
def test_nonsense_is_refused_with_the_name_of_the_entry(
    app: Celery, said: object, expected: str
) -> None:
    """The message says what to change, and where."""
    with pytest.raises(ConfigurationError) as found:
        job_of(entry(app, options={HEADER: said}), app)

    assert "entry 'job'" in str(found.value)
    assert expected in str(found.value)


def test_a_schedule_that_is_none_is_refused(app: Celery) -> None:
    """Also one that is too fast for anybody."""
    for nonsense in (None, 0.01):
        with pytest.raises(ConfigurationError, match="entry 'job'"):
            job_of(entry(app, schedule=nonsense), app)
