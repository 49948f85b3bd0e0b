"""Every request body byte for byte, since the gateway ignores what it does not know; and replies."""

import pytest

from leader_jobs.stores import _etcd_wire as wire

KEY = b"ns/elections/mail/1f"  # bnMvZWxlY3Rpb25zL21haWwvMWY=
PREFIX = b"p/"  # cC8= to cDA=

HEADER = {"cluster_id": "9", "member_id": "18446744073709551615", "revision": "7", "raft_term": "3"}


@pytest.mark.parametrize(
    ("body", "golden"),
    [
        (wire.authenticate("app", "pw"), {"name": "app", "password": "pw"}),
        (wire.grant(15), {"TTL": "15"}),
        (wire.lease(2**62), {"ID": "4611686018427387904"}),
        (wire.get(KEY), {"key": "bnMvZWxlY3Rpb25zL21haWwvMWY=", "keys_only": True}),
        (
            wire.scan(PREFIX),
            {"key": "cC8=", "range_end": "cDA=", "limit": "0", "revision": "0"},
        ),
        (
            wire.scan(PREFIX, start=b"p/x\0", limit=500, revision=9),
            {"key": "cC94AA==", "range_end": "cDA=", "limit": "500", "revision": "9"},
        ),
        (
            wire.predecessor(PREFIX, 8),
            {
                "key": "cC8=",
                "range_end": "cDA=",
                "max_create_revision": "7",
                "sort_order": "DESCEND",
                "sort_target": "CREATE",
                "limit": "1",
                "keys_only": True,
            },
        ),
        (
            wire.scan(PREFIX, keys_only=True),
            {"key": "cC8=", "range_end": "cDA=", "limit": "0", "revision": "0", "keys_only": True},
        ),
        (
            wire.first_key(b"p/x0", b"p0"),
            {"key": "cC94MA==", "range_end": "cDA=", "limit": "1", "keys_only": True},
        ),
        (
            wire.newer(PREFIX, 7),
            {
                "key": "cC8=",
                "range_end": "cDA=",
                "min_mod_revision": "8",
                "limit": "1",
                "keys_only": True,
            },
        ),
        (wire.put(b"k", b"v", 5), {"request_put": {"key": "aw==", "value": "dg==", "lease": "5"}}),
        (wire.put(b"k", b""), {"request_put": {"key": "aw==", "value": "", "lease": "0"}}),
        (wire.delete(b"k"), {"request_delete_range": {"key": "aw=="}}),
        (
            wire.created(b"k", 0),
            {"key": "aw==", "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
        ),
        (
            wire.modified(b"k", 4),
            {"key": "aw==", "target": "MOD", "result": "EQUAL", "mod_revision": "4"},
        ),
        (
            wire.modified_since(b"k", 4),
            {"key": "aw==", "target": "MOD", "result": "GREATER", "mod_revision": "3"},
        ),
        (
            wire.leads(PREFIX, 8),
            {
                "key": "cC8=",
                "range_end": "cDA=",
                "target": "CREATE",
                "result": "GREATER",
                "create_revision": "7",
            },
        ),
        (
            wire.watch(b"k", start=9, deletes_only=True),
            {"create_request": {"key": "aw==", "start_revision": "9", "filters": ["NOPUT"]}},
        ),
        (
            wire.watch(PREFIX, prefix=True),
            {"create_request": {"key": "cC8=", "range_end": "cDA=", "start_revision": "0"}},
        ),
    ],
)
def test_request(body: wire.Json, golden: wire.Json) -> None:
    """A request is exactly what the gateway's reference says."""
    assert body == golden


def test_transaction() -> None:
    """Reads are wrapped as range requests, writes come wrapped already."""
    body = wire.txn(
        [wire.created(b"k", 1)], [wire.put(b"k", b"v"), wire.delete(b"l")], [wire.get(b"k")]
    )

    assert body == {
        "compare": [{"key": "aw==", "target": "CREATE", "result": "EQUAL", "create_revision": "1"}],
        "success": [
            {"request_put": {"key": "aw==", "value": "dg==", "lease": "0"}},
            {"request_delete_range": {"key": "bA=="}},
        ],
        "failure": [{"request_range": {"key": "aw==", "keys_only": True}}],
    }


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", "Yg=="), (b"a/", "YTA="), (b"a\xff", "Yg=="), (b"\xff\xff", "AA=="), (b"", "AA==")],
)
def test_the_end_of_a_prefix(prefix: bytes, end: str) -> None:
    """The end is the first key that no longer has the prefix, or the end of the key space."""
    assert wire.scan(prefix)["range_end"] == end


def test_standard_base64_out() -> None:
    """Old servers refuse the URL-safe alphabet."""
    assert wire.get(b"\xfb\xff")["key"] == "+/8="


def test_range_reply() -> None:
    """Numbers come as strings; an empty value is left out."""
    reply = wire.read_range(
        {
            "header": HEADER,
            "kvs": [
                {
                    "key": "aw==",
                    "create_revision": "4",
                    "mod_revision": "5",
                    "version": "2",
                    "lease": "7587848943239473664",
                }
            ],
            "more": True,
            "count": "9",
        }
    )

    assert reply.header == wire.Header(member_id=2**64 - 1, raft_term=3, revision=7, cluster_id=9)
    assert reply.entries == (wire.Entry(b"k", b"", 4, 5, 7587848943239473664),)
    assert reply.more


def test_empty_range_reply() -> None:
    """Nothing found is a reply with a header alone."""
    assert wire.read_range({"header": HEADER}).entries == ()
    assert not wire.read_range({"header": HEADER}).more


def test_transaction_reply() -> None:
    """A failed transaction has no "succeeded"; only reads are of interest among its responses."""
    assert not wire.read_txn({"header": HEADER}).succeeded
    reply = wire.read_txn(
        {
            "header": HEADER,
            "succeeded": True,
            "responses": [
                {"response_put": {"header": {"revision": "7"}}},
                {"response_range": {"header": {}, "kvs": [{"key": "aw=="}], "count": "1"}},
                {"response_range": {"header": {}}},
            ],
        }
    )
    assert reply.succeeded
    assert reply.reads == ((wire.Entry(b"k", b"", 0, 0, 0),), ())


def test_lease_replies() -> None:
    """Grant, keepalive (a message of a stream, no TTL when the lease is gone) and time to live."""
    assert wire.read_lease({"header": HEADER, "ID": "5", "TTL": "2"}).ttl == 2
    assert wire.read_lease({"result": {"header": HEADER, "ID": "5", "TTL": "3"}}).ttl == 3
    assert wire.read_lease({"result": {"header": HEADER, "ID": "5"}}).ttl == 0
    gone = wire.read_lease({"header": HEADER, "ID": "5", "TTL": "-1"})
    assert (gone.ttl, gone.granted) == (-1, 0)
    alive = wire.read_lease({"header": HEADER, "ID": "5", "TTL": "4", "grantedTTL": "10"})
    assert (alive.ttl, alive.granted) == (4, 10)


@pytest.mark.parametrize(
    ("message", "news"),
    [
        ({"result": {"created": True}}, wire.News(changed=False, over=False, reason="")),
        (
            {"result": {"created": True, "canceled": True, "cancel_reason": "permission denied"}},
            wire.News(changed=False, over=True, reason="permission denied"),
        ),
        (
            {"result": {"canceled": True, "compact_revision": "4"}},
            wire.News(changed=False, over=True, reason="compacted at 4"),
        ),
        (
            {"result": {"events": [{"type": "DELETE", "kv": {"key": "aw=="}}]}},
            wire.News(changed=True, over=False, reason=""),
        ),
        (
            {"result": {"events": [{"kv": {"key": "aw==", "value": "dg=="}}]}},
            wire.News(changed=True, over=False, reason=""),
        ),
    ],
)
def test_watch_messages(message: wire.Json, news: wire.News) -> None:
    """The end of a watch shows even when it says "created" in the same breath."""
    assert wire.news(message) == news


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ({"error": "no lease", "message": "no lease", "code": 5}, wire.Fault(5, "no lease")),
        ({"code": 5, "message": "no lease"}, wire.Fault(5, "no lease")),
        ({"code": 5, "message": "no lease", "details": []}, wire.Fault(5, "no lease")),
        ({"error": {"grpc_code": 14, "http_code": 503, "message": "x"}}, wire.Fault(14, "x")),
        ({"error": {"code": 14, "message": "x", "details": []}}, wire.Fault(14, "x")),
        ({"error": "x"}, wire.Fault(2, "x")),
        ({"code": 7}, wire.Fault(7, "no message")),
        ({"header": HEADER}, None),
        ({}, None),
    ],
)
def test_faults(reply: wire.Json, fault: wire.Fault | None) -> None:
    """Every layout of an error that a version of etcd has had yields the gRPC code."""
    assert wire.fault(reply) == fault


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"header": None},
        {"header": []},
        {"header": HEADER, "kvs": {}},
        {"header": HEADER, "kvs": ["x"]},
        {"header": HEADER, "kvs": [{"key": "?"}]},
        {"header": HEADER, "kvs": [{"key": 5}]},
        {"header": HEADER, "kvs": [{"key": "aw==", "lease": "x"}]},
        {"header": HEADER, "kvs": [{"key": "aw==", "lease": []}]},
    ],
)
def test_replies_without_sense(reply: wire.Json) -> None:
    """A reply that is not what it should be is a `ValueError`, never a wrong answer."""
    with pytest.raises(ValueError):  # noqa: PT011  the message is for people
        wire.read_range(reply)


def test_more_replies_without_sense() -> None:
    """The same for the other readers."""
    for read in (wire.read_lease, wire.read_txn, wire.read_token, wire.news):
        with pytest.raises(ValueError):  # noqa: PT011  the message is for people
            read({"result": None} if read is wire.news else {})
    with pytest.raises(ValueError, match="JSON object"):
        wire.read_txn({"header": HEADER, "responses": [{"response_range": None}]})
