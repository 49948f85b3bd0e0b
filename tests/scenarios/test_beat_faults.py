"""Beats in a fleet on real stores and brokers: whatever dies, every planned instant is published."""

import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from testsupport.beat_fleet import BeatFleet
from testsupport.brokers import BrokerServer, RedisServer
from testsupport.etcd_fixtures import MakeCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def fleet(tmp_path: Path, redis_broker: RedisServer) -> Iterator[BeatFleet]:
    """Two beats at work on the embedded store."""
    with BeatFleet(tmp_path, f"sqlite:///{tmp_path}/store.sqlite3", redis_broker) as fleet:
        fleet.populate("a", "b")
        yield fleet


# -- beats --------------------------------------------------------------------------------------------


@pytest.mark.redis
def test_kills_at_random_moments(fleet: BeatFleet) -> None:
    """Six leaders die by SIGKILL; nothing is lost, and no instant has a second id."""
    chance = random.Random(20261121)
    token = 0
    for number in range(6):
        node, leader = fleet.leader(newer_than=token)
        token = leader.token
        fleet.await_published(token)
        fleet.pause(chance.uniform(0.0, 1.0))
        node.kill()
        fleet.beat(f"r{number}")

    assert fleet.finish().wrong == []


@pytest.mark.redis
def test_kills_between_claim_and_send(fleet: BeatFleet) -> None:
    """The leader dies with a batch claimed and 0 to 4 of its messages sent: none is lost."""
    for count in range(1, 6):
        fleet.set_trap(signal.SIGKILL, count)
        pid = fleet.await_sprung(count)
        next(node for node in fleet.nodes if node.process.pid == pid).process.wait(10)
        fleet.beat(f"r{count}")
    verdict = fleet.finish()

    assert verdict.wrong == []
    assert verdict.copies > 0, "of those that were sent and not marked"


@pytest.mark.redis
def test_freezes_between_claim_and_send(fleet: BeatFleet) -> None:
    """The leader is frozen past its lease with a message in hand: it sends that one and no more."""
    token = 0
    for count in range(1, 4):
        node, leader = fleet.leader(newer_than=token)
        fleet.await_published(leader.token)
        fleet.set_trap(signal.SIGSTOP, count)
        assert fleet.await_sprung(count) == node.process.pid
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_published(successor.token)
        node.thaw()
        token = leader.token
    verdict = fleet.finish()

    assert verdict.wrong == []
    assert fleet.count_late() == 3, "one each time"


# -- brokers ------------------------------------------------------------------------------------------


def test_the_broker_is_away(tmp_path: Path, broker_server: BrokerServer) -> None:
    """While the broker is dead nobody ends; afterwards nothing is missing."""
    with BeatFleet(tmp_path, f"sqlite:///{tmp_path}/store.sqlite3", broker_server) as fleet:
        leader = fleet.populate("a", "b")
        broker_server.kill()
        fleet.pause(3.0)
        broker_server.start()
        fleet.settle()
        assert all(node.alive for node in fleet.nodes), fleet.logs()
        assert fleet.leader()[1].token == leader.token, "the broker is no business of the election"
        verdict = fleet.finish()

    assert verdict.wrong == []
    assert verdict.copies <= 1, "it was not known of one whether it had arrived"


# -- stores -------------------------------------------------------------------------------------------


@pytest.mark.etcd
@pytest.mark.redis
def test_etcd_loses_a_member_and_then_its_quorum(
    tmp_path: Path, make_cluster: MakeCluster, redis_broker: RedisServer
) -> None:
    """A dead etcd leader is hardly noticed; without a quorum nothing is sent until it is back."""
    cluster = make_cluster(3)
    with BeatFleet(tmp_path, cluster.url, redis_broker) as fleet:
        leader = fleet.populate("a", "b")
        member = cluster.etcd_leader()
        member.kill()
        fleet.await_published(leader.token)
        fleet.pause(2.0)
        member.start()
        cluster.wait_healthy()
        sick = cluster.etcd_followers()
        for member in sick:
            member.freeze()
        fleet.pause(4.0)
        for member in sick:
            member.thaw()
        cluster.wait_healthy()
        fleet.settle()
        assert all(node.alive for node in fleet.nodes), fleet.logs()
        verdict = fleet.finish()

    assert verdict.wrong == []


def _lock(fleet: BeatFleet, path: Path) -> None:
    """Hold the database's write lock for longer than a lease."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        fleet.pause(3.0)


def _replace(fleet: BeatFleet, path: Path) -> None:
    """Have something else in the place of the database for longer than a lease."""
    kept = path.parent / "kept"
    kept.mkdir()
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
    for file in files:
        file.rename(kept / file.name)
    path.write_bytes(b"this is no database" * 1000)
    fleet.pause(3.0)
    for file in files:
        (kept / file.name).rename(file)


@pytest.mark.redis
def test_the_embedded_store_is_away(fleet: BeatFleet, tmp_path: Path) -> None:
    """While the store's file is locked, or none, nobody ends; afterwards nothing is missing."""
    for hurt in (_lock, _replace):
        hurt(fleet, tmp_path / "store.sqlite3")
        fleet.settle()
        assert all(node.alive for node in fleet.nodes), fleet.logs()

    assert fleet.finish().wrong == []
