"""What the leader makes of job stores: which next run times count, and what it writes there."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import text

from leader_jobs.adapters import apscheduler_shelf
from leader_jobs.adapters.apscheduler_board import Board
from leader_jobs.adapters.apscheduler_shelf import Writer
from leader_jobs.adapters.apscheduler_stores import host_of, keep_unrestorable
from leader_jobs.clock import SystemClock
from leader_jobs.records import JobRecord
from testsupport.background import Background

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_JOB: Final = "testsupport.apscheduler_store_jobs:note"


class Idle(BackgroundScheduler):  # type: ignore[misc]  # APScheduler is not typed
    """A scheduler that runs nothing, not even at its shutdown."""

    def _process_jobs(self) -> None:
        pass


class Desk:
    """
    A scheduler that runs nothing, with a shared store and one in memory, and boards to look at them.

    Args:
        folder: for the shared store.
    """

    def __init__(self, folder: Path) -> None:
        self.shared = SQLAlchemyJobStore(url=f"sqlite:///{folder / 'jobs.sqlite3'}")
        keep_unrestorable(self.shared)
        self.memory = MemoryJobStore()
        self.scheduler = Idle(timezone="UTC")
        self.scheduler.add_jobstore(self.shared, "shared")
        self.scheduler.add_jobstore(self.memory, "memory")
        self.scheduler.start(paused=True)
        self.now = SystemClock().utcnow()
        self.leads = True
        self._boards: list[Board] = []

    def close(self) -> None:
        """Shut everything down."""
        for board in self._boards:
            board.close()
        self.scheduler.shutdown()
        self.shared.engine.dispose()

    def add(self, store: str = "shared", **kwargs: Any) -> None:
        """Add a job, hourly unless told otherwise, to one of the stores."""
        given = {"func": _JOB, "id": "job", "jobstore": store, "replace_existing": True} | kwargs
        if "trigger" not in given:
            given |= {"trigger": "interval", "hours": 1}
        self.scheduler.add_job(**given)

    def look(self, *known: JobRecord) -> Board:
        """Return the board of a new term, whose ledger knows these records."""
        board = Board(
            self.scheduler,
            writer=Writer(
                may_write=lambda: self.leads, begin=lambda _: None, settle=lambda _: None
            ),
            known={record.job: record for record in known},
            ours={},
            max_burst=100,
            clock=SystemClock(),
        )
        self._boards.append(board)
        board.look()
        return board

    def row(self) -> tuple[Any, ...]:
        """Return the only row of the shared store."""
        with self.shared.engine.connect() as connection:
            return tuple(connection.execute(text("SELECT * FROM apscheduler_jobs")).one())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A scheduler with two stores."""
    with closing(Desk(tmp_path)) as desk:
        yield desk


def _record(board: Board, cursor: datetime, schedule: str | None = None) -> JobRecord:
    """Return what a ledger would know of the board's job."""
    (planned,) = board.planned()
    fingerprint = planned.schedule.fingerprint if schedule is None else schedule
    return JobRecord(job="job", schedule=fingerprint, words="", cursor=cursor)


def _next(board: Board, cursor: datetime) -> datetime | None:
    """Return the first run time of the board's job after *cursor*."""
    (planned,) = board.planned()
    return planned.schedule.next_after(cursor)


def _moved_to(instant: datetime) -> Callable[[str], datetime]:
    return lambda _: instant


# -- which next run times count -------------------------------------------------------------------------


def test_a_job_that_the_ledger_does_not_know_begins_with_its_next_run_time(desk: Desk) -> None:
    """A new job in a shared store counts from the run time it was added with, however long ago."""
    begin = desk.now - 10 * _HOUR
    desk.add(next_run_time=begin)
    board = desk.look()
    (planned,) = board.planned()
    assert _next(board, desk.now - 20 * _HOUR) == begin
    assert planned.since is not None
    assert planned.since < begin


def test_a_run_time_that_the_leader_wrote_follows_the_ledger(desk: Desk) -> None:
    """A next run time that a former leader wrote, or did not come to write, moves nothing."""
    cursor = desk.now - 3 * _HOUR
    for written in (cursor, cursor + _HOUR, cursor - _HOUR):
        desk.add(next_run_time=written)
        board = desk.look(_record(desk.look(), cursor))
        assert _next(board, cursor) == cursor + _HOUR


@pytest.mark.parametrize("delay", [-30 * _MINUTE, 5 * _MINUTE, 30 * _MINUTE])
def test_a_run_time_that_somebody_moved_counts(desk: Desk, delay: timedelta) -> None:
    """A next run time that is not the rule's own counts for a successor, and at every later look."""
    cursor = desk.now - 40 * _MINUTE
    desk.add(next_run_time=desk.now + delay)
    board = desk.look(_record(desk.look(), cursor))
    for _ in range(2):
        assert _next(board, cursor) == desk.now + delay
        board.look()
        assert not board.refresh(desk.now + _HOUR, ["job"])


def test_a_paused_job_is_not_planned_until_it_is_resumed(desk: Desk) -> None:
    """A job without a next run time is not run; resumed, it goes on from the one it is given."""
    desk.add(next_run_time=None)
    board = desk.look()
    assert board.planned() == []
    assert board.paused() == {"job"}
    desk.scheduler.modify_job("job", next_run_time=desk.now + _MINUTE)
    board.look()
    assert _next(board, desk.now) == desk.now + _MINUTE
    assert board.paused() == set()


def test_another_rule_in_a_shared_store_begins_where_the_store_says(desk: Desk) -> None:
    """A job that was rescheduled while nobody led has its run time, unless that is accounted for."""
    desk.add(next_run_time=desk.now - _MINUTE)
    former = desk.look()
    board = desk.look(_record(former, desk.now - _HOUR, "another"))
    assert _next(board, desk.now - _HOUR) == desk.now - _MINUTE
    board = desk.look(_record(former, desk.now, "another"))
    assert _next(board, desk.now) == desk.now + _HOUR


def test_in_memory_a_job_goes_by_the_ledger(desk: Desk) -> None:
    """What each process works out for itself is no reason to move a run time of a job that is known."""
    cursor = desk.now - 10 * _MINUTE
    desk.add("memory", next_run_time=desk.now + 3 * _MINUTE)
    board = desk.look(_record(desk.look(), cursor))
    assert _next(board, cursor) == cursor + _HOUR


def test_in_memory_the_run_time_of_a_job_added_long_ago_does_not_count(desk: Desk) -> None:
    """A process that stood by for an hour does not begin with what was due before it led."""
    desk.add("memory", next_run_time=desk.now - _HOUR)
    (planned,) = desk.look().planned()
    assert planned.since is None
    desk.add("memory", next_run_time=desk.now - timedelta(seconds=5))
    (planned,) = desk.look().planned()
    assert planned.since is not None


def test_in_memory_an_id_may_be_used_again(desk: Desk) -> None:
    """A one-shot job for now runs, although the ledger knows an earlier one of its id."""
    former = JobRecord(job="job", schedule="aps-date:old", words="", cursor=desk.now - _HOUR)
    board = desk.look(former)
    desk.add("memory", trigger="date", run_date=desk.now - timedelta(milliseconds=5))
    board.look()
    assert _next(board, desk.now - _HOUR) == desk.now - timedelta(milliseconds=5)


def test_what_others_changed_is_seen_before_a_job_is_run(desk: Desk) -> None:
    """Before a due job is claimed its row is read again: it may be paused, changed, moved or gone."""
    desk.add(next_run_time=desk.now)
    board = desk.look()
    assert not board.refresh(desk.now, ["job"])
    desk.scheduler.modify_job("job", args=["other"])
    board.refresh(desk.now, ["job"])
    entry = board["job"]
    assert entry is not None
    assert list(entry.job.args) == ["other"]
    desk.scheduler.modify_job("job", next_run_time=desk.now + _MINUTE)
    assert board.refresh(desk.now, ["job"])
    assert _next(board, desk.now) == desk.now + _MINUTE
    desk.scheduler.pause_job("job")
    assert board.refresh(desk.now, ["job"])
    assert board.planned() == []
    desk.scheduler.remove_job("job")
    assert board.refresh(desk.now, ["job"])
    assert board.names() == set()


# -- what is written ------------------------------------------------------------------------------------


def test_a_run_time_is_written_onto_the_row_as_it_is(desk: Desk) -> None:
    """What somebody changed since the job was read is not undone by the new run time."""
    desk.add(next_run_time=desk.now)
    board = desk.look()
    desk.scheduler.modify_job("job", args=["other"])
    assert board.show(["job"], _moved_to(desk.now + _HOUR)) == set()
    job = desk.scheduler.get_job("job")
    assert (job.next_run_time, list(job.args)) == (desk.now + _HOUR, ["other"])


def test_a_run_time_that_was_moved_meanwhile_is_left_alone(desk: Desk) -> None:
    """A next run time that somebody set since the job was read stays, and is looked at soon."""
    desk.add(next_run_time=desk.now)
    board = desk.look()
    assert not board.unsettled()
    desk.scheduler.modify_job("job", next_run_time=desk.now + _MINUTE)
    assert board.show(["job"], _moved_to(desk.now + _HOUR)) == {"job"}
    assert board.remove(["job"]) == set()
    assert board.unsettled()
    assert desk.scheduler.get_job("job").next_run_time == desk.now + _MINUTE


def test_who_does_not_lead_any_more_writes_nothing(desk: Desk) -> None:
    """Between the decision to write and the writing the term may end: then nothing is written."""
    desk.add(next_run_time=desk.now)
    board = desk.look()
    before = desk.row()
    desk.leads = False
    assert board.show(["job"], _moved_to(desk.now + _HOUR)) == {"job"}
    assert board.remove(["job"]) == set()
    assert desk.row() == before


def test_a_removed_job_is_written_no_more(desk: Desk) -> None:
    """A job that somebody removed since it was read does not come back."""
    desk.add(next_run_time=desk.now)
    board = desk.look()
    desk.scheduler.remove_job("job")
    assert board.show(["job"], _moved_to(desk.now + _HOUR)) == set()
    assert board.remove(["job"]) == {"job"}
    assert desk.scheduler.get_jobs() == []


def test_only_ids_that_were_made_up_are_forgotten(desk: Desk) -> None:
    """Jobs of shared stores whose id nobody will use again, and what is left of such: no others."""
    made_up, other = "0123456789abcdef" * 2, "f" * 32
    desk.add(id=made_up, trigger="date", run_date=desk.now + _HOUR)
    desk.add(id="named", trigger="date", run_date=desk.now + _HOUR)
    desk.add("memory", id=other, trigger="date", run_date=desk.now + _HOUR)
    known = [
        JobRecord(job=name, schedule=schedule, words="", cursor=desk.now)
        for name, schedule in ((made_up, ""), ("a" * 32, ""), ("b" * 32, "aps-date:"), ("gone", ""))
    ]
    board = desk.look(*known)
    assert board.forgettable() == {made_up}
    assert board.forgotten() == {"a" * 32}


# -- jobs that can not be restored -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "gone"),
    [
        (b"apscheduler_store_jobs:note", b"apscheduler_store_jobs:gone"),
        (b"apscheduler.", b"apscheduled."),
    ],
)
def test_a_job_that_can_not_be_restored_stays_as_it_is(
    desk: Desk, found: bytes, gone: bytes
) -> None:
    """A row whose function, or whose very classes, this process lacks is kept to the byte, and not run."""
    desk.add(next_run_time=desk.now)
    state = desk.row()[2].replace(found, gone)
    with desk.shared.engine.begin() as connection:
        connection.execute(text("UPDATE apscheduler_jobs SET job_state = :state"), {"state": state})
    before = desk.row()
    board = desk.look()
    assert board.planned() == []
    board.refresh(desk.now, ["job"])
    assert board.show(["job"], _moved_to(desk.now + _HOUR)) == set()
    board.remove(["job"])
    (listed,) = desk.scheduler.get_jobs("shared")
    with pytest.raises(LookupError, match="can not be imported"):
        listed.func()
    assert desk.row() == before


# -- stores that hang -------------------------------------------------------------------------------------


@contextmanager
def _hanging(store: SQLAlchemyJobStore) -> Iterator[threading.Event]:
    """Have every read of *store* wait for the event."""
    answers = threading.Event()
    read = store._get_jobs

    def hang(*conditions: Any) -> Any:
        answers.wait(20.0)
        return read(*conditions)

    store._get_jobs = hang
    try:
        yield answers
    finally:
        answers.set()
        store._get_jobs = read


def test_a_store_that_hangs_holds_up_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a store does not answer its jobs are not run, others are, and its answer counts when it comes."""
    monkeypatch.setattr(apscheduler_shelf, "_PATIENCE", 0.1)
    desk.add(id="shared")
    desk.add("memory", id="memory")
    board = desk.look()
    with _hanging(desk.shared) as answers:
        assert board.refresh(datetime.now(UTC), ["shared"])
        assert board.unsettled()
        assert {job.name for job in board.planned()} == {"memory"}
        assert board.names() == {"memory", "shared"}  # it is not gone
        with desk.scheduler._jobstores_lock:  # held by somebody who waits for that store as well
            Background(board.look).result()
        assert {job.name for job in board.planned()} == {"memory"}
        answers.set()
        limit = SystemClock().now() + 10.0
        while board.unsettled():
            assert SystemClock().now() < limit
            board.look()
    assert {job.name for job in board.planned()} == {"memory", "shared"}


# -- where stores are -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("sqlite:////var/jobs.sqlite3", None),
        ("postgresql+psycopg:///jobs", None),
        ("postgresql+psycopg://localhost/jobs", None),
        ("postgresql+psycopg://127.0.0.1:5433/jobs", None),
        ("postgresql+psycopg://user:secret@db1.example.com/jobs", "db1.example.com"),
    ],
)
def test_the_host_of_a_store_is_known(url: str, host: str | None) -> None:
    """Whether other machines reach a database can be told from its URL."""
    store = SQLAlchemyJobStore(url=url)
    assert host_of(store) == host
    store.engine.dispose()
