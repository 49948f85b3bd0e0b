"""Members that die, freeze and come back: three real servers, real signals."""

from collections.abc import Iterator
from functools import partial

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import CandidacyLost, StoreUnavailable
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.etcd import EtcdStore
from testsupport.background import Background
from testsupport.etcd import EtcdCluster, Member
from testsupport.etcd_fixtures import MakeCluster, MakeStore

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> EtcdCluster:
    """Three members that may be hurt; the shortest lease is 1 s."""
    return make_cluster(3, heartbeat=20, election=200)


@pytest.fixture
def frozen() -> Iterator[list[Member]]:
    """Members to thaw at the end."""
    members: list[Member] = []
    yield members
    for member in members:
        member.thaw()


def first_of(member: Member, cluster: EtcdCluster) -> list[str]:
    """Return the endpoints of the cluster with that of *member* in front."""
    return [member.endpoint, *(e for e in cluster.endpoints if e != member.endpoint)]


def slowest_renewal(store: EtcdStore, candidacy: Candidacy, seconds: float) -> float:
    """Renew again and again as the leader for some time; return how long the slowest one took."""
    slowest = 0.0
    end = CLOCK.now() + seconds
    while (began := CLOCK.now()) < end:
        store.renew(candidacy, leading=True, deadline=began + candidacy.ttl)
        slowest = max(slowest, CLOCK.now() - began)
    return slowest


@pytest.mark.parametrize("role", ["etcd leader", "follower"])
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_losing_the_member_we_talk_to(
    cluster: EtcdCluster, make_store: MakeStore, frozen: list[Member], role: str, fault: str
) -> None:
    """The term goes on: renewals move to another member well within a ttl, and so does the wait."""
    victim = cluster.etcd_leader() if role == "etcd leader" else cluster.etcd_followers()[0]
    store = make_store(first_of(victim, cluster), call_timeout=0.5)
    leader = store.enrol("mail", b"", 5, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=60.0))
    slowest_renewal(store, leader, 0.2)

    if fault == "freeze":
        frozen.append(victim)
    getattr(victim, fault)()

    assert slowest_renewal(store, leader, 2.0) < 2.5
    wait.result(2.0)
    assert store.standing(leader, deadline=soon()).leads
    # The watch works on the other member too.
    again = Background(
        lambda: store.wait(leader, store.standing(leader, deadline=soon()), timeout=60.0)
    )
    assert not again.over(within=0.3)
    store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
    survivor = next(member for member in cluster.members if member is not victim)
    cluster.etcdctl(f"--endpoints={survivor.endpoint}", "lease", "revoke", leader.id)
    again.result(5.0)


def test_losing_all_members_for_a_while(
    cluster: EtcdCluster, make_store: MakeStore, frozen: list[Member]
) -> None:
    """Everything frozen: calls end by their deadline; thawed: they work again at once."""
    store = make_store(cluster.endpoints, call_timeout=0.3)
    leader = store.enrol("mail", b"", 10, deadline=soon())
    for member in cluster.members:
        frozen.append(member)
        member.freeze()

    began = CLOCK.now()
    with pytest.raises(StoreUnavailable) as caught:
        store.renew(leader, leading=True, deadline=began + 1.5)
    assert CLOCK.now() - began < 1.8
    assert all(endpoint in str(caught.value) for endpoint in cluster.endpoints)

    for member in cluster.members:
        member.thaw()
    assert store.renew(leader, leading=True, deadline=soon(10)) == 10.0


def test_a_member_cut_off_from_the_others(
    cluster: EtcdCluster, make_store: MakeStore, frozen: list[Member]
) -> None:
    """It can say nothing for certain, and its watches end instead of staying silent for ever."""
    alone, *others = cluster.members
    store = make_store([alone.endpoint], call_timeout=0.5)
    leader = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=60.0))
    for member in others:
        frozen.append(member)
        member.freeze()

    # Nobody renews here, so nothing but the server itself can end the stream.
    wait.result(15.0)
    with pytest.raises(StoreUnavailable):
        store.standing(leader, deadline=soon(1.5))
    with pytest.raises(StoreUnavailable):
        store.renew(leader, leading=True, deadline=soon(1.5))


def test_an_etcd_leader_that_wakes_from_a_freeze(
    cluster: EtcdCluster, make_store: MakeStore, frozen: list[Member]
) -> None:
    """It may revoke leases that were renewed meanwhile; whoever is hit is told, and knows it lost."""
    victim = cluster.etcd_leader()
    store = make_store([m.endpoint for m in cluster.members if m is not victim], call_timeout=0.5)
    leaders = [store.enrol(f"job-{i}", b"", 2, deadline=soon()) for i in range(20)]
    waits = {
        leader: Background(
            partial(store.wait, leader, store.standing(leader, deadline=soon()), timeout=60.0)
        )
        for leader in leaders
    }
    lost: dict[Candidacy, float] = {}

    def renew_all(seconds: float) -> None:
        end = CLOCK.now() + seconds
        while CLOCK.now() < end:
            for leader in leaders:
                try:
                    if leader not in lost:
                        store.renew(leader, leading=True, deadline=soon(2.0))
                except CandidacyLost:
                    lost[leader] = CLOCK.now()

    renew_all(0.5)
    frozen.append(victim)
    victim.freeze()
    renew_all(2.5)
    victim.thaw()
    renew_all(2.0)

    for leader in leaders:
        alive = any(
            one.token == leader.token for one in store.candidates(leader.election, deadline=soon())
        )
        assert alive == (leader not in lost)
        if leader in lost:
            waits[leader].result(2.0)
            again = store.enrol(leader.election, b"", 2, deadline=soon())
            assert again.token > leader.token
        store.wake(leader)


def test_a_restarted_member(make_cluster: MakeCluster, make_store: MakeStore) -> None:
    """Leases and records outlive the only server's restart; connections are replaced unnoticed."""
    cluster = make_cluster()
    store = make_store(cluster.endpoints)
    leader = store.enrol("mail", b"", 30, deadline=soon())
    version = store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=60.0))

    (member,) = cluster.members
    member.kill()
    wait.result(5.0)
    with pytest.raises(StoreUnavailable, match="connection refused"):
        store.standing(leader, deadline=soon(0.5))
    member.start()

    assert store.renew(leader, leading=True, deadline=soon(20)) == 30.0
    writes = [Write("job", b"2", version)]
    assert store.commit("mail", writes, candidacy=leader, deadline=soon()) > version
