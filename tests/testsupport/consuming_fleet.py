"""
Real Celery workers that stand in one election, and what their task bodies wrote.

A scenario starts workers, sends messages to the leader's queue, does to workers what happens in life,
and then reads what was begun where, when and under which term.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from celery import Celery

from leader_jobs.adapters.celery_consuming import queue_of
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.leaders import find_leader
from leader_jobs.stores.factory import open_store
from testsupport.brokers import Broker
from testsupport.consuming_app import ELECTION
from testsupport.node_fleet import Node
from testsupport.parenthood import die_with_parent

__all__ = ["Line", "Worker", "WorkerFleet"]

_TESTS = Path(__file__).parents[1]


class Worker(Node):
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


class Line(NamedTuple):
    """What a body wrote: *left* is how many seconds of the term its process saw."""

    word: str
    name: str
    moment: float
    node: str
    token: int
    left: float


class WorkerFleet:
    """
    Starts workers on one broker and one store; used as a context manager.

    Args:
        folder: for evidence and logs.
        broker: where messages are.
        settings: name the store and the ttl.
        pool: Celery's name of the pool, as for ``celery worker -P``.
        width: how many bodies each worker runs at once.
        config: more of Celery's configuration.
    """

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        settings: Settings,
        *,
        pool: str = "prefork",
        width: int = 2,
        **config: Any,
    ) -> None:
        self.clock = SystemClock()
        self.pool = pool
        self.width = width
        self.nodes: list[Worker] = []
        self._folder = folder
        self._evidence = folder / "evidence"
        self._options = ["-P", pool, "-c", str(width)]
        self._config = {
            **broker.settings,
            "broker_connection_retry_on_startup": True,
            "leader_jobs_store": settings.store,
            "leader_jobs_namespace": settings.namespace,
            "leader_jobs_ttl": settings.ttl,
            "leader_jobs_worker_elections": [ELECTION],
            **config,
        }
        self._stack = ExitStack()
        self.store = self._stack.enter_context(closing(open_store(settings, clock=self.clock)))
        self.app = self._stack.enter_context(Celery("sender", set_as_current=False))
        self.app.conf.update({**broker.settings, **config})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        self._stack.close()

    def start(self, name: str) -> Worker:
        """Start a worker."""
        log = self._folder / f"{name}.log"
        options = [*self._options, "-n", f"{name}@test", "-l", "INFO"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environ = os.environ | {
            "PYTHONPATH": str(_TESTS),
            "LEADER_JOBS_NODE": name,
            "CONSUMING_CONFIG": json.dumps(self._config),
            "CONSUMING_EVIDENCE": str(self._evidence),
        }
        app = ["-A", "testsupport.consuming_app"]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *app, "worker", *options, *quiet],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
            )
        node = Worker(name, process, log)
        self.nodes.append(node)
        return node

    def start_all(self, *names: str) -> list[Worker]:
        """Start workers, wait until all of them stand in the election, and return them."""
        started = [self.start(name) for name in names]
        self.wait(lambda: self.standing() == len(names), "not all stand", within=30.0)
        return started

    def standing(self) -> int:
        """Return how many living candidates there are."""
        return len(self.store.candidates(ELECTION, deadline=self.clock.now() + 5.0))

    def leader(self, *, but_not: Iterable[Worker] = ()) -> Worker:
        """Wait until one of the workers leads, none of those given, and return it."""
        leading: list[Worker] = []

        def found() -> bool:
            leader = find_leader(ELECTION, store=self.store, clock=self.clock)
            former = [node.name for node in but_not]
            if leader is not None and leader.node not in former:
                leading.extend(node for node in self.nodes if node.name == leader.node)
            return bool(leading)

        self.wait(found, "nobody leads")
        return leading[0]

    def send(
        self, task: str, *names: str, queue: str = queue_of(ELECTION), **options: Any
    ) -> list[str]:
        """Send one message of *task* for each name, *options* are its body's; return the ids."""
        return [self.app.send_task(task, (name,), options, queue=queue).id for name in names]

    def wait_done(self, ids: Iterable[str]) -> None:
        """Wait until each of these tasks succeeded on some node."""
        wanted = [f"[{task_id}] succeeded" for task_id in ids]

        def all_done() -> bool:
            said = "".join(node.log.read_text() for node in self.nodes)
            return all(line in said for line in wanted)

        self.wait(all_done, "not all succeeded")

    def wait_fetched(self, node: Worker, ids: Iterable[str]) -> None:
        """Wait until *node* has received all these messages."""
        wanted = [f"[{task_id}] received" for task_id in ids]
        self.wait(lambda: all(w in node.log.read_text() for w in wanted), "not all were fetched")

    # -- what happened ----------------------------------------------------------------------------

    def lines(self, word: str) -> list[Line]:
        """Return what bodies wrote, in the order of writing."""
        if not self._evidence.exists():
            return []
        fields = (line.split() for line in self._evidence.read_text().splitlines())
        return [
            Line(f[0], f[1], float(f[2]), f[3], int(f[4]), float(f[5]))
            for f in fields
            if f[0] == word
        ]

    def of(self, word: str, names: Iterable[str]) -> list[Line]:
        """Return what bodies of these messages wrote."""
        wanted = set(names)
        return [line for line in self.lines(word) if line.name in wanted]

    def wait_all(self, word: str, names: Iterable[str], within: float = 15.0) -> list[Line]:
        """Wait until the bodies of all these messages wrote *word*."""
        wanted = set(names)
        self.wait(
            lambda: {line.name for line in self.of(word, wanted)} == wanted,
            f"not all of {sorted(wanted)} wrote {word!r}",
            within,
        )
        return self.of(word, wanted)

    def wait_any(self, word: str, names: Iterable[str], node: Worker) -> None:
        """Wait until the body of one of these messages wrote *word* on *node*."""
        wanted = set(names)
        self.wait(
            lambda: any(line.node == node.name for line in self.of(word, wanted)),
            f"none of {sorted(wanted)} wrote {word!r} on {node.name}",
        )

    def wait(self, condition: Callable[[], bool], otherwise: str, within: float = 15.0) -> None:
        """Look again and again until *condition* holds; fail with the logs after *within* seconds."""
        limit = self.clock.now() + within
        while not condition():
            assert self.clock.now() < limit, f"{otherwise}:\n{self.story()}"
            self.clock.wait(threading.Event(), 0.02)

    def story(self) -> str:
        """Return what was written and the end of each log, for messages."""
        evidence = self._evidence.read_text() if self._evidence.exists() else "nothing"
        logs = "\n".join(f"--- {n.name}\n{n.log.read_text()[-4000:]}" for n in self.nodes)
        return f"{evidence[-4000:]}\n{logs}"

    def assert_fenced(self) -> None:
        """Fail unless every body began under a term that held, and no later than its successor's."""
        begun = self.lines("begin")
        assert all(line.left > 0 for line in begun), self.story()
        terms: dict[int, list[Line]] = {}
        for line in begun:
            terms.setdefault(line.token, []).append(line)
        for former, later in pairwise(sorted(terms)):
            last = max(line.moment for line in terms[former])
            first = min(line.moment for line in terms[later])
            assert last < first, f"term {former} began bodies beside {later}:\n{self.story()}"
        nodes = [{line.node for line in lines} for lines in terms.values()]
        assert all(len(names) == 1 for names in nodes), self.story()
