"""
An election's register on etcd: records read at one revision and written in one guarded transaction.

A candidacy's own create revision proves only that it lives, and a waiter's does too. So the fence of
a commit has a second compare, over the whole election: nobody was created before this candidacy.
Together they prove that it leads at the moment of the write, whatever its process believes. A third
compare, of the newest record that the process knows, proves that what it believes was not taken back
by the restore of a snapshot, in which the candidacy may well have stood.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NoReturn

from leader_jobs.exceptions import Conflict, Fenced, HistoryRewound
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_history import History, Mark, Witness
from leader_jobs.stores._etcd_keys import Keyspace, scan_each
from leader_jobs.stores.base import ABSENT, Candidacy, Limits, Record, Write

__all__ = ["LIMITS", "Register", "records"]

#: Of etcd's 128 compares (``--max-txn-ops``) the fence takes three; of its 1.5 MiB a request the keys,
#: which are sent twice, take a share.
LIMITS: Final = Limits(guards=125, writes=128, size=1_000_000, at_once=3)


class Register:
    """Reads and writes records; see `leader_jobs.stores.base.Store` for what is promised."""

    def __init__(self, client: Client, keys: Keyspace) -> None:
        self._client = client
        self._history: History = client.history
        self._keys = keys

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return every record whose key starts with one of *prefixes*."""
        root = self._keys.register(election)
        keys = [root + prefix.encode() for prefix in prefixes]
        mark, witness = self._history.mark(), self._history.witness(root)
        found = [*chain(*scan_each(self._client, keys, deadline=deadline))]
        if witness is not None:
            self._hear(mark, witness, found)
        # One that was changed, not just made, is not missing in a snapshot that is a little older.
        changed = [entry for entry in found if entry.created < entry.modified]
        if changed:
            newest = max(changed, key=lambda entry: entry.modified)
            self._history.testify(root, mark, Witness(newest.key, newest.modified))
        return records(root, [found])

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
        mark = self._history.mark()
        if candidacy is None:
            return self._commit(root, writes, _NO_FENCE, mark, deadline)
        try:
            self._history.confirm(candidacy)
            fence = self._fence(candidacy, self._history.witness(root))
            try:
                return self._commit(root, writes, fence, mark, deadline)
            except _WitnessGone:
                # Somebody removed the record, and nothing was written: once more, without it.
                fence = self._fence(candidacy, None)
                return self._commit(root, writes, fence, mark, deadline)
        except HistoryRewound as error:
            msg = f"term {candidacy.token} of election {candidacy.election!r} is over: {error}"
            raise Fenced(msg) from error

    def _commit(
        self, root: bytes, writes: Sequence[Write], fence: "_Fence", mark: Mark, deadline: float
    ) -> int:
        guarded = [(write.key, write.expect) for write in writes if write.expect is not None]
        body = wire.txn(
            fence.compares
            + [wire.modified(root + key.encode(), expect) for key, expect in guarded],
            [_operation(root, write) for write in writes],
            [*fence.reads, *_span(root, guarded)],
        )
        reply = self._client.call(
            wire.TXN, body, wire.read_txn, deadline=deadline, repeatable=False
        )
        if reply.succeeded:
            key = next((write.key for write in writes if write.expect and write.value), None)
            if key is not None:
                witness = Witness(root + key.encode(), reply.header.revision)
                self._history.testify(root, mark, witness)
            return reply.header.revision
        return self._refused(root, guarded, fence, mark, reply)

    def _refused(
        self,
        root: bytes,
        guarded: Sequence[tuple[str, int]],
        fence: "_Fence",
        mark: Mark,
        reply: wire.TxnReply,
    ) -> NoReturn:
        """Say which guard failed."""
        reads = reply.reads
        if fence.witness is not None:
            self._hear(mark, fence.witness, reads[2])
        if fence.candidacy is not None:
            _check_fence(fence.candidacy, *reads[:2])
        changed = _changed(root, guarded, [*chain(*reads[len(fence.reads) :])])
        if fence.witness is not None and not changed:
            self._history.dismiss(root, fence.witness)
            raise _WitnessGone
        raise Conflict(changed)

    def _hear(self, mark: Mark, witness: Witness, found: Iterable[wire.Entry]) -> None:
        """See whether a record that is known to be of some revision was *found* to be older."""
        for entry in found:
            if entry.key == witness.key and entry.modified < witness.revision:
                key = entry.key.decode("utf-8", "backslashreplace")
                self._history.rewound(
                    mark, f"{key} is of revision {entry.modified}, it was of {witness.revision}"
                )

    def _fence(self, candidacy: Candidacy, witness: Witness | None) -> "_Fence":
        """Return the compares that prove leadership, and the reads that explain a refusal."""
        key, token = self._keys.candidate(candidacy), candidacy.token
        prefix = self._keys.electorate(candidacy.election)
        compares = [wire.created(key, token), wire.leads(prefix, token)]
        reads = [wire.get(key), wire.predecessor(prefix, token)]
        if witness is not None:
            compares.append(wire.modified_since(witness.key, witness.revision))
            reads.append(wire.get(witness.key))
        return _Fence(candidacy, witness, compares, reads)


class _WitnessGone(Exception):
    """The record that a commit was to be vouched for by was removed."""


@dataclass(frozen=True, slots=True)
class _Fence:
    """What a commit is refused by beside its records: the compares, and the reads that tell why."""

    candidacy: Candidacy | None
    witness: Witness | None
    compares: list[wire.Json]
    reads: list[wire.Json]


_NO_FENCE: Final = _Fence(None, None, [], [])


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
    root: bytes, guarded: Sequence[tuple[str, int]], found: Sequence[wire.Entry]
) -> tuple[str, ...]:
    """Return the keys whose version is not the expected one."""
    versions = {entry.key: entry.modified for entry in found}
    return tuple(
        key for key, expect in guarded if versions.get(root + key.encode(), ABSENT) != expect
    )
