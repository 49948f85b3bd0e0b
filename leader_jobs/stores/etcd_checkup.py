"""
Facts about an etcd cluster that a store has no use for and a doctor has: each member on its own, what
the user may do, whether leases run out.

Nothing is ever put under a real election: what its user may do there is asked by a transaction that can
not succeed, and everything else is tried on a record of the register that no one reads.
"""

import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.exceptions import StoreError
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import PERMISSION_DENIED, Refusal
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_connect import Access
from leader_jobs.stores._etcd_keys import Keyspace, scan
from leader_jobs.stores._etcd_proof import Proof, intruders
from leader_jobs.stores._etcd_socket import Endpoint

__all__ = ["Checkup", "Cluster", "Expiry", "Member"]

#: These take no arguments worth a builder.
_STATUS: Final = "/v3/maintenance/status"
_ALARM: Final = "/v3/maintenance/alarm"
_MEMBERS: Final = "/v3/cluster/member/list"
_GET: Final = {"action": "GET"}
_ROUND_TRIPS: Final = 5
#: Seconds between looks at a key whose lease is running out.
_LOOK: Final = 0.1
#: etcd looks for leases that have run out every half second, and may be busy.
_LATE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """
    What a member says of itself.

    Attributes:
        version: the server's version; empty if it does not tell us, as 3.5.30 tells administrators only.
        cluster: the id of its cluster.
        id: its own.
        leader: the id of the raft leader it knows; 0 for none, None if it does not say.
        learner: whether it is no full member yet.
        size: bytes of its database; 0 if it does not say.
        quota: at how many bytes it stops taking writes, or None if it does not say.
        errors: what it complains about.
        round_trip: seconds that a linearizable read takes, the median of some.
        clock: between what the member's clock is ahead of ours, in seconds: at least and at most.
    """

    version: str
    cluster: int
    id: int
    leader: int | None
    learner: bool
    size: int
    quota: int | None
    errors: tuple[str, ...]
    round_trip: float
    clock: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """How many members it has, and the alarms it has raised, by name."""

    size: int
    alarms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expiry:
    """Seconds a lease was granted for, and after how many its key was gone; None: it stayed."""

    granted: float
    gone_after: float | None


class Checkup:
    """
    Examines the cluster that *settings* name, and what their user may do for their election.

    Args:
        settings: where it is, how to log in, and which election it is about.
        clock: where moments and instants come from.
        timeout: seconds one question may take.

    Raises:
        ConfigurationError: the URL or a file makes no sense.
    """

    def __init__(self, settings: Settings, *, clock: Clock, timeout: float) -> None:
        self._access = Access.of(settings)
        self.endpoints: Final = self._access.endpoints
        keys = Keyspace(settings.namespace)
        self._keys, self._election = keys, settings.election
        self._electorate = keys.electorate(settings.election)
        self._register = keys.register(settings.election)
        self._clock = clock
        self._timeout = timeout
        self._client = self._open(self.endpoints)

    def _open(self, endpoints: Sequence[Endpoint]) -> Client:
        return self._access.client(
            clock=self._clock, call_timeout=min(1.0, self._timeout), endpoints=endpoints
        )

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def use(self, endpoints: Sequence[Endpoint]) -> None:
        """Ask only these from now on."""
        self._client.close()
        self._client = self._open(endpoints)

    # -- members ----------------------------------------------------------------------------------

    def member(self, endpoint: Endpoint) -> Member:
        """
        Ask one member.

        Raises:
            StoreError: it does not answer, or refuses to.
        """
        client = self._open([endpoint])
        try:
            # Which also logs in, so that nothing else is measured below.
            self._probe(client)
            trips = [self._probe(client) for _ in range(_ROUND_TRIPS)]
            status = self._status(client)
            clock = client.ahead(endpoint, self._limit())
        finally:
            client.close()
        header = status.get("header") or {}
        return Member(
            version=str(status.get("version", "")),
            cluster=_int(header, "cluster_id"),
            id=_int(header, "member_id"),
            leader=_int(status, "leader") if "version" in status else None,
            learner=bool(status.get("isLearner")),
            size=_int(status, "dbSize"),
            quota=_int(status, "dbSizeQuota") or None,
            errors=tuple(map(str, status.get("errors") or ())),
            round_trip=median(trips),
            clock=clock,
        )

    def _status(self, client: Client) -> dict[str, Any]:
        """Return what the member says of itself: all, or who it is to whom it does not say more."""
        try:
            return client.call(_STATUS, {}, dict, deadline=self._limit())
        except Refusal as refusal:
            if refusal.code != PERMISSION_DENIED:
                raise
            return client.call(_MEMBERS, {}, _header_alone, deadline=self._limit())

    def _probe(self, client: Client) -> float:
        """Return the seconds that a linearizable read takes."""
        began = self._clock.now()
        # That it is not allowed to read there took as long, and is said elsewhere.
        with suppress(Refusal):
            client.call(
                wire.RANGE, wire.get(self._electorate), wire.read_range, deadline=self._limit()
            )
        return self._clock.now() - began

    def cluster(self) -> Cluster | None:
        """Ask any member about the cluster; None if it does not tell us."""
        try:
            members = self._client.call(_MEMBERS, {}, dict, deadline=self._limit())
            alarms = self._client.call(_ALARM, dict(_GET), dict, deadline=self._limit())
        except StoreError:
            return None
        names = {str(alarm.get("alarm")) for alarm in alarms.get("alarms") or ()}
        return Cluster(len(members.get("members") or ()), tuple(sorted(names)))

    # -- leases -----------------------------------------------------------------------------------

    def granted(self, ttl: float) -> float:
        """Return how long a lease lasts that was asked for with *ttl* seconds."""
        lease = self._grant(math.ceil(ttl))
        self._revoke(lease)
        return float(lease.ttl)

    def expiry(self) -> Expiry:
        """
        Let the shortest lease there is run out, with a record on it, and say how long that took.

        Raises:
            Refusal: the user may not write or read the register of the election.
            StoreError: no answer.
        """
        began = self._clock.now()
        lease = self._grant(1)
        key = self._register + f"doctor/{lease.id:x}".encode()
        self._txn(wire.txn([], [wire.put(key, b"{}", lease.id)]))
        until = began + lease.ttl + _LATE
        never = threading.Event()
        while self._is_there(key):
            if self._clock.now() >= until:
                self._txn(wire.txn([], [wire.delete(key)]))
                self._revoke(lease)
                return Expiry(lease.ttl, None)
            self._clock.wait(never, _LOOK)
        return Expiry(lease.ttl, self._clock.now() - began)

    def _grant(self, ttl: int) -> wire.Lease:
        return self._client.call(
            wire.GRANT, wire.grant(ttl), wire.read_lease, deadline=self._limit(), repeatable=False
        )

    def _revoke(self, lease: wire.Lease) -> None:
        with suppress(StoreError):
            self._client.call(wire.REVOKE, wire.lease(lease.id), dict, deadline=self._limit())

    def _is_there(self, key: bytes) -> bool:
        reply = self._client.call(
            wire.RANGE, wire.get(key), wire.read_range, deadline=self._limit()
        )
        return bool(reply.entries)

    # -- rights and keys --------------------------------------------------------------------------

    def missing_rights(self) -> tuple[str, ...]:
        """Return the prefixes whose keys the user may not read and write, as far as it needs to."""
        proof = Proof(self._client, self._keys)
        return proof.missing_rights(self._election, deadline=self._limit())

    def intruders(self) -> tuple[str, ...]:
        """Return what is wrong with keys that lie deeper in the election than a candidate's can."""
        return tuple(intruders(self._electorate, self._scan()))

    def squatters(self) -> tuple[str, ...]:
        """Return the keys that stand in the election without a lease: they never go away."""
        return tuple(
            entry.key.decode("utf-8", "backslashreplace")
            for entry in self._scan()
            if not entry.lease
        )

    def _scan(self) -> list[wire.Entry]:
        return scan(self._client, self._electorate, deadline=self._limit())

    def _txn(self, body: wire.Json) -> wire.TxnReply:
        return self._client.call(wire.TXN, body, wire.read_txn, deadline=self._limit())

    def _limit(self) -> float:
        return self._clock.now() + self._timeout


def _header_alone(reply: wire.Json) -> dict[str, Any]:
    return {"header": reply.get("header")}


def _int(reply: dict[str, Any], name: str) -> int:
    value = reply.get(name) or 0
    return int(value) if isinstance(value, int | str) else 0
