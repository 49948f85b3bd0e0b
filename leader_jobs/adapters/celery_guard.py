"""
The guard of `@leader_only` tasks: a message that carries a ticket starts its body at most once.

The guard is put around ``task.run``, outside of everything Celery puts there itself, so that it sees
how the body ends: `celery.exceptions.Retry`, ``Ignore`` and ``Reject`` included. Celery's tracer calls
``task.run`` in every pool and for ``apply()``; a plain call of the task in Python is no message and is
left to `leader_jobs.jobs.leader_only`.

A message that is turned away is acknowledged (``Ignore``): it stores no result, so whoever waits for
one gets that of the run that counts, which has the same id. One that no leader can have sent is
rejected. One that may start later, because the ledger can not be reached say, is published anew after
a moment, for a rejected message comes back at once.
"""

import functools
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.time import maybe_make_aware

from leader_jobs.adapters.celery_desks import Desk, Desks
from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.admissions import Later, Message, Refused
from leader_jobs.clock import Clock
from leader_jobs.config import application
from leader_jobs.exceptions import LeaderJobsError, NotLeader, StoreError
from leader_jobs.jobs import OnStandby, Restriction, admitted, why_not
from leader_jobs.ledger import Claim
from leader_jobs.runs import Lost, Run, current_run, running
from leader_jobs.term import Term, held_terms
from leader_jobs.tickets import BadTicket, Ticket

__all__ = ["Guard", "ticket_of"]

_log = logging.getLogger(__name__)
_BEGIN_WITHIN: Final = 10.0
_DELAY: Final = 5.0
#: The attribute of a ``run`` that has the guard around it.
_GUARDED: Final = "__leader_jobs_guarded__"
#: The attribute of a request whose message was let in, for bodies that call ``self.run()``; and its
#: value, which no header of a message can be.
_LET_IN: Final = "leader_jobs_let_in"
_YES: Final = object()
#: The attribute of a request whose body asked to be retried and went on.
_ASKED: Final = "leader_jobs_asked"


def ticket_of(request: Any) -> Ticket | None:
    """
    Return the ticket that a request's message carries, or None.

    Raises:
        BadTicket: there is something in its place that is none.
    """
    found = (request.headers or {}).get(HEADER)
    if found is None:
        found = request.get(HEADER)  # a header called "headers" hides all others from Celery
    return None if found is None else Ticket.decode(found)


class Guard:
    """
    Guards the tasks of an application.

    Args:
        desks: where to ask about an election.
        clock: where instants come from.
    """

    def __init__(self, desks: Desks, *, clock: Clock) -> None:
        self._desks = desks
        self._clock = clock

    def wrap(self, task: Any) -> None:
        """Put the guard around *task*, if `leader_only` restricts it; once, however often called."""
        restriction = Restriction.of(task.run)
        if restriction is None or getattr(task.run, _GUARDED, False):
            return
        body = task.run

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            return self._run(task, restriction, functools.partial(body, *args, **kwargs))

        setattr(run, _GUARDED, True)
        task.run = run
        self._note_retries(task)

    def _note_retries(self, task: Any) -> None:
        """Have the request know of a retry that its body asked for without raising it."""
        retry = task.retry

        @functools.wraps(retry)
        def noted(*args: Any, **options: Any) -> Any:
            asked = retry(*args, **options)
            setattr(task.request, _ASKED, asked)
            return asked

        task.retry = noted

    def _run(self, task: Any, restriction: Restriction, body: Callable[[], Any]) -> Any:
        request = task.request
        if request.called_directly or request.get(_LET_IN) is _YES:
            return body()
        try:
            ticket = ticket_of(request)
        except BadTicket as error:
            _reject(request, restriction, error)
        if ticket is None:
            return self._run_called(task, restriction, body)
        return self._run_claimed(task, restriction, ticket, body)

    # -- with a ticket ----------------------------------------------------------------------------

    def _run_claimed(
        self, task: Any, restriction: Restriction, ticket: Ticket, body: Callable[[], Any]
    ) -> Any:
        request = task.request
        desk, term, claim = self._admit(task, restriction, ticket)
        try:  # a time limit may strike at any line from here on
            setattr(request, _LET_IN, _YES)
            with running(_run(ticket, claim, term)), admitted(restriction):
                result = body()
        except BaseException as error:
            self._record(task, desk, claim, error, rerun=_reruns(restriction, ticket))
            raise
        asked = request.get(_ASKED)
        if isinstance(asked, Retry):  # by ``self.retry(throw=False)``
            desk.admissions.retry(claim, self._due(asked.when, task.app))
        else:
            desk.admissions.succeed(claim)
        return result

    def _admit(
        self, task: Any, restriction: Restriction, ticket: Ticket
    ) -> tuple[Desk, Term, Claim]:
        request = task.request
        if restriction.election not in (None, ticket.election):
            why = f"it is of election {restriction.election!r}, its ticket of {ticket.election!r}"
            _reject(request, restriction, why)
        try:
            message = Message(
                ticket=ticket,
                id=request.id,
                task=task.name,
                retries=request.retries or 0,
                policy=ticket.policy or restriction.policy,
                rerun_on_crash=_reruns(restriction, ticket),
            )
            desk = self._desks.of(ticket.election)  # not for a message refused at sight
            term = desk.presence.begin(_BEGIN_WITHIN)
            return desk, term, desk.admissions.admit(message, term)
        except Refused as refusal:
            if refusal.forged:
                _reject(request, restriction, refusal)
            _ignore(request, restriction, refusal)
        except Later as reason:
            _give_back(task, restriction, reason, reason.delay)
        except StoreError as error:
            _give_back(task, restriction, error, _DELAY)

    def _record(
        self, task: Any, desk: Desk, claim: Claim, error: BaseException, *, rerun: bool
    ) -> None:
        """Record how a body ended that did not return."""
        reason = "".join(traceback.format_exception_only(error))
        if isinstance(error, Retry):
            desk.admissions.retry(claim, self._due(error.when, task.app))
        elif isinstance(error, Reject) and error.requeue and task.acks_late:  # type: ignore[attr-defined]  # stubs lack it
            desk.admissions.hand_back(claim)
        elif isinstance(error, Ignore):
            desk.admissions.succeed(claim, reason)
        elif isinstance(error, Exception):
            desk.admissions.fail(claim, reason)
        else:
            desk.admissions.interrupt(claim, reason, rerun=rerun)

    def _due(self, when: Any, app: Celery) -> datetime:
        if isinstance(when, datetime):
            return maybe_make_aware(when, app.timezone).astimezone(UTC)
        return self._clock.utcnow() + timedelta(seconds=float(when or 0))

    # -- without one ------------------------------------------------------------------------------

    def _run_called(self, task: Any, restriction: Restriction, body: Callable[[], Any]) -> Any:
        """Run what was called rather than claimed, if this process leads."""
        request = task.request
        election = restriction.election or application.election
        run = self._standing(request, restriction, election)
        if run is None:
            why = why_not(election) or "leadership was in doubt"
            self._skip(task, restriction, election, f"no ticket, and {why}")
        setattr(request, _LET_IN, _YES)
        with running(run), admitted(restriction):
            return body()

    def discarded(self, request: Any, why: str) -> None:
        """Note that Celery itself will not run what *request* asks for, nor any copy of it."""
        try:
            ticket = ticket_of(request)
        except BadTicket:
            return
        if ticket is not None and ticket.occurrence == request.id:
            self._desks.of(ticket.election).admissions.discard(ticket, why)

    def _standing(self, request: Any, restriction: Restriction, election: str) -> Run | None:
        """Return the run that a call is part of, or makes; None if there is no leadership for it."""
        outer = current_run()
        if outer is not None and outer.election == election:
            return None if outer.lost.is_set() else outer
        term = held_terms.find(election)
        if term is None or not term.may_start:
            return None
        return Run(
            election=term.election,
            job=restriction.name,
            occurrence=request.id,
            planned_at=self._clock.utcnow(),
            token=term.token,
            attempt=1,
            lost=Lost(term),
        )

    def _skip(self, task: Any, restriction: Restriction, election: str, why: str) -> NoReturn:
        try:
            self._desks.of(election).admissions.skip(restriction.name, why, task=task.name)
        except LeaderJobsError as error:
            _log.debug("%s: not noted in the ledger: %s", restriction.name, error)
        if restriction.on_standby is OnStandby.RAISE:
            msg = f"{restriction.name} not run: {why}"
            raise NotLeader(msg)
        _ignore(task.request, restriction, why)


def _run(ticket: Ticket, claim: Claim, term: Term) -> Run:
    outer = current_run()  # that of the queue of a leader, perhaps
    return Run(
        election=ticket.election,
        job=claim.job,
        occurrence=claim.occurrence,
        planned_at=claim.planned_at,
        token=claim.token,
        attempt=claim.attempt,
        lost=Lost(term) if outer is None else outer.lost.also(term),
    )


def _reruns(restriction: Restriction, ticket: Ticket) -> bool:
    """Whether a run whose process died is attempted again; an entry may say so over its task's head."""
    asked = ticket.rerun_on_crash
    return restriction.rerun_on_crash if asked is None else asked


def _ignore(request: Any, restriction: Restriction, why: object) -> NoReturn:
    _log.info("%s not run, message %s is ignored: %s", restriction.name, request.id, why)
    raise Ignore(str(why))


def _reject(request: Any, restriction: Restriction, why: object) -> NoReturn:
    _log.warning("%s not run, message %s is rejected: %s", restriction.name, request.id, why)
    raise Reject(str(why), requeue=False)


def _give_back(task: Any, restriction: Restriction, why: object, delay: float) -> NoReturn:
    """Have the message of *task* delivered again after *delay* seconds."""
    request = task.request
    _log.info(
        "%s not run yet, message %s comes again in %g s: %s",
        restriction.name,
        request.id,
        delay,
        why,
    )
    if not request.is_eager:
        again = task.signature_from_request(request, countdown=delay, retries=request.retries)
        try:
            again.apply_async()
        except Exception as error:
            _log.warning("message %s could not be published anew: %r", request.id, error)
            raise Reject(str(why), requeue=True) from error
    raise Ignore(str(why))
