"""
The orders that the admin pages give: what each is called, when it makes no sense, and what came of it.

An order is carried out in two steps, so that it can be put on record in between: it is written to the
store, and then, for a moment, its effect is waited for.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.contrib import messages

from django_leader_jobs.forms import Form, PauseForm, TransferForm
from django_leader_jobs.words import full
from leader_jobs.clock import Clock
from leader_jobs.control import Control
from leader_jobs.durations import how_long
from leader_jobs.exceptions import StoreError
from leader_jobs.orders import Answer, Request
from leader_jobs.overview import ElectionView, Member

__all__ = ["ORDERS", "Given", "Order", "Outcome", "heirs", "obstacle", "obstacles", "warning"]

#: Seconds to wait for the effect of an order before saying that it is not seen yet.
_WITHIN: Final = 1.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an order: a sentence, and a level of Django's messages."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Given:
    """
    An order that is in the store.

    Attributes:
        record: what was ordered and why, for the log.
        wait: waits for its effect, and says what that is.
    """

    record: str
    wait: Callable[[], Outcome]


@dataclass(frozen=True, slots=True)
class Order:
    """
    Something that an operator can have done.

    Attributes:
        name: what it is called in URLs.
        verb: what it is called on its button.
        text: what will happen, in a few sentences.
        give: writes it: from control, clock, the job if it is about one, and the form's data.
        form: what is filled in.
    """

    name: str
    verb: str
    text: str
    give: Callable[[Control, Clock, str | None, Mapping[str, Any]], Given]
    form: type[Form] = field(default=Form)


# -- what stands in the way -----------------------------------------------------------------------


def obstacles(view: ElectionView) -> dict[str, str]:
    """Return why orders about an election make no sense as things are, by the order's name."""
    leader = view.leader
    found = {} if view.pause is not None else {"resume": "the election is not paused"}
    if leader is None:
        found |= dict.fromkeys(("resign", "transfer"), "nobody leads")
    elif leader.foreign:
        why = f"{leader.node} is a candidate of another program and obeys no orders"
        found |= dict.fromkeys(("resign", "transfer", "run-now"), why)
    elif not heirs(view):
        found["transfer"] = "nobody of this library is next in line"
    if view.pause is not None:
        found["run-now"] = "the election is paused; resume it first"
    return found


def obstacle(view: ElectionView, order: str, job: str | None) -> str:
    """Return why an order, about *job* if it is one about a job, makes no sense; empty if it does."""
    if job is None:
        return obstacles(view).get(order, "")
    found = next((j for j in view.jobs if j.name == job), None)
    if found is None:
        return "there is no job of that name"
    if order == "resume":
        return "" if found.pause is not None else "the job is not paused"
    return obstacles(view).get(order, "")


def warning(view: ElectionView, order: str) -> str:
    """Return what somebody should know who is about to give an order; empty if nothing."""
    leader = view.leader
    if leader is None and order in ("pause", "resume", "run-now"):
        return "Nobody leads at present: the order is carried out by whoever leads next."
    if leader is not None and leader.foreign and order in ("pause", "resume"):
        return (
            f"{leader.node} is a candidate of another program and does not obey. The order is kept, "
            "and holds as soon as a node of this library leads."
        )
    if order == "resign" and not view.candidates[1:]:
        return "Nobody stands by: the same process will stand again, and probably lead again."
    return ""


def heirs(view: ElectionView) -> tuple[Member, ...]:
    """
    Return the candidates that leadership can be handed to.

    These are the living ones ahead of the first foreign one, which would not step back.
    """
    ours = itertools.takewhile(lambda member: not member.foreign, view.candidates[1:])
    return tuple(member for member in ours if not member.suspended)


# -- giving them ----------------------------------------------------------------------------------


def _pause(control: Control, clock: Clock, job: str | None, data: Mapping[str, Any]) -> Given:
    reason, until = data["reason"], data["until"]
    began = clock.now()
    version = control.pause(job, reason=reason, until=until)
    end = f" until {full(until)}" if until is not None else ""
    why = f": {reason}" if reason else ""
    wait = _heard(control, clock, version, began, f"Paused {_what(job)}{end}")
    return Given(f"Paused {_what(job)}{end}{why}.", wait)


def _resume(control: Control, clock: Clock, job: str | None, _data: Mapping[str, Any]) -> Given:
    began = clock.now()
    version = control.resume(job)
    wait = _heard(control, clock, version, began, f"Resumed {_what(job)}")
    return Given(f"Resumed {_what(job)}.", wait)


def _resign(control: Control, clock: Clock, _job: str | None, _data: Mapping[str, Any]) -> Given:
    began = clock.now()
    request = control.resign()
    wait = _answered(control, clock, request, began, "The request to resign")
    return Given("Asked the leader to resign.", wait)


def _transfer(control: Control, clock: Clock, _job: str | None, data: Mapping[str, Any]) -> Given:
    began = clock.now()
    request = control.transfer(data["heir"])
    wait = _answered(control, clock, request, began, "The request to hand over")
    return Given(f"Asked the leader to hand over to candidate {data['heir']}.", wait)


def _run_now(control: Control, clock: Clock, job: str | None, _data: Mapping[str, Any]) -> Given:
    began = clock.now()
    request = control.run_now(job or "")
    wait = _answered(control, clock, request, began, f"The request to run job {job} now")
    return Given(f"Asked for a run of job {job}.", wait)


def _what(job: str | None) -> str:
    return "the election" if job is None else f"job {job}"


def _heard(
    control: Control, clock: Clock, version: int, began: float, what: str
) -> Callable[[], Outcome]:
    def wait() -> Outcome:
        try:
            receipt = control.wait_heard(version, within=_WITHIN)
        except StoreError as error:
            return _unknown(what, error)
        if receipt is None:
            text = f"{what}. No leader has heard it yet; it holds as soon as one does."
            return Outcome(messages.WARNING, text)
        took = how_long(clock.now() - began)
        return Outcome(messages.SUCCESS, f"{what}: obeyed by {receipt.node} after {took}.")

    return wait


def _answered(
    control: Control, clock: Clock, request: Request, began: float, what: str
) -> Callable[[], Outcome]:
    def wait() -> Outcome:
        try:
            found = control.wait_answer(request, within=_WITHIN)
        except StoreError as error:
            return _unknown(what, error)
        took = how_long(clock.now() - began)
        why = f": {found.why}" if found.why else ""
        if found.answer is None:
            left = how_long(max(0.0, (request.until - clock.utcnow()).total_seconds()))
            text = f"{what} is not answered yet; it stands for another {left}."
            return Outcome(messages.WARNING, text)
        if found.answer is Answer.OBEYED:
            text = f"{what} was obeyed by {found.answered_by} after {took}{why}."
            return Outcome(messages.SUCCESS, text)
        return Outcome(messages.ERROR, f"{what} was {found.answer.value}{why}.")

    return wait


def _unknown(what: str, error: StoreError) -> Outcome:
    return Outcome(messages.WARNING, f"{what}. What came of it is not known: {error}")


ORDERS: Final = {
    order.name: order
    for order in (
        Order(
            "pause",
            "Pause",
            "Nothing new is started until it is resumed; what runs is not interrupted. What falls due "
            "meanwhile is caught up on afterwards, by each job's own policy.",
            _pause,
            PauseForm,
        ),
        Order(
            "resume",
            "Resume",
            "What fell due during the pause is caught up on, by each job's own policy; after that "
            "everything is started by its schedule.",
            _resume,
        ),
        Order(
            "resign",
            "Resign",
            "The leader finishes what it is about to start, gives up its term, and queues behind "
            "everybody else. The next in line leads.",
            _resign,
        ),
        Order(
            "transfer",
            "Hand over",
            "The leader makes sure that the candidate lives, and gives up its term; those ahead of it "
            "step back. Nothing that falls due meanwhile is lost.",
            _transfer,
            TransferForm,
        ),
        Order(
            "run-now",
            "Run now",
            "The leader starts an occurrence of its own, beside those of the schedule, which stays as "
            "it is.",
            _run_now,
        ),
    )
}
