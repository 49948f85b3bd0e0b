"""Where things lie in etcd's key space, and how to read a whole stretch of it."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from leader_jobs.names import check_election, check_electorate
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_http import Gateway
from leader_jobs.stores.base import Candidacy

__all__ = ["Keyspace", "candidate_id", "candidate_suffix", "scan"]

_PAGE: Final = 500
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


def candidate_id(prefix: bytes, key: bytes) -> str:
    """Return what follows *prefix*: a lease id in hex, or whatever a stranger wrote, escaped."""
    return quote(key[len(prefix) :], safe=_PLAIN)


def candidate_suffix(candidate: str) -> bytes:
    """Undo `candidate_id`."""
    return unquote_to_bytes(candidate)


def scan(gateway: Gateway, prefix: bytes, *, deadline: float) -> list[wire.Entry]:
    """Read everything under *prefix*, linearizably and at one revision, page by page."""
    entries: list[wire.Entry] = []
    start, revision, more = prefix, 0, True
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
