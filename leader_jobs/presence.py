"""
The presence of a process that runs jobs: a lease that shows that it lives, and nothing more.

Whoever leads, and any other process that is asked to run the same occurrence, sees by it whether a
run that was started is still under way. It stands in an electorate of its own
(`leader_jobs.names.runners_of`) where nobody is ever elected, so a worker does not become a leader
by running tasks.

Nothing starts before the first `Presence.begin`. The child of a fork owns nothing: its copy begins a
presence of its own, under an incarnation of its own.
"""

import logging
import os
import random
import threading
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.config import Timing
from leader_jobs.exceptions import StoreError, StoreUnavailable
from leader_jobs.names import check_election, runners_of
from leader_jobs.proposals import Proposal
from leader_jobs.renewal import Renewer
from leader_jobs.stores.base import Candidacy, Store
from leader_jobs.term import EndReason, Term

__all__ = ["Presence"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_POLL: Final = 0.1
_SLICE: Final = 60.0
_STOP_LIMIT: Final = 5.0
_WITHDRAW_LIMIT: Final = 2.0


class _Forks:
    """Guards the change from a parent's copy to one of the child's own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Have a lock that no thread of the parent can be holding."""
        self.lock = threading.Lock()


_forks: Final = _Forks()
os.register_at_fork(after_in_child=_forks.renew)


class Presence:
    """
    Shows that this process lives, to all who look at the runs of *election*.

    Args:
        election: the election whose jobs are run here.
        store: where it is held; may be shared.
        node: this node's label.
        version: what to show as this node's version.
        ttl: lease time to ask for, in seconds; the granted one counts.
        clock: where moments come from.

    While a term that `begin` returned is active, this process's incarnation is among
    `leader_jobs.ledger.Ledger.living`. A lapsed lease is followed by another one as soon as the store
    can be reached; runs started under the former may have been taken for dead meanwhile, so their
    `leader_jobs.runs.Lost` belongs to the term they were started under.
    """

    def __init__(
        self, election: str, *, store: Store, node: str, version: str, ttl: float, clock: Clock
    ) -> None:
        self.election: Final = check_election(election)
        self._store = store
        self._node = node
        self._version = version
        self._ttl = ttl
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._proposal = Proposal.of_this_process(self._node, self._version)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._changed = threading.Event()
        self._renewer: Renewer | None = None
        self._term: Term | None = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def incarnation(self) -> str:
        """The id under which this process's runs are recorded; it never changes in a process."""
        self._own()
        return self._proposal.incarnation

    def begin(self, timeout: float) -> Term:
        """
        Return a term of the presence, after beginning it if need be.

        Args:
            timeout: seconds to wait for the store.

        Returns:
            A term whose deadline says until when this process counts as alive for certain. It leads
            nothing, and its token fences nothing.

        Raises:
            StoreUnavailable: there is no lease, or its renewals fail, and neither changed in time.
        """
        self._own()
        self._start()
        limit = self._clock.now() + timeout
        while True:
            self._changed.clear()
            term = self._term
            if term is not None and term.may_start:
                return term
            left = limit - self._clock.now()
            if left <= 0:
                why = f": {self._error}" if self._error is not None else ""
                msg = f"no lease shows that this process lives, after {timeout:g} s{why}"
                raise StoreUnavailable(msg)
            # In slices, because nobody tells when renewals work again.
            self._clock.wait(self._changed, min(left, _POLL))

    def stop(self, timeout: float = _STOP_LIMIT) -> None:
        """
        Withdraw; what still runs here is taken for dead from now on, and is told so.

        Args:
            timeout: seconds to wait for the store to hear of it.

        In the child of a fork this does nothing: the presence is the parent's. A process that ends
        without it leaves its lease to run out, where the store does not see processes.
        """
        thread = self._thread
        if self._pid != os.getpid() or thread is None:
            return
        self._stopping.set()
        term, renewer = self._term, self._renewer
        if term is not None:
            term.end(EndReason.RESIGNED)
        if renewer is not None:
            renewer.over.set()
        thread.join(timeout)

    def _own(self) -> None:
        """Begin afresh in the child of a fork."""
        if self._pid != os.getpid():
            with _forks.lock:
                if self._pid != os.getpid():
                    self._reset()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stopping.clear()
            name = f"leader-jobs-presence-{self.election}"
            self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
            self._thread.start()

    # -- the thread -------------------------------------------------------------------------------

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        former: Candidacy | None = None
        while not self._stopping.is_set():
            try:
                renewer, candidacy = self._enrol()
            except Exception as error:  # noqa: BLE001  whatever it is, this process is to show itself
                self._note(error)
                self._clock.wait(self._stopping, pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            # Not before the next one stands: what goes on running here is alive.
            self._withdraw(former)
            former = candidacy
            self._stay(renewer)
        self._withdraw(former)

    def _enrol(self) -> tuple[Renewer, Candidacy]:
        candidacy = self._store.enrol(
            runners_of(self.election),
            self._proposal.encode(),
            self._ttl,
            deadline=self._clock.now() + Timing(self._ttl).valid_for,
        )
        renewer = Renewer(
            store=self._store,
            candidacy=candidacy,
            clock=self._clock,
            announce_suspended=self._suspended,
            announce_resumed=self._resumed,
        )
        try:
            self._term = renewer.begin_term()
        except BaseException:
            self._withdraw(candidacy)
            raise
        self._error = None
        self._renewer = renewer
        self._changed.set()
        return renewer, candidacy

    def _stay(self, renewer: Renewer) -> None:
        """Keep the lease until it lapses or `stop` is called."""
        renewer.start()
        while not self._stopping.is_set() and not renewer.over.is_set():
            self._clock.wait(renewer.over, _SLICE)
        renewer.stop()
        term = self._term
        if term is not None:
            term.end(EndReason.RESIGNED if self._stopping.is_set() else EndReason.LOST)
        if not self._stopping.is_set():
            _log.warning(
                "election %r: the lease that shows that node %s lives has lapsed; what runs there may "
                "be taken for dead",
                self.election,
                self._node,
            )

    def _withdraw(self, candidacy: Candidacy | None) -> None:
        if candidacy is None:
            return
        limit = self._clock.now() + min(_WITHDRAW_LIMIT, candidacy.ttl)
        try:
            self._store.withdraw(candidacy, deadline=limit)
        except StoreError as error:
            _log.info("a lease was left to run out within %g s: %s", candidacy.ttl, error)

    # -- what becomes of it -----------------------------------------------------------------------

    def _note(self, error: Exception) -> None:
        level = logging.DEBUG if self._error is not None else logging.WARNING
        known = isinstance(error, StoreError)
        _log.log(
            level,
            "election %r: node %s can not show that it lives; trying again: %s",
            self.election,
            self._node,
            error,
            exc_info=None if known else error,
        )
        self._error = error

    def _suspended(self, term: Term, error: StoreError) -> None:
        self._error = error
        _log.warning(
            "election %r: renewals fail (%s); in %.1f s what runs on node %s may be taken for dead",
            self.election,
            error,
            term.remaining,
            self._node,
        )

    def _resumed(self, term: Term) -> None:
        self._error = None
        self._changed.set()
        _log.info("election %r: term %d is renewed again", term.election, term.token)
