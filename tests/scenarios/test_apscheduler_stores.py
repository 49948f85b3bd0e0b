"""Schedulers of several processes share a job store, through all that happens to them and to it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from leader_jobs.clock import SystemClock
from testsupport.apscheduler_store_jobs import again, fail, note, reference, slow
from testsupport.apscheduler_stores import StoreFleet, StoreNode
from testsupport.postgres import Database, PostgresServer

_TESTS: Final = Path(__file__).parents[1]
_NOTE: Final = reference(note)
#: A second, and what a busy machine takes; without a word from the standby it is ten.
_SOON: Final = 2.0
_HOURLY: Final = {"func": _NOTE, "trigger": "interval", "hours": 1, "id": "hourly"}
_EACH_SECOND: Final = {
    "func": _NOTE,
    "trigger": "interval",
    "seconds": 1,
    "coalesce": False,
    "replace_existing": True,
}


def _sqlalchemy(folder: Path, url: str) -> StoreFleet:
    return StoreFleet(folder, {"url": url}, url)


def _django(folder: Path, database: Database) -> StoreFleet:
    told = database.django_settings
    migrate = [sys.executable, "-m", "testsupport.django_apscheduler_site", json.dumps(told)]
    subprocess.run(migrate, cwd=_TESTS, check=True, timeout=30)
    table = "django_apscheduler_djangojob"
    return StoreFleet(folder, {"database": told}, database.sqlalchemy_url, table)


_POSTGRES: Final = [
    pytest.param(kind, marks=pytest.mark.postgres) for kind in ("postgres", "django")
]


@pytest.fixture(params=["sqlite", *_POSTGRES])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreFleet]:
    """A fleet on each of the job stores."""
    if request.param == "sqlite":
        made = _sqlalchemy(tmp_path, f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    else:
        database = request.getfixturevalue("postgres")
        django = request.param == "django"
        made = (
            _django(tmp_path, database)
            if django
            else _sqlalchemy(tmp_path, database.sqlalchemy_url)
        )
    with made:
        yield made


def _now() -> datetime:
    return SystemClock().utcnow()


def _next_run_time(fleet: StoreFleet, job: str) -> datetime | None:
    found: datetime | float | None = next(row[1] for row in fleet.rows() if row[0] == job)
    return datetime.fromtimestamp(found, UTC) if isinstance(found, float) else found


def _words(fleet: StoreFleet, job: str) -> list[str]:
    return [line.word for line in fleet.lines(job)]


# -- standbys -----------------------------------------------------------------------------------------


def test_a_standby_writes_nothing_until_it_leads(fleet: StoreFleet) -> None:
    """Standbys start and stop without a trace; their code counts, and no run time is moved, once they lead."""
    moved = _now() + timedelta(minutes=20)
    old = [_HOURLY | {"args": ["old"]}, _HOURLY | {"id": "rests"}, _HOURLY | {"id": "moved"}]
    leader = fleet.lead("a", old)
    fleet.wait(lambda: len(fleet.rows()) == 3)
    leader.call("pause_job", "rests")
    leader.call("modify_job", "moved", next_run_time=moved)
    before = fleet.rows()
    due = _next_run_time(fleet, "hourly")
    same = [old[0] | {"replace_existing": True}, *old[1:]]
    new = [
        _HOURLY | {"args": ["new"], "replace_existing": True},
        _HOURLY | {"id": "rests", "replace_existing": True},
        {"func": _NOTE, "trigger": "cron", "hour": 3, "id": "moved"},
        _HOURLY | {"id": "another"},
    ]
    first, second = fleet.stand_by("b", same), fleet.stand_by("c", new)
    assert fleet.rows() == before
    fleet.end(first)
    assert fleet.rows() == before

    fleet.end(leader)
    fleet.wait(lambda: len(fleet.rows()) == 4)
    assert fleet.leader()[0] is second
    assert _next_run_time(fleet, "hourly") == due
    assert _next_run_time(fleet, "rests") is None
    assert _next_run_time(fleet, "moved") == moved  # it was there, and is not to be replaced
    second.call("modify_job", "hourly", next_run_time=_now())
    fleet.wait(lambda: _words(fleet, "hourly") == ["new"])


def test_changes_on_a_standby_reach_the_leader_within_a_second(fleet: StoreFleet) -> None:
    """What is added, changed, paused, resumed or removed on a standby is so on the leader at once."""
    fleet.lead("a", [_EACH_SECOND | {"id": "tick", "seconds": 0.5, "args": ["old"]}])
    standby = fleet.stand_by("b")
    fleet.wait(lambda: fleet.lines("tick"))
    _add_one_shot(fleet, standby)
    standby.call("modify_job", "tick", args=["new"])
    assert fleet.wait(lambda: fleet.lines("tick")[-1].word == "new") < _SOON
    standby.call("pause_job", "tick")
    seen = len(fleet.lines("tick"))
    fleet.pause(1.2)
    assert len(fleet.lines("tick")) <= seen + 1
    standby.call("resume_job", "tick")
    assert fleet.wait(lambda: len(fleet.lines("tick")) > seen + 1) < _SOON
    standby.call("reschedule_job", "tick", trigger="interval", hours=1)
    standby.call("modify_job", "tick", next_run_time=_now())
    seen = len(fleet.lines("tick"))
    assert fleet.wait(lambda: len(fleet.lines("tick")) > seen) < _SOON
    due = fleet.lines("tick")[-1].planned_at + timedelta(hours=1)
    fleet.wait(lambda: _next_run_time(fleet, "tick") == due)
    standby.call("modify_job", "tick", next_run_time=_now() + timedelta(seconds=1.0))
    standby.call("remove_job", "tick")
    fleet.pause(1.3)
    assert fleet.rows() == []
    assert len(fleet.lines("tick")) == seen + 1


def _add_one_shot(fleet: StoreFleet, standby: StoreNode) -> None:
    """Have *standby* add a one-shot job: it is there until it has run, once, and leaves nothing."""
    standby.call("add_job", func=reference(slow), trigger="date", run_date=_now(), args=[0.6])
    assert fleet.wait(lambda: any(line.word == "begin" for line in fleet.lines())) < _SOON
    (once,) = (line.job for line in fleet.lines() if line.word == "begin")
    assert once in [row[0] for row in fleet.rows()]
    fleet.wait(lambda: once not in [row[0] for row in fleet.rows()])
    assert _words(fleet, once) == ["begin", "end"]
    fleet.wait(lambda: not any(once in key for key in fleet.ledger_keys()))


# -- leaders that die -----------------------------------------------------------------------------------


def test_leaders_that_are_killed_double_nothing_and_miss_nothing(tmp_path: Path) -> None:
    """Leaders are killed at random moments: every run time is run once, and the table follows the ledger."""
    rng = Random(20260101)
    with _sqlalchemy(tmp_path, f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as fleet:
        fleet.jobs = {f"j{n}": 0.5 for n in range(5)}
        fleet.reruns = frozenset(fleet.jobs)
        jobs = [
            _EACH_SECOND | {"id": name, "seconds": 0.5, "func": reference(again)}
            for name in fleet.jobs
        ]
        fleet.lead("0", jobs)
        fleet.stand_by("1", jobs)
        once = 0
        for round_ in range(2, 10):
            node, leader = fleet.leader()
            standby = fleet.stand_by(str(round_), jobs)
            for _ in range(3):
                run_date = _now() + timedelta(seconds=rng.uniform(0, 1))
                once += 1
                standby.call("add_job", func=reference(again), trigger="date", run_date=run_date)
            fleet.await_run(leader.token)
            fleet.pause(rng.uniform(0, 0.6))
            node.kill()
            fleet.note_history()
        fleet.settle()
        fleet.wait(lambda: len(fleet.rows()) == len(jobs))  # no one-shot job is left
        verdict = fleet.stop()
        ran = [line.job for line in fleet.lines() if line.job not in fleet.jobs]
        assert not verdict.doubled, verdict
        assert not verdict.missed, verdict
        assert verdict.run > 50
        assert len(set(ran)) == once
        assert len(ran) <= once + 2  # a body that was killed is started again
        for job, record in fleet.records().items():
            if job in fleet.jobs:
                assert _next_run_time(fleet, job) == record.cursor + timedelta(seconds=0.5)


# -- databases that die -----------------------------------------------------------------------------------


@contextmanager
def _outage(fleet: StoreFleet, server: PostgresServer, kind: str, seconds: float) -> Iterator[None]:
    """Have the database away for a while."""
    if kind == "frozen":
        server.freeze()
    else:
        server.kill()
    fleet.pause(seconds)
    yield
    if kind == "frozen":
        server.thaw()
    else:
        server.restart()


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["frozen", "killed"])
def test_other_stores_go_on_while_a_database_is_away(
    kind: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Nothing of the store is started while it is away, all is caught up on; memory and lease go on."""
    jobs: list[dict[str, Any]] = [
        _EACH_SECOND | {"id": "all"},
        _EACH_SECOND | {"id": "latest", "coalesce": True},
        _EACH_SECOND | {"id": "memory", "jobstore": "memory"},
    ]
    with _sqlalchemy(tmp_path, postgres_server.database.sqlalchemy_url) as fleet:
        leader = fleet.lead("a", jobs)
        fleet.wait(lambda: len(fleet.lines()) >= 6)
        begin = _now()
        with _outage(fleet, postgres_server, kind, 5.5):  # longer than a lease
            away = [line for line in fleet.lines() if line.at > begin + timedelta(seconds=0.2)]
            assert {line.job for line in away} == {"memory"}
        back = _now()
        fleet.wait(lambda: fleet.lines("latest")[-1].planned_at > back)
        fleet.wait(lambda: fleet.lines("all")[-1].planned_at > back)
        lines = fleet.lines()
        assert {(line.pid, line.token) for line in lines} == {(leader.process.pid, lines[0].token)}
        moments = [line.at for line in lines if line.job == "memory"]
        # Two seconds is how long the leader waits for a database, once.
        assert max(b - a for a, b in pairwise(moments)) < timedelta(seconds=3.5)
        for job in "all", "memory":
            instants = [line.planned_at for line in lines if line.job == job]
            assert {b - a for a, b in pairwise(instants)} == {timedelta(seconds=1)}
        instants = [line.planned_at for line in lines if line.job == "latest"]
        assert len(set(instants)) == len(instants) < len(moments) - 3
        log = leader.log.read_text()
        assert log.count("can not be read, and none of its jobs is started") == 1
        assert log.count("can be read again") == 1
        fleet.end(leader)
        assert "threads left: ['MainThread']" in leader.log.read_text()


@pytest.mark.postgres
def test_a_leader_is_elected_while_the_database_hangs(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """A standby that takes over while the database hangs runs what is in its memory, and later the rest."""
    jobs = [
        _EACH_SECOND | {"id": "shared"},
        _EACH_SECOND | {"id": "memory", "jobstore": "memory"},
    ]
    with _sqlalchemy(tmp_path, postgres_server.database.sqlalchemy_url) as fleet:
        former = fleet.lead("a", jobs)
        successor = fleet.stand_by("b", jobs)
        fleet.wait(lambda: fleet.lines("shared"))
        postgres_server.freeze()
        former.kill()
        fleet.wait(lambda: fleet.lines("memory")[-1].pid == successor.process.pid)
        fleet.pause(1.0)
        postgres_server.thaw()
        fleet.wait(lambda: fleet.lines("shared")[-1].pid == successor.process.pid)
        fleet.end(successor)
        for job in "shared", "memory":
            instants = [line.planned_at for line in fleet.lines(job)]
            assert {b - a for a, b in pairwise(instants)} == {timedelta(seconds=1)}


# -- jobs that only some can run --------------------------------------------------------------------------


def test_old_code_leaves_the_jobs_of_new_code_alone(tmp_path: Path) -> None:
    """A job whose function a leader can not import is kept, though not run, until one leads that can."""
    new = tmp_path / "new"
    new.mkdir()
    (new / "new_code.py").write_text(
        "from testsupport.apscheduler_store_jobs import note\n\n\ndef work():\n    note('new')\n"
    )
    with _sqlalchemy(tmp_path, f"sqlite:///{tmp_path / 'jobs.sqlite3'}") as fleet:
        old = fleet.lead("old", [_EACH_SECOND | {"id": "tick"}])
        young = fleet.stand_by("new", path=new)
        job = {"func": "new_code:work", "trigger": "date", "id": "later", "run_date": _now()}
        young.call("add_job", **job)
        fleet.wait(lambda: "job later of store 'default' is not run" in old.log.read_text())
        old.call("get_jobs")
        seen = len(fleet.lines("tick"))
        fleet.wait(lambda: len(fleet.lines("tick")) > seen + 1)
        assert [row[0] for row in fleet.rows()] == ["later", "tick"]
        fleet.end(old)
        fleet.wait(lambda: _words(fleet, "later") == ["new"])
        fleet.wait(lambda: [row[0] for row in fleet.rows()] == ["tick"])


# -- where stores are ---------------------------------------------------------------------------------


@pytest.mark.postgres
def test_a_job_store_of_other_hosts_with_a_ledger_of_this_one_is_warned_of(
    postgres: Database, tmp_path: Path
) -> None:
    """A database elsewhere and a ledger in a file: the log says that each host would elect a leader."""
    url = postgres.sqlalchemy_url.replace("127.0.0.1", "jobs.example.com")
    elsewhere = {"url": url, "engine_options": {"connect_args": {"hostaddr": "127.0.0.1"}}}
    with StoreFleet(tmp_path, elsewhere, postgres.sqlalchemy_url) as fleet:
        node = fleet.lead("a")
        assert "job store 'default' is on jobs.example.com" in node.log.read_text()
        here = fleet.stand_by("b", jobstore={"url": postgres.sqlalchemy_url})
        assert "WARNING" not in here.log.read_text()


# -- django-apscheduler -----------------------------------------------------------------------------------


def _executions(database: Database) -> list[tuple[str, str, bool]]:
    with database.connect() as connection:
        found = connection.execute(
            "SELECT job_id, status, finished IS NOT NULL FROM django_apscheduler_djangojobexecution"
            " ORDER BY run_time"
        )
        return [(job, status, finished) for job, status, finished in found]


@pytest.mark.postgres
def test_rows_of_django_apscheduler_get_their_end(postgres: Database, tmp_path: Path) -> None:
    """A run that was killed, one that failed, and one whose end could not be written: none stays open."""
    with _django(tmp_path, postgres) as fleet:
        jobs = [
            _HOURLY | {"id": "fails", "func": reference(fail), "next_run_time": _now()},
            _HOURLY
            | {"id": "hangs", "func": reference(slow), "args": [60], "next_run_time": _now()},
        ]
        leader = fleet.lead("a", jobs)
        fleet.wait(lambda: len(fleet.lines()) == 2)
        fleet.wait(lambda: ("fails", "Error!", True) in _executions(postgres))
        fleet.wait(lambda: ("hangs", "Started execution", False) in _executions(postgres))
        successor: StoreNode = fleet.stand_by("b")
        leader.kill()
        fleet.wait(lambda: ("hangs", "Error!", True) in _executions(postgres))
        with postgres.connect() as connection:  # as if it had been away for a moment
            connection.execute(
                "UPDATE django_apscheduler_djangojobexecution SET status = 'Started execution',"
                " finished = NULL"
            )
        fleet.pause(2.0)
        successor.call("add_job", **_HOURLY)
        fleet.wait(lambda: {row[1:] for row in _executions(postgres)} == {("Error!", True)})
