"""
Real Celery workers that stand in one election, and what their task bodies wrote.

A scenario starts workers, sends messages to the leader's queue, does to workers what happens in life,
and then reads what was begun where, when and under which term.
"""

from collections.abc import Iterable
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from celery import Celery

from leader_jobs.adapters.celery_consuming import queue_of
from leader_jobs.config import Settings
from leader_jobs.leaders import find_leader
from leader_jobs.stores.factory import open_store
from testsupport.brokers import Broker
from testsupport.consuming_app import ELECTION
from testsupport.pool_fleet import PoolFleet, PoolWorker

__all__ = ["Line", "WorkerFleet"]


class Line(NamedTuple):
    """What a body wrote: *left* is how many seconds of the term its process saw."""

    word: str
    name: str
    moment: float
    node: str
    token: int
    left: float


class WorkerFleet(PoolFleet):
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
        super().__init__(folder, pool=pool, width=width)
        self.pool = pool
        self.width = width
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
        self.kill_all()
        self._stack.close()

    def start(self, name: str) -> PoolWorker:
        """Start a worker."""
        return self.spawn(name, "testsupport.consuming_app", "CONSUMING", self._config)

    def start_all(self, *names: str) -> list[PoolWorker]:
        """Start workers, wait until all of them stand in the election, and return them."""
        started = [self.start(name) for name in names]
        self.wait(lambda: self.standing() == len(names), "not all stand", within=30.0)
        return started

    def standing(self) -> int:
        """Return how many living candidates there are."""
        return len(self.store.candidates(ELECTION, deadline=self.clock.now() + 5.0))

    def leader(self, *, but_not: Iterable[PoolWorker] = ()) -> PoolWorker:
        """Wait until one of the workers leads, none of those given, and return it."""
        leading: list[PoolWorker] = []

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

    def wait_fetched(self, node: PoolWorker, ids: Iterable[str]) -> None:
        """Wait until *node* has received all these messages."""
        wanted = [f"[{task_id}] received" for task_id in ids]
        self.wait(lambda: all(w in node.log.read_text() for w in wanted), "not all were fetched")

    # -- what happened ----------------------------------------------------------------------------

    def lines(self, word: str) -> list[Line]:
        """Return what bodies wrote, in the order of writing."""
        fields = (line.split() for line in self.evidence())
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

    def wait_any(self, word: str, names: Iterable[str], node: PoolWorker) -> None:
        """Wait until the body of one of these messages wrote *word* on *node*."""
        wanted = set(names)
        self.wait(
            lambda: any(line.node == node.name for line in self.of(word, wanted)),
            f"none of {sorted(wanted)} wrote {word!r} on {node.name}",
        )

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
