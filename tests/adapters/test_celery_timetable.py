"""The wrapped scheduler as a leader uses it: what is read of it, what it notes, when it opens files."""

import logging
import shelve
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import PersistentScheduler, Scheduler
from celery.schedules import crontab

from leader_jobs import leader_only
from leader_jobs.adapters.celery_timetable import StaticScheduler, Timetable, scheduler_class
from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError
from testsupport.beat_rig import BeatRig
from testsupport.brokers import FilesystemBroker


@pytest.fixture(name="app")
def _app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.delenv("LEADER_JOBS_ELECTION", raising=False)
    application.configure(None)
    app = Celery("timetable", set_as_current=False, broker="memory://")
    app.conf.result_expires = None
    app.conf.beat_schedule = {"a": {"task": "any", "schedule": 10.0}}
    yield app
    app.close()


def timetable(app: Celery, kind: type[Scheduler] = StaticScheduler) -> Timetable:
    """Return a timetable that is set up."""
    made = Timetable(app, kind(app, lazy=True))
    made.set_up()
    return made


def names(made: Timetable) -> list[str]:
    """Return the names of its jobs."""
    return sorted(job.name for job in made.jobs())


# -- which class --------------------------------------------------------------------------------------


def test_classes_are_found_by_name() -> None:
    """Any subclass of Celery's scheduler."""
    assert scheduler_class("celery.beat:PersistentScheduler") is PersistentScheduler
    assert scheduler_class("celery.beat.PersistentScheduler") is PersistentScheduler
    assert scheduler_class("celery.beat:Scheduler") is StaticScheduler


@pytest.mark.parametrize("name", ["nowhere:Nothing", "celery.beat:Nothing", "celery:Celery", ""])
def test_what_is_no_class_is_refused(name: str) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigurationError, match="leader_jobs_beat_scheduler"):
        scheduler_class(name)


def test_results_are_cleaned_up_as_ever(app: Celery) -> None:
    """The plain schedule has the daily entry that Celery's default scheduler has."""
    app.conf.result_expires = timedelta(days=1)
    made = timetable(app)

    assert names(made) == ["a", "celery.backend_cleanup"]
    made.set_up()
    assert names(made) == ["a", "celery.backend_cleanup"]


# -- jobs ---------------------------------------------------------------------------------------------


def test_jobs_that_did_not_change_are_the_same_objects(app: Celery) -> None:
    """So that the ledger need not look at them."""
    made = timetable(app)
    (before,) = made.jobs()
    made.sent(before)
    (after,) = made.jobs()

    assert after is before


def test_an_entry_that_makes_no_sense_is_left_out(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and again if something else is wrong with it; the others are there."""
    schedule: dict[str, Any] = dict(app.conf.beat_schedule)
    schedule["b"] = {
        "task": "any",
        "schedule": 10.0,
        "options": {"leader_jobs": {"catchup": "all"}},
    }
    app.conf.beat_schedule = schedule
    made = timetable(app)

    assert [names(made), names(made)] == [["a"], ["a"]]
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "did you mean 'catch_up'?" in errors[0]


def test_tasks_with_a_schedule_of_their_own_are_entries(app: Celery) -> None:
    """Of this election; an entry of the same name stands for the task."""
    unknown: Any = app

    def nothing() -> None:
        """Do nothing."""

    def nothing_else() -> None:
        """Do nothing."""

    own = leader_only(every=30, name="own")(nothing)
    foreign = leader_only(every=30, name="foreign", election="web")(nothing_else)
    unknown.task(own, name="tasks.own", shared=False)
    unknown.task(foreign, name="tasks.foreign", shared=False)
    made = timetable(app)

    assert names(made) == ["a", "own"]
    job = next(job for job in made.jobs() if job.name == "own")
    assert (job.task, job.guarded) == ("tasks.own", True)
    entry = made.entry(job)
    assert entry is not None
    assert entry.task == "tasks.own"

    app.conf.beat_schedule = {"own": {"task": "tasks.own", "schedule": crontab()}}
    made.set_up()
    (job,) = made.jobs()
    assert "* * * * *" in job.schedule.describe()


def test_an_entry_that_is_gone(app: Celery) -> None:
    """Nothing is noted of it, and there is none to send."""
    made = timetable(app)
    (job,) = made.jobs()
    app.conf.beat_schedule = {}
    made.set_up()

    assert names(made) == []
    assert made.entry(job) is None
    made.sent(job)


# -- books --------------------------------------------------------------------------------------------


class Bookkeeper(Scheduler):
    """Notes when it is asked to write."""

    sync_every = 0
    written = 0
    closed = 0

    def sync(self) -> None:
        """Write."""
        self.written += 1

    def close(self) -> None:
        """Close."""
        self.closed += 1


def test_books_are_kept_after_sending_and_not_in_between(
    filesystem_broker: FilesystemBroker,
) -> None:
    """Once in a tick with whatever was sent, and again at the end of the term."""
    entries = {f"e{n}": {"task": "any", "schedule": 10.0} for n in range(5)}
    with BeatRig.running(filesystem_broker, entries, scheduler=Bookkeeper) as rig:
        keeper: Any = rig.scheduler
        before = keeper.written
        rig.pass_time(10.0, step=10.0)
        assert len(rig.messages()) == 5
        assert keeper.written == before + 1
        assert {entry.total_run_count for entry in keeper.schedule.values()} == {1}
        keeper.sync_every = 1000
        rig.pass_time(10.0)
        assert keeper.written == before + 1
        rig.beat.finish()
        assert keeper.written == before + 2


class OneAtATime:
    """Opens shelves of which there can be one at a time, as with ``dbm.gnu``."""

    def __init__(self) -> None:
        self.opened: list[Any] = []

    def open(self, filename: str, **options: Any) -> Any:
        """Open the shelf, unless it is open."""
        if self.opened:
            with pytest.raises(ValueError, match="closed"):
                list(self.opened[-1])
        shelf = shelve.open(filename, **options)  # noqa: SIM115  the scheduler closes it
        self.opened.append(shelf)
        return shelf


def test_a_shelf_is_opened_by_the_leader_and_closed_before_it_is_opened_again(
    filesystem_broker: FilesystemBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Elected for the second time, the scheduler finds what it noted in its first term."""
    shelves: Any = OneAtATime()

    class Shelved(PersistentScheduler):
        persistence = shelves

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, schedule_filename=f"{tmp_path}/books", **kwargs)

    entries = {"job": {"task": "any", "schedule": 10.0}}
    with BeatRig.running(filesystem_broker, entries, scheduler=Shelved) as rig:
        rig.pass_time(20.0)
        rig.lead_again()
        rig.pass_time(20.0)
        assert len(rig.messages()) == 4

    assert "corrupted" not in caplog.text
    assert len(shelves.opened) == 2
    with closing(shelve.open(f"{tmp_path}/books")) as books:
        assert books["entries"]["job"].total_run_count == 4


def test_a_standby_opens_no_shelf(app: Celery, tmp_path: Path) -> None:
    """Made, asked for nothing and closed, it leaves no file."""
    app.conf.beat_schedule_filename = f"{tmp_path}/books"
    made = Timetable(
        app, PersistentScheduler(app, lazy=True, schedule_filename=f"{tmp_path}/books")
    )
    made.preload()
    made.rest()
    made.close()

    assert list(tmp_path.iterdir()) == []
