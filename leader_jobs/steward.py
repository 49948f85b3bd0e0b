"""
The leader's steward: obeys what operators order, and keeps the log of terms.

A thread that lives as long as a term does and watches the orders in the store, so an order is obeyed
when it is written and costs nothing until then. It never holds anything up: if it is late, or dies,
the leader leads on by the orders it knows, and the log of terms has a gap.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock
from leader_jobs.config import Timing
from leader_jobs.exceptions import Conflict, Fenced, StoreError
from leader_jobs.leaders import Leader
from leader_jobs.ledger import Ledger
from leader_jobs.orderbook import OrderBook
from leader_jobs.orders import (
    CONTROL_PREFIX,
    HEIR_KEY,
    PATIENCE,
    RECEIPT_KEY,
    Answer,
    Heir,
    Kind,
    Orders,
    Receipt,
    Request,
    request_key,
)
from leader_jobs.restores import Witnessed
from leader_jobs.stores.base import Watch, Write
from leader_jobs.term import Term
from leader_jobs.termlog import TermLog

__all__ = ["Steward"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.5
_WITHIN: Final = 1.0
#: For how long answered requests are kept, for people to read.
_KEPT: Final = timedelta(minutes=10)


class Steward:
    """
    Serves the terms of one candidate.

    Args:
        candidate: whose.
        ledger: of its election.
        orders: where what is ordered is found by whoever claims.
        clock: where moments and instants come from.
    """

    def __init__(
        self, candidate: Candidate, ledger: Ledger, orders: OrderBook, *, clock: Clock
    ) -> None:
        self._candidate = candidate
        self._ledger = ledger
        self._orders = orders
        self._clock = clock
        self._log = TermLog(
            ledger.store, candidate.election, proposal=lambda: candidate.proposal, clock=clock
        )
        self._witnessed = Witnessed(
            ledger.store,
            candidate.election,
            node=candidate.node,
            clock=clock,
            noted=ledger.tally.restore,
        )
        self._leave: Callable[[], None] | None = None
        self._leave_within = 0.0
        self._watch: Watch | None = None
        #: When the present term began, or None.
        self.began_at: datetime | None = None
        #: What this is part of; it lives as long as the candidate does.
        self.place: object = None

    def leave_by(self, leave: Callable[[], None], *, within: float) -> None:
        """
        Have *leave* called when the leader is to give up its term, instead of ending it at once.

        Args:
            leave: has the work in hand brought to an end, and then the candidate resign; must return
                at once.
            within: seconds after which the term is ended whether or not that was done.
        """
        self._leave, self._leave_within = leave, within

    # -- what the candidate tells -----------------------------------------------------------------

    def began(self, term: Term) -> None:
        """Serve *term* from now on, on a thread."""
        self._orders.begin()
        self.began_at = self._clock.utcnow()
        self._watch = self._ledger.store.watch(self._candidate.election, CONTROL_PREFIX)
        threading.Thread(
            target=self._serve,
            args=(term, self._watch, self.began_at),
            name=f"leader-jobs-steward-{self._candidate.election}",
            daemon=True,
        ).start()

    def making_way(self) -> None:
        """Have the next leader know of a restored ledger that this process noticed."""
        try:
            self._witnessed.note()
        except StoreError as error:
            _log.warning("election %r: %s", self._candidate.election, error)

    def ended(self, term: Term) -> None:
        """Log the end of *term*."""
        now = self._clock.utcnow()
        self.began_at = None
        self._ledger.tally.rest()
        if self._watch is not None:
            self._watch.wake()
        # Of a term that ran into its deadline, this is when that was noticed.
        late = max(0.0, self._clock.now() - term.deadline)
        self._log.end(term, now - timedelta(seconds=late))

    def forget(self) -> None:
        """Begin afresh, in the child of a fork."""
        self._orders.reset()
        self._log.forget()
        self._watch = None
        self.began_at = None

    # -- one term ---------------------------------------------------------------------------------

    def _serve(self, term: Term, watch: Watch, began_at: datetime) -> None:
        heard, logged, troubled = -1, False, False
        while term.active:
            try:
                orders = self._orders.look()
                if not logged:
                    self._log.begin(term, began_at)
                    self._log.catch_up()
                    logged = True
                if orders.version != heard:
                    self._orders.tell()
                    self._obey(orders, term)
                    self._acknowledge(orders, term)
                    heard = orders.version
                troubled = False
                watch.wait(orders.version, timeout=self._until_next_look(orders, term))
            except Fenced:
                self._candidate.lose(term)
            except StoreError as error:
                level = logging.DEBUG if troubled else logging.INFO
                troubled = True
                _log.log(level, "election %r: no orders are heard: %s", term.election, error)
                self._clock.wait(term.ended, _RETRY)
            except Exception:  # noqa: BLE001  an order that can not be obeyed may not end the steward
                _log.exception("election %r: an order was not obeyed", term.election)
                self._clock.wait(term.ended, _RETRY)

    def _until_next_look(self, orders: Orders, term: Term) -> float:
        """Return seconds: until a pause ends, or the orders are looked at although nobody told us."""
        now = self._clock.utcnow()
        longest = Timing(term.ttl).look_every
        end = orders.next_end(now)
        left = longest if end is None else (end - now).total_seconds()
        if self._orders.requests(orders, now):  # they may lapse
            left = min(left, PATIENCE)
        return min(max(left, 0.0) + 0.05, longest)

    def _acknowledge(self, orders: Orders, term: Term) -> None:
        """Let those who ask know up to where their orders are heard."""
        if not orders.version:
            return
        receipt = Receipt(
            version=orders.version,
            token=term.token,
            node=self._candidate.node,
            at=self._clock.utcnow(),
        )
        self._commit([Write(RECEIPT_KEY, receipt.encode())], term)

    # -- obeying ----------------------------------------------------------------------------------

    def _obey(self, orders: Orders, term: Term) -> None:
        now = self._clock.utcnow()
        self._tidy(orders, term, now)
        for request in self._orders.requests(orders, now):
            if request.kind is Kind.RESIGN:
                self._obey_resign(request, term)
            elif request.kind is Kind.TRANSFER:
                self._obey_transfer(request, term)

    def _tidy(self, orders: Orders, term: Term, now: datetime) -> None:
        """Answer what came too late, and remove what was answered long ago."""
        lapsed = self._orders.lapsed(orders, now)
        writes = [
            self._orders.answer(request, Answer.LAPSED, "nobody led in time") for request in lapsed
        ]
        old = [r for r in orders.requests if r.answered_at and now - r.answered_at > _KEPT]
        writes += [Write(request_key(request.id), None) for request in old]
        if writes:
            self._commit(writes, term)
        for request in lapsed:
            self._orders.answered(request)

    def _obey_resign(self, request: Request, term: Term) -> None:
        if request.token != term.token:
            why = f"term {request.token} is over already; this is term {term.token}"
            self._answer(request, Answer.REFUSED, why, term)
            return
        if self._answer(request, Answer.OBEYED, "", term):
            _log.info("%s asks node %s to resign", request.by, self._candidate.node)
            self._give_up(term)

    def _obey_transfer(self, request: Request, term: Term) -> None:
        why = self._why_not(request, term)
        if why:
            self._answer(request, Answer.REFUSED, why, term)
            return
        heir = Heir(candidate=request.heir, token=request.token, by=request.by)
        if self._answer(request, Answer.OBEYED, "", term, Write(HEIR_KEY, heir.encode())):
            _log.info(
                "%s asks node %s to hand over to candidate %s",
                request.by,
                self._candidate.node,
                request.heir,
            )
            self._give_up(term)

    def _why_not(self, request: Request, term: Term) -> str:
        """Say why leadership can not be handed over to the heir of *request*; empty if it can."""
        if (request.heir, request.token) == (term.candidacy.id, term.token):
            return "it leads already"
        entrants = self._ledger.store.candidates(
            term.election, deadline=self._clock.now() + _WITHIN
        )
        behind = [e for e in entrants if e.token > term.token]
        heir = next((e for e in behind if (e.id, e.token) == (request.heir, request.token)), None)
        if heir is None:
            return "the heir does not stand any more"
        ahead = behind[: behind.index(heir) + 1]
        foreign = next((e for e in ahead if Leader.of(term.election, e).foreign), None)
        if foreign is not None:
            return f"candidate {foreign.id} is of another program, which steps back for nobody"
        return ""

    def _give_up(self, term: Term) -> None:
        """Have the term end by will: by the work, if it wants to bring something to an end first."""
        if self._leave is not None:
            self._leave()
            limit = self._clock.now() + self._leave_within
            while term.active and self._clock.now() < limit:
                self._clock.wait(term.ended, min(_RETRY, limit - self._clock.now()))
        if term.active:
            self._candidate.resign()

    def _answer(
        self, request: Request, answer: Answer, why: str, term: Term, *beside: Write
    ) -> bool:
        """Answer a request; whether it was ours to answer."""
        try:
            self._commit([self._orders.answer(request, answer, why), *beside], term)
        except Conflict:
            return False
        self._orders.answered(request)
        return True

    def _commit(self, writes: list[Write], term: Term) -> None:
        deadline = min(self._clock.now() + _WITHIN, term.deadline)
        self._ledger.store.commit(
            term.election, writes, candidacy=term.candidacy, deadline=deadline
        )
