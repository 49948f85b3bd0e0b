"""
The store on an etcd cluster.

Keys, wire-compatible with Go's ``client/v3/concurrency.Election`` and with ``etcdctl elect``:

- ``<namespace>/elections/<election>/<lease id in lower hex>``: a candidate. It is put only if it
  does not exist and lives as long as its lease; its create revision is the token, and the smallest
  one leads. Foreign candidates may stand beside ours. Nothing else may lie here: a key without a
  lease never goes away and keeps everybody behind it from leading.
- ``<namespace>/ledger/<election>/<key>``: the register; a record's version is its mod revision.

The recipe runs here, in transactions, never in the server's own election service. Unlike Go's
``Campaign`` no verdict rests on a watch: own key and predecessor are read at one revision.
"""

import json
import logging
import math
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.exceptions import (
    CandidacyLost,
    HistoryRewound,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from leader_jobs.names import check_namespace
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import NOT_FOUND, Refusal
from leader_jobs.stores._etcd_connect import Access
from leader_jobs.stores._etcd_guard import Guard, Introduction, introduce
from leader_jobs.stores._etcd_keys import (
    Keyspace,
    candidate_id,
    candidate_suffix,
)
from leader_jobs.stores._etcd_login import Credentials, parse_endpoints, split_url
from leader_jobs.stores._etcd_looks import Looks
from leader_jobs.stores._etcd_proof import Proof
from leader_jobs.stores._etcd_register import LIMITS, Register
from leader_jobs.stores._etcd_watch import RegisterWatch, Waiter
from leader_jobs.stores.base import (
    Candidacy,
    Entrant,
    Limits,
    Origin,
    Record,
    Standing,
    Survey,
    Watch,
    Write,
)

__all__ = ["EtcdStore"]

_log = logging.getLogger(__name__)

#: Seconds after its ttl at which a lease is certain to be gone.
_LATE: Final = 5.0
#: Seconds before a keepalive and a read that do not match are repeated.
_PAIR_PAUSE: Final = 0.05


class EtcdStore:
    """
    A store on etcd 3.4 or later; implements `leader_jobs.stores.base.Store`.

    Args:
        endpoints: ``host:port`` of each member, in the order to try them; port 2379 if none is given.
        namespace: what every key begins with.
        clock: where moments come from.
        tls: whether to reach the members over TLS.
        grpc: whether to speak gRPC to them, which needs the extra ``etcd3``, not to the JSON gateway.
        ca_file: the authority of the servers' certificates; the system's if None.
        cert_file: this client's certificate.
        key_file: the key of that certificate.
        user: whom to log in as.
        password: the user's password.
        password_file: a file that holds it, read at each login.
        call_timeout: seconds one try of one call may take before the next endpoint is asked.

    Raises:
        ConfigurationError: an argument makes no sense.

    Nothing is sent before the first call. Names are resolved by the system, which no deadline
    bounds. A token is a create revision: restoring a snapshot without ``--bump-revision`` takes
    revisions back and tokens with them, which `_etcd_history` notices.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        namespace: str,
        clock: Clock,
        tls: bool = False,
        grpc: bool = False,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        user: str | None = None,
        password: str | None = None,
        password_file: Path | None = None,
        call_timeout: float = 1.0,
    ) -> None:
        self._keys = Keyspace(check_namespace(namespace))
        self._clock = clock
        self._call_timeout = call_timeout
        self._access = Access(
            endpoints=parse_endpoints(endpoints),
            tls=tls,
            grpc=grpc,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
            credentials=Credentials(user, password, password_file) if user else None,
        )
        self._client = self._access.client(clock=clock, call_timeout=call_timeout)
        self._guard = Guard(self._introduce, clock=clock)
        self._register = Register(self._client, self._keys)
        self._looks = Looks(self._client, self._keys)
        self._proof = Proof(self._client, self._keys)
        self._warned: set[bytes] = set()
        self._waiters: dict[Candidacy, Waiter] = {}
        self._waiters_lock = threading.Lock()
        self._watches: weakref.WeakSet[RegisterWatch] = weakref.WeakSet()
        self._inherited: frozenset[Candidacy] = frozenset()
        _stores.add(self)

    @classmethod
    def from_settings(cls, settings: Settings, *, clock: Clock) -> "EtcdStore":
        """
        Return the store that *settings* describe.

        Raises:
            ConfigurationError: ``settings.store`` or a file it needs makes no sense.
        """
        address = split_url(settings.store)
        return cls(
            address.endpoints,
            namespace=settings.namespace,
            clock=clock,
            tls=address.tls,
            grpc=address.grpc,
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            user=settings.user,
            password=settings.password,
            password_file=settings.password_file,
            call_timeout=settings.timing.call_timeout,
        )

    def __repr__(self) -> str:
        return f"<EtcdStore {self.description}>"

    @property
    def limits(self) -> Limits:
        """What one commit may carry, with etcd's own limits at their defaults."""
        return LIMITS

    @property
    def description(self) -> str:
        """The members and the namespace."""
        return f"{self._access} (namespace {self._keys.namespace})"

    @property
    def origin(self) -> Origin:
        """The cluster, and when a history of it that was taken back last answered."""
        return self._client.history.origin

    # The electorate

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
        self._waiter(candidacy)
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
        if candidacy in self._inherited:
            raise _lost(candidacy, "it is the parent process's")
        self._guard.tend()
        with self._in_this_history(candidacy):
            return self._renew(candidacy, leading, deadline)

    def _renew(self, candidacy: Candidacy, leading: bool, deadline: float) -> float:
        body = wire.lease(_lease_id(candidacy))
        while True:
            lease = self._client.call(wire.KEEPALIVE, body, wire.read_lease, deadline=deadline)
            if lease.ttl <= 0:
                raise _lost(candidacy, "its lease is gone")
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
            raise _lost(candidacy, str(error)) from error

    def _confirm(self, candidacy: Candidacy, deadline: float) -> wire.Header:
        """Return who saw our key still there, linearizably."""
        key = self._keys.candidate(candidacy)
        reply = self._client.call(wire.RANGE, wire.get(key), wire.read_range, deadline=deadline)
        if not any(entry.created == candidacy.token for entry in reply.entries):
            raise _lost(candidacy, "its key is gone")
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
            raise _lost(candidacy, "its key is gone")
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

    def wait(self, candidacy: Candidacy, standing: Standing, *, timeout: float) -> None:
        """
        Wait until the key ahead of ours (for a leader: our own) may have gone since *standing*.

        Returns after *timeout* seconds at the latest, on `wake`, and on any trouble.
        """
        ahead = candidacy.id if standing.predecessor is None else standing.predecessor
        key = self._keys.electorate(candidacy.election) + candidate_suffix(ahead)
        request = wire.watch(key, start=standing.revision + 1, deletes_only=True)
        self._waiter(candidacy).wait(request, timeout=timeout)

    def wake(self, candidacy: Candidacy) -> None:
        """Make a `wait` on this candidacy in another thread, or the next one, return now."""
        with self._waiters_lock:
            waiter = self._waiters.get(candidacy)
        if waiter is not None:
            waiter.wake()

    def _waiter(self, candidacy: Candidacy) -> Waiter:
        with self._waiters_lock:
            if candidacy not in self._waiters:
                self._waiters[candidacy] = self._new_waiter()
            return self._waiters[candidacy]

    def _new_waiter(self) -> Waiter:
        return Waiter(self._client, clock=self._clock, call_timeout=self._call_timeout)

    def guard(self, candidacy: Candidacy) -> None:
        """Have a process of its own revoke the lease when this one is dead; see `Store.guard`."""
        body = wire.lease(_lease_id(candidacy))
        self._guard.guard(
            candidacy.id, [wire.REVOKE, json.dumps(body)], patience=candidacy.ttl + _LATE
        )

    def _introduce(self) -> Introduction:
        return introduce(self._access, token=self._client.known_token)

    def lifeline(self, candidacy: Candidacy) -> tuple[int, ...]:
        """Return what keeps a guarded lease from being revoked; this store sees no processes."""
        return self._guard.lifeline(candidacy.id)

    def withdraw(self, candidacy: Candidacy, *, deadline: float) -> None:
        """
        Give the candidacy up: delete its key if it is still the one we put, then its lease.

        The next in line leads as soon as the key is gone; a lease that could not be revoked runs out.
        """
        if candidacy in self._inherited:
            return
        with self._waiters_lock:
            waiter = self._waiters.pop(candidacy, None)
        if waiter is not None:
            waiter.wake()
        key = self._keys.candidate(candidacy)
        body = wire.txn([wire.created(key, candidacy.token)], [wire.delete(key)])
        self._client.call(wire.TXN, body, wire.read_txn, deadline=deadline)
        self._client.history.bury(candidacy)
        try:
            self._client.call(
                wire.REVOKE, wire.lease(_lease_id(candidacy)), dict, deadline=deadline
            )
        except StoreError as error:
            _log.debug("lease %s was not revoked: %s", candidacy.id, error)
        self._guard.release(candidacy.id)

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """List the living candidates in order of succession. See `Store.candidates`."""
        return self._looks.candidates(election, deadline=deadline, leases=leases)

    def wait_for_change(self, election: str, *, timeout: float) -> None:
        """Wait until the electorate of *election* may have changed, *timeout* seconds at most."""
        request = wire.watch(self._keys.electorate(election), prefix=True)
        self._new_waiter().wait(request, timeout=timeout)

    # The register

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return every record whose key starts with one of *prefixes*, all as of one revision."""
        return self._register.read(election, *prefixes, deadline=deadline)

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """
        Write a batch in one guarded transaction; never repeated once it may have been received.

        Raises:
            Fenced: the candidacy does not lead.
            Conflict: a record is not at its expected version.
            StoreRefused: the batch is beyond `limits`, or the role does not allow it.
            StoreUnavailable: the outcome is unknown.
        """
        return self._register.commit(election, writes, candidacy=candidacy, deadline=deadline)

    def elections(self, *, deadline: float) -> tuple[str, ...]:
        """Return the names of all elections with a candidate or a record. See `Store.elections`."""
        return self._looks.elections(deadline=deadline)

    def survey(
        self, elections: Sequence[str], *prefixes: str, deadline: float
    ) -> Mapping[str, Survey]:
        """Look at several elections, all as of one revision. See `Store.survey`."""
        return self._looks.survey(elections, *prefixes, deadline=deadline)

    def watch(self, election: str, prefix: str) -> Watch:
        """Return a watch on the records whose keys begin with *prefix*; each wait is a stream."""
        key = self._keys.register(election) + prefix.encode()
        watch = RegisterWatch(self._new_waiter(), key, clock=self._clock)
        self._watches.add(watch)
        return watch

    def check(self, election: str, *, deadline: float) -> None:
        """Ask for all that a leader has to do, without doing it. See `Store.check`."""
        self._proof.check(election, deadline=deadline)

    def close(self) -> None:
        """Close connections and end waits; candidacies that still stand are not withdrawn."""
        with self._waiters_lock:
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.wake()
        self._client.close()

    def _forget(self) -> None:
        """Start afresh in the child of a fork: what stands is the parent's."""
        self._inherited |= self._waiters.keys()
        self._waiters = {}
        self._waiters_lock = threading.Lock()
        for watch in list(self._watches):
            watch.forget()
        self._client.forget()
        self._guard.forget()


def _first(reply: wire.TxnReply) -> Sequence[wire.Entry]:
    return reply.reads[0] if reply.reads else ()


def _same_reign(one: wire.Header, other: wire.Header) -> bool:
    return (one.member_id, one.raft_term) == (other.member_id, other.raft_term)


def _lost(candidacy: Candidacy, why: str) -> CandidacyLost:
    return CandidacyLost(f"candidacy {candidacy.id} in {candidacy.election!r} is over: {why}")


def _lease_id(candidacy: Candidacy) -> int:
    return int(candidacy.id, 16)


_stores: Final["weakref.WeakSet[EtcdStore]"] = weakref.WeakSet()


def _forget_all() -> None:
    for store in list(_stores):
        store._forget()  # noqa: SLF001  the module's own class


os.register_at_fork(after_in_child=_forget_all)
