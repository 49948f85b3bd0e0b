"""What the leader claims by its schedules, and what operators order in between."""

from datetime import timedelta

import pytest

from leader_jobs.claims import Claims
from leader_jobs.control import Control
from leader_jobs.exceptions import Fenced, StoreUnavailable
from leader_jobs.occurrences import Policy
from leader_jobs.orderbook import OrderBook
from leader_jobs.orders import Answer, Orders, Refusal, Request, paused_key
from leader_jobs.planned import PlannedJob
from leader_jobs.records import State
from leader_jobs.stores.base import Write
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    OVERLAPPING,
    CountingStore,
    LedgerNode,
    dispatch,
    entries_of,
    make_job,
    make_planned,
    planned,
    record_of,
    run,
    states,
)
from testsupport.place import ELECTION


@pytest.fixture(name="control")
def _control(store: CountingStore, clock: ManualClock) -> Control:
    return Control(store, ELECTION, by="ada", clock=clock)


@pytest.fixture(name="orders")
def _orders(store: CountingStore, clock: ManualClock) -> OrderBook:
    return OrderBook(store, ELECTION, node="a", clock=clock)


def claims_of(node: LedgerNode, orders: OrderBook, *jobs: PlannedJob) -> Claims:
    """Begin a term's claims that go by *orders*, with the jobs known to the ledger."""
    claims = Claims(node.ledger, node.term(), jobs, clock=node.clock, orders=orders)
    node.tick(claims)
    return claims


def answer_to(request: Request, orders: OrderBook) -> Request:
    """Return a request as it stands."""
    return next(r for r in orders.look().requests if r.id == request.id)


# -- pauses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "caught_up"),
    [
        (Policy(), [30]),
        (Policy(catch_up="all"), [10, 20, 30]),
        (Policy(catch_up="skip"), [30]),
        (Policy(window=15, catch_up="all"), [20, 30]),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_after_a_pause_the_catch_up_policy_applies(
    node: LedgerNode,
    orders: OrderBook,
    control: Control,
    clock: ManualClock,
    *,
    policy: Policy,
    caught_up: list[int],
    whole: bool,
) -> None:
    """Nothing is claimed while it holds, and after it what was missed is missed as by any gap."""
    claims = claims_of(node, orders, make_job(every=10, policy=policy))
    name = None if whole else "job"
    control.pause(name)
    orders.look()
    for _ in range(3):
        clock.advance(10)
        assert node.tick(claims) == ()
        due = claims.next_instant()
        assert due is None or due > clock.utcnow(), "nobody waits for what does not come"
    control.resume(name)
    orders.look()
    assert planned(node.tick(claims)) == caught_up


def test_the_pause_of_one_job_leaves_the_others_alone(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """They go on as if nothing was."""
    claims = claims_of(node, orders, make_job("one"), make_job("two"))
    control.pause("one")
    orders.look()
    clock.advance(10)
    assert [claim.job for claim in node.tick(claims)] == ["two"]


def test_a_pause_with_an_end_ends_by_itself(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """And the leader knows when to look again."""
    claims = claims_of(node, orders, make_job(every=10))
    until = clock.utcnow() + timedelta(seconds=25)
    control.pause(until=until)
    orders.look()
    clock.advance(20)
    assert node.tick(claims) == ()
    assert claims.next_instant() == until
    clock.advance(5)
    assert planned(node.tick(claims)) == [20]


def test_what_was_claimed_before_a_pause_waits_if_it_was_let_go(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """A claim that was not started is found again when the pause is over, under the same identity."""
    claims = claims_of(node, orders, make_job(every=10))
    clock.advance(10)
    (claim,) = node.tick(claims)
    control.pause()
    orders.look()
    node.ledger.let_go(claim)
    assert node.tick(claims) == ()
    control.resume()
    orders.look()
    (again,) = node.tick(claims)
    assert again == claim


def test_a_new_leader_reads_orders_before_it_claims_anything(
    node: LedgerNode, other: LedgerNode, control: Control, clock: ManualClock
) -> None:
    """If they can not be read, nothing is claimed."""
    claims_of(node, OrderBook(node.store, ELECTION, node="a", clock=clock), make_job(every=10))
    control.pause()
    node.dies()
    clock.advance(10)
    fresh = OrderBook(node.store, ELECTION, node="b", clock=clock)
    claims = Claims(other.ledger, other.term(), [make_job(every=10)], clock=clock, orders=fresh)
    node.store.cut()
    with pytest.raises(StoreUnavailable):
        claims.tick(clock.utcnow())
    node.store.restore()
    assert other.tick(claims) == ()


def test_a_pause_that_can_not_be_read_holds(
    node: LedgerNode, orders: OrderBook, clock: ManualClock
) -> None:
    """In doubt, nothing runs, and whoever looks is told why."""
    claims = claims_of(node, orders, make_job(every=10))
    row = Write(paused_key(), b'{"v": 99}')
    node.store.commit(ELECTION, [row], candidacy=None, deadline=clock.now() + 1)
    pause = orders.look().pause_of(None, clock.utcnow())
    assert pause is not None
    assert "format 99" in pause.reason
    clock.advance(10)
    assert node.tick(claims) == ()


# -- run now ------------------------------------------------------------------------------------------


def test_a_run_on_request_is_an_occurrence_beside_the_schedule(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """It is claimed once, with who asked, and takes nothing from what the schedule has planned."""
    claims = claims_of(node, orders, make_job(every=10))
    clock.advance(3)
    request = control.run_now("job")
    orders.look()
    (claim,) = node.tick(claims)
    assert claim.planned_at == clock.utcnow()
    assert node.tick(claims) == ()
    orders.look()
    assert node.tick(claims) == (), "an answered request is not obeyed again"
    answered = answer_to(request, orders)
    assert (answered.answer, answered.planned_at) == (Answer.OBEYED, claim.planned_at)
    run(node, claim)
    clock.advance(7)
    assert planned(node.tick(claims)) == [10]
    assert entries_of(node.store, "job", clock)[0].asked_by == "ada"


def test_a_run_on_request_never_has_the_identity_of_a_planned_one(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """Asked for at an instant of the schedule, both are run."""
    claims = claims_of(node, orders, make_job(every=10, policy=OVERLAPPING))
    clock.advance(10)
    control.run_now("job")
    control.run_now("job")
    orders.look()
    found = [*node.tick(claims), *node.tick(claims)]
    assert len({claim.occurrence for claim in found}) == 3
    assert {claim.planned_at - clock.utcnow() for claim in found} == {
        timedelta(0),
        timedelta(microseconds=1),
        timedelta(microseconds=2),
    }


def test_a_run_that_would_overlap_is_refused(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """With the reason, and without a trace in the ledger."""
    claims = claims_of(node, orders, make_job(every=10))
    clock.advance(10)
    (claim,) = node.tick(claims)
    assert node.ledger.start(claim, node.term())
    request = control.run_now("job")
    orders.look()
    assert node.tick(claims) == ()
    answered = answer_to(request, orders)
    assert answered.answer is Answer.REFUSED
    assert "is started on node a" in answered.why
    assert states(node.store, "job", clock) == [State.STARTED]


def test_a_paused_job_runs_on_request_alone(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """What its schedule has missed is still there when the pause is over."""
    claims = claims_of(node, orders, make_job(every=10))
    control.pause("job")
    clock.advance(15)
    control.run_now("job")
    orders.look()
    (claim,) = node.tick(claims)
    assert claim.planned_at == clock.utcnow()
    run(node, claim)
    control.resume("job")
    orders.look()
    assert planned(node.tick(claims)) == [10]


def test_a_paused_election_runs_nothing_on_request(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """It is refused where it is asked for, and by the leader if the pause came in between."""
    claims = claims_of(node, orders, make_job(every=10))
    request = control.run_now("job")
    control.pause(reason="upgrade")
    with pytest.raises(Refusal, match=r"paused by ada \(upgrade\); resume it first"):
        control.run_now("job")
    orders.look()
    assert node.tick(claims) == ()
    assert answer_to(request, orders).answer is Answer.REFUSED


def test_a_job_that_the_leader_does_not_know_is_refused(
    node: LedgerNode, orders: OrderBook, control: Control
) -> None:
    """The ledger may remember jobs that no process has any more."""
    claims_of(node, orders, make_job("old"))
    claims = claims_of(node, orders, make_job("new"))
    request = control.run_now("old")
    orders.look()
    assert node.tick(claims) == ()
    answered = answer_to(request, orders)
    assert (answered.answer, answered.why) == (
        Answer.REFUSED,
        "the leader, node a, has no such job",
    )


def test_a_request_is_obeyed_once_whoever_leads(
    node: LedgerNode, other: LedgerNode, control: Control, clock: ManualClock
) -> None:
    """A leader whose commit did not get through leaves it to the next; a fenced one obeys nothing."""
    first = OrderBook(node.store, ELECTION, node="a", clock=clock)
    second = OrderBook(node.store, ELECTION, node="b", clock=clock)
    job = make_job(every=10)
    claims = claims_of(node, first, job)
    control.run_now("job")
    first.look()
    node.store.lose_reply("commit")
    lost = node.tick(claims)  # it took effect, which nobody knows yet
    node.dies()
    clock.advance(10)
    with pytest.raises(Fenced):
        claims.tick(clock.utcnow())
    successor = Claims(other.ledger, other.term(), [job], clock=clock, orders=second)
    found = [*lost, *other.tick(successor)]
    run(other, *found)
    second.look()
    assert other.tick(successor) == ()
    asked = [e for e in entries_of(node.store, "job", clock) if e.asked_by]
    assert len(asked) == 1


@pytest.mark.parametrize("led", [True, False])
def test_a_request_that_waited_too_long_is_not_obeyed(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock, *, led: bool
) -> None:
    """Nobody wants to be surprised by it after an hour without a leader, or with a stuck one."""
    claims = claims_of(node, orders, make_job(every=3600))
    control.run_now("job")
    if led:
        orders.look()
    clock.advance(61)
    if not led:
        orders.begin()
    assert orders.lapsed(orders.look(), clock.utcnow())
    assert node.tick(claims) == ()


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_a_request_that_comes_while_we_lead_is_new_whatever_clocks_say(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock, ahead: int
) -> None:
    """Whoever asks may have a wall clock that is an hour off."""
    claims = claims_of(node, orders, make_job(every=7200))
    clock.step_wall(ahead)
    control.run_now("job")
    clock.step_wall(-ahead)
    orders.look()
    assert len(node.tick(claims)) == 1


def test_a_dispatched_job_that_says_nothing_more_may_be_run_again(
    node: LedgerNode, orders: OrderBook, control: Control, clock: ManualClock
) -> None:
    """That its last message was sent is all there is to know of it, so nothing is in the way."""
    claims = claims_of(node, orders, make_planned(every=10, guarded=False))
    clock.advance(10)
    dispatch(node, *node.tick(claims))
    control.run_now("job")
    orders.look()
    assert len(node.tick(claims)) == 1


# -- what is written beside ---------------------------------------------------------------------------


def test_the_ledger_says_when_a_job_is_due_next(
    node: LedgerNode, orders: OrderBook, clock: ManualClock
) -> None:
    """For pages, which know no schedules."""
    claims = claims_of(node, orders, make_job(every=10))
    assert record_of(node.store, "job", clock).due == clock.utcnow() + timedelta(seconds=10)
    clock.advance(10)
    run(node, *node.tick(claims))
    assert record_of(node.store, "job", clock).due == clock.utcnow() + timedelta(seconds=10)


def test_what_is_done_is_counted(node: LedgerNode, orders: OrderBook, clock: ManualClock) -> None:
    """Turns, ends, lags and refusals, for probes and metrics."""
    claims = claims_of(node, orders, make_job(every=10))
    tally = node.ledger.tally
    assert tally.turned_at == clock.now()
    assert tally.due == clock.utcnow() + timedelta(seconds=10)
    clock.advance(32)
    (claim,) = node.tick(claims)
    assert tally.closed == {State.COALESCED: 2}
    run(node, claim)
    assert tally.closed == {State.COALESCED: 2, State.SUCCEEDED: 1}
    assert (tally.lag.count, tally.lag.last) == (1, 2.0)
    node.dies()
    clock.advance(10)
    with pytest.raises(Fenced):
        claims.tick(clock.utcnow())
    assert tally.refused == 1


def test_without_orders_there_are_none(orders: OrderBook) -> None:
    """An election nobody steers has an empty book."""
    assert orders.look() == Orders.none()
