"""A fleet of real processes on each store: whatever dies, every occurrence once."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from testsupport.etcd import EtcdCluster
from testsupport.node_fleet import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
_TTL = 2.0


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Fleet]:
    """Three nodes on the embedded store, and on a healthy cluster of three etcd members."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("etcd_cluster")
        url = cluster.url
    with Fleet(tmp_path, url, ttl=_TTL, namespace=namespace) as fleet:
        for name in ("a", "b", "c"):
            fleet.start(name)
        yield fleet


def test_kills_at_random_moments_neither_repeat_nor_lose_an_occurrence(fleet: Fleet) -> None:
    """Fifteen leaders die by SIGKILL, and what the jobs wrote shows each occurrence once."""
    chance = random.Random(20261121)
    token = 0
    for round_number in range(15):
        node, leader = fleet.leader(newer_than=token)
        token = leader.token
        fleet.pause(chance.uniform(0.0, 1.2))
        node.kill()
        fleet.note_history()
        fleet.start(f"r{round_number}")
    verdict = fleet.stop()

    assert verdict.doubled == []
    assert verdict.missed == []
    assert verdict.run > 30, "two for each round: the fleet was at work when it was hit"


def test_frozen_leaders_wake_up_as_zombies_that_do_nothing(fleet: Fleet) -> None:
    """Four leaders are frozen past their lease; awake again they neither lead nor repeat."""
    chance = random.Random(5)
    token = 0
    for _ in range(4):
        node, leader = fleet.leader(newer_than=token)
        fleet.await_run(leader.token)
        fleet.pause(chance.uniform(0.0, 0.6))
        fleet.freeze(node)
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_run(successor.token)
        node.thaw()
        token = leader.token
        fleet.note_history()
    verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])


def test_rolling_restarts_hand_over_without_a_gap(fleet: Fleet) -> None:
    """Each leader gets SIGTERM in turn, exits with 0, and nothing is lost at the seams."""
    token = 0
    for round_number in range(5):
        node, leader = fleet.leader(newer_than=token)
        token = leader.token
        fleet.await_run(token)
        assert node.terminate() == 0, fleet.logs()
        fleet.start(f"r{round_number}")
    verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed, verdict.interrupted) == ([], [], 0)
