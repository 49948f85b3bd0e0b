"""
What goes over the wire to etcd's JSON gateway and what comes back: built and read here only.

The gateway has sharp edges, which is why nothing else in the package may write a request body. It
silently ignores fields it does not know, so a misspelt ``create_revision`` turns a compare into
"== 0", which is *true* of a key that does not exist. Bytes travel as standard base64, 64-bit numbers
as strings. Whatever is zero, false or empty is left out of replies: a failed transaction has no
``succeeded``, a put event no ``type``, a keepalive of a lease that is gone no ``TTL``.

Every reader raises `ValueError` on a reply it cannot make sense of. A reply like that says nothing
about what the server did.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "AUTHENTICATE",
    "GRANT",
    "KEEPALIVE",
    "RANGE",
    "REVOKE",
    "TIME_TO_LIVE",
    "TXN",
    "WATCH",
    "Entry",
    "Fault",
    "Header",
    "Json",
    "Lease",
    "News",
    "RangeReply",
    "TxnReply",
    "authenticate",
    "created",
    "decode",
    "delete",
    "fault",
    "first_key",
    "get",
    "grant",
    "leads",
    "lease",
    "modified",
    "modified_since",
    "newer",
    "news",
    "predecessor",
    "prefix_end",
    "put",
    "read_lease",
    "read_range",
    "read_token",
    "read_txn",
    "scan",
    "txn",
    "watch",
]

Json = dict[str, Any]

AUTHENTICATE: Final = "/v3/auth/authenticate"
GRANT: Final = "/v3/lease/grant"
KEEPALIVE: Final = "/v3/lease/keepalive"
REVOKE: Final = "/v3/lease/revoke"
TIME_TO_LIVE: Final = "/v3/lease/timetolive"
RANGE: Final = "/v3/kv/range"
TXN: Final = "/v3/kv/txn"
WATCH: Final = "/v3/watch"


# Requests


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def prefix_end(prefix: bytes) -> bytes:
    """Return the smallest key that is greater than every key with *prefix*."""
    stem = prefix.rstrip(b"\xff")
    # A lone zero byte means "to the end of the key space".
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def _under(prefix: bytes) -> Json:
    return {"key": _text(prefix), "range_end": _text(prefix_end(prefix))}


def authenticate(user: str, password: str) -> Json:
    """Ask for a token; the password is in the body, so never log it."""
    return {"name": user, "password": password}


def grant(ttl: int) -> Json:
    """Ask for a lease of *ttl* seconds; the reply says what was granted."""
    return {"TTL": str(ttl)}


def lease(lease_id: int) -> Json:
    """Name a lease: to keep it alive, to revoke it, to ask how long it has left."""
    return {"ID": str(lease_id)}


def scan(
    prefix: bytes,
    *,
    start: bytes | None = None,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
) -> Json:
    """
    Read the keys under *prefix* in key order, linearizably.

    Args:
        prefix: what the keys begin with.
        start: the first key to return, for a later page.
        limit: at most so many keys; 0 for all.
        revision: read at this revision of the store; 0 for the newest.
        keys_only: leave the values out.
    """
    body: Json = {
        "key": _text(prefix if start is None else start),
        "range_end": _text(prefix_end(prefix)),
        "limit": str(limit),
        "revision": str(revision),
    }
    return {**body, "keys_only": True} if keys_only else body


def get(key: bytes) -> Json:
    """Read when *key* was created and last changed (not its value); a request and an operation."""
    return {"key": _text(key), "keys_only": True}


def first_key(start: bytes, end: bytes) -> Json:
    """Read which key is the first from *start* on, before *end*; a request and an operation."""
    body = {"key": _text(start), "range_end": _text(end)}
    return {**body, "limit": "1", "keys_only": True}


def newer(prefix: bytes, revision: int) -> Json:
    """Read a key under *prefix* that was last changed after *revision*."""
    return {
        **_under(prefix),
        "min_mod_revision": str(revision + 1),
        "limit": "1",
        "keys_only": True,
    }


def between(first: bytes, last: bytes) -> Json:
    """Read when the keys from *first* to *last*, both included, were created and last changed."""
    return {"key": _text(first), "range_end": _text(last + b"\0"), "keys_only": True}


def predecessor(prefix: bytes, token: int) -> Json:
    """Read the key under *prefix* created last before *token*."""
    return {
        **_under(prefix),
        "max_create_revision": str(token - 1),
        "sort_order": "DESCEND",
        "sort_target": "CREATE",
        "limit": "1",
        "keys_only": True,
    }


def put(key: bytes, value: bytes, lease_id: int = 0) -> Json:
    """Write *value*, attached to a lease if one is given; an operation of a transaction."""
    body = {"key": _text(key), "value": _text(value), "lease": str(lease_id)}
    return {"request_put": body}


def delete(key: bytes) -> Json:
    """Remove *key*; an operation of a transaction."""
    return {"request_delete_range": {"key": _text(key)}}


def created(key: bytes, revision: int) -> Json:
    """Compare: *key* was created at *revision* (0: it does not exist)."""
    return {
        "key": _text(key),
        "target": "CREATE",
        "result": "EQUAL",
        "create_revision": str(revision),
    }


def modified(key: bytes, revision: int) -> Json:
    """Compare: *key* was last changed at *revision* (0: it does not exist)."""
    return {
        "key": _text(key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(revision),
    }


def modified_since(key: bytes, revision: int) -> Json:
    """Compare: *key* was last changed at *revision* or later."""
    return {
        "key": _text(key),
        "target": "MOD",
        "result": "GREATER",
        "mod_revision": str(revision - 1),
    }


def leads(prefix: bytes, token: int) -> Json:
    """Compare: no key under *prefix* was created before *token*."""
    return {
        **_under(prefix),
        "target": "CREATE",
        "result": "GREATER",
        "create_revision": str(token - 1),
    }


def txn(compares: Sequence[Json], then: Sequence[Json], otherwise: Iterable[Json] = ()) -> Json:
    """
    One transaction.

    Args:
        compares: all must hold for *then* to happen.
        then: what `put`, `delete`, `get` or `predecessor` return.
        otherwise: reads (what `get` or `predecessor` return) done if a compare does not hold.
    """
    return {
        "compare": list(compares),
        "success": [_operation(body) for body in then],
        "failure": [_operation(body) for body in otherwise],
    }


def _operation(body: Json) -> Json:
    return {"request_range": body} if "key" in body else body


def watch(key: bytes, *, prefix: bool = False, start: int = 0, deletes_only: bool = False) -> Json:
    """
    Watch *key*, or everything under it.

    Args:
        key: the key or prefix.
        prefix: whether *key* is a prefix.
        start: the first revision of interest; 0 for from now on.
        deletes_only: have the server leave puts out.
    """
    request = {**(_under(key) if prefix else {"key": _text(key)}), "start_revision": str(start)}
    if deletes_only:
        request["filters"] = ["NOPUT"]
    return {"create_request": request}


# Replies


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, in which raft term, at which revision of which cluster (0: it does not say)."""

    member_id: int
    raft_term: int
    revision: int
    cluster_id: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with the revisions that created and last changed it; *lease* is 0 if it has none."""

    key: bytes
    value: bytes
    created: int
    modified: int
    lease: int


@dataclass(frozen=True, slots=True)
class RangeReply:
    """The keys found; *more* if the limit cut the list."""

    header: Header
    entries: tuple[Entry, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class TxnReply:
    """Whether the compares held, and what each *read* of the branch that was taken found."""

    header: Header
    succeeded: bool
    reads: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True, slots=True)
class Lease:
    """
    A lease, as grant, keepalive and time-to-live speak of it.

    Attributes:
        header: who says so.
        id: the lease's number.
        ttl: seconds it has now; 0 or less: there is no such lease.
        granted: seconds a renewal gives it; 0 if the reply does not say.
    """

    header: Header
    id: int
    ttl: int
    granted: int


@dataclass(frozen=True, slots=True)
class News:
    """
    One message of a watch stream.

    Attributes:
        changed: at least one event is in it.
        over: the watch ended; look at this before anything else, since a watch that was never
            allowed says "created" and "cancelled" in one message.
        reason: why it ended, in the server's words.
    """

    changed: bool
    over: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An error reply: the gRPC code, which means the same on every version, and the text."""

    code: int
    message: str


def decode(text: bytes) -> Json:
    """Decode one message."""
    return _object(json.loads(text))


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        msg = f"expected a JSON object, not {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004  one error for every reply without sense
    return value


def _list(reply: Json, name: str) -> list[Json]:
    value = reply.get(name, [])
    if not isinstance(value, list):
        msg = f"{name} is not a list"
        raise ValueError(msg)  # noqa: TRY004  see above
    return [_object(item) for item in value]


def _int(reply: Json, name: str) -> int:
    value = reply.get(name, 0)
    if not isinstance(value, int | str):
        msg = f"{name} is not a number"
        raise ValueError(msg)  # noqa: TRY004  see above
    return int(value)


def _bytes(reply: Json, name: str) -> bytes:
    try:
        return base64.b64decode(reply.get(name, ""), validate=True)
    except (binascii.Error, TypeError) as error:
        msg = f"{name} is not base64"
        raise ValueError(msg) from error


def _header(reply: Json) -> Header:
    header = _object(reply.get("header"))
    return Header(
        member_id=_int(header, "member_id"),
        raft_term=_int(header, "raft_term"),
        revision=_int(header, "revision"),
        cluster_id=_int(header, "cluster_id"),
    )


def _entries(reply: Json) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            key=_bytes(kv, "key"),
            value=_bytes(kv, "value"),
            created=_int(kv, "create_revision"),
            modified=_int(kv, "mod_revision"),
            lease=_int(kv, "lease"),
        )
        for kv in _list(reply, "kvs")
    )


def read_range(reply: Json) -> RangeReply:
    """Read the reply to `scan` or `get`."""
    return RangeReply(_header(reply), _entries(reply), bool(reply.get("more")))


def read_txn(reply: Json) -> TxnReply:
    """Read the reply to `txn`."""
    reads = tuple(
        _entries(_object(response["response_range"]))
        for response in _list(reply, "responses")
        if "response_range" in response
    )
    return TxnReply(_header(reply), bool(reply.get("succeeded")), reads)


def read_lease(reply: Json) -> Lease:
    """Read the reply to `grant` or `lease`; a keepalive's comes as one message of a stream."""
    body = _object(reply.get("result", reply))
    return Lease(_header(body), _int(body, "ID"), _int(body, "TTL"), _int(body, "grantedTTL"))


def read_token(reply: Json) -> str:
    """Read the reply to `authenticate`."""
    token = reply.get("token")
    if not isinstance(token, str) or not token:
        msg = "the reply carries no token"
        raise ValueError(msg)
    return token


def news(message: Json) -> News:
    """Read one message of a watch stream that is not a `fault`."""
    result = _object(message.get("result"))
    compacted = _int(result, "compact_revision")
    reason = str(result.get("cancel_reason") or (f"compacted at {compacted}" if compacted else ""))
    return News(
        changed=bool(_list(result, "events")),
        over=bool(result.get("canceled")) or compacted > 0,
        reason=reason,
    )


def fault(reply: Json) -> Fault | None:
    """
    Return the error in *reply*, or None if it is not an error.

    The layouts: ``{"error", "message", "code"}`` up to 3.5.1 at least, ``{"code", "message"}`` in
    later 3.5, and within streams an object under ``error`` with ``grpc_code`` or ``code``.
    """
    inner = reply.get("error")
    body = inner if isinstance(inner, dict) else reply
    code = body.get("grpc_code", body.get("code"))
    if code is None and inner is None:
        return None
    message = body.get("message") or inner or "no message"
    return Fault(code if isinstance(code, int) else 2, str(message))
