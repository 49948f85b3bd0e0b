"""Beats of the project as real processes, on one database, one store and one broker."""

import json
import os
import re
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.clock import SystemClock
from testsupport.brokers import Broker
from testsupport.parenthood import die_with_parent

__all__ = ["BeatSite"]

_TESTS: Final = Path(__file__).parents[2]
_CELERY: Final = (sys.executable, "-m", "celery", "-A", "testsupport.django_beat_site")
_PATIENCE: Final = 20.0


class BeatSite:
    """
    Starts beats, and says what they sent.

    Args:
        folder: for logs and the store.
        database: the file that Django's database is.
        broker: where messages go.
        settings: more of the project's settings.
    """

    def __init__(
        self, folder: Path, database: Path, broker: Broker, settings: dict[str, Any] | None = None
    ) -> None:
        self.clock = SystemClock()
        self.broker = broker
        self._folder = folder
        self._database = database
        self.store = f"sqlite:///{folder}/election.sqlite3"
        self._settings = {
            "CELERY_BROKER_URL": broker.url,
            "CELERY_LEADER_JOBS_STORE": self.store,
            "CELERY_LEADER_JOBS_TTL": 2.0,
        }
        self._settings |= settings or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def beating(self) -> Iterator[None]:
        """End all processes after the block."""
        try:
            yield
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait(10)

    def beat(
        self, name: str, *arguments: str, database: str | None = None, patience: float = 5.0
    ) -> "subprocess.Popen[bytes]":
        """Start a beat; *database* is its own way to the database, which it waits for so long."""
        given = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": database or str(self._database),
            "OPTIONS": {"timeout": patience},
        }
        settings = self._settings | {"DATABASES": {"default": given}}
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(
                [*_CELERY, "beat", "-S", "leader-django", "-l", "INFO", "--pidfile=", *arguments],
                env={
                    **os.environ,
                    "LEADER_JOBS_NODE": name,
                    "DJANGO_SETTINGS_MODULE": "testsupport.django_beat_site.settings",
                    "BEAT_SITE": json.dumps(settings),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=_TESTS,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
            )
        self._processes[name] = process
        return process

    def log(self, name: str) -> Path:
        """Return where a beat says what it does."""
        return self._folder / f"{name}.log"

    def await_standby(self, name: str) -> None:
        """Wait until a beat stands by, by its own words, and has read what it can read ahead."""
        self.await_that(
            lambda: "stands by" in self.log(name).read_text(), f"{name} does not stand by"
        )

    def await_that(
        self, condition: Callable[[], bool], otherwise: str, within: float = _PATIENCE
    ) -> None:
        """Wait until *condition* holds, or fail with what is the matter *otherwise* and the logs."""
        limit, never = self.clock.now() + within, threading.Event()
        while not condition():
            if self.clock.now() >= limit:
                logs = "\n".join(self.log(name).read_text()[-3000:] for name in self._processes)
                msg = f"{otherwise} within {within} s:\n{logs}"
                raise AssertionError(msg)
            self.clock.wait(never, 0.03)

    def sent(self) -> dict[str, dict[datetime, list[str]]]:
        """Return the ids of what was sent, by entry and planned instant."""
        found: dict[str, dict[datetime, list[str]]] = defaultdict(lambda: defaultdict(list))
        for message in self.broker.messages("celery"):
            planned_at = datetime.fromisoformat(message.headers[HEADER]["planned_at"])
            entry = message.headers["periodic_task_name"]
            found[entry][planned_at].append(message.headers["id"])
        return found

    def await_sent(self, entry: str, count: int = 1, within: float = _PATIENCE) -> None:
        """Wait until something was sent of an entry, for so many instants."""
        self.await_that(
            lambda: len(self.sent()[entry]) >= count, f"{entry} is not sent {count} times", within
        )

    def lateness(self, name: str, entry: str, planned_at: datetime) -> float:
        """Return how late, in seconds, a beat sent what was planned, by its own words."""
        said = re.compile(rf"\[(.*?): .*\] sent {entry} .* {re.escape(planned_at.isoformat())}")
        self.await_that(
            lambda: said.search(self.log(name).read_text()) is not None, f"{entry} is not sent"
        )
        found = said.search(self.log(name).read_text())
        assert found is not None
        at = datetime.fromisoformat(found[1].replace(",", ".")).astimezone()
        return (at - planned_at).total_seconds()

    def kill(self, name: str) -> None:
        """End a beat with SIGKILL."""
        self._processes[name].kill()
        self._processes[name].wait(10)

    def terminate(self, name: str) -> int:
        """Ask a beat to end; return its exit code."""
        process = self._processes[name]
        process.terminate()
        return process.wait(15)
