"""What the leader does at each tick: claim what is due, recover what was left open, lose nothing."""

import logging
from datetime import timedelta

import pytest

from leader_jobs.exceptions import Fenced, StoreRefused, StoreUnavailable
from leader_jobs.occurrences import Policy, occurrence_id
from leader_jobs.records import JOBS_PREFIX, State, job_key
from leader_jobs.stores.base import Limits, Write
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    OVERLAPPING,
    CountingStore,
    LedgerNode,
    make_job,
    planned,
    reader,
    record_of,
    run,
    states,
)
from testsupport.place import ELECTION

# -- where a schedule begins -------------------------------------------------------------------------


def test_a_new_job_starts_from_now(node: LedgerNode, clock: ManualClock) -> None:
    """Nothing of the time before it was known is due, not even an instant that is now."""
    claims = node.claims(make_job(every=10))

    assert node.tick(claims) == ()
    clock.advance(9.5)
    assert node.tick(claims) == ()
    clock.advance(0.5)
    (claim,) = node.tick(claims)
    assert claim.planned_at == clock.utcnow()
    assert claim.occurrence == occurrence_id(ELECTION, "job", claim.planned_at)
    assert (claim.attempt, claim.token) == (1, node.candidacy.token)


@pytest.mark.parametrize("seconds", [5, 15, 3600])
def test_a_changed_schedule_starts_from_now(
    node: LedgerNode, clock: ManualClock, seconds: int
) -> None:
    """A deploy with another schedule never fires at once, whatever was due under the old one."""
    node.tick(node.claims(make_job(every=10)))
    clock.advance(seconds)
    claims = node.claims(make_job(every=20))

    assert node.tick(claims) == ()
    record = record_of(node.store, "job", clock)
    assert record.cursor == clock.utcnow()
    assert record.words == "every 20 s"
    clock.advance(20)
    assert planned(node.tick(claims)) == [20 * ((seconds + 20) % 60 // 20)]


def test_a_changed_schedule_never_moves_the_cursor_back(
    node: LedgerNode, clock: ManualClock
) -> None:
    """What a clock that was ahead has accounted for stays accounted for."""
    node.tick(node.claims(make_job(every=10)))
    before = record_of(node.store, "job", clock).cursor
    clock.step_wall(-3600)
    claims = node.claims(make_job(every=20))

    assert node.tick(claims) == ()
    assert record_of(node.store, "job", clock).cursor == before


def test_a_changed_schedule_keeps_what_is_open(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A claim of the old schedule is started all the same."""
    claims = node.claims(make_job(every=10))
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    node.dies()

    (recovered,) = other.tick(other.claims(make_job(every=7)))
    assert recovered.occurrence == claim.occurrence


# -- one transaction, or a few ------------------------------------------------------------------------


def test_all_that_is_due_is_claimed_in_one_transaction(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """As many jobs as the store takes in one."""
    jobs = [make_job(f"job-{number}") for number in range(100)]
    claims = node.claims(*jobs)
    node.tick(claims)
    clock.advance(10)
    store.batches.clear()

    assert len(node.tick(claims)) == 100
    assert store.batches == [100]


@pytest.mark.parametrize(
    ("limits", "batches"),
    [
        (Limits(guards=4, writes=128, size=1_000_000), [4, 4, 2]),
        (Limits(guards=128, writes=3, size=1_000_000), [3, 3, 3, 1]),
        (Limits(guards=128, writes=128, size=1_000), [3, 3, 3, 1]),
    ],
    ids=["guards", "writes", "size"],
)
def test_more_than_fits_is_claimed_in_a_few(
    store: CountingStore, node: LedgerNode, clock: ManualClock, batches: list[int]
) -> None:
    """Packed by the limit that is reached first; no transaction is beyond any."""
    claims = node.claims(*[make_job(f"job-{number}") for number in range(10)])
    node.tick(claims)
    clock.advance(10)
    store.batches.clear()

    assert len(node.tick(claims)) == 10
    assert store.batches == batches


@pytest.mark.parametrize("limits", [Limits(guards=4, writes=4, size=1_000_000)])
def test_a_leader_that_dies_between_two_transactions_loses_and_doubles_nothing(
    store: CountingStore, node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """The next one recovers what was claimed, and claims what was not, each once (P2, P3)."""
    jobs = [make_job(f"job-{number}") for number in range(10)]
    claims = node.claims(*jobs)
    node.tick(claims)
    clock.advance(10)
    store.batches.clear()
    store.before = [lambda: None, node.dies]

    with pytest.raises(Fenced):
        node.tick(claims)
    assert store.batches == [4]
    found = other.tick(other.claims(*jobs))
    assert sorted(claim.job for claim in found) == [job.name for job in jobs]
    assert {claim.planned_at for claim in found} == {clock.utcnow()}
    for job in jobs:
        assert states(store, job.name, clock) == [State.CLAIMED]
    run(other, *found)


@pytest.mark.parametrize("limits", [Limits(guards=4, writes=4, size=1_000_000)])
def test_what_was_claimed_before_the_fence_came_down_is_in_nobodys_hands(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """The same process, when it leads again, starts what it never got to start."""
    jobs = [make_job(f"job-{number}") for number in range(10)]
    claims = node.claims(*jobs)
    node.tick(claims)
    clock.advance(10)
    store.before = [lambda: None, node.dies]
    with pytest.raises(Fenced):
        node.tick(claims)
    node.stand()

    assert len(node.tick(node.claims(*jobs))) == 10


def test_what_was_recovered_before_the_fence_came_down_is_in_nobodys_hands(
    store: CountingStore, node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """Recovering needs no commit, and so is known before another job's commit is fenced."""
    first, second = make_job("first"), make_job("second", every=20)
    claims = node.claims(first, second)
    node.tick(claims)
    clock.advance(10)
    assert len(node.tick(claims)) == 1
    node.dies()
    clock.advance(10)
    store.before = [other.dies]
    with pytest.raises(Fenced):
        other.tick(other.claims(first, second))
    other.stand()

    assert {claim.job for claim in other.tick(other.claims(first, second))} == {"first", "second"}


@pytest.mark.parametrize("limits", [Limits(guards=2, writes=4, size=1_000_000)])
@pytest.mark.parametrize("error", [StoreRefused, StoreUnavailable])
def test_a_transaction_that_fails_does_not_hold_up_the_others(
    store: CountingStore, node: LedgerNode, clock: ManualClock, error: type[Exception]
) -> None:
    """What was claimed is started now, and the rest is tried again."""
    claims = node.claims(*[make_job(f"job-{number}") for number in range(6)])
    node.tick(claims)
    clock.advance(10)

    def fail() -> None:
        msg = "not this one"
        raise error(msg)

    store.before = [lambda: None, fail]
    tick = claims.tick(clock.utcnow())
    assert (len(tick.claims), tick.unsettled) == (4, True)
    again = claims.tick(clock.utcnow())
    assert (len(again.claims), again.unsettled) == (2, False)


# -- trouble with the store ---------------------------------------------------------------------------


def test_a_conflict_claims_nothing_and_the_next_tick_does(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """A run that ended while the tick was thinking has changed the record."""
    claims = node.claims(make_job(policy=OVERLAPPING))
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    node.ledger.start(claim, node.term())
    clock.advance(10)
    store.before = [lambda: node.ledger.finish(claim, State.SUCCEEDED)]

    tick = claims.tick(clock.utcnow())
    assert (tick.claims, tick.unsettled) == ((), True)
    tick = claims.tick(clock.utcnow())
    assert (planned(tick.claims), tick.unsettled) == ([20], False)
    assert states(store, "job", clock) == [State.SUCCEEDED, State.CLAIMED]


def test_a_conflict_with_another_process_is_looked_up(
    store: CountingStore, node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A former leader records the end of its run while the tick is thinking."""
    claims = node.claims(make_job(policy=OVERLAPPING))
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    node.ledger.start(claim, node.term())
    node.dies()
    node.stand()
    claims = other.claims(make_job(policy=OVERLAPPING))
    other.tick(claims)
    clock.advance(10)
    store.before = [lambda: node.ledger.finish(claim, State.SUCCEEDED)]

    assert claims.tick(clock.utcnow()).unsettled
    assert planned(other.tick(claims)) == [20]


def test_a_claim_whose_reply_was_lost_is_found_and_not_repeated(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """The next tick reads what was written and starts it, once."""
    jobs = [make_job(f"job-{number}") for number in range(3)]
    claims = node.claims(*jobs)
    node.tick(claims)
    clock.advance(10)
    store.lose_reply("commit")
    tick = claims.tick(clock.utcnow())
    assert (tick.claims, tick.unsettled) == ((), True)
    store.batches.clear()

    tick = claims.tick(clock.utcnow())
    assert (len(tick.claims), tick.unsettled) == (3, False)
    assert store.batches == []
    for job in jobs:
        assert states(store, job.name, clock) == [State.CLAIMED]
    assert claims.tick(clock.utcnow()).claims == ()


def test_a_store_that_is_away_costs_nothing(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """What falls due meanwhile is there when it returns."""
    claims = node.claims(make_job(policy=Policy(catch_up="all")))
    node.tick(claims)
    store.cut()
    clock.advance(10)
    assert claims.tick(clock.utcnow()).unsettled
    clock.advance(10)
    with pytest.raises(StoreUnavailable):
        claims.tick(clock.utcnow())
    store.restore()

    assert planned(node.tick(claims)) == [10, 20]


def test_a_new_term_trusts_no_memory(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A node that led before reads what its successor wrote before it claims anything."""
    job = make_job()
    node.tick(node.claims(job))
    node.dies()
    node.stand()
    claims = other.claims(job)
    clock.advance(10)
    run(other, *other.tick(claims))
    other.dies()

    tick = node.claims(job).tick(clock.utcnow())
    assert tick.claims == ()
    assert not tick.unsettled


def test_a_term_that_does_not_lead_claims_nothing(
    store: CountingStore, node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """Whatever it believes."""
    claims = node.claims(make_job())
    node.tick(claims)
    node.dies()
    clock.advance(10)
    store.batches.clear()

    with pytest.raises(Fenced):
        claims.tick(clock.utcnow())
    assert store.batches == []
    assert len(other.tick(other.claims(make_job()))) == 1


def test_a_commit_waits_no_longer_than_the_term(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """Its deadline is not later than the term's."""
    claims = node.claims(make_job(), term=node.term(lasts=12.0))
    node.tick(claims)
    clock.advance(12)

    assert claims.tick(clock.utcnow()).unsettled
    assert states(store, "job", clock) == []


def test_an_unreadable_record_leaves_the_other_jobs_alone(
    store: CountingStore,
    node: LedgerNode,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its job is not run in this term, and the log says which record to look at."""
    jobs = make_job("broken"), make_job("sound")
    node.tick(node.claims(*jobs))
    write = Write(job_key("broken"), b'{"v": 9}')
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    clock.advance(10)
    claims = node.claims(*jobs)

    assert [claim.job for claim in node.tick(claims)] == ["sound"]
    assert node.tick(claims) == ()
    (error,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "jobs/broken" in error
    assert (
        store.read(ELECTION, JOBS_PREFIX, deadline=clock.now() + 1)[job_key("broken")].value
        == b'{"v": 9}'
    )


def test_jobs_of_other_releases_are_let_be(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A record of a job this node does not know stays as it is."""
    both = make_job("old"), make_job("new")
    claims = node.claims(*both)
    node.tick(claims)
    clock.advance(10)
    node.tick(claims)
    node.dies()
    before = record_of(node.store, "old", clock)

    assert [claim.job for claim in other.tick(other.claims(make_job("new")))] == ["new"]
    assert record_of(node.store, "old", clock) == before


# -- clocks ------------------------------------------------------------------------------------------


def test_a_step_back_fires_nothing_twice(
    node: LedgerNode, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Until the clock is where it was nothing is due, and the log says so once a term."""
    claims = node.claims(make_job())
    node.tick(claims)
    clock.advance(30)
    run(node, *node.tick(claims))
    clock.step_wall(-20)
    claims = node.claims(make_job())

    for _ in range(4):
        assert node.tick(claims) == ()
        clock.advance(5)
    assert len([r for r in caplog.records if "ahead of this node's clock" in r.getMessage()]) == 1
    clock.advance(10)
    assert planned(node.tick(claims)) == [40]


def test_a_step_forward_catches_up_as_after_a_gap(node: LedgerNode, clock: ManualClock) -> None:
    """Once; and back again, nothing that was run then is run again."""
    claims = node.claims(make_job())
    node.tick(claims)
    clock.step_wall(3600)
    found = node.tick(claims)
    assert [claim.planned_at for claim in found] == [clock.utcnow()]
    run(node, *found)
    clock.step_wall(-3600)
    clock.advance(60)

    assert node.tick(node.claims(make_job())) == ()


def test_a_slow_clock_does_not_warn(
    node: LedgerNode, other: LedgerNode, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The clocks of two nodes are never quite alike."""
    claims = node.claims(make_job())
    node.tick(claims)
    clock.advance(10)
    run(node, *node.tick(claims))
    node.dies()
    clock.step_wall(-0.9)

    assert other.tick(other.claims(make_job())) == ()
    assert "ahead" not in caplog.text


def test_the_next_instant_is_the_earliest_that_is_due(node: LedgerNode, clock: ManualClock) -> None:
    """Known as soon as the jobs were looked at."""
    claims = node.claims(make_job("a", every=60), make_job("b", every=40))
    node.tick(claims)
    assert claims.next_instant() == clock.utcnow() + timedelta(seconds=40)
    clock.advance(40)
    node.tick(claims)

    assert claims.next_instant() == clock.utcnow() + timedelta(seconds=20)


def test_without_jobs_nothing_is_ever_due(node: LedgerNode, clock: ManualClock) -> None:
    """And nothing is written."""
    claims = node.claims()

    assert node.tick(claims) == ()
    assert claims.next_instant() is None
    assert reader(node.store, clock).jobs() == {}
