"""Members of a real etcd cluster that freeze, die, are restarted or lose the lead among themselves."""

from collections.abc import Iterator

import pytest

from testsupport.etcd import EtcdCluster
from testsupport.faults import BRIEF, ROUNDS, TTL, Fault, rounds
from testsupport.sick_fleet import SickFleet

pytestmark = [pytest.mark.alone, pytest.mark.etcd, pytest.mark.timeout(60 + 30 * ROUNDS)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members that may be hurt, and are well again after each test."""
    with EtcdCluster(3, **BRIEF) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fleet(cluster: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SickFleet]:
    """Two nodes that live through everything that is done to the cluster here."""
    with SickFleet(tmp_path_factory.mktemp("fleet"), cluster, ttl=TTL) as fleet:
        yield fleet.populate()


@pytest.mark.parametrize(
    ("seconds", "fault"),
    [
        (0.5 * TTL, Fault(name="etcd's leader frozen for half a ttl", term="stays")),
        (
            1.1 * TTL,
            Fault(
                name="etcd's leader frozen for longer than a ttl", term="may end", overlap=TTL / 3
            ),
        ),
    ],
    ids=["briefly", "long"],
)
def test_etcd_leader_frozen(
    cluster: EtcdCluster, fleet: SickFleet, seconds: float, fault: Fault
) -> None:
    """The others elect another leader; on waking, the old one may expire leases that it should not."""
    for turn in rounds(fault, fleet):
        member = cluster.etcd_leader()
        member.freeze()
        turn.examine()
        fleet.pause(seconds)
        member.thaw()


def test_connected_follower_frozen(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Nothing but silence tells; calls go on with another member within a third of a renewal."""
    fault = Fault(
        name="the member our leader talks to frozen, a follower",
        term="stays",
        says=r"etcd endpoint .*: timed out; going on with",
        doctor="did not answer",
    )
    for turn in rounds(fault, fleet):
        member = fleet.member_of(fleet.leading())
        cluster.make_leader(next(m for m in cluster.members if m is not member))
        member.freeze()
        turn.examine()
        fleet.pause(1.1 * TTL)
        member.thaw()


def test_others_frozen(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """A member that is left alone says nothing for certain: the term ends, and a new one catches up."""
    fault = Fault(
        name="two of three members frozen for longer than a ttl",
        term="ends",
        says=r"ended \(deadline\)",
        doctor="knows no leader|can be used",
    )
    for turn in rounds(fault, fleet):
        alone = fleet.member_of(fleet.leading())
        others = [member for member in cluster.members if member is not alone]
        for member in others:
            member.freeze()
        turn.examine()
        fleet.pause(1.1 * TTL)
        for member in others:
            member.thaw()


def test_etcd_leader_moved(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Each member leads the others for a moment."""
    fault = Fault(name="etcd's leader moved to each member in turn", term="stays")
    for _ in rounds(fault, fleet):
        for member in (*cluster.members, cluster.members[0]):
            cluster.make_leader(member)
            fleet.pause(0.3)


def test_etcd_leader_killed(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Whoever leads is killed, twice, and started again."""
    fault = Fault(
        name="etcd's leader killed and started again, twice",
        term="stays",
    )
    for _ in rounds(fault, fleet):
        for _ in range(2):
            member = cluster.etcd_leader()
            member.kill()
            fleet.pause(1.0)
            member.start()
            member.wait_healthy()


def test_rolling_restart(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Each member is asked to end and started again, the next one once it is healthy."""
    fault = Fault(name="rolling restart of all three members", term="stays")
    for _ in rounds(fault, fleet):
        for member in cluster.members:
            member.stop()
            member.start()
            member.wait_healthy()
