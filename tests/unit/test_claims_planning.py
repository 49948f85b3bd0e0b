"""Jobs that come and go under a leader, and ticks that look at a part of them; see `test_claims`."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from leader_jobs.exceptions import Fenced
from leader_jobs.ledger import Ledger
from leader_jobs.occurrences import Policy
from leader_jobs.records import JOBS_PREFIX, State, job_key
from leader_jobs.stores.base import Limits, Record, Write
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    WIDE,
    CountingStore,
    LedgerNode,
    Worker,
    dispatch,
    entries_of,
    make_planned,
    planned,
    reader,
    record_of,
    states,
)
from testsupport.place import ELECTION

ALL = Policy(catch_up="all")


class ReadingStore(CountingStore):
    """A store that notes what is read of jobs, and does something after a read if asked to."""

    def __init__(self, clock: ManualClock, limits: Limits = WIDE) -> None:
        super().__init__(clock, limits)
        self.reads: list[str] = []
        self.after_read: list[Callable[[], object]] = []

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return the records under *prefixes*."""
        self.reads += [prefix for prefix in prefixes if prefix.startswith(JOBS_PREFIX)]
        found = super().read(election, *prefixes, deadline=deadline)
        if self.after_read:
            self.after_read.pop()()
        return found


@pytest.fixture(name="store")
def _store(clock: ManualClock, limits: Limits) -> ReadingStore:
    return ReadingStore(clock, limits)


# -- a part of what is due ----------------------------------------------------------------------------


def test_a_tick_looks_at_so_many_jobs_at_most(node: LedgerNode, clock: ManualClock) -> None:
    """And says that there are more; the last one has nothing left."""
    claims = node.claims(*[make_planned(f"job-{n}", guarded=False) for n in range(5)])
    found = [claims.tick(clock.utcnow(), most=2) for _ in range(3)]
    assert [tick.more for tick in found] == [True, True, False]
    clock.advance(10)
    found = [claims.tick(clock.utcnow(), most=2) for _ in range(4)]

    assert [len(tick.claims) for tick in found] == [2, 2, 1, 0]
    assert [tick.more for tick in found] == [True, True, False, False]
    assert len({claim.job for tick in found for claim in tick.claims}) == 5


def test_as_many_as_are_due_are_no_more(node: LedgerNode, clock: ManualClock) -> None:
    """A full batch is not a sign of another one."""
    claims = node.claims(*[make_planned(f"job-{n}") for n in range(5)])

    assert not claims.tick(clock.utcnow(), most=5).more


def test_those_that_are_due_longest_come_first(node: LedgerNode, clock: ManualClock) -> None:
    """Whatever their order is, so that no job starves behind busier ones."""
    every = {"a": 40, "b": 30, "c": 20, "d": 10}
    claims = node.claims(*[make_planned(name, every=period) for name, period in every.items()])
    node.tick(claims)
    clock.advance(40)
    found = [claims.tick(clock.utcnow(), most=1) for _ in range(4)]

    assert [tick.claims[0].job for tick in found] == ["d", "c", "b", "a"]


def test_a_job_that_was_asked_for_does_not_overtake(node: LedgerNode, clock: ManualClock) -> None:
    """A look that was asked for just now has waited least."""
    claims = node.claims(make_planned("asked", every=3600), make_planned("due"))
    node.tick(claims)
    clock.advance(15)
    claims.look_again("asked")

    (claim,) = claims.tick(clock.utcnow(), most=1).claims
    assert claim.job == "due"


def test_a_burst_reads_the_ledger_once(
    store: ReadingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """At the beginning of a term, and when workers may have changed everything: not in each tick."""
    jobs = [make_planned(f"job-{number}") for number in range(20)]
    node.tick(node.claims(*jobs))
    claims = node.claims(*jobs)
    for expected in ([JOBS_PREFIX], [], [JOBS_PREFIX]):
        store.reads.clear()
        found = [claims.tick(clock.utcnow(), most=3) for _ in range(7)]
        assert store.reads == expected
        for tick in found:
            dispatch(node, *tick.claims)
        clock.advance(10)


def test_what_was_read_for_later_is_not_believed_when_it_is_in_doubt(
    store: ReadingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """A doubt that comes up while everything is read is about what is being read."""
    node.tick(node.claims(make_planned("one"), make_planned("two")))
    ledger = Ledger(store, ELECTION, node="x", owner="x", clock=clock)
    store.after_read = [lambda: ledger.forget(("two",))]
    ledger.load(("one", "three"))
    store.reads.clear()
    ledger.load(("two",))

    assert store.reads == [job_key("two")]


# -- other jobs ---------------------------------------------------------------------------------------


def test_jobs_may_be_replaced(node: LedgerNode, clock: ManualClock) -> None:
    """The next tick goes by the new ones: some are gone, some are new, some have changed."""
    same, gone = make_planned("same"), make_planned("gone")
    claims = node.claims(same, gone, make_planned("changed"))
    node.tick(claims)
    clock.advance(5)
    claims.plan([same, make_planned("changed", every=3), make_planned("new", every=4)])
    node.tick(claims)
    assert claims.next_instant() == clock.utcnow() + timedelta(seconds=1)
    clock.advance(5)
    found = node.tick(claims)

    assert {claim.job for claim in found} == {"same", "changed", "new"}
    assert states(node.store, "gone", clock) == []


def test_jobs_that_stay_the_same_are_not_looked_at(
    store: ReadingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """A look at the schedule every few seconds costs nothing."""
    jobs = [make_planned(f"job-{number}") for number in range(3)]
    claims = node.claims(*jobs)
    node.tick(claims)
    store.batches.clear()
    store.reads.clear()
    clock.advance(1)
    claims.plan(list(jobs))

    assert claims.tick(clock.utcnow(), most=1).more is False
    assert (store.batches, store.reads) == ([], [])
    assert claims.next_instant() == clock.utcnow() + timedelta(seconds=9)


def test_a_job_that_comes_back_goes_on_where_it_left_off(
    node: LedgerNode, clock: ManualClock
) -> None:
    """Unless it was retired: a deploy that forgot it for a minute loses nothing."""
    job = make_planned(policy=ALL)
    claims = node.claims(job)
    node.tick(claims)
    claims.plan([])
    clock.advance(25)
    assert node.tick(claims) == ()
    claims.plan([job])

    assert planned(node.tick(claims)) == [10]
    assert [entry.planned_at.second for entry in record_of(node.store, "job", clock).open] == [
        10,
        20,
    ]


def test_a_retired_job_starts_from_when_it_is_switched_on(
    node: LedgerNode, clock: ManualClock
) -> None:
    """Not from when it was switched off, and under a new leader too."""
    job = make_planned(policy=ALL)
    claims = node.claims(job)
    node.tick(claims)
    claims.plan([])
    assert claims.retire(["job", "unheard of"])
    clock.advance(25)
    claims = node.claims(job)

    assert node.tick(claims) == ()
    clock.advance(5)
    assert planned(node.tick(claims)) == [30]


def test_a_job_for_once_runs_again_when_it_is_switched_on_again(
    node: LedgerNode, clock: ManualClock
) -> None:
    """That is what people switch it on for; otherwise never, whoever leads."""
    job = make_planned(once=True, guarded=False)
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    dispatch(node, *node.tick(claims))
    clock.advance(10)
    assert node.tick(node.claims(job)) == ()

    assert claims.retire(["job"])
    claims = node.claims(job)
    assert node.tick(claims) == ()
    for expected in ([30], [], []):
        clock.advance(10)
        assert planned(node.tick(claims)) == expected


def test_what_is_claimed_of_a_retired_job_is_passed_over(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """It would be dispatched when the job is switched on again, however much later."""
    job = make_planned(policy=ALL)
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(20)
    (first,) = node.tick(claims)
    dispatch(node, first)
    node.dies()
    claims = other.claims()

    assert claims.retire(["job"])
    sent, waiting = entries_of(node.store, "job", clock)
    assert sent.state is State.DISPATCHED
    assert (waiting.state, waiting.reason) == (State.SKIPPED, "switched off")


def test_what_is_in_hand_of_a_retired_job_is_left_in_hand(
    node: LedgerNode, clock: ManualClock
) -> None:
    """Its message may be with the broker already: that is noted by who sent it."""
    claims = node.claims(make_planned())
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)

    assert claims.retire(["job"])
    assert states(node.store, "job", clock) == [State.CLAIMED]
    dispatch(node, claim)
    assert states(node.store, "job", clock) == [State.DISPATCHED]


def test_what_is_finished_is_told(
    store: ReadingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """A job for once, when it was claimed or, with workers, when its run has ended."""
    worker = Worker("w", store, clock)
    claims = node.claims(
        make_planned("sent", once=True, guarded=False),
        make_planned("run", once=True),
        make_planned("goes on"),
    )
    node.tick(claims)
    assert claims.finished() == set()
    clock.advance(10)
    found = {claim.job: claim for claim in node.tick(claims)}
    assert claims.finished() == {"sent"}
    assert claims.finished() == set()

    dispatch(node, *found.values())
    assert worker.starts(found["run"])
    assert worker.ends(found["run"])
    clock.advance(15)
    node.tick(claims)
    assert claims.finished() == {"run"}


def test_retiring_is_written_once(store: ReadingStore, node: LedgerNode) -> None:
    """Asked again, there is nothing to write."""
    claims = node.claims(make_planned("one"), make_planned("two"))
    node.tick(claims)
    store.batches.clear()

    assert claims.retire(["one", "two"])
    assert claims.retire(["one", "two"])
    assert store.batches == [2]


def test_retiring_says_if_it_is_not_recorded(
    store: ReadingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """Because a worker was quicker; asked again it is, and keeps what the worker wrote."""
    worker = Worker("w", store, clock)
    claims = node.claims(make_planned())
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    dispatch(node, claim)
    store.before = [lambda: worker.starts(claim)]

    assert not claims.retire(["job"])
    assert claims.retire(["job"])
    record = record_of(store, "job", clock)
    assert record.schedule == ""
    assert [entry.state for entry in record.open] == [State.STARTED]
    assert worker.ends(claim)
    assert states(store, "job", clock) == [State.SUCCEEDED]


def test_a_fenced_term_retires_nothing(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """It is the leader's to write."""
    claims = node.claims(make_planned())
    node.tick(claims)
    node.dies()

    with pytest.raises(Fenced):
        claims.retire(["job"])
    assert record_of(node.store, "job", clock).schedule
    assert other.tick(other.claims(make_planned())) == ()


def test_an_unreadable_record_is_not_retired(node: LedgerNode, clock: ManualClock) -> None:
    """It is left as it is, and does not keep the others."""
    claims = node.claims(make_planned("broken"), make_planned("sound"))
    node.tick(claims)
    write = Write(job_key("broken"), b'{"v": 9}')
    node.store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    claims = node.claims()

    assert claims.retire(["broken", "sound"])
    assert reader(node.store, clock).jobs()["sound"].schedule == ""


# -- where a job begins -------------------------------------------------------------------------------


def test_a_job_may_begin_before_it_is_known(node: LedgerNode, clock: ManualClock) -> None:
    """One for an instant that has passed, seen too late, is caught up on; and only by the first."""
    job = make_planned(
        every=3600, guarded=False, since=clock.utcnow() - timedelta(seconds=1), once=True
    )
    (claim,) = node.tick(node.claims(job))
    assert claim.planned_at == clock.utcnow()

    node.ledger.let_go(claim)
    assert node.tick(node.claims(job)) == (claim,)
    dispatch(node, claim)
    clock.advance(7200)
    assert node.tick(node.claims(job)) == ()


def test_the_task_of_a_job_is_recorded(node: LedgerNode, clock: ManualClock) -> None:
    """And a rename costs no occurrence."""
    node.tick(node.claims(make_planned(task="old")))
    assert record_of(node.store, "job", clock).task == "old"
    clock.advance(10)

    assert len(node.tick(node.claims(make_planned(task="new")))) == 1
    assert record_of(node.store, "job", clock).task == "new"


# -- looking again ------------------------------------------------------------------------------------


def test_a_message_nobody_took_is_sent_again_without_anything_due(
    node: LedgerNode, clock: ManualClock
) -> None:
    """The leader looks at what is open with workers every fifteen seconds."""
    claims = node.claims(make_planned(every=3600))
    node.tick(claims)
    clock.advance(3600)
    (claim,) = node.tick(claims)
    dispatch(node, claim)
    found = []
    for second in range(1, 200):
        clock.advance(1)
        for again in node.tick(claims):
            assert again.occurrence == claim.occurrence
            dispatch(node, again)
            found.append(second)

    first, second = found
    assert 60 <= first < 75
    assert 120 <= second - first < 135


def test_looking_at_all_looks_at_what_is_not_due(
    store: ReadingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """As after a step of the clock."""
    claims = node.claims(make_planned("one"), make_planned("two"))
    node.tick(claims)
    reader(store, clock).change("one", lambda record: None, None)
    claims.look_at_all()
    node.ledger.forget()
    store.reads.clear()

    assert node.tick(claims) == ()
    assert store.reads == [JOBS_PREFIX]


def test_a_job_of_other_processes_is_in_hand_until_it_is_dispatched(
    node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """What waits for a broker is not claimed again here, and comes back where it is let go of."""
    job = make_planned(policy=ALL)
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(10)
    (claim,) = node.tick(claims)
    claims.look_again("job")
    clock.advance(1)
    assert node.tick(claims) == ()
    node.dies()

    assert [c.occurrence for c in other.tick(other.claims(job))] == [claim.occurrence]
    node.stand()
    other.dies()
    node.ledger.let_go(claim)
    assert [c.occurrence for c in node.tick(node.claims(job))] == [claim.occurrence]
    assert len(entries_of(node.store, "job", clock)) == 1
