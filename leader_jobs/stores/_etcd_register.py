"""
An election's register on etcd: records read at one revision and written in one guarded transaction.

A candidacy's own create revision proves only that it lives, and a waiter's does too. So the fence of
a commit has a second compare, over the whole election: nobody was created before this candidacy.
Together they prove that it leads at the moment of the write, whatever its process believes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from leader_jobs.exceptions import Conflict, Fenced
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_keys import Keyspace, scan_each
from leader_jobs.stores.base import ABSENT, Candidacy, Limits, Record, Write

__all__ = ["LIMITS", "Register", "records"]

#: Of etcd's 128 compares (``--max-txn-ops``) the fence takes two; of its 1.5 MiB a request the keys,
#: which are sent twice, take a share.
LIMITS: Final = Limits(guards=126, writes=128, size=1_000_000, at_once=3)


class Register:
    """Reads and writes records; see `leader_jobs.stores.base.Store` for what is promised."""

    def __init__(self, client: Client, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return every record whose key starts with one of *prefixes*."""
        root = self._keys.register(election)
        keys = [root + prefix.encode() for prefix in prefixes]
        return records(root, scan_each(self._client, keys, deadline=deadline))

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Write a batch in one transaction; on refusal its other branch reads why."""
        LIMITS.check(writes)
        root = self._keys.register(election)
        fence, reasons = self._fence(candidacy)
        guarded = [(write.key, write.expect) for write in writes if write.expect is not None]
        body = wire.txn(
            fence + [wire.modified(root + key.encode(), expect) for key, expect in guarded],
            [_operation(root, write) for write in writes],
            [*reasons, *_span(root, guarded)],
        )
        reply = self._client.call(
            wire.TXN, body, wire.read_txn, deadline=deadline, repeatable=False
        )
        if reply.succeeded:
            return reply.header.revision
        if candidacy is not None:
            _check_fence(candidacy, *reply.reads[: len(reasons)])
        raise Conflict(_changed(root, guarded, reply.reads[len(reasons) :]))

    def _fence(self, candidacy: Candidacy | None) -> tuple[list[wire.Json], list[wire.Json]]:
        """Return the compares that prove leadership, and the reads that explain a refusal."""
        if candidacy is None:
            return [], []
        key, token = self._keys.candidate(candidacy), candidacy.token
        prefix = self._keys.electorate(candidacy.election)
        return (
            [wire.created(key, token), wire.leads(prefix, token)],
            [wire.get(key), wire.predecessor(prefix, token)],
        )


def records(root: bytes, found: Iterable[Iterable[wire.Entry]]) -> dict[str, Record]:
    """Return the records that entries under *root* are."""
    return {
        entry.key[len(root) :].decode("utf-8", "backslashreplace"): Record(
            entry.value, entry.modified
        )
        for entries in found
        for entry in entries
    }


def _operation(root: bytes, write: Write) -> wire.Json:
    key = root + write.key.encode()
    return wire.delete(key) if write.value is None else wire.put(key, write.value)


def _check_fence(
    candidacy: Candidacy, own: Sequence[wire.Entry], ahead: Sequence[wire.Entry]
) -> None:
    if not any(entry.created == candidacy.token for entry in own):
        msg = f"term {candidacy.token} of election {candidacy.election!r} is over: its key is gone"
        raise Fenced(msg)
    if ahead:
        msg = f"candidacy {candidacy.token} in {candidacy.election!r} does not lead: one is ahead"
        raise Fenced(msg)


def _span(root: bytes, guarded: Sequence[tuple[str, int]]) -> list[wire.Json]:
    """Return one read that covers all guarded records: a read for each would double the request."""
    if not guarded:
        return []
    keys = sorted(root + key.encode() for key, _ in guarded)
    return [wire.between(keys[0], keys[-1])]


def _changed(
    root: bytes, guarded: Sequence[tuple[str, int]], found: Sequence[Sequence[wire.Entry]]
) -> tuple[str, ...]:
    """Return the keys whose version is not the expected one."""
    versions = {entry.key: entry.modified for entries in found for entry in entries}
    return tuple(
        key for key, expect in guarded if versions.get(root + key.encode(), ABSENT) != expect
    )
