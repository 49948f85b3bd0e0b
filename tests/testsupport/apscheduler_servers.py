"""Real web servers whose workers all start a scheduler, and the lines that their jobs write."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import closing, suppress
from datetime import datetime, timedelta
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from leader_jobs.clock import SystemClock
from leader_jobs.config import ENVIRONMENT_PREFIX
from testsupport.processes import is_alive, time_of_death
from testsupport.servers import Server

__all__ = ["DjangoServer", "Tick", "WebServer"]

_EXAMPLES: Final = Path(__file__).parents[2] / "example_project"
_PROGRAMS: Final = Path(sys.executable).parent
_SETTINGS: Final = """
from contextlib import suppress
from pathlib import Path
from site_config.settings import *
with suppress(ImportError):
    import watched

BASE_DIR = Path(__file__).parent
DATABASES["default"]["NAME"] = BASE_DIR / "shop.sqlite3"
"""
_SECOND: Final = timedelta(seconds=1)


class Tick(NamedTuple):
    """A line of the job: for which instant it ran, and in which process."""

    planned_at: datetime
    pid: int


class WebServer(Server):
    """
    A web server with several processes, in a folder of its own.

    Args:
        command: how it is started; ``{port}`` in it stands for the port, ``{recipes}`` for the
            recipes' folder.
        files: what is to be in its folder besides, by name.
        environ: what is to be in its environment besides.

    The folder is the working directory, and so the place of the embedded store; modules are found
    there and among the examples.
    """

    def __init__(
        self,
        *command: str,
        files: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._arguments = command
        self._files = files or {}
        self._environ = environ or {}
        self._clock = SystemClock()

    # -- life -------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for name, text in self._files.items():
            (self.folder / name).write_text(text)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        places = {"port": self.port, "recipes": _EXAMPLES / "recipes"}
        program, *arguments = (part.format(**places) for part in self._arguments)
        ours = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
        here = {
            "PYTHONPATH": f"{self.folder}:{_EXAMPLES}",
            "PYTHONUNBUFFERED": "1",
            "TICKS": str(self.folder / "ticks"),
        }
        return [str(_PROGRAMS / program), *arguments], {**ours, **here, **self._environ}

    def _answers(self) -> bool:
        try:
            return bool(self.text())
        except (OSError, HTTPException):
            return False

    def _finish(self) -> None:
        with suppress(ProcessLookupError):  # what a killed server left behind is in its group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stopped_after(self, signum: int = signal.SIGTERM) -> float:
        """Ask the server to end; return after how many seconds all its processes were gone."""
        began = self._clock.now()
        self._end(signum)
        return self._clock.now() - began

    def edit(self, name: str) -> None:
        """Write a file of its folder anew, with a blank line at its end."""
        with (self.folder / name).open("a") as file:
            file.write("\n")

    # -- what it does -----------------------------------------------------------------------------

    def text(self, path: str = "/", within: float = 10.0) -> str:
        """Return the answer to a request."""
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, timeout=within) as answer:
            return str(answer.read().decode())

    def get(self, path: str = "/") -> dict[str, Any]:
        """Return the answer to a request, read as JSON."""
        return dict(json.loads(self.text(path)))

    @property
    def log(self) -> str:
        """All that the server printed."""
        return (self.folder / "log").read_text(errors="replace")

    def ticks(self) -> list[Tick]:
        """Return the lines of the job, in the order of writing."""
        path = self.folder / "ticks"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Tick(datetime.fromisoformat(at), int(pid)) for at, pid in map(str.split, lines)]

    def candidates(self) -> list[str]:
        """Return what stands in the election, or ended without a word and was not cleared away."""
        return [path.name for path in self.folder.glob("leader-jobs.sqlite3-candidates/*.lock")]

    def wait(self, condition: Callable[[], bool], otherwise: str, within: float = 15.0) -> None:
        """Look again and again until *condition* holds; fail after *within* seconds."""
        limit = self._clock.now() + within
        while not condition():
            assert self._clock.now() < limit, f"{otherwise}: {self.ticks()}\n{self._tail()}"
            self._clock.wait(threading.Event(), 0.02)

    def next_tick(self, *, but: Collection[int] = ()) -> Tick:
        """Wait for a line that is not there yet, of another process than *but*, and return it."""
        seen = len(self.ticks())

        def new() -> list[Tick]:
            return [tick for tick in self.ticks()[seen:] if tick.pid not in but]

        self.wait(lambda: bool(new()), f"no line of another process than {but}")
        return new()[0]

    def kill_leader(self) -> Tick:
        """Kill the process that runs the job, just after a line; return the successor's first."""
        leader = self.next_tick().pid
        os.kill(leader, signal.SIGKILL)
        time_of_death(leader)
        return self.next_tick(but=[leader])

    def faults(self, *, known: int = 0) -> list[str]:
        """
        Return what is wrong with the lines, the log, and the processes, once the server has ended.

        Args:
            known: how many tracebacks are the server's own way to say what was done to it.
        """
        ticks = self.ticks()
        counted = Counter(tick.planned_at for tick in ticks)
        instants = sorted(counted)
        doubled = [f"{at} was run {n} times" for at, n in counted.items() if n > 1]
        missed = [
            f"{later - earlier} between {earlier} and {later}"
            for earlier, later in pairwise(instants)
            if later - earlier != _SECOND
        ]
        alive = [f"{pid} is alive" for pid in {tick.pid for tick in ticks} if is_alive(pid)]
        cries = self.log.count("Traceback")
        excess = [f"{cries} tracebacks"] if cries > known else []
        return [*doubled, *missed, *alive, *excess]


class DjangoServer(WebServer):
    """
    A server of the example site, whose lines are rows of its database.

    Args:
        command: how it is started.
        files: what is to be in its folder besides its settings and the database.
    """

    def __init__(self, *command: str, files: Mapping[str, str] | None = None) -> None:
        environ = {
            "DJANGO_SETTINGS_MODULE": "local_settings",
            "SHOP_WSGI": "recipes.django_wsgi.application",
        }
        settings = {"local_settings.py": _SETTINGS}
        super().__init__(*command, files=settings | dict(files or {}), environ=environ)

    def _prepare(self) -> None:
        super()._prepare()
        migrate = [sys.executable, "-m", "django", "migrate", "--verbosity", "0"]
        _, environment = self._command()
        subprocess.run(migrate, cwd=self.folder, env=environment, check=True, timeout=30)

    def ticks(self) -> list[Tick]:
        """Return the rows of the job that runs each second, in the order of writing."""
        query = "SELECT planned_at, pid FROM shop_worklog WHERE job = 'place_orders' ORDER BY id"
        with closing(sqlite3.connect(self.folder / "shop.sqlite3")) as database:
            return [Tick(datetime.fromisoformat(at), pid) for at, pid in database.execute(query)]
