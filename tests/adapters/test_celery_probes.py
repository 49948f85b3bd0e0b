"""Celery's processes that are to answer probes: which of them do, and what becomes of those that can not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.worker.worker import WorkController

from leader_jobs.adapters.celery_beat import LeaderScheduler
from leader_jobs.adapters.celery_worker import LeaderJobs
from leader_jobs.config import Settings
from leader_jobs.escort import Escort
from testsupport.probing import ask


@pytest.fixture(name="app")
def _app(tmp_path: Path) -> Iterator[Any]:
    """Return an application whose workers stand in an election."""
    app: Any = Celery("probes", set_as_current=False, broker="memory://")
    app.conf.leader_jobs_store = f"sqlite:///{tmp_path}/store.sqlite3"
    app.conf.leader_jobs_worker_elections = ["reports"]
    app.conf.leader_jobs_probe_port = 0
    app.steps["worker"].add(LeaderJobs)
    yield app
    app.close()


@pytest.fixture(name="taken")
def _taken() -> Iterator[int]:
    """Return a port that another process answers on."""
    with Escort(Settings(store="memory://", probe_port=0)) as other:
        assert other.port is not None
        yield other.port


def step_of(app: Any, **options: Any) -> tuple[Any, Any]:
    """Return a worker of *app*, which is not started, and the step in question."""
    worker = WorkController(app=app, pool_cls="solo", **options)
    assert worker.blueprint is not None
    return worker, worker.blueprint[LeaderJobs.name]


def test_the_main_process_of_a_worker_answers(app: Any) -> None:
    """From when its pool is there until it stops; nothing is listened on before."""
    worker, step = step_of(app)
    assert step._escort.port == 0
    step.start(worker)
    url = f"http://127.0.0.1:{step._escort.port}"
    assert ask(url, "/readyz").status == 200
    step.stop(worker)
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/readyz")
    names = [type(step).__name__ for step in worker.steps]
    assert names.index("Pool") < names.index("LeaderJobs") < names.index("Consumer")


def test_a_worker_that_has_a_beat_leaves_it_to_that(app: Any) -> None:
    """There is one port, and the beat is what can lead."""
    worker, step = step_of(app, beat=True)
    step.start(worker)

    assert step._escort is None
    step.stop(worker)


def test_a_worker_that_can_not_have_the_port(app: Any, taken: int) -> None:
    """It ends with one line, rather than run unseen."""
    app.conf.leader_jobs_probe_port = taken
    worker, step = step_of(app)
    with pytest.raises(SystemExit, match=f"celery worker: probe_port is {taken}, and another"):
        step.start(worker)


def test_a_beat_that_can_not_have_the_port(app: Any, taken: int) -> None:
    """It ends with one line before its first tick; a banner needs no port."""
    app.conf.leader_jobs_probe_port = taken
    assert LeaderScheduler(app, lazy=True).info
    with pytest.raises(SystemExit, match=f"celery beat: probe_port is {taken}, and another"):
        LeaderScheduler(app)


def test_a_beat_that_never_ticks_gives_the_port_back(app: Any) -> None:
    """A signal may come before the first tick."""
    beat = LeaderScheduler(app)
    assert beat._escort is not None
    url = f"http://127.0.0.1:{beat._escort.port}"
    assert ask(url, "/livez").status == 200
    beat.close()
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/livez")
