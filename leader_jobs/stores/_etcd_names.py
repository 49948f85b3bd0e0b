"""
Which elections there are on etcd, found without reading what they keep.

A range takes a server as long as there are keys in it, whatever the limit. So names are looked for among
the candidates, of which there are few, and of the records only the gaps between known names are asked
for: what is there belongs to an election without candidates, and its gap goes on behind it.
"""

from typing import Final

from leader_jobs.names import is_election
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_keys import Keyspace, scan

__all__ = ["find_elections"]

#: How many gaps are looked into in one transaction; a server takes 128.
_GAPS: Final = 100


def find_elections(client: Client, keys: Keyspace, *, deadline: float) -> set[str]:
    """
    Return the names of all elections with a candidate or a record, linearizably.

    Strangers' names that no election can have are passed over, and keys without a name.
    """
    candidates, records = keys.folders
    entries = scan(client, candidates, keys_only=True, deadline=deadline)
    parts = (entry.key[len(candidates) :].partition(b"/") for entry in entries)
    found = {name for name, slash, _ in parts if slash}
    gaps = _gaps(records, found)
    while gaps:
        some, gaps = gaps[:_GAPS], gaps[_GAPS:]
        body = wire.txn([], [wire.first_key(start, end) for start, end in some])
        reply = client.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        for (_, end), first in zip(some, reply.reads, strict=True):
            for entry in first:
                name, slash, _ = entry.key[len(records) :].partition(b"/")
                found.update([name] if slash else [])
                gaps.append((_behind(records + name, slash), end))
    return {name.decode() for name in found if is_election(name.decode("utf-8", "replace"))}


def _gaps(folder: bytes, names: set[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the stretches of *folder* in which there are no keys of *names*."""
    # In the order of their keys, where "a-b/" comes before "a/".
    stems = sorted(folder + name + b"/" for name in names)
    starts = [folder, *(_behind(stem[:-1], b"/") for stem in stems)]
    return list(zip(starts, [*stems, wire.prefix_end(folder)], strict=True))


def _behind(key: bytes, slash: bytes) -> bytes:
    """Return what comes right behind *key*, or with a slash, behind all that lies below it."""
    return key + (b"0" if slash else b"\0")  # "0" comes right after "/"
