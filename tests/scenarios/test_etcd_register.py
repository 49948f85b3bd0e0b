"""The register on a real server: the fence, what a refusal says, and the server's own limits."""

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import Conflict, Fenced, StoreRefused
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import Refusal
from leader_jobs.stores.base import ABSENT, Write
from leader_jobs.stores.etcd import EtcdStore
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeStore

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


@pytest.fixture
def store(etcd: EtcdCluster, make_store: MakeStore) -> EtcdStore:
    """A store on the shared server."""
    return make_store(etcd.endpoints)


def test_the_server_refuses_a_waiter(store: EtcdStore) -> None:
    """A waiter's own key is alive and well, which alone would not hold it off."""
    leader = store.enrol("mail", b"", 30, deadline=soon())
    waiter = store.enrol("mail", b"", 30, deadline=soon())
    key = store._keys.candidate(waiter)
    alone = wire.txn([wire.created(key, waiter.token)], [wire.get(key)])
    lives = store._client.call(wire.TXN, alone, wire.read_txn, deadline=soon())
    assert lives.succeeded

    with pytest.raises(Fenced, match="one is ahead"):
        store.commit("mail", [Write("job", b"1")], candidacy=waiter, deadline=soon())
    assert store.read("mail", "", deadline=soon()) == {}

    store.withdraw(leader, deadline=soon())
    store.commit("mail", [Write("job", b"1")], candidacy=waiter, deadline=soon())


def test_a_fence_comes_before_a_conflict(store: EtcdStore) -> None:
    """Whoever does not lead learns that first, whatever the records say."""
    store.enrol("mail", b"", 30, deadline=soon())
    waiter = store.enrol("mail", b"", 30, deadline=soon())

    with pytest.raises(Fenced):
        store.commit("mail", [Write("job", b"1", 99)], candidacy=waiter, deadline=soon())


def test_a_conflict_names_the_records(store: EtcdStore) -> None:
    """Only those that differ, so that the caller can read and merge them."""
    leader = store.enrol("mail", b"", 30, deadline=soon())
    version = store.commit(
        "mail", [Write("a", b"1"), Write("b", b"1")], candidacy=leader, deadline=soon()
    )
    later = store.commit("mail", [Write("b", b"2")], candidacy=leader, deadline=soon())
    writes = [
        Write("a", b"3", version),
        Write("b", b"3", version),
        Write("c", b"3", ABSENT),
        Write("d", b"3", later),
        Write("e", b"3"),
    ]

    with pytest.raises(Conflict) as caught:
        store.commit("mail", writes, candidacy=leader, deadline=soon())

    assert caught.value.keys == ("b", "d")
    records = store.read("mail", "", deadline=soon())
    assert {key: record.value for key, record in records.items()} == {"a": b"1", "b": b"2"}


def test_the_limits_just_fit(each_etcd: EtcdCluster, make_store: MakeStore) -> None:
    """A commit as large as `limits` allows in every respect is accepted by a server's defaults."""
    store = make_store(each_etcd.endpoints)
    limits = store.limits
    leader = store.enrol("mail", b"", 30, deadline=soon())
    value = bytes(limits.size // limits.writes - 100)
    name = "x" * 90
    writes = [
        Write(f"{name}{i:05}", value, ABSENT if i < limits.guards else None)
        for i in range(limits.writes)
    ]

    version = store.commit("mail", writes, candidacy=leader, deadline=soon())

    records = store.read("mail", name, deadline=soon())
    assert len(records) == limits.writes
    assert {record.version for record in records.values()} == {version}
    with pytest.raises(Conflict) as caught:
        store.commit("mail", writes, candidacy=leader, deadline=soon())
    assert len(caught.value.keys) == limits.guards


@pytest.mark.parametrize("too_many", ["compares", "operations"])
def test_what_the_server_itself_refuses(
    each_etcd: EtcdCluster, make_store: MakeStore, too_many: str
) -> None:
    """128 compares and 128 operations each are what a server takes; one more is refused whole."""
    gateway = make_store(each_etcd.endpoints)._client
    keys = [b"limits/%d" % i for i in range(129)]
    puts = [wire.put(key, b"") for key in keys]
    compares = [wire.created(key, 0) for key in keys]

    def send(compares: list[wire.Json], puts: list[wire.Json]) -> wire.TxnReply:
        body = wire.txn(compares, puts)
        return gateway.call(wire.TXN, body, wire.read_txn, deadline=soon(), repeatable=False)

    assert send(compares[:128], puts[:128]).header.revision
    with pytest.raises(Refusal, match="too many operations"):
        send(*((compares, puts[:1]) if too_many == "compares" else ([], puts)))
    gone = wire.txn([], [wire.delete(key) for key in keys[:128]])
    gateway.call(wire.TXN, gone, wire.read_txn, deadline=soon())


def test_a_request_beyond_the_limits_is_not_sent(store: EtcdStore) -> None:
    """It is refused here, in words that name the limit."""
    too_large = [Write("job", bytes(store.limits.size))]
    with pytest.raises(StoreRefused, match=r"limits of .* 1000000 bytes"):
        store.commit("mail", too_large, candidacy=None, deadline=soon())


def test_many_records_are_read_page_by_page(store: EtcdStore) -> None:
    """More records than fit into one answer come complete, once each, and as of one revision."""
    for start in range(0, 1100, 100):
        batch = [Write(f"job/{i:05}", b"%d" % i) for i in range(start, start + 100)]
        store.commit("mail", batch, candidacy=None, deadline=soon())
    store.commit("mail", [Write("jobs", b"")], candidacy=None, deadline=soon())

    records = store.read("mail", "job/", deadline=soon())

    assert list(records) == [f"job/{i:05}" for i in range(1100)]
    assert all(int(record.value) == int(key[4:]) for key, record in records.items())


def test_elections_do_not_see_each_other(store: EtcdStore) -> None:
    """Neither records nor candidates of an election whose name begins alike."""
    store.enrol("mail-2", b"", 30, deadline=soon())
    store.commit("mail-2", [Write("job", b"1")], candidacy=None, deadline=soon())

    assert store.read("mail", "", deadline=soon()) == {}
    assert store.candidates("mail", deadline=soon()) == ()
