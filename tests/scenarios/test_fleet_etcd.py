"""A fleet on a real three-member etcd cluster that is itself in trouble."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster
from testsupport.node_fleet import Fleet
from testsupport.proxy import TcpProxy

pytestmark = [pytest.mark.slow, pytest.mark.etcd]
_TTL = 2.0


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> EtcdCluster:
    """A three-member cluster of the test's own, which may be hurt."""
    return make_cluster(3)


def _populate(fleet: Fleet, *names: str) -> int:
    """Start nodes, wait until one leads and works, and return its token."""
    for name in names:
        fleet.start(name)
    _, leader = fleet.leader()
    fleet.await_run(leader.token)
    return leader.token


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_a_leader_partitioned_from_etcd_stops_and_is_replaced(
    tmp_path: Path, etcd_cluster: EtcdCluster, namespace: str, how: str
) -> None:
    """A leader that loses sight of every member lets go in time, and comes back as a standby."""
    with ExitStack() as stack:
        proxies = [stack.enter_context(TcpProxy(target)) for target in etcd_cluster.endpoints]
        fleet = stack.enter_context(
            Fleet(tmp_path, etcd_cluster.url, ttl=_TTL, namespace=namespace)
        )
        own_way = "etcd://" + ",".join(proxy.endpoint for proxy in proxies)
        fleet.start("partitioned", store=own_way)
        _, leader = fleet.leader()
        fleet.await_run(leader.token)
        fleet.start("other")
        fleet.pause(0.7)
        for proxy in proxies:
            getattr(proxy, how)()
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_run(successor.token)
        for proxy in proxies:
            proxy.restore()
        verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])


def test_restart_of_the_whole_cluster(tmp_path: Path, cluster: EtcdCluster) -> None:
    """Every member is killed and started again; the nodes live on, and the gap is caught up."""
    with Fleet(tmp_path, cluster.url, ttl=_TTL) as fleet:
        _populate(fleet, "a", "b")
        for member in cluster.members:
            member.kill()
        fleet.pause(3.0)
        for member in cluster.members:
            member.start()
        cluster.wait_healthy()
        verdict = fleet.stop()
        alive = [node.process.returncode for node in fleet.nodes]

    assert (verdict.doubled, verdict.missed) == ([], [])
    assert alive == [0, 0]
