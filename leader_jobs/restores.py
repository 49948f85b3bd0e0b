"""
What a restored ledger means for whoever claims or starts: nothing that was planned before it counts.

The leader finds out before its first claim, from the record `leader_jobs.lineage.Lineage` and from
what its store saw, and notes a restore under its term. Whoever only starts what a leader dispatched
goes by that note, and starts nothing while one is missing.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreUnavailable, StoreUnusable
from leader_jobs.jsonrecords import UnreadableRecord
from leader_jobs.lineage import LINEAGE_KEY, Lineage
from leader_jobs.orderbook import OrderBook
from leader_jobs.orders import Orders
from leader_jobs.stores.base import ABSENT, Origin, Record, Store, Write
from leader_jobs.term import Term

__all__ = ["Notice", "Restores", "Witnessed"]

_log = logging.getLogger(__name__)
_WITHIN: Final = 2.0


class Restores:
    """
    The leader's side, during one term.

    Args:
        orders: where the record is read along.
        term: ours.
        store: where both are.
        node: this node's label.
        clock: where moments and instants come from.
        noted: called with the instant when a restore was noted.
    """

    def __init__(
        self,
        orders: OrderBook,
        term: Term,
        *,
        store: Store,
        node: str,
        clock: Clock,
        noted: Callable[[datetime], None],
    ) -> None:
        self._orders = orders
        self._term = term
        self._store = store
        self._node = node
        self._clock = clock
        self._noted = noted
        self._written: Record | None = None

    def since(self, orders: Orders) -> datetime | None:
        """
        Return the instant before which nothing that was planned is to be run; None if there is none.

        Args:
            orders: as they are known.

        Raises:
            Fenced: the term does not lead.
            StoreError: it could not be read, or is not known to be noted: claim nothing.
        """
        origin = self._store.origin
        if not origin.cluster:
            return None
        row = max((r for r in (orders.lineage, self._written) if r), key=_version, default=None)
        lineage = _read(row, self._term.election)
        if lineage is None or not lineage.holds(origin):
            lineage = self._note(row, lineage, origin)
        return lineage.since

    def _note(self, row: Record | None, former: Lineage | None, origin: Origin) -> Lineage:
        """Write down what the ledger is part of, and since when if it was not always."""
        lineage = _present(former, origin, self._node, self._clock)
        write = Write(LINEAGE_KEY, lineage.encode(), row.version if row is not None else ABSENT)
        try:
            version = self._store.commit(
                self._term.election,
                [write],
                candidacy=self._term.candidacy,
                deadline=min(self._clock.now() + _WITHIN, self._term.deadline),
            )
        except Exception:
            self._orders.doubt()  # perhaps it is written, or somebody else was quicker
            raise
        self._written = Record(write.value or b"", version)
        if lineage.since is not None:
            _tell(self._term.election, former, lineage)
            self._noted(lineage.since)
        return lineage


class Witnessed:
    """
    The side of whoever stands: what this process noticed is noted before the next in line may lead.

    Args:
        store: where the record is.
        election: the election.
        node: this node's label.
        clock: where moments and instants come from.
        noted: called with the instant when a restore was noted.
    """

    def __init__(
        self,
        store: Store,
        election: str,
        *,
        node: str,
        clock: Clock,
        noted: Callable[[datetime], None],
    ) -> None:
        self._store = store
        self._election = election
        self._node = node
        self._clock = clock
        self._noted = noted
        self._settled: Origin | None = None

    def note(self) -> None:
        """
        Write down a restore that this process noticed, unless somebody did.

        The next leader may not have noticed it. Not fenced: the term that noticed is over.

        Raises:
            StoreError: it is not known to be written.
        """
        origin = self._store.origin
        if origin.seen_until is None or origin == self._settled:
            return
        deadline = self._clock.now() + _WITHIN
        rows = self._store.read(self._election, LINEAGE_KEY, deadline=deadline)
        row = rows.get(LINEAGE_KEY)
        former = _read(row, self._election)
        if former is None or not former.holds(origin):
            lineage = _present(former, origin, self._node, self._clock)
            write = Write(LINEAGE_KEY, lineage.encode(), row.version if row is not None else ABSENT)
            self._store.commit(self._election, [write], candidacy=None, deadline=deadline)
            _tell(self._election, former, lineage)
            if lineage.since is not None:
                self._noted(lineage.since)
        self._settled = origin


class Notice:
    """
    The side of whoever starts what a leader dispatched: what the leader noted.

    Args:
        store: where it is; it has been asked something before.
        election: the election.
        clock: where moments come from.

    It is read once, and again when the store's answers come from elsewhere. A restore that only the
    leader noticed is heard of from the job's record, in which nothing of before is open any more.
    """

    def __init__(self, store: Store, election: str, *, clock: Clock) -> None:
        self._store = store
        self._election = election
        self._clock = clock
        self._known: tuple[Origin, datetime | None] | None = None

    def since(self) -> datetime | None:
        """
        Return the instant before which nothing that was planned is to be started; None if there is none.

        Raises:
            StoreError: that is not known, or no leader has noted a restore yet that this process has
                noticed: start nothing.
        """
        origin = self._store.origin
        if not origin.cluster:
            return None
        if self._known is None or self._known[0] != origin:
            since = self._find(origin)
            self._known = origin, since
        return self._known[1]

    def _find(self, origin: Origin) -> datetime | None:
        deadline = self._clock.now() + _WITHIN
        rows = self._store.read(self._election, LINEAGE_KEY, deadline=deadline)
        lineage = _read(rows.get(LINEAGE_KEY), self._election)
        if lineage is None and origin.seen_until is None:
            return None  # whoever leads is of a version that does not note it
        if lineage is None or not lineage.holds(origin):
            msg = f"the ledger of {self._election!r} was taken back, and no leader has noted it yet"
            raise StoreUnavailable(msg)
        return lineage.since


def _read(row: Record | None, election: str) -> Lineage | None:
    try:
        return None if row is None else Lineage.decode(row.value)
    except UnreadableRecord as error:
        msg = (
            f"the record {LINEAGE_KEY} of election {election!r} can not be read ({error}), so nothing is "
            "started; run the version that wrote it, or remove it if the store was not restored"
        )
        raise StoreUnusable(msg) from None


def _version(row: Record) -> int:
    return row.version


def _present(former: Lineage | None, origin: Origin, node: str, clock: Clock) -> Lineage:
    """Return what to write in the place of *former*, which does not hold."""
    if former is None and origin.seen_until is None:
        return Lineage(cluster=origin.cluster)
    return Lineage(cluster=origin.cluster, since=clock.utcnow(), noted_by=node)


def _tell(election: str, former: Lineage | None, lineage: Lineage) -> None:
    _log.error(
        "the ledger of election %r was taken back%s: what was planned before %s is closed as restored "
        "and never run, for it may have run already; jobs go on from there",
        election,
        _whence(former, lineage),
        lineage.since,
    )


def _whence(former: Lineage | None, lineage: Lineage) -> str:
    if former is None or former.cluster == lineage.cluster:
        return ""
    return f" (it was of cluster {former.cluster} and is now of {lineage.cluster})"
