"""Packets that are dropped: between members, between us and a member, between our leader and all of them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testsupport.etcd import EtcdCluster
from testsupport.faults import BRIEF, ROUNDS, TTL, Fault, rounds
from testsupport.proxy import TcpProxy
from testsupport.sick_fleet import SickFleet
from testsupport.sick_network import Network

pytestmark = [pytest.mark.alone, pytest.mark.etcd, pytest.mark.timeout(60 + 30 * ROUNDS)]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Three hosts on a network that can lose packets; skips where root may not make one."""
    with Network(3) as network:
        yield network


@pytest.fixture(scope="module")
def cluster(network: Network) -> Iterator[EtcdCluster]:
    """A member on each of these hosts."""
    with EtcdCluster(3, **BRIEF, sites=network.sites) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fleet(cluster: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SickFleet]:
    """Two nodes that live through everything that is done to the cluster here."""
    with SickFleet(tmp_path_factory.mktemp("fleet"), cluster, ttl=TTL) as fleet:
        yield fleet.populate()


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_connected_member_isolated(
    network: Network, cluster: EtcdCluster, fleet: SickFleet, role: str
) -> None:
    """The member our leader talks to answers clients, but the others do not hear it: so we leave it."""
    fault = Fault(
        name=f"the member our leader talks to, etcd's {role}, cut off from the others",
        term="stays",
        says=r"etcd endpoint .*; going on with",
        doctor="knows no leader|did not answer",
    )
    for turn in rounds(fault, fleet):
        member = fleet.member_of(fleet.leading())
        others = [other for other in cluster.members if other is not member]
        cluster.make_leader(member if role == "leader" else others[0])
        network.isolate(cluster.members.index(member))
        turn.examine()
        fleet.pause(1.1 * TTL)
        network.restore()


def test_connected_member_hidden(network: Network, cluster: EtcdCluster, fleet: SickFleet) -> None:
    """The member our leader talks to is well, but no packet of ours arrives: we go on with another."""
    fault = Fault(
        name="no packets between us and the member our leader talks to",
        term="stays",
        says=r"etcd endpoint .*: timed out; going on with",
        doctor="did not answer",
    )
    for turn in rounds(fault, fleet):
        member = fleet.member_of(fleet.leading())
        network.hide(cluster.members.index(member))
        turn.examine()
        fleet.pause(1.1 * TTL)
        network.restore()


def test_all_members_hidden(network: Network, cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Nobody reaches etcd: the term ends by its deadline; afterwards the gap is caught up."""
    fault = Fault(
        name="no packets between us and any member for longer than a ttl",
        term="ends",
        says=r"ended \(deadline\)",
        doctor="can be used",
    )
    for turn in rounds(fault, fleet):
        for number in range(len(cluster.members)):
            network.hide(number)
        turn.examine()
        fleet.pause(1.1 * TTL)
        network.restore()


def test_leader_cut_off(tmp_path: Path, members_here: EtcdCluster) -> None:
    """No packet of our leader arrives: it lets go in time, and the standby takes over after the ttl."""
    fault = Fault(
        name="no packets between our leader and any member; the standby reaches them",
        term="ends",
        says=r"ended \((deadline|lost)\)",
    )
    cluster = members_here
    with ExitStack() as stack:
        fleet = stack.enter_context(SickFleet(tmp_path, cluster, ttl=TTL))
        ways = {
            name: [stack.enter_context(TcpProxy(target)) for target in cluster.endpoints]
            for name in ("a", "b")
        }
        for name, proxies in ways.items():
            fleet.start(name, store="etcd://" + ",".join(proxy.endpoint for proxy in proxies))
        for turn in rounds(fault, fleet):
            node = fleet.leading()
            for proxy in ways[node.name]:
                proxy.drop_packets()
            _, successor = fleet.leader(newer_than=turn.mark.token)
            fleet.await_run(successor.token)
            for proxy in ways[node.name]:
                proxy.restore()


@pytest.fixture
def members_here() -> Iterator[EtcdCluster]:
    """Three members on this host."""
    with EtcdCluster(3, **BRIEF) as cluster:
        yield cluster
