"""What a leader does about what it finds open, and about what was missed; see `test_claims` too."""

from datetime import timedelta

import pytest

from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.records import State
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    OVERLAPPING,
    CountingStore,
    LedgerNode,
    entries_of,
    make_job,
    planned,
    run,
    states,
)

# -- recovery -----------------------------------------------------------------------------------------


def test_a_claim_that_was_never_started_comes_back_under_its_own_id(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """It is one occurrence for ever, whoever starts it, however late."""
    job = make_job()
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    node.dies()
    clock.advance(3)

    (recovered,) = other.tick(other.claims(job))
    assert recovered.occurrence == claim.occurrence
    assert (recovered.sequence, recovered.attempt) == (claim.sequence, 1)
    assert recovered.token == other.candidacy.token
    run(other, recovered)
    assert states(node.store, job.name, clock) == [State.SUCCEEDED]


def test_what_was_missed_waits_behind_what_is_recovered(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A claim from long ago does not cost the job its newest occurrence."""
    job = make_job()
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    node.tick(claims)
    node.dies()
    clock.advance(33)

    assert planned(other.tick(other.claims(job))) == [10, 40]
    (passed,) = [e for e in entries_of(node.store, job.name, clock) if e.count > 1]
    assert (passed.state, passed.count) == (State.COALESCED, 2)


def started(node: LedgerNode, job: Job, clock: ManualClock) -> Claim:
    """Have *node* claim and start one occurrence of *job*."""
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    assert node.ledger.start(claim, node.term())
    return claim


def test_a_run_of_a_dead_process_is_interrupted(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """It is not repeated, and does not keep the job from running again."""
    job = make_job()
    started(node, job, clock)
    node.dies()
    claims = other.claims(job)

    assert other.tick(claims) == ()
    (entry,) = entries_of(node.store, job.name, clock)
    assert (entry.state, entry.node) == (State.INTERRUPTED, "a")
    assert "gone" in entry.reason
    clock.advance(10)
    assert planned(other.tick(claims)) == [20]


def test_a_run_of_a_dead_process_is_repeated_where_the_job_asks_for_it(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """As another attempt at the same occurrence."""
    job = make_job(rerun=True)
    claim = started(node, job, clock)
    node.dies()

    (again,) = other.tick(other.claims(job))
    assert (again.occurrence, again.attempt) == (claim.occurrence, 2)
    run(other, again)
    assert not node.ledger.start(claim, node.term())


def test_a_body_that_kills_its_process_is_not_repeated_for_ever(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """After five attempts it is closed as interrupted, and the fleet survives it."""
    job = make_job(rerun=True)
    claim = started(node, job, clock)
    attempts = [claim.attempt]
    while True:
        node.dies()
        node = LedgerNode(f"n{len(attempts)}", store, clock)
        again = [c for c in node.tick(node.claims(job)) if c.sequence == claim.sequence]
        if not again:
            break
        assert node.ledger.start(again[0], node.term())
        attempts.append(again[0].attempt)

    assert attempts == [1, 2, 3, 4, 5]
    (entry,) = [e for e in entries_of(store, job.name, clock) if e.sequence == claim.sequence]
    assert (entry.state, entry.attempt) == (State.INTERRUPTED, 5)


@pytest.mark.parametrize("rerun", [False, True])
def test_a_run_of_a_living_process_is_left_alone_and_looked_at_again(
    node: LedgerNode, other: LedgerNode, clock: ManualClock, rerun: bool
) -> None:
    """Losing the term ends no run; when the process dies after all, it is noticed in a second."""
    job = make_job(every=60, rerun=rerun)
    clock.advance(50)
    started(node, job, clock)
    node.dies()
    node.stand()
    claims = other.claims(job)

    assert other.tick(claims) == ()
    assert states(node.store, job.name, clock) == [State.STARTED]
    clock.advance(1)
    assert other.tick(claims) == ()
    node.dies()
    clock.advance(1)
    assert len(other.tick(claims)) == int(rerun)
    assert states(node.store, job.name, clock) == [State.CLAIMED if rerun else State.INTERRUPTED]


def test_a_run_that_ended_elsewhere_frees_the_job(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """Its former leader records the end without a term, and the leader sees it."""
    job = make_job(policy=Policy(catch_up="all"))
    claim = started(node, job, clock)
    node.dies()
    node.stand()
    claims = other.claims(job)
    clock.advance(10)
    assert other.tick(claims) == ()

    assert node.ledger.finish(claim, State.SUCCEEDED)
    clock.advance(1)
    assert planned(other.tick(claims)) == [20]


def test_what_is_claimed_waits_while_a_run_of_the_job_is_alive_elsewhere(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """Runs that must not overlap do not overlap across a change of leaders either."""
    job = make_job(policy=Policy(catch_up="all"))
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(20)
    first, second = node.tick(claims)
    assert node.ledger.start(first, node.term())
    node.dies()
    node.stand()
    claims = other.claims(job)

    assert other.tick(claims) == ()
    node.ledger.finish(first, State.SUCCEEDED)
    clock.advance(1)
    (recovered,) = other.tick(claims)
    assert recovered.occurrence == second.occurrence


def test_overlapping_runs_are_recovered_beside_a_living_one(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A job that may overlap has nothing to wait for."""
    job = make_job(policy=OVERLAPPING)
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(20)
    first, second = node.tick(claims)
    assert node.ledger.start(first, node.term())
    node.dies()
    node.stand()

    (recovered,) = other.tick(other.claims(job))
    assert recovered.occurrence == second.occurrence


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("was", "becomes"), [("claimed", "skipped"), ("started", "interrupted")])
def test_what_is_later_than_its_window_is_not_recovered(
    node: LedgerNode, other: LedgerNode, clock: ManualClock, late: bool, was: str, becomes: str
) -> None:
    """Neither a claim nor another attempt; up to the window both are."""
    job = make_job(every=3600, rerun=True, policy=Policy(window=30))
    clock.advance(3590)
    claim = started(node, job, clock)
    if was == "claimed":
        node.ledger.release(claim)
    node.dies()
    clock.advance(31 if late else 30)

    recovered = other.tick(other.claims(job))
    if late:
        assert recovered == ()
        assert states(node.store, job.name, clock) == [State(becomes)]
    else:
        assert [claim.attempt for claim in recovered] == [1 if was == "claimed" else 2]


def test_what_this_process_holds_is_not_recovered(node: LedgerNode, clock: ManualClock) -> None:
    """A new term of the same process leaves alone what it still works on."""
    job = make_job()
    claim = started(node, job, clock)

    claims = node.claims(job)
    assert node.tick(claims) == ()
    node.ledger.finish(claim, State.SUCCEEDED)
    node.ledger.let_go(claim)
    assert states(node.store, job.name, clock) == [State.SUCCEEDED]


def test_what_this_process_still_runs_may_be_run_again_elsewhere_meanwhile(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """It was taken for dead; the other attempt is not in its hands, and is waited for."""
    job = make_job(rerun=True, policy=Policy(catch_up="all"))
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(20)
    first, second = node.tick(claims)
    assert node.ledger.start(first, node.term())
    node.ledger.let_go(second)
    node.dies()
    again, _ = other.tick(other.claims(job))
    assert other.ledger.start(again, other.term())
    node.stand()
    other.dies()
    other.stand()
    claims = node.claims(job)

    assert node.tick(claims) == ()
    other.dies()
    clock.advance(1)
    assert [claim.attempt for claim in node.tick(claims)] == [3, 1]


def test_what_this_process_let_go_of_without_an_end_is_interrupted(
    node: LedgerNode, clock: ManualClock
) -> None:
    """Its own incarnation stands, but it knows that it runs nothing."""
    job = make_job()
    claim = started(node, job, clock)
    node.ledger.let_go(claim)

    assert node.tick(node.claims(job)) == ()
    assert states(node.store, job.name, clock) == [State.INTERRUPTED]


# -- catching up --------------------------------------------------------------------------------------


def missed(node: LedgerNode, clock: ManualClock, policy: Policy) -> tuple[Claim, ...]:
    """Know a job, do nothing for 65 s with 6 instants in it, and return what is claimed then."""
    claims = node.claims(make_job(every=10, policy=policy))
    node.tick(claims)
    clock.advance(65)
    return node.tick(claims)


def test_latest_runs_the_newest_and_records_the_others_as_coalesced(
    node: LedgerNode, clock: ManualClock
) -> None:
    """The default."""
    assert planned(missed(node, clock, Policy())) == [0]

    passed, claimed = entries_of(node.store, "job", clock)
    assert (passed.state, passed.count, passed.exact) == (State.COALESCED, 5, True)
    assert passed.first == clock.utcnow() - timedelta(seconds=55)
    assert claimed.state is State.CLAIMED


def test_all_runs_each_in_order_up_to_the_burst(node: LedgerNode, clock: ManualClock) -> None:
    """What is beyond the burst is recorded, the oldest first."""
    found = missed(node, clock, Policy(catch_up="all", max_burst=4))

    assert planned(found) == [30, 40, 50, 0]
    passed, *claimed = entries_of(node.store, "job", clock)
    assert (passed.state, passed.reason, passed.count) == (State.SKIPPED, "max_burst", 2)
    assert [entry.state for entry in claimed] == [State.CLAIMED] * 4


def test_skip_runs_none_that_was_missed(node: LedgerNode, clock: ManualClock) -> None:
    """And says how many."""
    assert missed(node, clock, Policy(catch_up="skip")) == ()

    (passed,) = entries_of(node.store, "job", clock)
    assert (passed.state, passed.reason, passed.count) == (State.SKIPPED, "skip", 6)


def test_the_window_bounds_what_is_caught_up(node: LedgerNode, clock: ManualClock) -> None:
    """What is too late is recorded as such."""
    assert planned(missed(node, clock, Policy(catch_up="all", window=20))) == [50, 0]

    passed, *_ = entries_of(node.store, "job", clock)
    assert (passed.reason, passed.count) == ("window", 4)


# -- overlap -----------------------------------------------------------------------------------------


def test_a_busy_job_passes_over_what_falls_due(node: LedgerNode, clock: ManualClock) -> None:
    """Each time it is recorded; when the run has ended, the next instant is run."""
    job = make_job()
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    node.ledger.start(claim, node.term())
    for _ in range(2):
        clock.advance(10)
        assert node.tick(claims) == ()
    node.ledger.finish(claim, State.SUCCEEDED)
    node.ledger.let_go(claim)
    clock.advance(10)

    assert planned(node.tick(claims)) == [40]
    assert [entry.reason for entry in entries_of(node.store, "job", clock)][1:3] == ["overlap"] * 2


def test_a_busy_job_that_catches_up_puts_off_what_falls_due(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """Nothing is written and nothing spins until the run has ended; then all of it is run."""
    job = make_job(policy=Policy(catch_up="all"))
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    store.batches.clear()
    for _ in range(3):
        clock.advance(10)
        assert node.tick(claims) == ()
        assert claims.next_instant() is None
    assert store.batches == []

    run(node, claim)
    assert node.tick(claims) == ()
    claims.look_again(job.name)
    assert planned(node.tick(claims)) == [20, 30, 40]


def test_a_job_that_may_overlap_is_claimed_again_and_again(
    node: LedgerNode, clock: ManualClock
) -> None:
    """Whatever is still running."""
    claims = node.claims(make_job(policy=OVERLAPPING))
    node.tick(claims)
    found = []
    for _ in range(3):
        clock.advance(10)
        found += planned(node.tick(claims))

    assert found == [10, 20, 30]


def test_bodies_that_never_end_do_not_fill_the_store(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """A hundred are open at most; when one ends the newest is run, and the store can close all."""
    job = make_job(every=1, policy=Policy(overlap=True))
    claims = node.claims(job)
    node.tick(claims)
    found: list[Claim] = []
    for _ in range(150):
        clock.advance(1)
        found += node.tick(claims)
    assert len(found) == 100
    for claim in found:
        node.ledger.start(claim, node.term())
    assert node.ledger.finish(found[0], State.SUCCEEDED)
    clock.advance(1)
    (newest,) = node.tick(claims)
    assert newest.planned_at == clock.utcnow()

    node.dies()
    recovered = other.claims(job).tick(clock.utcnow())
    assert not recovered.unsettled
    assert [claim.sequence for claim in recovered.claims] == [newest.sequence]
