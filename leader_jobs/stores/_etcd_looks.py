"""
Looking at elections on etcd: who stands in one, which there are, many of them at once.

Nothing here is written, and nothing decided: a candidacy's own verdict comes from its own transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice

from leader_jobs.names import runners_of
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import NOT_FOUND, PERMISSION_DENIED, Refusal
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_keys import Keyspace, candidate_id, scan, scan_each
from leader_jobs.stores._etcd_names import find_elections
from leader_jobs.stores._etcd_register import records
from leader_jobs.stores.base import Entrant, Survey

__all__ = ["Looks"]


class Looks:
    """Looks at elections; see `leader_jobs.stores.base.Store` for what is promised."""

    def __init__(self, client: Client, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """
        List the living candidates in order of succession, foreign ones included.

        A foreign key that is no lease number is listed under what follows the prefix, escaped. The
        lease times are asked one by one and None where the role does not allow it.
        """
        prefix = self._keys.electorate(election)
        entries = scan(self._client, prefix, deadline=deadline)
        return self._entrants(prefix, entries, len(entries) if leases else 0, deadline)

    def _entrants(
        self, prefix: bytes, entries: Iterable[wire.Entry], leases: int, deadline: float
    ) -> tuple[Entrant, ...]:
        """Return the candidates that *entries* are; with the lease times of the first *leases*."""
        ordered = sorted(entries, key=lambda entry: entry.created)
        return tuple(
            Entrant(
                candidate_id(prefix, entry.key),
                entry.created,
                entry.value,
                *(self._lease_times(entry.lease, deadline) if place < leases else (None, None)),
            )
            for place, entry in enumerate(ordered)
        )

    def _lease_times(
        self, lease_id: int, deadline: float
    ) -> tuple[float, float] | tuple[None, None]:
        if lease_id == 0:
            return None, None
        try:
            lease = self._client.call(
                wire.TIME_TO_LIVE, wire.lease(lease_id), wire.read_lease, deadline=deadline
            )
        except Refusal as refusal:
            if refusal.code in (PERMISSION_DENIED, NOT_FOUND):
                return None, None
            raise
        return (float(lease.granted), float(lease.ttl)) if lease.ttl >= 0 else (None, None)

    def elections(self, *, deadline: float) -> tuple[str, ...]:
        """
        Return the names of all elections with a candidate or a record, sorted.

        Takes two or three requests, and one more for each election in a row without a candidate.
        """
        return tuple(sorted(find_elections(self._client, self._keys, deadline=deadline)))

    def survey(
        self, elections: Sequence[str], *prefixes: str, deadline: float
    ) -> Mapping[str, Survey]:
        """Look at several elections, all as of one revision: a few requests, and one a leader."""
        roots = {
            name: [
                self._keys.electorate(name),
                self._keys.electorate(runners_of(name)),
                *(self._keys.register(name) + prefix.encode() for prefix in prefixes),
            ]
            for name in elections
        }
        found = scan_each(self._client, [*chain(*roots.values())], deadline=deadline)
        return {
            name: Survey(
                candidates=self._entrants(places[0], next(found), 1, deadline),
                runners=self._entrants(places[1], next(found), 0, deadline),
                records=records(self._keys.register(name), islice(found, len(prefixes))),
            )
            for name, places in roots.items()
        }
