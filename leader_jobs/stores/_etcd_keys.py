"""Where things lie in etcd's key space, and how to read a whole stretch of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from leader_jobs.names import check_election, check_electorate
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores.base import Candidacy

__all__ = ["Keyspace", "candidate_id", "candidate_suffix", "scan", "scan_each"]

_PAGE: Final = 500
#: How many ranges are read in one transaction; a server takes 128.
_RANGES: Final = 64
#: Characters of a foreign candidate's key that need no escape in a log or an id.
_PLAIN: Final = "/:@!$&'()*+,;="


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys below *namespace*; names of elections are checked before they become part of one."""

    namespace: str

    def electorate(self, election: str) -> bytes:
        """Return what the keys of an election's candidates begin with."""
        return f"{self.namespace}/elections/{check_electorate(election)}/".encode()

    def candidate(self, candidacy: Candidacy) -> bytes:
        """Return the key of a candidate."""
        return self.electorate(candidacy.election) + candidate_suffix(candidacy.id)

    def register(self, election: str) -> bytes:
        """Return what the keys of an election's records begin with."""
        return f"{self.namespace}/ledger/{check_election(election)}/".encode()

    @property
    def folders(self) -> tuple[bytes, bytes]:
        """What the keys of all candidates begin with, and those of all records."""
        return f"{self.namespace}/elections/".encode(), f"{self.namespace}/ledger/".encode()


def candidate_id(prefix: bytes, key: bytes) -> str:
    """Return what follows *prefix*: a lease id in hex, or whatever a stranger wrote, escaped."""
    return quote(key[len(prefix) :], safe=_PLAIN)


def candidate_suffix(candidate: str) -> bytes:
    """Undo `candidate_id`."""
    return unquote_to_bytes(candidate)


def scan_each(
    client: Client, prefixes: Sequence[bytes], *, deadline: float
) -> Iterator[list[wire.Entry]]:
    """Read everything under each of *prefixes*, linearizably and all at one revision."""
    if len(prefixes) == 1:
        yield scan(client, prefixes[0], deadline=deadline)
        return
    revision = 0
    for place in range(0, len(prefixes), _RANGES):
        some = prefixes[place : place + _RANGES]
        body = wire.txn([], [wire.scan(p, limit=_PAGE, revision=revision) for p in some])
        reply = client.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        revision = revision or reply.header.revision
        for prefix, found in zip(some, reply.reads, strict=True):
            entries = list(found)
            if len(entries) == _PAGE:
                start = entries[-1].key + b"\0"
                entries += scan(client, prefix, start=start, revision=revision, deadline=deadline)
            yield entries


def scan(
    client: Client,
    prefix: bytes,
    *,
    start: bytes | None = None,
    revision: int = 0,
    keys_only: bool = False,
    deadline: float,
) -> list[wire.Entry]:
    """Read everything under *prefix*, linearizably and at one revision, page by page."""
    entries: list[wire.Entry] = []
    more = True
    while more:
        reply = client.call(
            wire.RANGE,
            wire.scan(prefix, start=start, limit=_PAGE, revision=revision, keys_only=keys_only),
            wire.read_range,
            deadline=deadline,
        )
        entries.extend(reply.entries)
        revision = revision or reply.header.revision
        more = reply.more and bool(reply.entries)
        if more:
            start = reply.entries[-1].key + b"\0"
    return entries
