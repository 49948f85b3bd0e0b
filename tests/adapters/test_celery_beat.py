"""The scheduler that Celery's beat makes, ticks and closes."""

import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import EmbeddedService, Service

from leader_jobs.adapters.celery_beat import LeaderScheduler
from leader_jobs.config import Settings, application
from leader_jobs.exceptions import ConfigurationError
from testsupport.background import Background
from testsupport.brokers import FilesystemBroker


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """Have no test change the settings of the process."""
    yield
    application.configure(None)


@pytest.fixture(name="app")
def _app(filesystem_broker: FilesystemBroker, tmp_path: Path) -> Iterator[Celery]:
    app = Celery("beats", set_as_current=False)
    app.conf.update(
        filesystem_broker.settings,
        beat_schedule={"job": {"task": "any", "schedule": 3600.0}},
        leader_jobs_store=f"sqlite:///{tmp_path}/store.sqlite3",
        leader_jobs_ttl=2.0,
    )
    yield app
    app.close()


def own_threads() -> set[str]:
    """Return the names of this library's threads in this process."""
    return {t.name for t in threading.enumerate() if t.name.startswith("leader-jobs")}


# -- as beat makes and uses it ------------------------------------------------------------------------


def test_one_made_for_the_banner_starts_nothing(app: Celery, tmp_path: Path) -> None:
    """Beat makes a first one lazily: no thread, no file and no connection may come of it."""
    files = set(Path("/proc/self/fd").iterdir())
    scheduler = LeaderScheduler(app, lazy=True, max_interval=5, schedule_filename="unused")

    assert "election 'default'" in scheduler.info
    assert "celery_timetable:StaticScheduler" in scheduler.info
    scheduler.close()
    assert own_threads() == set()
    assert set(Path("/proc/self/fd").iterdir()) <= files
    assert not (tmp_path / "store.sqlite3").exists()


def test_neither_does_one_that_was_not_ticked(app: Celery, tmp_path: Path) -> None:
    """Embedded beat makes it in one process and ticks it in another: only the latter counts."""
    scheduler = LeaderScheduler(app)
    scheduler.sync()
    scheduler.close()

    assert not scheduler.should_sync()
    assert own_threads() == set()
    assert not (tmp_path / "store.sqlite3").exists()


def test_it_ticks_until_it_is_closed(app: Celery) -> None:
    """A tick waits for a second at most; once closed, it returns at once and starts nothing."""
    scheduler = LeaderScheduler(app)
    assert scheduler.tick() == 0.0
    assert "leader-jobs-beat" in own_threads()
    scheduler.close()
    assert own_threads() == set()

    assert Background(scheduler.tick).result(0.5) == 0.0
    scheduler.close()
    scheduler.close()
    assert own_threads() == set()


def test_closing_ends_a_tick_that_waits(app: Celery) -> None:
    """Whoever closes it from another thread does not leave the ticking one behind."""
    scheduler = LeaderScheduler(app)
    scheduler.tick()
    ticking = Background(scheduler.tick)
    scheduler.close()

    assert ticking.result() == 0.0


def test_a_service_on_a_thread_stops(app: Celery) -> None:
    """Embedded as a thread, beat stops when told to, and the node resigns."""
    service: Any = EmbeddedService(app, thread=True, scheduler_cls=LeaderScheduler)
    service.start()
    stopping = Background(service.stop)
    stopping.result(10.0)
    service.join(10.0)

    assert not service.is_alive()
    assert own_threads() == set()


def test_a_signal_before_the_thread_has_begun(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed while the first tick makes the node, it ends without an error."""
    scheduler = LeaderScheduler(app)
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "leader-jobs-beat":
            scheduler.close()
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert scheduler.tick() == 0.0
    monkeypatch.undo()
    for thread in threading.enumerate():
        if thread.name == "leader-jobs-beat":
            thread.join(5.0)

    assert own_threads() == set()


def test_a_fork_of_a_ticking_one_owns_nothing(app: Celery) -> None:
    """The child's copy, closed, leaves the parent's candidacy alone; ticked, it stands by itself."""
    scheduler = LeaderScheduler(app)
    scheduler.tick()
    pid = os.fork()
    if pid == 0:
        scheduler.close()
        os._exit(0 if scheduler.tick() == 0.0 else 1)
    _, status = os.waitpid(pid, 0)

    assert status == 0
    assert "leader-jobs-beat" in own_threads()
    scheduler.close()


# -- configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"leader_jobs_store": None}, "store is not set"),
        ({"leader_jobs_store": "sqlite://relative"}, "four slashes"),
        ({"leader_jobs_sotre": "x"}, "did you mean leader_jobs_store?"),
        ({"leader_jobs_ttl": 0.5}, "ttl is 0.5"),
        ({"leader_jobs_beat_scheduler": "no.such:Thing"}, "can not be imported"),
        ({"leader_jobs_beat_scheduler": "celery:Celery"}, "no subclass of celery.beat.Scheduler"),
    ],
)
def test_nonsense_is_refused_in_one_line(
    app: Celery, setting: dict[str, Any], expected: str
) -> None:
    """Beat ends with the message, with or without a banner; a thread gets an error that says it."""
    app.conf.update(setting)

    for lazy in (True, False):
        with pytest.raises(SystemExit) as ended:
            LeaderScheduler(app, lazy=lazy)
        message = str(ended.value.code)
        assert expected in message
        assert "\n" not in message
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        Background(lambda: LeaderScheduler(app)).result()


@pytest.mark.parametrize("options", [(), ("-q",)], ids=["banner", "quiet"])
def test_beat_without_a_store_ends_with_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The program says what to set, shows no traceback, and does not exit with 0."""
    (tmp_path / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    command = [sys.executable, "-m", "celery", *options, "-A", "bare", "beat", "-S", "leader"]
    foreign = ("LEADER_JOBS_", "DJANGO_", "CELERY_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert "store is not set" in result.stderr


def test_an_application_without_settings_takes_those_of_its_process(
    app: Celery, tmp_path: Path
) -> None:
    """What Django or the environment says holds where Celery's configuration says nothing."""
    app.conf.update(leader_jobs_store=None, leader_jobs_ttl=None)
    application.configure(lambda: Settings(store=f"sqlite:///{tmp_path}/x", election="other"))

    assert "election 'other'" in LeaderScheduler(app, lazy=True).info


# -- what Celery's own tests of a service ask of a scheduler ------------------------------------------


class Once(LeaderScheduler):
    """Ticks once, and has its service end."""

    service: Any
    raises = False

    def tick(self, *_: Any, **__: Any) -> float:
        """Tick, and then stop the service or raise as a signal does."""
        super().tick()
        if self.raises:
            raise SystemExit
        self.service.stop()
        return 0.0


def test_a_service_finds_it_by_its_short_name(app: Celery) -> None:
    """That is the entry point; the service may be sent to another process meanwhile."""
    name: Any = "leader"
    service = pickle.loads(pickle.dumps(Service(app, scheduler_cls=name)))

    assert isinstance(service.get_scheduler(lazy=True), LeaderScheduler)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("embedded", [False, True])
def test_a_service_ends_after_a_tick(app: Celery, *, raises: bool, embedded: bool) -> None:
    """Stopped, or ended by a signal: the scheduler is closed, and the service says that it is."""
    service: Any = Service(app, scheduler_cls=Once)
    service.scheduler.service = service
    service.scheduler.raises = raises
    service.start(embedded_process=embedded)

    assert service._is_shutdown.is_set()
    service.stop(wait=True)
    service.sync()
    assert own_threads() == set()


def test_a_service_that_never_ticks(app: Celery, tmp_path: Path) -> None:
    """Stopped before it was started, it leaves nothing."""
    service: Any = Service(app, scheduler_cls=LeaderScheduler)
    service.stop()
    service.start()

    assert own_threads() == set()
    assert not (tmp_path / "store.sqlite3").exists()
