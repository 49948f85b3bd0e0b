"""The log of runs: many starts and ends in one transaction, and none lost while the store is away."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

import pytest

from leader_jobs.exceptions import StoreRefused
from leader_jobs.ledger import Claim
from leader_jobs.records import State
from leader_jobs.runlog import RunLog
from leader_jobs.stores.base import Limits
from leader_jobs.term import EndReason, Term
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    OVERLAPPING,
    WIDE,
    CountingStore,
    LedgerNode,
    make_job,
    passing,
    record_of,
    states,
)

LONG = 10.0


class Stage:
    """A log of a node that leads, with claims of some jobs."""

    def __init__(self, node: LedgerNode, store: CountingStore, clock: ManualClock) -> None:
        self.node, self.store, self.clock = node, store, clock
        self.term = node.term()
        self.fenced: list[Term] = []
        self.log = RunLog(node.ledger, clock=clock, fenced=self._is_fenced)

    def _is_fenced(self, term: Term) -> None:
        self.fenced.append(term)
        term.end(EndReason.LOST)

    def claimed(self, *names: str, count: int = 1) -> list[Claim]:
        """Claim so many occurrences of each of the jobs *names*."""
        claims = self.node.claims(*(make_job(name, policy=OVERLAPPING) for name in names))
        self.node.tick(claims)
        self.clock.advance(10 * count)
        found = list(self.node.tick(claims))
        assert len(found) == len(names) * count
        self.store.batches.clear()
        return found

    def together(self, *entries: Callable[[], "Future[bool | None]"]) -> list[bool | None]:
        """Have *entries* wait while another one is being recorded, so that they go together."""
        hold, held = threading.Event(), threading.Event()

        def wait() -> None:
            held.set()
            assert hold.wait(LONG)

        (first,) = self.claimed("first")
        self.store.before.append(wait)
        told = [self.log.start(first, self.term)]
        assert held.wait(LONG)
        told.extend(entry() for entry in entries)
        hold.set()
        answers = [each.result(LONG) for each in told]
        assert answers.pop(0) is True
        return answers

    def states(self, job: str) -> list[State]:
        """Return what became of the occurrences of a job."""
        return states(self.store, job, self.clock)


@pytest.fixture(name="stage")
def _stage(node: LedgerNode, store: CountingStore, clock: ManualClock) -> Iterator[Stage]:
    stage = Stage(node, store, clock)
    yield stage
    store.restore()
    stage.log.close()
    with passing(clock):
        thread = stage.log._thread
        if thread is not None:
            thread.join(LONG)
            assert not thread.is_alive()


def test_starts_that_wait_are_recorded_in_one_transaction(stage: Stage) -> None:
    """A burst costs a transaction for each round, not for each body."""
    claims = stage.claimed("a", "b", "c", count=2)
    answers = stage.together(*(lambda c=c: stage.log.start(c, stage.term) for c in claims))
    assert answers == [True] * 6
    assert stage.store.batches == [1, 3]  # the first one, and all that came meanwhile
    assert all(stage.states(name) == [State.STARTED] * 2 for name in "abc")


def test_starts_and_ends_go_together(stage: Stage) -> None:
    """What ends rides with what starts, also if both are of one job."""
    one, two = stage.claimed("a", count=2)
    assert stage.log.start(one, stage.term).result(LONG)
    (three,) = stage.claimed("b")
    answers = stage.together(
        lambda: stage.log.finish(one, State.FAILED, "why"),
        lambda: stage.log.start(two, stage.term),
        lambda: stage.log.skip(three, stage.term, "late"),
    )
    assert answers == [True] * 3
    assert stage.states("a") == [State.FAILED, State.STARTED]
    assert stage.states("b") == [State.SKIPPED]


@pytest.mark.parametrize("limits", [Limits(guards=2, writes=8, size=100_000)])
def test_a_burst_beyond_the_limits_is_split(stage: Stage, limits: Limits) -> None:
    """Each transaction carries what the store allows."""
    names = [f"j{number}" for number in range(7)]
    claims = stage.claimed(*names)
    answers = stage.together(*(lambda c=c: stage.log.start(c, stage.term) for c in claims))
    assert answers == [True] * 7
    assert limits != WIDE
    assert max(stage.store.batches) == 2


def test_a_record_that_moved_on_does_not_hold_up_the_others(
    stage: Stage, other: LedgerNode
) -> None:
    """Its change is made again on what it has become."""
    one, two = stage.claimed("a", count=2)
    (three,) = stage.claimed("b")

    def start_as_it_changes() -> "Future[bool | None]":
        stage.store.before.append(lambda: other.ledger.release(two))
        return stage.log.start(one, stage.term)

    answers = stage.together(start_as_it_changes, lambda: stage.log.start(three, stage.term))
    assert answers == [True, True]
    assert stage.states("a") == [State.STARTED, State.CLAIMED]
    assert stage.store.batches == [
        1,
        1,
        1,
        1,
    ]  # the first one, the other's, what is left, and again


def test_a_start_that_is_not_ours_is_answered_with_false(stage: Stage, node: LedgerNode) -> None:
    """Somebody closed it before."""
    (claim,) = stage.claimed("a")
    assert node.ledger.start(claim, stage.term)
    assert node.ledger.finish(claim, State.SUCCEEDED)
    assert stage.log.start(claim, stage.term).result(LONG) is False
    assert stage.log.finish(claim, State.FAILED).result(LONG) is False
    assert stage.states("a") == [State.SUCCEEDED]


def test_a_start_under_a_term_that_was_succeeded_is_refused(
    stage: Stage, node: LedgerNode, other: LedgerNode
) -> None:
    """The store says so, the owner is told, and the answer is None: whoever leads shall start it."""
    claims = stage.claimed("a", "b")
    node.dies()
    answers = [stage.log.start(claim, stage.term) for claim in claims]
    with passing(stage.clock):
        assert [each.result(LONG) for each in answers] == [None, None]
    assert stage.fenced[0] is stage.term
    assert stage.states("a") == [State.CLAIMED]
    assert other.ledger.start(claims[0], other.term())


def test_an_end_is_recorded_after_the_term(
    stage: Stage, node: LedgerNode, other: LedgerNode
) -> None:
    """It did happen, whoever leads now; starts beside it are refused."""
    one, two = stage.claimed("a", count=2)
    assert stage.log.start(one, stage.term).result(LONG)
    node.dies()
    told = stage.log.start(two, stage.term), stage.log.finish(one, State.SUCCEEDED)
    with passing(stage.clock):
        assert [each.result(LONG) for each in told] == [None, True]
    assert stage.states("a") == [State.SUCCEEDED, State.CLAIMED]
    assert other.term().active


def test_a_start_waits_for_the_store_as_long_as_the_term_lasts(stage: Stage) -> None:
    """It is answered once the store is back."""
    (claim,) = stage.claimed("a")
    stage.store.cut()
    told = stage.log.start(claim, stage.term)
    with passing(stage.clock):
        assert not threading.Event().wait(0.1)
        assert not told.done()
        stage.store.restore()
        assert told.result(LONG) is True


def test_a_start_whose_term_ends_while_the_store_is_away_is_answered_with_none(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not known whether it was recorded; the trouble is logged once."""
    (claim,) = stage.claimed("a")
    stage.term = stage.node.term(lasts=5.0)
    stage.store.cut()
    told = stage.log.start(claim, stage.term)
    with passing(stage.clock):
        assert told.result(LONG) is None
    assert caplog.text.count("its record is behind") == 1


def test_a_lost_reply_is_looked_up(stage: Stage) -> None:
    """A start that was recorded is ours, though the store's answer was lost."""
    (claim,) = stage.claimed("a")
    stage.store.lose_reply("commit")
    with passing(stage.clock):
        assert stage.log.start(claim, stage.term).result(LONG) is True
    stage.store.lose_reply("commit")
    told = stage.log.finish(claim, State.SUCCEEDED)
    with passing(stage.clock):
        assert told.result(LONG) is True
    assert stage.states("a") == [State.SUCCEEDED]


def test_ends_and_returns_are_insisted_on(stage: Stage) -> None:
    """They are recorded when the store is back, also if no term is left."""
    one, two, three = stage.claimed("a", count=3)
    for claim in (one, two):
        assert stage.log.start(claim, stage.term).result(LONG)
    stage.term.end(EndReason.LOST)
    stage.store.cut()
    told = [
        stage.log.finish(one, State.SUCCEEDED),
        stage.log.release(two, again=True),
        stage.log.release(three),
    ]
    with passing(stage.clock):
        assert not threading.Event().wait(0.1)
        assert not any(each.done() for each in told)
        stage.store.restore()
        assert [each.result(LONG) for each in told] == [True, True, True]
    assert stage.states("a") == [State.SUCCEEDED, State.CLAIMED, State.CLAIMED]
    assert [e.attempt for e in record_of(stage.store, "a", stage.clock).open] == [2, 1]


def test_a_start_is_refused_once_its_claim_was_handed_back(stage: Stage) -> None:
    """However late the store gets to see it."""
    (claim,) = stage.claimed("a")
    (version,) = {
        found.version for found in stage.store.read("mail", "jobs/", deadline=1e9).values()
    }
    assert stage.log.release(claim).result(LONG) is True
    (after,) = {found.version for found in stage.store.read("mail", "jobs/", deadline=1e9).values()}
    assert after > version


def test_a_start_that_waits_is_recorded_before_its_claim_is_handed_back(stage: Stage) -> None:
    """In the order that they were asked for: else the claim would look started for ever."""
    (claim,) = stage.claimed("a")
    stage.term.suspended = True
    told = stage.log.start(claim, stage.term), stage.log.release(claim)
    with passing(stage.clock):
        assert not threading.Event().wait(0.1)
        assert not any(each.done() for each in told)
        stage.term.suspended = False
        assert [each.result(LONG) for each in told] == [True, True]
    assert stage.states("a") == [State.CLAIMED]


def test_what_the_store_refuses_for_good_is_reported(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record's trouble does not keep the others from being recorded, nor end the thread."""
    one, two = stage.claimed("a", "b")

    def refuse(*_: object, **__: object) -> bool:
        msg = "a defect"
        raise RuntimeError(msg)

    monkeypatch.setattr(stage.node.ledger, "start", refuse)
    assert stage.log.start(one, stage.term).result(LONG) is False
    assert "job a: what it did can not be recorded: a defect" in caplog.text
    monkeypatch.undo()
    assert stage.log.start(two, stage.term).result(LONG) is True


def test_what_waits_for_an_answer_can_not_be_cancelled(stage: Stage) -> None:
    """A task that is cancelled leaves the record to be told, and the thread alive."""
    one, two = stage.claimed("a", "b")
    stage.store.cut()
    told = stage.log.start(one, stage.term)
    assert not told.cancel()
    stage.store.restore()
    with passing(stage.clock):
        assert told.result(LONG) is True
        assert stage.log.start(two, stage.term).result(LONG) is True


def test_flush_waits_until_nothing_is_left(stage: Stage) -> None:
    """Or says that something is."""
    (claim,) = stage.claimed("a")
    assert stage.log.flush(0.0)
    stage.store.cut()
    told = stage.log.start(claim, stage.term)
    with passing(stage.clock):
        assert not stage.log.flush(1.0)
        stage.store.restore()
        assert stage.log.flush(LONG * 100)
    assert told.result(0) is True


def test_after_close_everybody_is_told_none(stage: Stage) -> None:
    """No body waits for ever; what is left is for the next leader to find."""
    one, two = stage.claimed("a", count=2)
    assert stage.log.start(one, stage.term).result(LONG)
    stage.store.cut()
    told = [stage.log.finish(one, State.SUCCEEDED), stage.log.start(two, stage.term)]
    stage.log.close()
    told.append(stage.log.release(two))
    with passing(stage.clock):
        assert [each.result(LONG) for each in told] == [None, None, None]


def test_a_closed_log_starts_no_thread(stage: Stage) -> None:
    """It was never used, and tells None at once."""
    (claim,) = stage.claimed("a")
    stage.log.close()
    assert stage.log.start(claim, stage.term).result(0) is None
    assert stage.log._thread is None


def test_a_store_that_refuses_a_batch_is_asked_one_by_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be recorded is."""
    claims = stage.claimed("a", "b")
    refused: list[StoreRefused] = []
    load = stage.node.ledger.load

    def refuse(names: Iterable[str]) -> object:
        names = tuple(names)
        if len(names) > 1 and not refused:
            refused.append(StoreRefused("too much"))
            raise refused[0]
        return load(names)

    monkeypatch.setattr(stage.node.ledger, "load", refuse)
    answers = stage.together(*(lambda c=c: stage.log.start(c, stage.term) for c in claims))
    assert (answers, len(refused)) == ([True, True], 1)
