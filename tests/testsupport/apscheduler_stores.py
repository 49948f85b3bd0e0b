"""Processes whose schedulers share a job store, what their jobs wrote, and what is in its table."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine, text

from leader_jobs.records import JobRecord
from testsupport.node_fleet import Fleet, Node
from testsupport.parenthood import die_with_parent

__all__ = ["Line", "StoreFleet", "StoreNode"]

_TESTS = Path(__file__).parents[1]
_PROGRAM = "testsupport.apscheduler_store_node"


class Line(NamedTuple):
    """What a body wrote down."""

    job: str
    planned_at: datetime
    token: int
    pid: int
    at: datetime
    word: str


class StoreNode(Node):
    """A process of the fleet, that does as it is told."""

    def call(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Have its scheduler's *method* called; fail if that raises."""
        self.tell(method, *args, **kwargs)
        answer = self.answer()
        assert answer is None, answer

    def tell(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Have its scheduler's *method* called, without waiting for the `answer`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps([method, args, kwargs], default=str)}\n".encode())
        self.process.stdin.flush()

    def answer(self, within: float = 20.0) -> str | None:
        """Return what went wrong with the call before; None if nothing did."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], within)
        assert readable, f"no answer within {within} s:\n{self.log.read_text()[-3000:]}"
        found: str | None = json.loads(self.process.stdout.readline())
        return found

    def kill(self) -> None:
        """Kill it with SIGKILL and wait for its end."""
        super().kill()
        self.close()

    def close(self) -> None:
        """Close our ends of its pipes."""
        for pipe in self.process.stdin, self.process.stdout:
            if pipe is not None:
                pipe.close()


class StoreFleet(Fleet):
    """
    Processes that share a job store and a ledger; used as a context manager.

    Args:
        folder: for evidence, logs and the ledger.
        jobstore: what the processes are told of the job store.
        table: the URL that SQLAlchemy reaches its table with.
        name: the table's name.
    """

    def __init__(
        self, folder: Path, jobstore: Mapping[str, Any], table: str, name: str = "apscheduler_jobs"
    ) -> None:
        self._ledger_url = f"sqlite:///{folder / 'ledger.sqlite3'}"
        super().__init__(folder, self._ledger_url, ttl=5.0)
        self._jobstore = jobstore
        self._engine = create_engine(table)
        self._stack.callback(self._engine.dispose)
        self._name = name

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)
        for node in self.nodes:
            assert isinstance(node, StoreNode)
            node.close()

    def spawn(
        self,
        name: str,
        jobs: Sequence[Mapping[str, Any]] = (),
        *,
        jobstore: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> StoreNode:
        """
        Start a process.

        Args:
            name: for its log.
            jobs: what it adds before its scheduler is started.
            jobstore: what it is told of the job store; None for what all others are told.
            path: where it finds modules that others do not have.
        """
        log = self._folder / f"{name}.log"
        config = {
            "settings": {"store": self._ledger_url, "node": name, "ttl": 5, "namespace": "fleet"},
            "jobstore": jobstore or self._jobstore,
            "jobs": jobs,
            "evidence": str(self._evidence),
        }
        environment = os.environ | ({"PYTHONPATH": str(path)} if path is not None else {})
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM, json.dumps(config, default=str)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=_TESTS,
                env=environment,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
            )
        node = StoreNode(name, process, log)
        self.nodes.append(node)
        return node

    def lead(self, name: str, jobs: Sequence[Mapping[str, Any]] = (), **more: Any) -> StoreNode:
        """Start the first process, and wait until it leads."""
        node = self.spawn(name, jobs, **more)
        assert self.leader()[0] is node
        return node

    def stand_by(self, name: str, jobs: Sequence[Mapping[str, Any]] = (), **more: Any) -> StoreNode:
        """Start a process, and wait until it stands behind the leader."""
        node = self.spawn(name, jobs, **more)
        self._await_standing(node)
        return node

    def end(self, node: Node) -> None:
        """Ask *node* to end, and wait for that."""
        assert node.terminate() == 0, self.logs()

    # -- what is seen -----------------------------------------------------------------------------

    def lines(self, job: str | None = None) -> list[Line]:
        """Return what bodies wrote down, in order; of one job, if it is named."""
        found = []
        for _, name, planned_at, token, _attempt, pid, at, word in self._lines("begin"):
            instant, moment = datetime.fromisoformat(planned_at), datetime.fromisoformat(at)
            found.append(Line(name, instant, int(token), int(pid), moment, word))
        return [line for line in found if job in (None, line.job)]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return everything that is in the job store's table."""
        with self._engine.connect() as connection:
            found = connection.execute(text(f"SELECT * FROM {self._name} ORDER BY id"))
            return [tuple(row) for row in found]

    def records(self) -> dict[str, JobRecord]:
        """Return what the ledger knows of jobs."""
        return self._ledger.jobs()

    def ledger_keys(self) -> set[str]:
        """Return the keys of everything in the ledger."""
        return set(self.store.read("default", "", deadline=self.clock.now() + 5.0))

    def wait(self, condition: Callable[[], object], within: float = 10.0) -> float:
        """Wait until *condition* holds; return the seconds it took, or fail."""
        start = self.clock.now()
        while not condition():
            assert self.clock.now() < start + within, f"not within {within} s:\n{self.logs()}"
            self.pause(0.01)
        return self.clock.now() - start
