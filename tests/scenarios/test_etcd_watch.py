"""Waits on real servers: what happens in between, compaction, wake-ups, and no spinning."""

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores.base import Candidacy, Standing
from leader_jobs.stores.etcd import EtcdStore
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.odd_gateway import Answer, OddGateway, Question, reply
from testsupport.proxy import TcpProxy

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


@pytest.fixture
def store(etcd: EtcdCluster, make_store: MakeStore) -> EtcdStore:
    """A store on the shared server."""
    return make_store(etcd.endpoints)


def two(store: EtcdStore) -> tuple[Candidacy, Candidacy]:
    """Enrol a leader and one who waits for it."""
    return (
        store.enrol("mail", b"first", 30, deadline=soon()),
        store.enrol("mail", b"second", 30, deadline=soon()),
    )


def test_a_predecessor_that_went_before_the_watch(
    each_etcd: EtcdCluster, make_store: MakeStore
) -> None:
    """The watch begins right after the look, so what happened in between is delivered."""
    store = make_store(each_etcd.endpoints)
    for _ in range(10):
        first, second = two(store)
        standing = store.standing(second, deadline=soon())
        store.withdraw(first, deadline=soon())

        began = CLOCK.now()
        store.wait(second, standing, timeout=30.0)

        assert CLOCK.now() - began < 1.0
        assert store.standing(second, deadline=soon()).leads
        store.withdraw(second, deadline=soon())


def test_a_compacted_revision(each_etcd: EtcdCluster, make_store: MakeStore) -> None:
    """The server cancels the watch and leaves the stream open: the wait ends all the same."""
    store = make_store(each_etcd.endpoints)
    _first, second = two(store)
    old = store.standing(second, deadline=soon())
    for _ in range(3):
        store.withdraw(store.enrol("other", b"", 30, deadline=soon()), deadline=soon())
    now = store.standing(second, deadline=soon())
    each_etcd.etcdctl("compact", str(now.revision))

    began = CLOCK.now()
    store.wait(second, Standing(old.predecessor, old.revision - 1), timeout=30.0)

    assert CLOCK.now() - began < 1.0


def test_a_change_of_proposal_is_no_news(etcd: EtcdCluster, store: EtcdStore) -> None:
    """A leader that says something new about itself does not wake who waits for it to go."""
    first, second = two(store)
    standing = store.standing(second, deadline=soon())
    wait = Background(lambda: store.wait(second, standing, timeout=30.0))

    key = store._keys.candidate(first).decode()
    etcd.etcdctl("put", key, "proclaimed", f"--lease={first.id}")

    assert not wait.over(within=0.3)
    store.withdraw(first, deadline=soon())
    wait.result(2.0)


def test_closing_the_store_ends_its_waits(store: EtcdStore) -> None:
    """Candidates and observers of a store that is closed do not sit there for an hour."""
    _first, second = two(store)
    standing = store.standing(second, deadline=soon())
    waits = [
        Background(lambda: store.wait(second, standing, timeout=3600.0)),
        Background(lambda: store.wait_for_change("mail", timeout=3600.0)),
    ]
    limit = soon()
    while len(store._gateway._streams) < 2:
        assert CLOCK.now() < limit

    store.close()

    for wait in waits:
        wait.result(2.0)


def test_a_wake_during_the_connect(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """A wake-up does not wait for a network that is busy timing out."""
    with TcpProxy(etcd.endpoints[0]) as proxy:
        store = make_store([proxy.endpoint], call_timeout=20.0)
        candidacy = store.enrol("mail", b"", 30, deadline=soon())
        standing = store.standing(candidacy, deadline=soon())
        proxy.drop_packets()
        wait = Background(lambda: store.wait(candidacy, standing, timeout=60.0))
        limit = soon()
        while not store._gateway._streams:
            assert CLOCK.now() < limit

        assert not wait.over(within=0.2)
        store.wake(candidacy)

        wait.result(1.0)


def test_a_server_that_is_away_does_not_make_waits_spin(make_store: MakeStore) -> None:
    """A wait that fails at once takes a moment, so that a loop of them costs next to nothing."""
    with OddGateway(lambda _: None) as server:
        store = make_store([server.endpoint])
        candidacy = Candidacy("mail", "1f", token=5, ttl=15.0)
        began = CLOCK.now()
        for _ in range(5):
            store.wait(candidacy, Standing("1e", 7), timeout=30.0)
        took = CLOCK.now() - began

        assert 0.5 <= took < 3.0
        assert len(server.questions) == 5


def test_a_server_that_cancels_at_once_does_not_either(make_store: MakeStore) -> None:
    """The same where the server says "created" and "cancelled" in one breath."""

    def answer(question: Question) -> Answer:
        assert question.headers["Grpc-Metadata-Hasleader"] == "true"
        result = {"created": True, "canceled": True, "cancel_reason": "permission denied"}
        return reply({"result": {"header": {"member_id": "1"}, **result}})

    with OddGateway(answer) as server:
        store = make_store([server.endpoint])
        candidacy = Candidacy("mail", "1f", token=5, ttl=15.0)
        began = CLOCK.now()
        for _ in range(3):
            store.wait(candidacy, Standing(None, 7), timeout=30.0)

        assert CLOCK.now() - began >= 0.3
        assert len(server.asked(wire.WATCH)) == 3


def test_a_finished_wait_leaves_no_watcher(
    make_cluster: MakeCluster, make_store: MakeStore
) -> None:
    """Each wait closes its stream, and the server forgets the watch."""
    cluster = make_cluster()
    store = make_store(cluster.endpoints)
    candidacy = store.enrol("mail", b"", 30, deadline=soon())
    for _ in range(5):
        store.wait(candidacy, store.standing(candidacy, deadline=soon()), timeout=0.05)

    (member,) = cluster.members
    member.wait_until(
        lambda: member.metric("etcd_debugging_mvcc_watcher_total") == 0, "still has watchers"
    )
