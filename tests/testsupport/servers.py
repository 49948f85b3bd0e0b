"""
Processes of real servers: started, killed, frozen and restarted by tests, and gone with them.

A server's binary is looked for in an environment variable, on the system, and in what the scripts
``scripts/fetch-*`` left in ``.cache``.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import pytest

from leader_jobs.clock import SystemClock
from testsupport.parenthood import die_with_parent
from testsupport.ports import free_port
from testsupport.processes import children_of, time_of_death

__all__ = ["Server", "environment_of", "find_binary"]

_CLOCK: Final = SystemClock()
_START_WITHIN: Final = 40.0
_STOP_WITHIN: Final = 20.0
_CACHE: Final = Path(__file__).parents[2] / ".cache"


def find_binary(variable: str, path: str) -> Path | None:
    """
    Return where a server's binary is.

    Args:
        variable: the environment variable that names it.
        path: where Debian installs it, relative to the root; a ``*`` in it stands for the version,
            of which the last in alphabetical order is taken.

    Returns:
        None if it is nowhere.
    """
    if variable in os.environ:
        return Path(os.environ[variable])
    on_path = shutil.which(Path(path).name)
    places = [
        *sorted(Path("/").glob(path), reverse=True),
        *([Path(on_path)] if on_path else []),
        *sorted(_CACHE.glob(f"*/{path}"), reverse=True),
    ]
    return next((place for place in places if place.is_file()), None)


def environment_of(binary: Path) -> dict[str, str]:
    """Return this process's environment, with what a binary in ``.cache`` needs besides."""
    environment = dict(os.environ)
    if binary.is_relative_to(_CACHE):
        root = _CACHE / binary.relative_to(_CACHE).parts[0]
        libraries = [str(path) for path in root.glob("**/lib/*-linux-gnu*")]
        programs = [str(root / "usr" / "lib" / "erlang" / "bin"), str(root / "usr" / "bin")]
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
        environment["PATH"] = ":".join([*programs, environment["PATH"]])
    return environment


class Server(ABC):
    """
    A server with a port and a folder of its own, used as a context manager.

    It dies with the thread that started it, so start servers from the main thread. Nothing of it
    runs any more after the context, and the folder is gone.

    Attributes:
        port: where it listens on 127.0.0.1, always the same.
        folder: what it keeps, over restarts too; its processes start there.
    """

    # Arguments of `subprocess.Popen` that say as whom it runs, unless as this process's user.
    _account: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path()
        self._cleanup = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        prefix = f"{type(self).__name__.lower()}-"
        self.folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
        try:
            self._prepare()
            self._cleanup.callback(self._finish)
            self.start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @abstractmethod
    def _prepare(self) -> None:
        """Do once what must be done before the first start."""

    @abstractmethod
    def _command(self) -> tuple[list[str], dict[str, str]]:
        """Return the command line, which must become the server by ``exec``, and its environment."""

    @abstractmethod
    def _answers(self) -> bool:
        """Return whether the server answers in its own protocol."""

    def _finish(self) -> None:
        """End it with the context, whatever was done to it."""
        self.kill()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, dead or alive."""
        assert self._process is not None, f"{type(self).__name__} was never started"
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is frozen)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, with what the last one left behind, and wait until it answers."""
        assert not self.alive, f"{type(self).__name__} runs already"
        command, environment = self._command()
        self._process = self._spawn(command, environment)
        limit = _CLOCK.now() + _START_WITHIN
        while not self._answers():
            assert _CLOCK.now() < limit, f"{command[0]} does not answer: {self._tail()}"
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                pytest.fail(f"{command[0]} ended: {self._tail()}")

    def kill(self) -> None:
        """End the process with SIGKILL, if it is there; its helpers are gone too on return."""
        if self.alive:
            self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask the process with SIGTERM to end, and wait until it has."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill the process if it is there, and start it on the same port and folder."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP; its kernel goes on accepting and acknowledging."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)

    def heal(self) -> None:
        """Have it run again, whatever was done to it."""
        if self.alive:
            self.thaw()
        else:
            self.start()

    def pids(self) -> set[int]:
        """Return every process that belongs to it."""
        return {self.process.pid} | _descendants(self.process.pid)

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
                **self._account,
            )

    def _end(self, signum: int) -> None:
        helpers = _descendants(self.process.pid)
        self.process.send_signal(signum)
        self.process.wait(_STOP_WITHIN)
        for pid in helpers:
            time_of_death(pid)

    def _tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


def _descendants(pid: int) -> set[int]:
    children = children_of(pid)
    return children.union(*map(_descendants, children))
