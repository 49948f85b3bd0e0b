"""
Standing in elections on etcd: enrolling, renewing, seeing where one stands, withdrawing.

Each is one transaction, or a few whose order matters; none of them rests on what a watch has said.
"""

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import (
    CandidacyLost,
    HistoryRewound,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import NOT_FOUND, Refusal
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_keys import Keyspace, candidate_id
from leader_jobs.stores.base import Candidacy, Standing

__all__ = ["Electorate", "lease_of", "lost"]

_log = logging.getLogger(__name__)

#: Seconds before a keepalive and a read that do not match are repeated.
_PAIR_PAUSE: Final = 0.05


class Electorate:
    """Candidates as they come and go; see `leader_jobs.stores.base.Store` for what is promised."""

    def __init__(self, client: Client, keys: Keyspace, *, clock: Clock) -> None:
        self._client = client
        self._keys = keys
        self._clock = clock
        self._warned: set[bytes] = set()

    def enrol(self, election: str, proposal: bytes, ttl: float, *, deadline: float) -> Candidacy:
        """
        Stand in *election* under a lease of about *ttl* seconds.

        etcd grants whole seconds, and no less than one and a half election timeouts of its own.
        The grant is not repeated when its outcome is unknown: an orphaned lease expires by itself.
        """
        prefix = self._keys.electorate(election)
        mark = self._client.history.mark()
        lease = self._client.call(
            wire.GRANT,
            wire.grant(math.ceil(ttl)),
            wire.read_lease,
            deadline=deadline,
            repeatable=False,
        )
        key = prefix + f"{lease.id:x}".encode()
        body = wire.txn(
            [wire.created(key, 0)], [wire.put(key, proposal, lease.id)], [wire.get(key)]
        )
        try:
            reply = self._client.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        except Refusal as refusal:
            if refusal.code == NOT_FOUND:
                msg = f"the lease ran out before the candidacy in {election!r} was entered"
                raise CandidacyLost(msg) from refusal
            raise
        token = reply.header.revision if reply.succeeded else self._own_entry(reply, lease.id)
        candidacy = Candidacy(election, f"{lease.id:x}", token, float(lease.ttl))
        self._client.history.bear(candidacy, mark)
        return candidacy

    def _own_entry(self, reply: wire.TxnReply, lease_id: int) -> int:
        """Return the token of an entry that an earlier try made, whose reply was lost."""
        for entry in _first(reply):
            if entry.lease == lease_id:
                return entry.created
        msg = f"somebody else's key stands where our candidacy {lease_id:x} belongs; delete it"
        raise StoreRefused(msg)

    def renew(self, candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        """
        Keep the candidacy's lease.

        A member with a stalled disk goes on confirming keepalives after the cluster has deposed it
        and the key is gone (etcd#15247). So for a leader the reply counts only if a linearizable
        read that came after it finds the key, and the same member answered both in the same raft
        term; otherwise both are repeated.

        Raises:
            CandidacyLost: the lease or the key is gone.
            StoreUnavailable: not known to have worked by *deadline*.
        """
        with self._in_this_history(candidacy):
            return self._renew(candidacy, leading, deadline)

    def _renew(self, candidacy: Candidacy, leading: bool, deadline: float) -> float:
        body = wire.lease(lease_of(candidacy))
        while True:
            lease = self._client.call(wire.KEEPALIVE, body, wire.read_lease, deadline=deadline)
            if lease.ttl <= 0:
                raise lost(candidacy, "its lease is gone")
            if not leading:
                return float(lease.ttl)
            witness = self._confirm(candidacy, deadline)
            if _same_reign(lease.header, witness):
                return float(lease.ttl)
            left = deadline - self._clock.now()
            if left <= _PAIR_PAUSE:
                msg = f"etcd's members disagree; keepalives of {candidacy.id} can not be trusted"
                raise StoreUnavailable(msg)
            self._clock.wait(threading.Event(), _PAIR_PAUSE)

    @contextmanager
    def _in_this_history(self, candidacy: Candidacy) -> Iterator[None]:
        """Have a candidacy be lost whose history was taken back, even where its key came with it."""
        try:
            self._client.history.confirm(candidacy)
            yield
        except HistoryRewound as error:
            raise lost(candidacy, str(error)) from error

    def _confirm(self, candidacy: Candidacy, deadline: float) -> wire.Header:
        """Return who saw our key still there, linearizably."""
        key = self._keys.candidate(candidacy)
        reply = self._client.call(wire.RANGE, wire.get(key), wire.read_range, deadline=deadline)
        if not any(entry.created == candidacy.token for entry in reply.entries):
            raise lost(candidacy, "its key is gone")
        return reply.header

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """
        Say where we stand: own key and predecessor, in one transaction.

        Raises:
            CandidacyLost: our own key is gone.
        """
        prefix = self._keys.electorate(candidacy.election)
        body = wire.txn(
            [wire.created(self._keys.candidate(candidacy), candidacy.token)],
            [wire.predecessor(prefix, candidacy.token)],
        )
        with self._in_this_history(candidacy):
            reply = self._client.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        if not reply.succeeded:
            raise lost(candidacy, "its key is gone")
        ahead = next(iter(_first(reply)), None)
        if ahead is None:
            return Standing(None, reply.header.revision)
        self._warn_of_squatter(ahead)
        return Standing(candidate_id(prefix, ahead.key), reply.header.revision)

    def _warn_of_squatter(self, entry: wire.Entry) -> None:
        if entry.lease == 0 and entry.key not in self._warned:
            self._warned.add(entry.key)
            _log.warning(
                "etcd key %r has no lease and keeps everybody behind it from leading; delete it",
                entry.key.decode("utf-8", "backslashreplace"),
            )

    def withdraw(self, candidacy: Candidacy, *, deadline: float) -> None:
        """
        Give the candidacy up: delete its key if it is still the one we put, then its lease.

        The next in line leads as soon as the key is gone; a lease that could not be revoked runs out.
        """
        key = self._keys.candidate(candidacy)
        body = wire.txn([wire.created(key, candidacy.token)], [wire.delete(key)])
        self._client.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        self._client.history.bury(candidacy)
        try:
            self._client.call(wire.REVOKE, wire.lease(lease_of(candidacy)), dict, deadline=deadline)
        except StoreError as error:
            _log.debug("lease %s was not revoked: %s", candidacy.id, error)


def _first(reply: wire.TxnReply) -> Sequence[wire.Entry]:
    return reply.reads[0] if reply.reads else ()


def _same_reign(one: wire.Header, other: wire.Header) -> bool:
    return (one.member_id, one.raft_term) == (other.member_id, other.raft_term)


def lost(candidacy: Candidacy, why: str) -> CandidacyLost:
    """Return what says that *candidacy* is over, and why."""
    return CandidacyLost(f"candidacy {candidacy.id} in {candidacy.election!r} is over: {why}")


def lease_of(candidacy: Candidacy) -> int:
    """Return the number of the lease that *candidacy* stands under."""
    return int(candidacy.id, 16)
