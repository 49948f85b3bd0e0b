"""
Keeping a candidacy's lease, and saying in time when that can not be done.

The rules, each paid for by somebody's incident: the clock is read *before* a renewal is sent; a
failed or unanswered renewal only shortens what we may do; while renewals fail the term is suspended
and nothing new starts; a deadline once passed is never extended (see `Term.extend`).
"""

import logging
import random
import threading
from collections.abc import Callable

from leader_jobs.clock import Clock
from leader_jobs.config import Timing
from leader_jobs.exceptions import CandidacyLost, StoreError
from leader_jobs.stores.base import Candidacy, Store
from leader_jobs.term import EndReason, Term

__all__ = ["Renewer"]

_log = logging.getLogger(__name__)
_TRIES = 3
_RETRY = 0.2


class Renewer:
    """
    Renews one candidacy until it is stopped or the candidacy is over.

    Args:
        store: where the candidacy stands.
        candidacy: ours; its granted ttl sets the pace.
        clock: where moments come from.
        announce_suspended: called with term and error when renewals begin to fail in a term.
        announce_resumed: called with the term when they work again.
        announce_renewed: called with the term, and the seconds it took, after each that worked.
        over: set when the candidacy is over: lost, or a term of it ran into its deadline.
    """

    def __init__(
        self,
        *,
        store: Store,
        candidacy: Candidacy,
        clock: Clock,
        announce_suspended: Callable[[Term, StoreError], None],
        announce_resumed: Callable[[Term], None],
        announce_renewed: Callable[[Term, float], None] = lambda _term, _took: None,
        over: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._candidacy = candidacy
        self._clock = clock
        self._timing = Timing(candidacy.ttl)
        self._announce_suspended = announce_suspended
        self._announce_resumed = announce_resumed
        self._announce_renewed = announce_renewed
        self._term: Term | None = None
        self._good_until = clock.now() + candidacy.ttl
        self._stop = threading.Event()
        self.over = over or threading.Event()

    def start(self) -> None:
        """Renew on a daemon thread from now on."""
        name = f"leader-jobs-renew-{self._candidacy.election}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Renew no more; the lease is left to `Store.withdraw` or to its ttl."""
        self._stop.set()

    def begin_term(self) -> Term:
        """
        Turn the candidacy, known to lead, into a term that rests on a fresh, confirmed renewal.

        Raises:
            CandidacyLost: our entry vanished meanwhile.
            StoreError: the renewal is not known to have worked; there is no term.
        """
        sent = self._clock.now()
        ttl = self._store.renew(
            self._candidacy, leading=True, deadline=sent + self._timing.valid_for
        )
        term = Term(
            candidacy=self._candidacy, deadline=sent + Timing(ttl).valid_for, clock=self._clock
        )
        self._term = term
        return term

    def _run(self) -> None:
        pause = self._timing.renew_every
        while not self._clock.wait(self._stop, pause * random.uniform(0.9, 1.0)):  # noqa: S311  jitter
            pause = self.renew_once()
            if self.over.is_set():
                self._store.wake(self._candidacy)
                return

    def renew_once(self) -> float:
        """
        Renew once, and draw the conclusions for the term.

        Returns:
            Seconds until the next renewal.
        """
        term, sent = self._term, self._clock.now()
        limit = sent + _TRIES * self._timing.call_timeout
        if term is not None:
            limit = min(limit, term.deadline)
        try:
            ttl = self._store.renew(self._candidacy, leading=term is not None, deadline=limit)
        except CandidacyLost:
            self._finish(term, EndReason.LOST)
        except StoreError as error:
            return self._doubt(term, error)
        except Exception as error:  # noqa: BLE001  a bug may cost the term, never leave it unrenewed
            _log.exception("renewing election %r failed unexpectedly", self._candidacy.election)
            return self._doubt(term, StoreError(str(error)))
        else:
            self._good_until = sent + ttl
            self._extend(term, sent + Timing(ttl).valid_for)
            if term is not None and term.active:
                self._announce_renewed(term, self._clock.now() - sent)
        return self._timing.renew_every

    def _extend(self, term: Term | None, deadline: float) -> None:
        if term is None:
            return
        if not term.extend(deadline):
            self._finish(term, EndReason.DEADLINE)
        elif term.suspended:
            term.suspended = False
            self._announce_resumed(term)

    def _doubt(self, term: Term | None, error: StoreError) -> float:
        if term is not None:
            if not term.active:
                self._finish(term, EndReason.DEADLINE)
            elif not term.suspended:
                term.suspended = True
                self._announce_suspended(term, error)
        elif self._clock.now() >= self._good_until:
            # Nothing is known of this candidacy any more: stand again, and say what the matter is.
            self._finish(None, EndReason.LOST)
        if error.lasting:
            return self._timing.call_timeout
        return min(_RETRY, self._timing.call_timeout)

    def _finish(self, term: Term | None, reason: EndReason) -> None:
        if term is not None:
            term.end(reason)
        self.over.set()
