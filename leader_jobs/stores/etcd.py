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
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.names import check_namespace
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_connect import Access
from leader_jobs.stores._etcd_electorate import Electorate, lease_of, lost
from leader_jobs.stores._etcd_guard import Guard, Introduction, introduce
from leader_jobs.stores._etcd_keys import Keyspace, candidate_suffix
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

#: Seconds after its ttl at which a lease is certain to be gone.
_LATE: Final = 5.0


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
        self._electorate = Electorate(self._client, self._keys, clock=clock)
        self._register = Register(self._client, self._keys)
        self._looks = Looks(self._client, self._keys)
        self._proof = Proof(self._client, self._keys)
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
        """Stand in *election* under a lease of about *ttl* seconds. See `Electorate.enrol`."""
        candidacy = self._electorate.enrol(election, proposal, ttl, deadline=deadline)
        self._waiter(candidacy)
        return candidacy

    def renew(self, candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        """Keep the candidacy's lease. See `Electorate.renew`."""
        if candidacy in self._inherited:
            raise lost(candidacy, "it is the parent process's")
        self._guard.tend()
        return self._electorate.renew(candidacy, leading=leading, deadline=deadline)

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """Say where we stand. See `Electorate.standing`."""
        return self._electorate.standing(candidacy, deadline=deadline)

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
        body = wire.lease(lease_of(candidacy))
        self._guard.guard(
            candidacy.id, [wire.REVOKE, json.dumps(body)], patience=candidacy.ttl + _LATE
        )

    def _introduce(self) -> Introduction:
        return introduce(self._access, token=self._client.known_token)

    def lifeline(self, candidacy: Candidacy) -> tuple[int, ...]:
        """Return what keeps a guarded lease from being revoked; this store sees no processes."""
        return self._guard.lifeline(candidacy.id)

    def withdraw(self, candidacy: Candidacy, *, deadline: float) -> None:
        """Give the candidacy up. See `Electorate.withdraw`."""
        if candidacy in self._inherited:
            return
        with self._waiters_lock:
            waiter = self._waiters.pop(candidacy, None)
        if waiter is not None:
            waiter.wake()
        self._electorate.withdraw(candidacy, deadline=deadline)
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


_stores: Final["weakref.WeakSet[EtcdStore]"] = weakref.WeakSet()


def _forget_all() -> None:
    for store in list(_stores):
        store._forget()  # noqa: SLF001  the module's own class


os.register_at_fork(after_in_child=_forget_all)
