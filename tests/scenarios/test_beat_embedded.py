"""Workers that each have a beat of their own (``celery worker -B``): one of these ticks."""

from pathlib import Path

import pytest

from leader_jobs.leaders import find_leader
from testsupport.beat_fleet import BeatFleet
from testsupport.brokers import RedisServer
from testsupport.node_fleet import Node
from testsupport.processes import children_of, is_alive, time_of_death

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.timeout(120)]


def embedding(fleet: BeatFleet, name: str, folder: Path) -> Node:
    """Start a worker with a beat in it, which leaves the messages where they can be counted."""
    schedule = f"{folder}/{name}.schedule"
    beat = ("-B", "--scheduler", "leader", "-s", schedule)
    return fleet.worker(name, *beat, "-P", "solo", "-Q", "idle")


def ticking(fleet: BeatFleet, newer_than: int = 0) -> tuple[Node, int, int]:
    """Wait for a leader that has published; return the worker it is in, its process id and token."""
    found: list[tuple[Node, int, int]] = []

    def leads() -> bool:
        leader = find_leader("default", store=fleet.store, clock=fleet.clock)
        if leader is not None and leader.proposal is not None and leader.token > newer_than:
            pid = leader.proposal.pid
            found[:] = [
                (node, pid, leader.token)
                for node in fleet.nodes
                if pid in children_of(node.process.pid)
            ]
        return bool(found)

    fleet.await_that(leads, "nobody leads")
    fleet.await_published(found[0][2])
    return found[0]


def test_one_of_the_embedded_beats_ticks(tmp_path: Path, redis_broker: RedisServer) -> None:
    """Also after one worker is killed alone, so that its beat is an orphan, and one is stopped."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    with BeatFleet(tmp_path, url, redis_broker, ttl=60.0) as fleet:
        for name in ("a", "b"):
            embedding(fleet, name, tmp_path)
        worker, beat, token = ticking(fleet)
        fleet.begin()
        worker.kill()
        time_of_death(beat, within=5.0)
        embedding(fleet, "c", tmp_path)
        worker, beat, token = ticking(fleet, newer_than=token)
        assert worker.terminate() == 0, fleet.logs()
        assert not is_alive(beat)
        ticking(fleet, newer_than=token)
        verdict = fleet.finish()

    assert (verdict.wrong, verdict.copies) == ([], 0)
