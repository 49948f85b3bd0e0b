"""
Real Celery workers with the children of their pools, and the file that task bodies write to.

What every fleet of workers has in common, whatever its scenario is about.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from leader_jobs.clock import SystemClock
from testsupport.node_fleet import Node
from testsupport.parenthood import die_with_parent

__all__ = ["PoolFleet", "PoolWorker"]

_TESTS = Path(__file__).parents[1]


class PoolWorker(Node):
    """A worker and the children of its pool."""

    def freeze(self) -> None:
        """Stop all of it in its tracks."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all of it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill all of it with SIGKILL and wait for its end."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


class PoolFleet:
    """
    Workers of one application.

    Args:
        folder: for evidence and logs.
        pool: Celery's name of the pool, as for ``celery worker -P``.
        width: processes, threads or greenlets of each worker.
    """

    def __init__(self, folder: Path, *, pool: str, width: int) -> None:
        self.clock = SystemClock()
        self.nodes: list[PoolWorker] = []
        self._folder = folder
        self._evidence = folder / "evidence"
        self._options = ["-P", pool, "-c", str(width)]

    def spawn(self, name: str, app: str, prefix: str, config: Mapping[str, Any]) -> PoolWorker:
        """
        Start a worker.

        Args:
            name: the node's.
            app: the module of its application in `testsupport`, which finds in the environment
            prefix: and ``_CONFIG`` the configuration, and ``_EVIDENCE`` the file to write to.
            config: the configuration.
        """
        log = self._folder / f"{name}.log"
        options = [*self._options, "-n", f"{name}@test", "-l", "INFO"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environ = os.environ | {
            "PYTHONPATH": str(_TESTS),
            "LEADER_JOBS_NODE": name,
            f"{prefix}_CONFIG": json.dumps(config),
            f"{prefix}_EVIDENCE": str(self._evidence),
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", app, "worker", *options, *quiet],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
            )
        node = PoolWorker(name, process, log)
        self.nodes.append(node)
        return node

    def kill_all(self) -> None:
        """Kill every worker."""
        for node in self.nodes:
            node.kill()

    def evidence(self) -> list[str]:
        """Return the lines that bodies wrote, in the order of writing."""
        return self._evidence.read_text().splitlines() if self._evidence.exists() else []

    def wait(self, condition: Callable[[], bool], otherwise: str, within: float = 15.0) -> None:
        """Look again and again until *condition* holds; fail with the logs after *within* seconds."""
        limit = self.clock.now() + within
        while not condition():
            assert self.clock.now() < limit, f"{otherwise}:\n{self.story()}"
            self.clock.wait(threading.Event(), 0.02)

    def story(self) -> str:
        """Return what was written and the end of each log, for messages."""
        written = "\n".join(self.evidence()) or "nothing"
        logs = "\n".join(f"--- {n.name}\n{n.log.read_text()[-4000:]}" for n in self.nodes)
        return f"{written[-4000:]}\n{logs}"
