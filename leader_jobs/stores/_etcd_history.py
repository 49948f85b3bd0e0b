"""
Which history of its cluster this process has seen, so that it notices when that is taken back.

``etcdutl snapshot restore`` puts an older state in the place of the present one. Revisions go back
with it, and then grow again as if nothing had been. Three things tell:

- The answer to a linearizable request that was sent after revision N was heard of can not be older
  than N. (A keepalive's answer can: the member reads its revision before it asks the others. So such
  an answer is taken as news, never as evidence.)
- Another cluster id: it follows from the members' URLs and ``--initial-cluster-token``.
- A record that is older than this process knows it to have been. It is the *witness*, and every
  commit under a term compares it: then the store itself refuses what rests on a lost history, even
  where ``--bump-revision`` made revisions go on growing.

What a process has not seen it can not miss; the ledger remembers the cluster id for those that come
later (`leader_jobs.lineage`).
"""

import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from leader_jobs.clock import Clock
from leader_jobs.exceptions import HistoryRewound
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores.base import Candidacy, Origin

__all__ = ["History", "Mark", "Witness"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """What was known before a request was sent: of which history, and up to which revision."""

    era: int
    revision: int


@dataclass(frozen=True, slots=True)
class Witness:
    """A record that is known to have been written at *revision*."""

    key: bytes
    revision: int


class History:
    """
    What one client's requests have seen; shared by threads.

    Args:
        clock: where instants come from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._era = 0
        self._cluster = 0
        self._revision = 0
        #: When the present history last answered; and the former one, if there was one.
        self._seen_at: datetime | None = None
        self._seen_until: datetime | None = None
        self._born: dict[Candidacy, int] = {}
        self._witnesses: dict[bytes, Witness] = {}
        self.forget()

    def forget(self) -> None:
        """Begin with a lock of its own in the child of a fork; what was seen, was seen."""
        self._lock = threading.Lock()

    @property
    def origin(self) -> Origin:
        """Where the newest answer came from."""
        return Origin(f"{self._cluster:x}" if self._cluster else "", self._seen_until)

    # -- answers ----------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Return what is known before a request is sent."""
        with self._lock:
            return Mark(self._era, self._revision)

    def check(self, mark: Mark, reply: object) -> None:
        """
        Take note of an answer.

        Args:
            mark: from before the request was sent for the first time.
            reply: what came back.

        Raises:
            HistoryRewound: it is not of the history that the request was sent in.
        """
        if isinstance(reply, wire.RangeReply | wire.TxnReply):
            self._note(mark, reply.header, linearizable=True)
        elif isinstance(reply, wire.Lease):
            self._note(mark, reply.header, linearizable=False)

    def _note(self, mark: Mark, header: wire.Header, *, linearizable: bool) -> None:
        cluster = header.cluster_id
        with self._lock:
            if mark.era != self._era:
                msg = "the answer is of another history of the cluster than the question"
                raise HistoryRewound(msg)
            if self._cluster and cluster and cluster != self._cluster:
                self._end(f"cluster {cluster:x} answers, it was {self._cluster:x}", header)
            if linearizable and header.revision < mark.revision:
                self._end(f"at revision {header.revision}, after {mark.revision}", header)
            self._cluster = cluster or self._cluster
            self._revision = max(self._revision, header.revision)
            self._seen_at = self._clock.utcnow()

    def rewound(self, mark: Mark, why: str) -> NoReturn:
        """
        Take note that what was read shows the history to be another one.

        Raises:
            HistoryRewound: always.
        """
        with self._lock:
            if mark.era == self._era:
                self._end(why, None)
        msg = f"etcd's history was taken back ({why})"
        raise HistoryRewound(msg)

    def _end(self, why: str, header: wire.Header | None) -> NoReturn:
        """End the present history; what *header* says is the first that is known of the next one."""
        self._era += 1
        self._seen_until = self._seen_at
        self._witnesses.clear()
        self._revision = header.revision if header is not None else 0
        if header is not None and header.cluster_id:
            self._cluster = header.cluster_id
        _log.error(
            "etcd's history was taken back (%s): a snapshot was restored, or these endpoints are of "
            "different clusters; this node stands anew, and nothing that was planned before is "
            "started; if nobody restored a snapshot, check the endpoints",
            why,
        )
        msg = f"etcd's history was taken back ({why})"
        raise HistoryRewound(msg)

    # -- candidacies ------------------------------------------------------------------------------

    def bear(self, candidacy: Candidacy, mark: Mark) -> None:
        """Note that *candidacy* was entered by requests sent after *mark*."""
        self._born[candidacy] = mark.era

    def bury(self, candidacy: Candidacy) -> None:
        """Note that nothing more is done under *candidacy*."""
        self._born.pop(candidacy, None)

    def confirm(self, candidacy: Candidacy) -> None:
        """
        Make sure that *candidacy* is of the present history, whatever stands in the store.

        Raises:
            HistoryRewound: it is not.
        """
        if self._born.get(candidacy, self._era) != self._era:
            msg = "etcd's history was taken back since"
            raise HistoryRewound(msg)

    # -- witnesses --------------------------------------------------------------------------------

    def witness(self, root: bytes) -> Witness | None:
        """Return the newest record that is known under *root*."""
        with self._lock:
            return self._witnesses.get(root)

    def testify(self, root: bytes, mark: Mark, witness: Witness) -> None:
        """Note a record under *root* that a request sent after *mark* has read or written."""
        with self._lock:
            known = self._witnesses.get(root)
            if mark.era == self._era and (known is None or known.revision < witness.revision):
                self._witnesses[root] = witness

    def dismiss(self, root: bytes, witness: Witness) -> None:
        """Forget a record under *root*: it was removed."""
        with self._lock:
            if self._witnesses.get(root) == witness:
                del self._witnesses[root]
