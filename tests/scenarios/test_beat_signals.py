"""Beats that are asked to end: what is in hand is sent and marked, and the next one goes on at once."""

import shelve
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.control import Control
from leader_jobs.orders import Answer
from testsupport.beat_fleet import BeatFleet
from testsupport.brokers import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(120)]

#: So long that nobody is succeeded in these tests because a lease ran out.
_LONG = 60.0
_GRACE = 2.0


@pytest.fixture
def fleet(tmp_path: Path, redis_broker: RedisServer) -> Iterator[BeatFleet]:
    """Two beats at work, neither of which would be missed for a minute."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    conf = {"leader_jobs_grace": _GRACE}
    with BeatFleet(tmp_path, url, redis_broker, ttl=_LONG, conf=conf) as fleet:
        fleet.populate("a", "b")
        yield fleet


def test_a_rolling_restart(fleet: BeatFleet) -> None:
    """Standbys that end are not missed; each leader that ends is succeeded at once, without a gap."""
    leading, leader = fleet.leader()
    for node in tuple(fleet.nodes):
        if node is not leading:
            fleet.end(node)
            fleet.beat(f"new-{node.name}")
    fleet.settle()
    assert fleet.leader()[1].token == leader.token, "the same term goes on"

    token = 0
    for _ in range(3):
        node, leader = fleet.leader(newer_than=token)
        token = leader.token
        fleet.await_published(token)
        fleet.end(node)
        fleet.beat(f"newer-{node.name}")
    verdict = fleet.finish()

    assert (verdict.wrong, verdict.copies) == ([], 0)


def test_a_signal_between_claim_and_send(fleet: BeatFleet) -> None:
    """With two messages of a batch sent, the other three are sent too, and all are marked."""
    for count, number in enumerate((signal.SIGTERM, signal.SIGINT), start=1):
        fleet.set_trap(number, 3)
        pid = fleet.await_sprung(count)
        node = next(node for node in fleet.nodes if node.process.pid == pid)
        assert node.process.wait(10) == 0, fleet.logs()
        fleet.beat(f"r{count}")
    verdict = fleet.finish()

    assert (verdict.wrong, verdict.copies) == ([], 0)


def test_hand_overs_that_operators_ask_for(fleet: BeatFleet) -> None:
    """Each leader finishes and marks the batch in hand before the heir leads: no copies, no gaps."""
    control = Control(fleet.store, "default", by="ada", clock=SystemClock())
    fleet.beat("c")
    token = 0
    for _ in range(4):
        _, leader = fleet.leader(newer_than=token)
        fleet.await_published(leader.token)
        limit = SystemClock().now() + 10.0
        heir = fleet.store.candidates("default", deadline=limit)[-1]
        request = control.wait_answer(control.transfer(heir.id), within=10.0)
        assert request.answer is Answer.OBEYED
        token = heir.token - 1
    assert control.wait_heard(control.pause(reason="broker upgrade"), within=10.0)
    fleet.pause(2.0)
    assert control.wait_heard(control.resume(), within=10.0)
    verdict = fleet.finish()

    assert (verdict.wrong, verdict.copies) == ([], 0)


def test_an_end_with_a_broker_that_does_not_answer(
    fleet: BeatFleet, redis_broker: RedisServer
) -> None:
    """It takes the grace time, or a second signal; what was not sent is sent by the next leader."""
    for signals in (1, 2):
        node, leader = fleet.leader()
        redis_broker.freeze()
        fleet.pause(1.2)
        began = fleet.clock.now()
        for _ in range(signals):
            node.process.terminate()
            fleet.pause(0.2)
        assert node.process.wait(10.0) == 0, fleet.logs()
        took = fleet.clock.now() - began
        redis_broker.thaw()
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_published(successor.token)
        assert took < _GRACE + 5.0
        fleet.beat(f"r{signals}")
    verdict = fleet.finish()

    assert verdict.wrong == []
    assert verdict.copies <= 2 * 5, "of the batches in hand, whose end nobody waited for"


def test_books_are_kept_by_the_leader_alone(tmp_path: Path, redis_broker: RedisServer) -> None:
    """Around Celery's persistent scheduler: its shelve is written where messages are sent."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    conf = {"leader_jobs_beat_scheduler": "celery.beat:PersistentScheduler"}
    with BeatFleet(tmp_path, url, redis_broker, ttl=_LONG, conf=conf) as fleet:
        fleet.populate("a")
        fleet.beat("b")
        first, leader = fleet.leader()
        fleet.pause(1.0)
        assert {path.name[0] for path in tmp_path.glob("*.schedule*")} == {"a"}

        fleet.end(first)
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_published(successor.token)
        verdict = fleet.finish()

    assert (verdict.wrong, verdict.copies) == ([], 0)
    with (
        closing(shelve.open(f"{tmp_path}/a.schedule")) as one,
        closing(shelve.open(f"{tmp_path}/b.schedule")) as other,
    ):
        counts = [book["entries"]["s0"].total_run_count for book in (one, other)]
    assert min(counts) > 0
    published = [
        message
        for message in redis_broker.messages("celery")
        if message.headers["leader_jobs"]["job"] == "s0"
    ]
    assert sum(counts) == len(published)
