"""Where things lie in etcd's key space, and how to read a whole stretch of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from leader_jobs.names import check_election, check_electorate, is_election
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_http import Gateway
from leader_jobs.stores.base import Candidacy

__all__ = ["Keyspace", "candidate_id", "candidate_suffix", "names_under", "scan", "scan_all"]

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


def names_under(gateway: Gateway, folder: bytes, *, deadline: float) -> Iterator[str]:
    """
    Find the elections with a key in *folder*, linearizably, one request for each.

    Strangers' names that no election can have are passed over, each as one; a key that lies in the
    folder itself is passed over too.
    """
    start = folder
    while True:
        reply = gateway.call(
            wire.RANGE, wire.next_key(start, folder), wire.read_range, deadline=deadline
        )
        if not reply.entries:
            return
        name, slash, _ = reply.entries[0].key[len(folder) :].partition(b"/")
        # "0" comes right after "/": so everything below the name is passed over.
        start = folder + name + (b"0" if slash else b"\0")
        if slash and is_election(name.decode("utf-8", "replace")):
            yield name.decode()


def scan_all(
    gateway: Gateway, prefixes: Sequence[bytes], *, deadline: float
) -> Iterator[wire.Entry]:
    """Read everything under each of *prefixes*, linearizably and at one revision."""
    if len(prefixes) == 1:
        yield from scan(gateway, prefixes[0], deadline=deadline)
        return
    revision = 0
    for place in range(0, len(prefixes), _RANGES):
        some = prefixes[place : place + _RANGES]
        body = wire.txn([], [wire.scan(p, limit=_PAGE, revision=revision) for p in some])
        reply = gateway.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        revision = revision or reply.header.revision
        for prefix, found in zip(some, reply.reads, strict=True):
            yield from found
            if len(found) == _PAGE:
                start = found[-1].key + b"\0"
                yield from scan(gateway, prefix, start=start, revision=revision, deadline=deadline)


def scan(
    gateway: Gateway,
    prefix: bytes,
    *,
    start: bytes | None = None,
    revision: int = 0,
    deadline: float,
) -> list[wire.Entry]:
    """Read everything under *prefix*, linearizably and at one revision, page by page."""
    entries: list[wire.Entry] = []
    more = True
    while more:
        reply = gateway.call(
            wire.RANGE,
            wire.scan(prefix, start=start, limit=_PAGE, revision=revision),
            wire.read_range,
            deadline=deadline,
        )
        entries.extend(reply.entries)
        revision = revision or reply.header.revision
        more = reply.more and bool(reply.entries)
        if more:
            start = reply.entries[-1].key + b"\0"
    return entries
