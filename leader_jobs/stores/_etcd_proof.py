"""
Whether a user may do in an election all that its leader has to: asked, and nothing is written.

etcd wants the rights for both branches of a transaction, whichever is carried out. So one whose compare
never holds may ask for puts and deletes.
"""

from collections.abc import Iterable
from typing import Final

from leader_jobs.exceptions import StoreRefused
from leader_jobs.names import runners_of
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import PERMISSION_DENIED, Refusal
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_keys import Keyspace

__all__ = ["Proof", "intruders"]

#: A revision that no key will ever be created at.
_NEVER: Final = 2**63 - 1
#: How many keys of an electorate are looked at: one request's worth.
_SOME: Final = 500


class Proof:
    """
    Asks what a user may do.

    Args:
        client: logged in as that user.
        keys: where things lie.
    """

    def __init__(self, client: Client, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def check(self, election: str, *, deadline: float) -> None:
        """
        Log in anew if the password has changed or that was long ago, and ask for everything at once.

        Raises:
            StoreRefused: the login fails, a right is missing, or keys of others lie in the election.
            StoreUnavailable: no answer by *deadline*.
        """
        self._client.prove_login(deadline)
        writable = [self._keys.electorate(election), self._keys.register(election)]
        readable = [*writable, self._keys.electorate(runners_of(election))]
        try:
            reply = self._ask(writable, readable, deadline)
        except Refusal as refusal:
            if refusal.code != PERMISSION_DENIED:
                raise
            raise self._explain(writable, readable, refusal, deadline) from refusal
        strangers = intruders(writable[0], reply.reads[0])
        if strangers:
            raise StoreRefused(strangers[0])

    def missing_rights(self, election: str, *, deadline: float) -> tuple[str, ...]:
        """Return the prefixes that whoever stands or runs jobs in *election* may not read and write."""
        electorates = [self._keys.electorate(name) for name in (election, runners_of(election))]
        prefixes = [*electorates, self._keys.register(election)]
        return tuple(p.decode() for p in prefixes if not self._may([p], [p], deadline))

    def _may(self, writable: list[bytes], readable: list[bytes], deadline: float) -> bool:
        try:
            self._ask(writable, readable, deadline)
        except Refusal:
            return False
        return True

    def _ask(self, writable: list[bytes], readable: list[bytes], deadline: float) -> wire.TxnReply:
        never = wire.created(readable[0] + b"doctor/1", _NEVER)
        changes = [
            change
            for prefix in writable
            for change in (wire.put(prefix + b"doctor/1", b""), wire.delete(prefix + b"doctor/2"))
        ]
        looks = [
            wire.scan(p, limit=1 if i else _SOME, keys_only=True) for i, p in enumerate(readable)
        ]
        body = wire.txn([never], changes, looks)
        return self._client.call(wire.TXN, body, wire.read_txn, deadline=deadline)

    def _explain(
        self, writable: list[bytes], readable: list[bytes], refusal: Refusal, deadline: float
    ) -> Refusal:
        """Return a refusal that names the first prefix whose rights are missing."""
        for prefix in readable:
            writes = prefix in writable
            if not self._may([prefix] if writes else [], [prefix], deadline):
                what = "read and write" if writes else "read"
                user = (
                    f"user {self._client.user!r}"
                    if self._client.user
                    else "whoever does not log in"
                )
                msg = (
                    f"{user} may not {what} keys under {prefix.decode()}; "
                    f"etcdctl role grant-permission ROLE --prefix=true readwrite {prefix.decode()}"
                )
                return Refusal(msg, refusal.code)
        return refusal


def intruders(electorate: bytes, entries: Iterable[wire.Entry]) -> list[str]:
    """
    Return what is wrong with keys that lie deeper in an electorate than a candidate's can.

    They are another program's, which has this election's keys as part of its prefix: whoever goes by
    Go's recipe takes them for candidates.
    """
    return [
        f"the key {entry.key.decode('utf-8', 'backslashreplace')} lies within {electorate.decode()} and is "
        "no candidate's, yet keeps others from leading; give its program, or this one, another namespace"
        for entry in entries
        if b"/" in entry.key[len(electorate) :]
    ]
