"""What a network does to calls: nothing arrives, too late, only one way, or from a fork."""

import os
from collections.abc import Iterator

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import Fenced, StoreUnavailable
from leader_jobs.stores.base import ABSENT, Candidacy, Write
from leader_jobs.stores.etcd import EtcdStore
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeStore
from testsupport.forking import in_forked_child
from testsupport.proxy import Direction, TcpProxy

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


@pytest.fixture
def proxy(etcd: EtcdCluster) -> Iterator[TcpProxy]:
    """A network between the test and the server."""
    with TcpProxy(etcd.endpoints[0]) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: TcpProxy, make_store: MakeStore) -> EtcdStore:
    """A store behind that network."""
    return make_store([proxy.endpoint], call_timeout=0.5)


@pytest.fixture
def elsewhere(etcd: EtcdCluster, make_store: MakeStore) -> EtcdStore:
    """A store that reaches the server directly."""
    return make_store(etcd.endpoints)


def fail_within(store: EtcdStore, candidacy: Candidacy, seconds: float) -> float:
    """Renew, which must fail by the deadline; return how long that took."""
    began = CLOCK.now()
    with pytest.raises(StoreUnavailable):
        store.renew(candidacy, leading=True, deadline=began + seconds)
    return CLOCK.now() - began


@pytest.mark.parametrize("fault", ["drop_packets", "stall", "cut", "hold"])
def test_a_dead_network(store: EtcdStore, proxy: TcpProxy, fault: str) -> None:
    """Calls fail by their deadline, and work again once the network does."""
    candidacy = store.enrol("mail", b"", 30, deadline=soon())
    getattr(proxy, fault)()

    assert fail_within(store, candidacy, 1.2) < 1.5  # with a connection that was open
    assert fail_within(store, candidacy, 1.2) < 1.5  # with none

    proxy.restore()
    assert store.renew(candidacy, leading=True, deadline=soon(10)) == 30.0


@pytest.mark.parametrize("fault", ["drop_packets", "stall", "cut"])
def test_the_next_endpoint_takes_over(
    proxy: TcpProxy, etcd: EtcdCluster, make_store: MakeStore, fault: str
) -> None:
    """A renewal moves on after the timeout of one try; the wait at the dead end moves with it."""
    store = make_store([proxy.endpoint, *etcd.endpoints], call_timeout=0.5)
    leader = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=60.0))
    proxy.wait_passed(Direction.TO_CLIENT, 0)
    getattr(proxy, fault)()

    began = CLOCK.now()
    assert store.renew(leader, leading=True, deadline=soon()) == 30.0
    assert CLOCK.now() - began < 1.0
    wait.result(2.0)


def test_an_answer_that_never_comes_is_no_failure(
    store: EtcdStore, proxy: TcpProxy, elsewhere: EtcdStore
) -> None:
    """A commit that timed out is "unknown", and may well have been done."""
    leader = store.enrol("mail", b"", 30, deadline=soon())
    proxy.stall(Direction.TO_CLIENT)

    with pytest.raises(StoreUnavailable):
        store.commit("mail", [Write("job", b"1", ABSENT)], candidacy=leader, deadline=soon(1))

    assert elsewhere.read("mail", "", deadline=soon())["job"].value == b"1"


def test_a_commit_is_sent_once(store: EtcdStore, proxy: TcpProxy, elsewhere: EtcdStore) -> None:
    """A second try could refuse its own first one, so there is none, however long the deadline."""
    leader = store.enrol("mail", b"", 30, deadline=soon())
    proxy.stall(Direction.TO_CLIENT)

    began = CLOCK.now()
    with pytest.raises(StoreUnavailable):
        store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon(30))

    assert CLOCK.now() - began < 1.5
    record = elsewhere.read("mail", "", deadline=soon())["job"]
    elsewhere.commit("mail", [Write("job", b"2", record.version)], candidacy=None, deadline=soon())


def test_a_commit_delayed_past_its_term(
    store: EtcdStore, proxy: TcpProxy, elsewhere: EtcdStore
) -> None:
    """The write of a deposed leader arrives late: the fence holds it off."""
    deposed = store.enrol("mail", b"old", 30, deadline=soon())
    answered = proxy.passed(Direction.TO_CLIENT)
    proxy.hold(Direction.TO_SERVER)
    with pytest.raises(StoreUnavailable):
        store.commit("mail", [Write("job", b"old")], candidacy=deposed, deadline=soon(1))
    elsewhere.withdraw(deposed, deadline=soon())
    successor = elsewhere.enrol("mail", b"new", 30, deadline=soon())
    elsewhere.commit("mail", [Write("job", b"new")], candidacy=successor, deadline=soon())

    proxy.restore()
    proxy.wait_passed(Direction.TO_CLIENT, answered)

    assert elsewhere.read("mail", "", deadline=soon())["job"].value == b"new"
    with pytest.raises(Fenced):
        elsewhere.commit("mail", [Write("job", b"old")], candidacy=deposed, deadline=soon())


@pytest.mark.gateway  # over gRPC the news that the call was given up comes right behind it
def test_a_delayed_commit_without_a_fence(
    store: EtcdStore, proxy: TcpProxy, elsewhere: EtcdStore
) -> None:
    """The counter-example: the same without a candidacy does overwrite what came after it."""
    store.read("mail", "", deadline=soon())
    answered = proxy.passed(Direction.TO_CLIENT)
    proxy.hold(Direction.TO_SERVER)
    with pytest.raises(StoreUnavailable):
        store.commit("mail", [Write("job", b"old")], candidacy=None, deadline=soon(1))
    elsewhere.commit("mail", [Write("job", b"new")], candidacy=None, deadline=soon())

    proxy.restore()
    proxy.wait_passed(Direction.TO_CLIENT, answered)

    assert elsewhere.read("mail", "", deadline=soon())["job"].value == b"old"


@pytest.mark.gateway
def test_a_forked_child_has_connections_of_its_own(store: EtcdStore, proxy: TcpProxy) -> None:
    """It writes nothing on the parent's sockets, which go on working, and it may stand itself."""
    leader = store.enrol("mail", b"parent", 30, deadline=soon())
    connections = proxy.accepted
    sent = proxy.passed(Direction.TO_SERVER)

    # The child's copy goes, as at the end of a worker, with nothing said to the server.
    assert in_forked_child(store.close) == "None"
    assert proxy.passed(Direction.TO_SERVER) == sent
    assert in_forked_child(lambda: store.enrol("mail", b"child", 30, deadline=soon()).ttl) == "30.0"

    assert proxy.accepted == connections + 1
    assert store.renew(leader, leading=True, deadline=soon()) == 30.0
    assert proxy.accepted == connections + 1
    assert len(store.candidates("mail", deadline=soon())) == 2


@pytest.mark.gateway
def test_a_fork_in_the_middle_of_calls(store: EtcdStore) -> None:
    """A lock that another thread held at the fork does not stop the child; its waits are over."""
    leader = store.enrol("mail", b"parent", 30, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=60.0))

    def stand() -> int:
        candidacy = store.enrol("mail", b"child", 30, deadline=soon())
        store.wake(leader)
        store.withdraw(candidacy, deadline=soon())
        return os.getpid()

    with store._client._lock, store._client._login_lock, store._waiters_lock:
        child = in_forked_child(stand)

    assert int(child) != os.getpid()
    assert not wait.over(within=0.1)
    store.wake(leader)
    wait.result(2.0)
