"""The processes of the demo; none of them outlives it, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

__all__ = ["Cast", "Node", "Process"]

_MANAGE: Final = Path(__file__).parents[1] / "manage.py"
_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1


class Process:
    """
    One ``manage.py`` process at a time, under a name; what it prints goes to a file of that name.

    Args:
        name: for people.
        arguments: what follows ``manage.py``.
        folder: where its log goes.
        environ: what is set in its environment, besides that of the demo.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name: Final = name
        self.log: Final = folder / f"{name}.log"
        self._arguments = tuple(arguments)
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, which must not run."""
        demo = os.getpid()

        def die_with_the_demo() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != demo:  # it died before the line above
                os._exit(1)

        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_MANAGE), *self._arguments],
                env={**os.environ, **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A Ctrl-C at the terminal is the demo's alone; it then stops its processes in order.
                process_group=0,
                preexec_fn=die_with_the_demo,  # noqa: PLW1509  the demo has one thread
            )

    @property
    def pid(self) -> int:
        """The process id; 0 before the first start."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs or is frozen."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, within: float) -> int | None:
        """Wait up to *within* seconds for the end; return the exit code, or None if it lives on."""
        if self._process is None:
            return None
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kill the process if it is still there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Node(Process):
    """A ``manage.py runleader``."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name, ("runleader",), folder, {"LEADER_JOBS_NODE": name})
        self.frozen = False

    def start(self) -> None:
        """Start the node as a new process."""
        self.frozen = False
        super().start()

    def freeze(self) -> None:
        """Stop all its threads where they are; returns when they stand still."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)
        self.frozen = True

    def thaw(self) -> None:
        """Let it go on as if nothing had happened."""
        self.send(signal.SIGCONT)
        self.frozen = False


class Cast:
    """
    The nodes; leaving the context kills whatever still runs.

    Args:
        names: one for each node.
        folder: where logs go.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.nodes: Final = tuple(Node(name, folder) for name in names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.end()

    def of_pid(self, pid: int) -> Node:
        """Return the node whose process is *pid*."""
        return next(node for node in self.nodes if node.pid == pid)
