"""A fleet on the embedded store: what only one host can do, and what clocks do to it."""

import signal
from pathlib import Path

import pytest

from testsupport.node_fleet import Fleet

pytestmark = pytest.mark.slow


def _fleet(folder: Path, ttl: float = 2.0) -> Fleet:
    return Fleet(folder, f"sqlite:///{folder}/store.sqlite3", ttl=ttl)


def test_a_killed_leader_is_replaced_at_once(tmp_path: Path) -> None:
    """The kernel tells of a death: the successor works long before the lease of 30 s could end."""
    with _fleet(tmp_path, ttl=30.0) as fleet:
        for name in ("a", "b"):
            fleet.start(name)
        node, leader = fleet.leader()
        fleet.await_run(leader.token)
        node.kill()
        killed = fleet.clock.now()
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_run(successor.token)

        assert fleet.clock.now() - killed < 5.0
        verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])


def test_the_whole_fleet_dies_and_what_was_missed_is_caught_up(tmp_path: Path) -> None:
    """With every node gone for two seconds, the next one runs what fell due in between."""
    with _fleet(tmp_path) as fleet:
        nodes = [fleet.start(name) for name in ("a", "b")]
        _, leader = fleet.leader()
        fleet.await_run(leader.token)
        for node in nodes:
            node.kill()
        fleet.pause(2.0)
        fleet.start("c")
        verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])
    assert verdict.passed > 0, "the job that wants only the latest had occurrences coalesced"


@pytest.mark.parametrize("ahead", [2.0, -2.0])
def test_clocks_two_seconds_apart(tmp_path: Path, ahead: float) -> None:
    """A hand-over between wall clocks that differ by 2 s repeats nothing and loses nothing."""
    with _fleet(tmp_path) as fleet:
        fleet.start("skewed", skew=ahead)
        node, leader = fleet.leader()
        fleet.await_run(leader.token)
        fleet.start("right")
        fleet.pause(1.0)
        node.process.send_signal(signal.SIGKILL)
        fleet.leader(newer_than=leader.token)
        verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])
