"""The recipes for web servers: each as it is written, under its real server, whose workers die."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPException
from importlib.util import find_spec

import django
import pytest

from testsupport.apscheduler_servers import DjangoServer, WebServer
from testsupport.processes import is_alive

pytestmark = pytest.mark.slow

GUNICORN = ("gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket", "-w", "3")
CONFIGURED = (*GUNICORN, "-c", "python:recipes.gunicorn_conf")
FLASK = "recipes.flask_app:app"
UWSGI = ("uwsgi", "--http", "127.0.0.1:{port}", "--ini", "{recipes}/uwsgi.ini")
DEBUG = ("flask", "--app")
RUN = ("run", "--debug", "--port", "{port}", "--extra-files", "watched.py")
WATCHED = {"watched.py": ""}
#: Each server has so many workers, at least.
_WORKERS = 3
#: What the servers themselves need to stop, on a machine that is busy.
_STOPPED_WITHIN = 5.0

needs_uwsgi = pytest.mark.skipif(
    find_spec("uwsgidecorators") is None and os.environ.get("REQUIRE_UWSGI") != "1",
    reason="uWSGI is not installed",
)


def django_server(*command: str) -> list[WebServer]:
    """Return a server of the example project, unless this Django is too old for it."""
    return [DjangoServer(*command, files=WATCHED)] if django.VERSION >= (5, 1) else []


def together(live: Callable[[WebServer], None], *servers: WebServer) -> None:
    """Have servers live at the same time: most of it is waiting for the next second."""
    with ExitStack() as running, ThreadPoolExecutor(len(servers)) as pool:
        for server in servers:
            running.enter_context(server)  # from this thread, with which its process would die
        list(pool.map(live, servers))


def come_and_go(server: WebServer) -> None:
    """Kill the worker that leads, reload the server, stop it."""
    server.kill_leader()
    assert server.text()
    server.next_tick()  # a worker of uWSGI that just begins would take a signal to be its parent's
    before = server.pids()
    server.process.send_signal(signal.SIGHUP)
    server.next_tick(but=before)
    server.wait(lambda: len(server.pids() - before) >= _WORKERS, "workers are not replaced")
    assert server.text()
    took = server.stopped_after()
    assert server.faults() == [], server.log
    assert server.candidates() == [], server.log
    assert took < _STOPPED_WITHIN, server.log


def test_workers_of_gunicorn_come_and_go() -> None:
    """A worker of any class that is killed, a reload and a stop neither double nor lose a second."""
    together(
        come_and_go,
        WebServer(*CONFIGURED, FLASK),
        WebServer(*CONFIGURED, "--preload", FLASK),
        WebServer(*CONFIGURED, "-k", "gthread", FLASK),
        WebServer(*CONFIGURED, "-k", "gevent", FLASK),
    )


def test_workers_that_start_their_scheduler_themselves_come_and_go() -> None:
    """So do those whose application starts it: in its lifespan, or when it is imported."""
    together(
        come_and_go,
        WebServer("uvicorn", "--port", "{port}", "--workers", "3", "recipes.fastapi_app:app"),
        WebServer(*GUNICORN, "recipes.flask_apscheduler_app:app"),
        *django_server(*GUNICORN, "recipes.django_wsgi:application"),
    )


@needs_uwsgi
def test_workers_of_uwsgi_come_and_go() -> None:
    """So does uWSGI, whose reload replaces the first process as well."""
    together(come_and_go, WebServer(*UWSGI))


@needs_uwsgi
def test_workers_of_uwsgi_that_load_the_application_themselves() -> None:
    """With lazy-apps the recipe starts the scheduler too, though no fork comes after it is loaded."""
    with WebServer(*UWSGI, "--lazy-apps") as server:
        server.kill_leader()
        server.wait(lambda: server.log.count("WSGI app 0") == 5, "the worker does not come back")
        server.stop()
        assert server.faults() == [], server.log


def reload(server: WebServer) -> None:
    """Edit a file, and see that the process that serves is replaced, and is the one that fires."""
    first = server.next_tick().pid
    server.edit("watched.py")
    second = server.next_tick(but=[first]).pid
    assert server.process.pid not in {first, second}
    assert server.text()
    server.stop()
    assert server.faults() == [], server.log


def test_only_the_reloaded_process_runs_jobs() -> None:
    """The process that watches the files never fires; the one that serves does, until it is replaced."""
    together(
        reload,
        WebServer(*DEBUG, "recipes.flask_dev", *RUN, files=WATCHED),
        WebServer(*DEBUG, "recipes.flask_apscheduler_app", *RUN, files=WATCHED),
        *django_server("python", "-m", "django", "runserver", "127.0.0.1:{port}"),
    )


def test_a_reloader_whose_two_processes_stand_runs_each_second_once() -> None:
    """Who starts the scheduler in both of them has old code run, perhaps, but nothing twice."""
    both = "from recipes.flask_app import app, scheduler\nscheduler.start()\n"
    with WebServer(*DEBUG, "both", *RUN, files={"both.py": both, **WATCHED}) as server:
        server.next_tick()
        before = server.pids()
        server.edit("watched.py")
        server.wait(lambda: len(server.pids() | before) > len(before), "nothing was reloaded")
        server.next_tick()
        assert {tick.pid for tick in server.ticks()} == {server.process.pid}
        server.stop()
        assert server.faults() == [], server.log


_FORKED = """
from leader_jobs.exceptions import ConfigurationError
from recipes.flask_app import app, scheduler

scheduler.start()


@app.get("/start")
def start():
    try:
        scheduler.start()
    except ConfigurationError as error:
        return {"refused": str(error)}
"""


def test_a_scheduler_started_before_the_fork_runs_in_the_first_process_alone() -> None:
    """With --preload and a start at import the workers' copies run nothing, and say so when asked."""
    with WebServer(*GUNICORN, "--preload", "forked:app", files={"forked.py": _FORKED}) as server:
        assert server.next_tick().pid == server.process.pid
        assert not server.get()["leads"]
        assert "started before a fork" in server.get("/start")["refused"]
        for pid in server.pids() - {server.process.pid}:
            os.kill(pid, signal.SIGKILL)
        assert server.next_tick().pid == server.process.pid
        took = server.stopped_after()
        assert server.faults() == [], server.log
        assert took < _STOPPED_WITHIN, server.log


_HANGS = """
import time

from recipes.flask_app import app, scheduler


@app.get("/hang")
def hang():
    while scheduler.leads:
        time.sleep(0.1)
    return {}
"""


def test_workers_that_gunicorn_replaces_hand_over() -> None:
    """The leader is ended when a request hangs in it, and recycled when it has served enough."""
    limits = ("--timeout", "2", "--max-requests", "30")
    with WebServer(*CONFIGURED, *limits, "hangs:app", files={"hangs.py": _HANGS}) as server:
        first = server.next_tick().pid
        with suppress(HTTPException, OSError):
            while True:
                server.get("/hang")
        assert "WORKER TIMEOUT" in server.log
        second = server.next_tick(but=[first]).pid
        while is_alive(second):
            with suppress(HTTPException, OSError):
                server.get()
        assert server.next_tick(but=[second])
        server.stop()
        assert server.faults(known=1) == [], server.log
