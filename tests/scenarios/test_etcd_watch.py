"""Waits on real servers: what happens in between, compaction, wake-ups, and no spinning."""

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores.base import ABSENT, Candidacy, Standing, Watch, Write
from leader_jobs.stores.etcd import EtcdStore
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.forking import in_forked_child
from testsupport.odd_gateway import Answer, OddGateway, Question, relay, reply
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
    watch = store.watch("mail", "control/")
    waits = [
        Background(lambda: store.wait(second, standing, timeout=3600.0)),
        Background(lambda: store.wait_for_change("mail", timeout=3600.0)),
        Background(lambda: watch.wait(ABSENT, timeout=3600.0)),
    ]
    limit = soon()
    while len(store._client._streams) < 3:
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
        watch = store.watch("mail", "control/")
        proxy.drop_packets()
        waits = [
            Background(lambda: store.wait(candidacy, standing, timeout=60.0)),
            Background(lambda: watch.wait(ABSENT, timeout=60.0)),
        ]
        limit = soon()
        while len(store._client._streams) < 2:
            assert CLOCK.now() < limit

        assert [wait.over(within=0.2) for wait in waits] == [False, False]
        store.wake(candidacy)
        watch.wake()

        for wait in waits:
            wait.result(1.0)


@pytest.mark.gateway
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


@pytest.mark.gateway
def test_a_server_that_is_away_does_not_make_watches_spin(make_store: MakeStore) -> None:
    """The same of watches on records, whose first question is not for a stream."""
    with OddGateway(lambda _: None) as server:
        watch = make_store([server.endpoint]).watch("mail", "control/")
        began = CLOCK.now()
        for _ in range(5):
            watch.wait(ABSENT, timeout=30.0)
        took = CLOCK.now() - began

        assert 0.5 <= took < 3.0
        assert [question.path for question in server.questions] == [wire.RANGE] * 5


@pytest.mark.gateway
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
    watch = store.watch("mail", "control/")
    for _ in range(5):
        store.wait(candidacy, store.standing(candidacy, deadline=soon()), timeout=0.05)
        watch.wait(ABSENT, timeout=0.05)

    (member,) = cluster.members
    member.wait_until(
        lambda: member.metric("etcd_debugging_mvcc_watcher_total") == 0, "still has watchers"
    )


# -- watches on records -----------------------------------------------------------------------------


def write(store: EtcdStore, key: str = "control/a") -> int:
    """Write a record."""
    return store.commit("mail", [Write(key, b"")], candidacy=None, deadline=soon())


def waiting(watch: Watch, after: int) -> Background[None]:
    """Wait for an hour in a thread of its own."""
    return Background(lambda: watch.wait(after, timeout=3600.0))


def test_what_was_compacted_does_not_end_a_watch(
    each_etcd: EtcdCluster, make_store: MakeStore
) -> None:
    """The newest record may be far older than what the server remembers; there is no spinning."""
    store = make_store(each_etcd.endpoints)
    seen = write(store)
    for _ in range(3):
        newest = write(store, "heard")
    each_etcd.etcdctl("compact", str(newest))
    watch = store.watch("mail", "control/")
    wait = waiting(watch, seen)

    assert not wait.over(within=0.7)
    newer = write(store)
    wait.result(1.0)
    again = waiting(watch, seen)
    again.result(1.0)

    each_etcd.etcdctl("compact", str(write(store, "heard")))
    waiting(watch, seen).result(1.0)
    assert newer > seen


def test_a_busy_writer_does_not_keep_a_watch_busy(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """Hundreds of commits a second are worth twenty looks; those elsewhere none but the first."""
    store, writer = (make_store(etcd.endpoints) for _ in range(2))
    watch, quiet = store.watch("mail", "control/"), store.watch("mail", "others/")
    over, returns = False, 0

    def follow() -> None:
        nonlocal returns
        while not over:
            watch.wait(ABSENT, timeout=30.0)
            returns += 1

    write(writer)
    following, silence = Background(follow), waiting(quiet, ABSENT)
    began, commits = CLOCK.now(), 0
    while CLOCK.now() < began + 1.0:
        write(writer)
        commits += 1
    over = True
    watch.wake()
    following.result(2.0)

    assert commits > 50
    assert returns <= 20 * (CLOCK.now() - began) + 8
    assert not silence.over(within=0.0)
    quiet.wake()
    silence.result(1.0)


def test_a_fork_leaves_the_stream_of_its_parent_alone(store: EtcdStore) -> None:
    """The child's copy of a watch that is waiting can be woken, without a word to the server."""
    watch = store.watch("mail", "control/")
    wait = waiting(watch, ABSENT)
    limit = soon()
    while not store._client._streams:
        assert CLOCK.now() < limit

    assert in_forked_child(watch.wake) == "None"
    assert not wait.over(within=0.2)
    write(store)
    wait.result(1.0)


# -- elections --------------------------------------------------------------------------------------


def test_what_strangers_left_is_no_election(
    etcd: EtcdCluster, store: EtcdStore, namespace: str
) -> None:
    """Keys that no election of ours can have break no list, and hide nothing behind them."""
    names = ("a", "b", "mail", "z")
    for name in names:
        store.commit(name, [Write("k", b"")], candidacy=None, deadline=soon())
    store.enrol("mail.runners", b"", 30, deadline=soon())
    store.enrol("candidates", b"", 30, deadline=soon())
    strange = ["a", "a.runners/k", "aa", "-/k", "/k", "b c/k", "é/k", f"{'x' * 200}/k", "b/k/../l"]
    for folder in ("elections", "ledger"):
        for key in strange:
            etcd.etcdctl("put", f"{namespace}/{folder}/{key}", "1")
    etcd.etcdctl("put", f"{namespace}/elections", "1")
    etcd.etcdctl("put", f"{namespace}/ledger0/other/k", "1")
    gateway = store._client
    gateway.call(
        wire.TXN,
        wire.txn([], [wire.put(f"{namespace}/ledger/".encode() + b"\xff\xfe/k", b"")]),
        wire.read_txn,
        deadline=soon(),
    )

    assert store.elections(deadline=soon()) == ("a", "b", "candidates", "mail", "z")


@pytest.mark.gateway
def test_listing_elections_does_not_read_their_records(
    etcd: EtcdCluster, make_store: MakeStore
) -> None:
    """It takes a few requests for keys alone, however many records there are."""
    with OddGateway(lambda question: relay(etcd.endpoints[0], question)) as server:
        store = make_store([server.endpoint])
        for name in ("a", "b", "c"):
            writes = [Write(f"history/{n}", b"x" * 1000) for n in range(100)]
            store.commit(name, writes, candidacy=None, deadline=soon())
        store.enrol("a", b"", 30, deadline=soon())
        before = len(server.questions)

        assert store.elections(deadline=soon()) == ("a", "b", "c")

        candidates, *gaps = server.questions[before:]
        assert candidates.body["keys_only"]
        assert len(gaps) <= 3
        for gap in gaps:
            for operation in gap.body["success"]:
                assert (
                    operation["request_range"].items() >= {"limit": "1", "keys_only": True}.items()
                )
