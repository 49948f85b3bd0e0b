"""
The commands that steer an election: they leave an order in the store, and say what the leader did.

All of them answer in one shape, `Outcome`. A pause stands as soon as it is written, so the command has
succeeded whoever has heard of it; a request has when the leader says that it obeyed.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from leader_jobs.cli.front import DONE, REFUSED, Call
from leader_jobs.cli.successors import await_successor
from leader_jobs.control import Control
from leader_jobs.durations import at, how_long
from leader_jobs.leaders import Leader
from leader_jobs.orders import Answer, Request
from leader_jobs.stores.base import Store
from leader_jobs.tables import Line, Tone

__all__ = ["Outcome", "pause", "resign", "resume", "run_now", "transfer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What came of an order.

    Attributes:
        message: all of it in words.
        obeyed: whether a leader obeys; False: it refused, or nobody has answered yet.
        node: label of the node that answered, or None.
        token: its term as it did, or None.
        took: seconds from the order to the answer, or None.
        leader: label of who leads now, where that was to change, or None.
        gap: seconds that nobody led meanwhile, or None if that is not known.
        planned_at: the instant of the occurrence that was started, or None.
    """

    message: str
    obeyed: bool = False
    node: str | None = None
    token: int | None = None
    took: float | None = None
    leader: str | None = None
    gap: float | None = None
    planned_at: datetime | None = None


# -- pauses ---------------------------------------------------------------------------------------


def pause(call: Call) -> int:
    """Pause the election, or a job."""
    options = call.options
    until = options.until
    if options.duration is not None:
        until = call.clock.utcnow() + options.duration
    return _order(
        call,
        lambda control: control.pause(call.job, reason=options.reason, until=until),
        "is paused" if until is None else f"is paused until {at(until)} UTC",
    )


def resume(call: Call) -> int:
    """End a pause."""
    return _order(call, lambda control: control.resume(call.job), "is resumed")


def _order(call: Call, write: Callable[[Control], int], done: str) -> int:
    """Write an order that stands, and say who goes by it."""
    what = f"election {call.election!r}" if call.job is None else f"job {call.job!r}"
    with call.store() as store:
        control = call.control(store)
        began = call.clock.now()
        version = write(control)
        receipt = control.wait_heard(version, within=call.options.wait)
        took = _since(call, began)
        if receipt is None:
            outcome = Outcome(message=f"{what} {done}; {_unheard(call, store)}")
        else:
            who = f"{receipt.node} (term {receipt.token})"
            outcome = Outcome(
                message=f"{what} {done}; {who} obeys, {how_long(took)} after the order",
                obeyed=True,
                node=receipt.node,
                token=receipt.token,
                took=took,
            )
    _tell(call, outcome)
    return DONE


def _unheard(call: Call, store: Store) -> str:
    """Say why nobody has heard of an order that stands."""
    leader = _leader(call, store)
    if leader is None:
        return "nobody leads at the moment: the next leader will obey"
    if leader.foreign:
        return (
            f"the leader {leader.node!r} is of another program and obeys no orders: the next leader of "
            "this library will"
        )
    if not call.options.wait:
        return f"whether the leader {leader.node!r} has heard was not waited for"
    return (
        f"the leader {leader.node!r} has not heard of it within {how_long(call.options.wait)}: it obeys "
        "as soon as it can read the store"
    )


# -- requests -------------------------------------------------------------------------------------


def resign(call: Call) -> int:
    """Have the leader give up its term."""

    def follow(store: Store, request: Request, until: float) -> Outcome:
        said = f"{request.answered_by} has given up term {request.token}"
        return _succeeded(call, store, said, until, after=request.token)

    return _request(call, lambda control: control.resign(), follow)


def transfer(call: Call) -> int:
    """Have the leader hand over."""

    def follow(store: Store, request: Request, until: float) -> Outcome:
        said = f"{request.answered_by} hands over"
        return _succeeded(call, store, said, until, heir=request.token)

    return _request(call, lambda control: control.transfer(call.options.heir), follow)


def run_now(call: Call) -> int:
    """Have the leader run a job."""
    job = str(call.job)

    def follow(_store: Store, request: Request, _until: float) -> Outcome:
        planned = request.planned_at
        shown = f": the occurrence of {at(planned)} UTC" if planned is not None else ""
        message = f"{request.answered_by} runs job {job!r}{shown}"
        return Outcome(message=message, obeyed=True, planned_at=planned)

    return _request(call, lambda control: control.run_now(job), follow)


def _request(
    call: Call,
    ask: Callable[[Control], Request],
    follow: Callable[[Store, Request, float], Outcome],
) -> int:
    """Ask for something, wait for the answer, and say what came of it."""
    wait = call.options.wait
    with call.store() as store:
        control = call.control(store)
        began = call.clock.now()
        request = control.wait_answer(ask(control), within=wait)
        took = _since(call, began)
        if request.answer is None:
            outcome = Outcome(message=_unanswered(call, store, request))
        elif request.answer is not Answer.OBEYED:
            why = request.why or f"it has {request.answer.value}"
            outcome = Outcome(message=f"{request.answered_by} did not obey: {why}")
        else:
            # Who had to wait long for the answer still wants to know what came of it.
            outcome = follow(store, request, began + max(wait, took + 1.0))
    if request.answer is not None:
        outcome = replace(outcome, node=request.answered_by, took=took)
    _tell(call, outcome)
    return DONE if outcome.obeyed or not wait else REFUSED


def _unanswered(call: Call, store: Store, request: Request) -> str:
    stands = f"the request stands until {at(request.until)} UTC"
    if not call.options.wait:
        return f"asked; the answer was not waited for; {stands}"
    leader = _leader(call, store)
    if leader is None:
        return f"nobody leads at the moment; {stands}, for whoever leads by then"
    within = how_long(call.options.wait)
    return (
        f"{leader.node} leads and has not answered within {within}; {stands} and may be obeyed yet"
    )


def _succeeded(
    call: Call,
    store: Store,
    said: str,
    until: float,
    *,
    heir: int | None = None,
    after: int | None = None,
) -> Outcome:
    """Wait until another leads, and say who, and for how long nobody did."""
    found = await_successor(call, store, heir=heir, after=after, until=until)
    if found is None:
        return Outcome(message=f"{said}, but whom it was meant for does not lead yet")
    leader, gap = found.leader.node, found.gap
    shown = (
        "for how long nobody led is not known" if gap is None else f"nobody led for {how_long(gap)}"
    )
    return Outcome(
        message=f"{said}; {leader} leads (term {found.leader.token}), {shown}",
        obeyed=True,
        token=found.leader.token,
        leader=leader,
        gap=gap,
    )


# -- the answer -----------------------------------------------------------------------------------


def _since(call: Call, moment: float) -> float:
    """Return the seconds since *moment*, as exactly as there is any sense in."""
    return round(call.clock.now() - moment, 6)


def _leader(call: Call, store: Store) -> Leader | None:
    entrants = store.candidates(call.election, deadline=call.clock.now() + call.timeout)
    return Leader.of(call.election, entrants[0]) if entrants else None


def _tell(call: Call, outcome: Outcome) -> None:
    planned = outcome.planned_at
    report = {
        "format": 1,
        "election": call.election,
        "order": call.options.verb,
        "job": call.job,
        **asdict(outcome),
        "planned_at": None if planned is None else planned.isoformat(),
    }
    call.tell(report, lambda: [Line(outcome.message, Tone.PLAIN if outcome.obeyed else Tone.WARN)])
