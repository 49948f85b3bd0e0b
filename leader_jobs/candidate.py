"""
A candidate: stands in an election for as long as the process wants to, term after term.

Enrol, wait for the turn, verify, lead, and when the term ends enrol again: losing a term never ends
the process. Two daemon threads serve it from `Candidate.start` on: one campaigns (and, leading,
watches its own entry, because a living lease can be revoked by a store that woke from a freeze), one
renews the lease. Nothing starts at import or construction. After a fork the child's copy holds no
term and no thread; `start` in the child begins a candidacy of the child's own.
"""

import atexit
import logging
import os
import random
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from leader_jobs.attendant import Attendant
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Timing
from leader_jobs.events import Observer
from leader_jobs.exceptions import (
    CandidacyLost,
    NotLeader,
    StoreError,
)
from leader_jobs.herald import Herald
from leader_jobs.names import check_election
from leader_jobs.proposals import Proposal
from leader_jobs.proving import Proving
from leader_jobs.renewal import Renewer
from leader_jobs.stores.base import Candidacy, Store
from leader_jobs.succession import heir_behind
from leader_jobs.term import EndReason, Term, held_terms
from leader_jobs.termqueue import TermQueue

__all__ = ["Candidate"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.1
_LONG_PAUSE: Final = 0.6
_LONGEST_PAUSE: Final = 5.0
_STOP_LIMIT: Final = 5.0
_QUICK: Final = 2.0
_MOST_LEFT: Final = 5


class Candidate:
    """
    One node's part in one election.

    Args:
        election: the election's name.
        store: where it is held; may be shared with other candidates of the process.
        node: this node's label.
        ttl: lease time to ask for, in seconds; the granted one counts.
        version: what to show as this node's version.
        observers: called with every `Event`, on a thread of their own.
        guarded: whether the store is to be told at once should this process die, by a process of its
            own where it takes one (on etcd); otherwise the next in line waits for the lease to run out.
        clock: where moments come from.

    At most one candidate of an election has an active `term` at any moment; see `Term` for what that
    rests on. A candidate never raises for a store that is away: it logs, announces and tries again.
    """

    def __init__(
        self,
        election: str,
        *,
        store: Store,
        node: str,
        ttl: float = 15.0,
        version: str = "",
        observers: Iterable[Observer] = (),
        guarded: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.election: Final = check_election(election)
        self.node: Final = node
        self._store = store
        self._ttl = ttl
        self._version = version
        self._observers = tuple(observers)
        self._guarded = guarded
        self._clock: Clock = clock or SystemClock()
        self._attendant: Attendant | None = None
        self._reset()

    def _reset(self) -> None:
        """Begin afresh: at construction, and in the child of a fork, which owns nothing."""
        self._pid = os.getpid()
        self.proposal = Proposal.of_this_process(self.node, self._version)
        self._herald = Herald(self.election, self.node, self._observers)
        self._proving = Proving(
            self.election, store=self._store, herald=self._herald, clock=self._clock
        )
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        #: Set when the present candidacy is to be given up, or is lost.
        self._over = threading.Event()
        self._terms = TermQueue(self._clock)
        self._term: Term | None = None
        self._candidacy: Candidacy | None = None
        self._left: list[Candidacy] = []
        self._led: Term | None = None
        self._announced_wait: Candidacy | None = None
        self._thread: threading.Thread | None = None
        if self._attendant is not None:
            self._attendant.forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # -- what the owner asks for ------------------------------------------------------------------

    @property
    def term(self) -> Term | None:
        """The term this process holds at this very moment, or None."""
        term = self._term
        return term if term is not None and term.active else None

    @property
    def candidacy(self) -> Candidacy | None:
        """This process's place in the electorate at present, or None."""
        return self._candidacy if self._pid == os.getpid() else None

    @property
    def doubt(self) -> str | None:
        """Why this node, standing by, could not lead, in words; None as far as it knows."""
        return self._proving.doubt if self._pid == os.getpid() else None

    @property
    def standing(self) -> bool:
        """Whether this process was told to stand, and was not told to stop."""
        return self._pid == os.getpid() and self._thread is not None

    @property
    def alive(self) -> bool:
        """Whether the thread that campaigns runs, in this process."""
        thread = self._thread
        return self._pid == os.getpid() and thread is not None and thread.is_alive()

    def attend(self, attendant: Attendant) -> None:
        """Have *attendant* serve the terms from now on."""
        self._attendant = attendant

    def require_term(self) -> Term:
        """Return the active term; raise `NotLeader` if there is none."""
        term = self.term
        if term is None:
            msg = f"node {self.node!r} does not lead election {self.election!r}"
            raise NotLeader(msg)
        return term

    def start(self) -> None:
        """Begin to stand; returns at once. Starting twice in one process changes nothing."""
        if self._pid != os.getpid():
            self._reset()
        if self._thread is not None and not self._stopping.is_set():
            return
        if self._thread is not None:  # a stop that did not wait for the end
            self._thread.join()
        self._stopping.clear()
        self._terms.clear()  # what nobody took before the last stop
        name = f"leader-jobs-campaign-{self.election}"
        self._thread = threading.Thread(target=self._campaign, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def campaign(self, timeout: float | None = None) -> Term:
        """
        Stand and wait until this node leads.

        Raises:
            NotLeader: *timeout* seconds went by, or the candidate was stopped.
        """
        self.start()
        term = self.wait_for_term(timeout)
        if term is None:
            msg = f"node {self.node!r} was not elected in {self.election!r} within {timeout} s"
            raise NotLeader(msg)
        return term

    def wait_for_term(self, timeout: float | None = None) -> Term | None:
        """
        Wait up to *timeout* seconds for the next term to begin; each term is given out once.

        Returns:
            The term, or None: time is up, the candidate was stopped, or somebody called `release`.
        """
        return self._terms.wait(timeout, self._stopping)

    def release(self) -> None:
        """Make a `wait_for_term` in another thread return None; safe in a signal handler."""
        self._terms.put(None)

    def terms(self) -> Iterator[Term]:
        """Yield each term as it begins, until the candidate is stopped or released."""
        while (term := self.wait_for_term()) is not None:
            yield term

    def resign(self) -> None:
        """
        Give the term up by will and queue again behind everybody else; returns at once.

        The term is over before the store hears of it. What is still running under it is the
        caller's to finish first.
        """
        if self._pid == os.getpid():
            self._end_term(EndReason.RESIGNED)
            self._over.set()
            self._wake()

    def stop(self, timeout: float = _STOP_LIMIT) -> None:
        """
        Resign, withdraw and stand no more; waits up to *timeout* seconds for the store to hear.

        In the child of a fork this does nothing: the candidacy is the parent's.
        """
        if self._pid != os.getpid() or self._thread is None:
            return
        self._end_term(EndReason.RESIGNED)
        self._stopping.set()
        self._over.set()
        self.release()
        self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self._thread = None
        self._herald.close()
        atexit.unregister(self.stop)

    def verify(self, timeout: float) -> bool:
        """
        Ask the store whether the present term leads, and end the term if it does not.

        Args:
            timeout: seconds to wait for the answer.

        Returns:
            Whether the store said yes; False also if it did not answer.
        """
        candidacy, term = self._candidacy, self.term
        if candidacy is None or term is None:
            return False
        try:
            leads = self._store.standing(candidacy, deadline=self._clock.now() + timeout).leads
        except CandidacyLost:
            leads = False
        except StoreError:
            return False
        if not leads:
            self.lose(term)
        return leads and term.active

    def lose(self, term: Term) -> None:
        """Take note that *term* is lost: the store refused something done under it."""
        if self._pid == os.getpid() and self._term is term:
            self._end_term(EndReason.LOST)
            self._over.set()
            self._wake()

    def announce_restored(self, since: datetime) -> None:
        """Tell observers that the ledger was taken back: what was planned before *since* is not run."""
        self._herald.restored(since)

    # -- the campaign thread ----------------------------------------------------------------------

    def _campaign(self) -> None:
        pause = _FIRST_PAUSE
        candidacy: Candidacy | None = None
        while not self._stopping.is_set():
            standing, candidacy = candidacy, None
            try:
                candidacy = self._stand(standing or self._enrol(Timing(self._ttl).valid_for))
                pause = _FIRST_PAUSE
            except StoreError as error:
                # A store that is back shall not be kept waiting; nothing changes what lasts so soon.
                pause = min(2 * pause, _LONGEST_PAUSE if error.lasting else _LONG_PAUSE)
                self._herald.failed(error, pause)
                self._proving.failed(error)
            except Exception as error:  # noqa: BLE001  losing a term never ends the process
                _log.exception("election %r: the campaign failed unexpectedly", self.election)
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._herald.failed(error, pause)
            if candidacy is None:
                self._clock.wait(self._stopping, pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
        if candidacy is not None:
            self._withdraw(candidacy)

    def _enrol(self, within: float) -> Candidacy:
        candidacy = self._store.enrol(
            self.election,
            self.proposal.encode(),
            self._ttl,
            deadline=self._clock.now() + within,
        )
        if self._guarded:
            self._store.guard(candidacy)
        self._herald.enrolled(candidacy)
        return candidacy

    def _stand(self, candidacy: Candidacy) -> Candidacy | None:
        """Go through one candidacy to its withdrawal; return the next one if it is there already."""
        over = self._over = threading.Event()
        renewer = Renewer(
            store=self._store,
            candidacy=candidacy,
            clock=self._clock,
            announce_suspended=self._herald.suspended,
            announce_resumed=self._herald.resumed,
            announce_renewed=self._herald.renewed,
            over=over,
        )
        self._candidacy = candidacy
        try:
            renewer.start()
            self._watch_over(candidacy, renewer)
            self._end_term(EndReason.LOST)
            return self._stand_behind()
        finally:
            renewer.stop()
            self._end_term(EndReason.LOST)
            self._candidacy = None
            if self._attendant is not None:
                self._attendant.making_way()
            self._withdraw(candidacy)
            led, self._led = self._led, None
            if led is not None and self._attendant is not None:
                self._attendant.ended(led)

    def _watch_over(self, candidacy: Candidacy, renewer: Renewer) -> None:
        try:
            while not self._done():
                self._look(candidacy, renewer)
        except CandidacyLost as error:
            self._herald.candidacy_lost(error)

    def _stand_behind(self) -> Candidacy | None:
        """
        Enrol again before the former candidacy is withdrawn, unless this is the end.

        Whoever takes over sees by our entries that bodies still running here are alive.
        """
        if self._stopping.is_set():
            return None
        try:
            return self._enrol(min(_QUICK, self._ttl))
        except StoreError:
            return None  # the campaign goes on trying, and says so

    def _done(self) -> bool:
        return self._stopping.is_set() or self._over.is_set()

    def _look(self, candidacy: Candidacy, renewer: Renewer) -> None:
        """See where we stand, lead if it is our turn, and wait until that may have changed."""
        left, self._left = self._left, []
        for former in left:
            self._withdraw(former)
        timing = Timing(candidacy.ttl)
        try:
            standing = self._store.standing(
                candidacy, deadline=self._clock.now() + timing.renew_every
            )
            if not standing.leads:
                self._stand_by(candidacy)
            elif self._term is None:
                self._take_turn(candidacy, renewer)
        except CandidacyLost:
            raise
        except StoreError as error:
            self._saw_nothing(error, timing)
            return
        if not self._done():
            self._store.wait(candidacy, standing, timeout=timing.look_every)

    def _saw_nothing(self, error: StoreError, timing: Timing) -> None:
        """Wait for the next look; whether a term survives this is the renewer's verdict."""
        _log.debug("election %r: no look at the electorate: %s", self.election, error)
        if self._term is None:
            self._proving.failed(error)
            if error.lasting:
                # Whom the store refuses can not lead, and shall not stand in the way of others.
                self._over.set()
        soon = min(timing.call_timeout, _FIRST_PAUSE)
        self._clock.wait(self._over, timing.renew_every if error.lasting else soon)

    def _stand_by(self, candidacy: Candidacy) -> None:
        if self._announced_wait is not candidacy:
            self._announced_wait = candidacy
            self._herald.stands_by()
        self._proving.look(candidacy.ttl)

    def _take_turn(self, candidacy: Candidacy, renewer: Renewer) -> None:
        """Lead, unless somebody behind us is to lead first."""
        deadline = self._clock.now() + Timing(candidacy.ttl).renew_every
        heir = heir_behind(self._store, candidacy, deadline=deadline)
        if heir is None:
            self._begin_term(renewer)
        else:
            self._herald.steps_back(heir)
            self._over.set()

    def _begin_term(self, renewer: Renewer) -> None:
        term = renewer.begin_term()
        if not term.active:  # the confirmation took longer than the lease is worth
            self._over.set()
        if self._done():
            return
        self._term = self._led = term
        held_terms.post(term)
        self._herald.won(term)
        self._proving.worked()
        self._terms.put(term)
        if self._attendant is not None:
            self._attendant.began(term)

    def _end_term(self, reason: EndReason) -> None:
        term = self._term
        if term is None:
            return
        lapsed = not term.active and not term.ended.is_set()
        term.end(EndReason.DEADLINE if lapsed else reason)
        with self._lock:  # whoever noticed first announces it, once
            if self._term is not term:
                return
            self._term = None
        held_terms.remove(term)
        self._herald.ended(term)

    def _withdraw(self, candidacy: Candidacy) -> None:
        try:
            self._store.withdraw(candidacy, deadline=self._clock.now() + min(2.0, candidacy.ttl))
        except StoreError as error:
            self._herald.could_not_withdraw(candidacy, error)
            # A store that was down may come back with our lease in it, and in the way of our own.
            self._left = [*self._left, candidacy][-_MOST_LEFT:]

    def _wake(self) -> None:
        candidacy = self._candidacy
        if candidacy is not None:
            self._store.wake(candidacy)
