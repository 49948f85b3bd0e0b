"""A small Django site made for one test, and the commands run in it as real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from leader_jobs.config import ENVIRONMENT_PREFIX
from testsupport.parenthood import die_with_parent

__all__ = ["JOB", "RunningCommand", "Site"]

#: The simplest ``jobs.py``.
JOB: Final = """
from leader_jobs import leader_only

@leader_only(every=3600, name="tidy")
def tidy():
    pass
"""

_SETTINGS: Final = """
SECRET_KEY = "only for tests"
DEBUG = True
USE_TZ = True
INSTALLED_APPS = ["django_leader_jobs", "errands"]
LEADER_JOBS = {settings!r}
"""


class RunningCommand:
    """A management command under way; its standard error can be awaited line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, text: str) -> str:
        """Read on to the next line of standard error that contains *text*, and return it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:  # the test's own time limit ends it
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return self.lines[-1]
        msg = f"{text!r} never came: {self.lines}"
        raise AssertionError(msg)

    def finish(self, within: float = 20.0) -> tuple[int, str]:
        """Wait for the end; return the exit code and all of standard error."""
        _, rest = self.process.communicate(timeout=within)
        self.lines += (rest or "").splitlines()
        return self.process.returncode, "\n".join(self.lines)


class Site:
    """
    A site with one app, ``errands``, whose ``jobs.py`` the test writes.

    Args:
        folder: an empty one to make it in; also where the election is held unless told otherwise.
        jobs: the text of ``jobs.py``.
        settings: what ``LEADER_JOBS`` is in the settings; a store in *folder* if None.
    """

    def __init__(
        self, folder: Path, jobs: str = JOB, settings: Mapping[str, object] | None = None
    ) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder}/election.sqlite3"
        settings = {"STORE": self.store} if settings is None else settings
        (folder / "site_settings.py").write_text(_SETTINGS.format(settings=settings))
        (folder / "errands").mkdir()
        (folder / "errands" / "__init__.py").touch()
        (folder / "errands" / "jobs.py").write_text(textwrap.dedent(jobs))

    def run(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run ``manage.py`` with *arguments* to its end."""
        return subprocess.run(
            self._command(arguments),
            env=self._environ(environ),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str, **environ: str) -> Iterator[RunningCommand]:
        """Run ``manage.py`` with *arguments* during the block; what is left of it is killed then."""
        with subprocess.Popen(
            self._command(arguments),
            env=self._environ(environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
        ) as process:
            try:
                yield RunningCommand(process)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # also what runserver started

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "django", *arguments]

    def _environ(self, extra: Mapping[str, str]) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
        here = {"DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(self.folder)}
        return {**ours, **here, **extra}
