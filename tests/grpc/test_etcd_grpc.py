"""etcd over gRPC on real servers: where the gateway is off, and word for word what the gateway says."""

from contextlib import closing
from typing import Any

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.doctor import Level, examine
from leader_jobs.exceptions import StoreRefused, StoreUnavailable
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_connect import Access
from leader_jobs.stores._etcd_login import parse_endpoints
from leader_jobs.stores._etcd_protobuf import load
from leader_jobs.stores._etcd_transport import Transport
from leader_jobs.stores.base import ABSENT, Write
from leader_jobs.stores.factory import open_store
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.over_grpc import etcd_url
from testsupport.proxy import Direction, TcpProxy

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


def transport(endpoint: str, *, grpc: bool) -> Transport:
    """Return a transport of either kind."""
    return Access(endpoints=parse_endpoints([endpoint]), grpc=grpc).transport(CLOCK)


def test_a_cluster_without_its_gateway(make_cluster: MakeCluster, namespace: str) -> None:
    """It serves an election and its register, where HTTP is refused with the way out."""
    cluster = make_cluster(extra_args=["--enable-grpc-gateway=false"])
    with (
        closing(open_store(Settings(store=cluster.url, namespace=namespace))) as store,
        pytest.raises(StoreRefused, match="not etcd's JSON gateway"),
    ):
        store.read("mail", "", deadline=soon())

    with closing(open_store(Settings(store=etcd_url(cluster), namespace=namespace))) as store:
        assert store.description.startswith(f"etcd+grpc://{cluster.endpoints[0]} ")
        leader = store.enrol("mail", b"first", 30, deadline=soon())
        waiter = store.enrol("mail", b"second", 30, deadline=soon())
        standing = store.standing(waiter, deadline=soon())
        wait = Background(lambda: store.wait(waiter, standing, timeout=30.0))
        assert store.renew(leader, leading=True, deadline=soon()) == 30.0
        store.commit("mail", [Write("job", b"1", ABSENT)], candidacy=leader, deadline=soon())
        assert not wait.over(within=0.1)
        store.withdraw(leader, deadline=soon())
        wait.result(2.0)
        assert store.standing(waiter, deadline=soon()).leads
        assert store.read("mail", "", deadline=soon())["job"].value == b"1"


def test_a_member_says_the_same_by_both_ways(each_etcd: EtcdCluster, namespace: str) -> None:
    """Replies become the JSON of the gateway: numbers as text, nothing that is zero or empty."""
    (endpoint,) = each_etcd.endpoints
    by_http, by_grpc = transport(endpoint, grpc=False), transport(endpoint, grpc=True)
    prefix = f"{namespace}/".encode()
    lease = by_http.once(*call(endpoint, wire.GRANT, wire.grant(30)), None, soon())
    put = wire.put(prefix + b"a", b"\xff\x00", int(lease["ID"]))
    by_http.once(*call(endpoint, wire.TXN, wire.txn([], [put])), None, soon())
    found, missing = prefix + b"a", prefix + b"b"
    reads = [wire.get(found), wire.predecessor(prefix, 1 << 40), wire.scan(prefix, limit=1)]
    questions: list[tuple[str, wire.Json]] = [
        (wire.RANGE, wire.scan(prefix)),
        (wire.RANGE, wire.get(missing)),
        (wire.RANGE, wire.newer(prefix, 1)),
        (wire.TXN, wire.txn([wire.created(missing, 0), wire.leads(prefix, 1)], reads)),
        (wire.TXN, wire.txn([wire.modified(found, 1)], [], [wire.get(missing), *reads])),
        (wire.KEEPALIVE, wire.lease(int(lease["ID"]))),
        (wire.KEEPALIVE, wire.lease(77)),
        (wire.TIME_TO_LIVE, wire.lease(77)),
        ("/v3/cluster/member/list", {}),
        ("/v3/maintenance/alarm", {"action": "GET"}),
    ]

    for path, body in questions:
        one = by_http.once(*call(endpoint, path, body), None, soon())
        other = by_grpc.once(*call(endpoint, path, body), None, soon())
        assert other == one.get("result", one), path
    by_grpc.close()
    by_http.close()


def call(endpoint: str, path: str, body: wire.Json) -> tuple[Any, str, wire.Json]:
    """Return what a call begins with."""
    return parse_endpoints([endpoint])[0], path, body


def test_a_misspelt_field_is_an_error() -> None:
    """The gateway ignores it, and a compare of revisions becomes one with zero."""
    from google.protobuf.json_format import ParseError

    _, messages = load("etcd+grpc://h")
    method = messages.method(wire.TXN)
    compare = {**wire.created(b"k", 7), "createrevision": "7"}

    with pytest.raises(ParseError, match="createrevision"):
        messages.encode(wire.txn([compare], []), method)


def test_an_answer_that_is_large(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """A page of records is more than gRPC takes unless told to."""
    store = make_store(etcd.endpoints)
    for number in range(6):
        write = Write(f"job/{number}", bytes(900_000))
        store.commit("mail", [write], candidacy=None, deadline=soon())

    assert len(store.read("mail", "", deadline=soon(10))) == 6


def test_the_proxy_of_the_environment_is_ignored(
    etcd: EtcdCluster, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster is not reached through the web proxy of the site."""
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert make_store(etcd.endpoints).read("mail", "", deadline=soon()) == {}


def test_a_watch_that_never_begins(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """A member that went silent behind an open connection costs a wait the time of one try."""
    with TcpProxy(etcd.endpoints[0]) as proxy:
        store = make_store([proxy.endpoint], call_timeout=0.5)
        candidacy = store.enrol("mail", b"", 30, deadline=soon())
        standing = store.standing(candidacy, deadline=soon())
        proxy.stall(Direction.TO_CLIENT)

        began = CLOCK.now()
        store.wait(candidacy, standing, timeout=30.0)

        assert 0.4 < CLOCK.now() - began < 1.5


def test_leaving_a_member_ends_no_call_on_it(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """What another thread has under way there may still be answered, and is."""
    with TcpProxy(etcd.endpoints[0]) as proxy:
        store = make_store([proxy.endpoint], call_timeout=20.0)
        store.commit("mail", [Write("job", b"1")], candidacy=None, deadline=soon())
        sent = proxy.passed(Direction.TO_SERVER)
        proxy.hold(Direction.TO_CLIENT)
        write = Write("job", b"2")
        commit = Background(
            lambda: store.commit("mail", [write], candidacy=None, deadline=soon(20))
        )
        proxy.wait_passed(Direction.TO_SERVER, sent)
        store._client.leave(store._client.current, "a test")
        assert not commit.over(within=0.1)
        proxy.restore()

        commit.result(5.0)


def test_the_doctor_calls(etcd_cluster: EtcdCluster, namespace: str) -> None:
    """All that needs no Date of an answer is found out over gRPC too."""
    settings = Settings(store=etcd_url(etcd_cluster), namespace=namespace)
    found = {one.check: one for one in examine(settings, clock=CLOCK)}

    for check in ("settings", "endpoint", "cluster", "rights", "ttl", "pace", "expiry"):
        assert found[check].level is Level.OK, found[check]
    assert "3 members" in found["cluster"].message


def test_a_path_that_is_not_known(etcd: EtcdCluster) -> None:
    """It is refused before anything is sent."""
    way = transport(etcd.endpoints[0], grpc=True)
    with pytest.raises(StoreRefused, match="/v3/kv/compaction"):
        way.once(*call(etcd.endpoints[0], "/v3/kv/compaction", {}), None, soon())


def test_nobody_is_there(make_store: MakeStore) -> None:
    """The message says so in plain words, without the layers of gRPC."""
    with pytest.raises(StoreUnavailable, match=r"\(127\.0\.0\.1:1: connection refused\)"):
        make_store(["127.0.0.1:1"]).read("mail", "", deadline=soon(0.5))
