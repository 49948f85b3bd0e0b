"""A node of beat whose own thread is in trouble, in one process."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from celery import Celery
from celery.beat import Scheduler

from leader_jobs.adapters import celery_node
from leader_jobs.adapters.celery_node import BeatNode
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.stores.factory import open_store

SETTINGS = Settings(store="memory://test-celery-node", election="beat", node="a", grace=0.1)


@contextmanager
def node_around(scheduler: type[Scheduler]) -> Iterator[BeatNode]:
    """Have a node that keeps its schedule with a scheduler of that class."""
    with closing(Celery(set_as_current=False)) as app:
        node = BeatNode(app, SETTINGS, scheduler, {})
        node.start()
        try:
            yield node
        finally:
            node.stop()


@pytest.fixture(name="heir")
def _heir() -> Iterator[Candidate]:
    """Return another node's candidate, which does not stand yet."""
    clock = SystemClock()
    with closing(open_store(SETTINGS, clock=clock)) as store:
        heir = Candidate("beat", store=store, node="b", ttl=SETTINGS.ttl, clock=clock)
        yield heir
        heir.stop()


def test_a_node_whose_thread_hangs_lets_another_one_lead(
    heir: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that never answers costs the node its turn, not the fleet its ticks."""
    monkeypatch.setattr(celery_node, "_HAND_OVER", 0.2)
    hanging, over = threading.Event(), threading.Event()

    class Hanging(Scheduler):
        def setup_schedule(self) -> None:
            hanging.set()
            over.wait(30)

    with node_around(Hanging) as node:
        assert hanging.wait(10)
        heir.start()
        for _ in range(100):
            node.look_after()
            if heir.wait_for_term(0.1) is not None:
                break
        assert heir.term is not None
        over.set()


def test_a_node_without_an_heir_goes_on_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """To resign to nobody would help nobody."""
    monkeypatch.setattr(celery_node, "_HAND_OVER", 0.0)
    hanging, over = threading.Event(), threading.Event()

    class Hanging(Scheduler):
        def setup_schedule(self) -> None:
            hanging.set()
            over.wait(30)

    with node_around(Hanging) as node:
        assert hanging.wait(10)
        term = node._candidate.term
        node.look_after()
        assert node._candidate.term is term is not None
        over.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_node_whose_thread_has_died_ends_the_process() -> None:
    """It would lead for ever and send nothing; whoever supervises it starts another."""

    class Dying(Scheduler):
        def setup_schedule(self) -> None:
            raise SystemExit

    with node_around(Dying) as node:
        node._thread.join(10)
        with pytest.raises(SystemExit, match="has died"):
            node.look_after()
        assert node._candidate.term is None
