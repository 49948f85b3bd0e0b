"""The run in progress: who sees it, and how it learns that its leadership is over."""

import asyncio
import contextvars
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from leader_jobs.exceptions import LeadershipLost, NotLeader
from leader_jobs.runs import Lost, Run, assert_leader, current_run, running
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import EndReason, Term, held_terms
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.forking import in_forked_child


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


def make_term(clock: ManualClock, *, election: str = "mail", token: int = 7) -> Term:
    """Return a term that lasts for ten seconds."""
    candidacy = Candidacy(election=election, id="a", token=token, ttl=15.0)
    return Term(candidacy=candidacy, deadline=clock.now() + 10.0, clock=clock)


def make_run(term: Term, job: str = "backup") -> Run:
    """Return a run under *term*."""
    return Run(
        election=term.election,
        job=job,
        occurrence="5f0c",
        planned_at=datetime(2026, 1, 1, tzinfo=UTC),
        token=term.token,
        attempt=1,
        lost=Lost(term),
    )


@pytest.fixture(name="term")
def _term(clock: ManualClock) -> Term:
    return make_term(clock)


@pytest.fixture(name="held")
def _held(clock: ManualClock) -> Iterator[Term]:
    """A term of another election, which this process holds."""
    term = make_term(clock, election="news", token=40)
    held_terms.post(term)
    yield term
    held_terms.remove(term)


# -- the current run ----------------------------------------------------------------------------------


def test_there_is_a_current_run_within_the_block_only(term: Term) -> None:
    """Runs nest, as when a job calls another one, and an exception ends one as well."""
    outer, inner = make_run(term), make_run(term, "mailing")
    assert current_run() is None
    with running(outer):
        with suppress(ZeroDivisionError), running(inner):
            assert current_run() is inner
            raise ZeroDivisionError
        assert current_run() is outer
    assert current_run() is None


def test_another_thread_is_no_part_of_the_run(term: Term) -> None:
    """Unless it is started in a copy of the run's context, as `asyncio.to_thread` does."""
    with running(make_run(term)) as run:
        context = contextvars.copy_context()
        assert Background(current_run).result() is None
        assert Background(lambda: context.run(current_run)).result() is run


def test_tasks_have_runs_of_their_own(term: Term) -> None:
    """Two coroutines that take turns on one thread each see theirs, and so do their threads."""
    first, second = make_run(term, "first"), make_run(term, "second")

    async def body(run: Run, turn: asyncio.Barrier) -> list[Run | None]:
        with running(run):
            await turn.wait()
            seen = [current_run(), await asyncio.to_thread(current_run)]
            await turn.wait()
            return seen

    async def both() -> list[list[Run | None]]:
        turn = asyncio.Barrier(2)
        return list(await asyncio.gather(body(first, turn), body(second, turn)))

    assert asyncio.run(both()) == [[first, first], [second, second]]


# -- assert_leader ------------------------------------------------------------------------------------


def test_a_run_may_ask_about_another_election(term: Term, held: Term) -> None:
    """Then it is this process that has to lead; the run proves nothing there."""
    with running(make_run(term)):
        assert assert_leader() == assert_leader("mail") == term.token
        assert assert_leader("news") == held.token
        with pytest.raises(NotLeader, match="does not lead election 'sport'"):
            assert_leader("sport")


@pytest.mark.parametrize("election", [None, "mail"])
def test_a_run_that_is_lost_is_told_so(term: Term, election: str | None) -> None:
    """Even if the process leads the election again: the run belongs to the former term."""
    later = make_term(ManualClock(), token=8)
    held_terms.post(later)
    try:
        with running(make_run(term)):
            term.end(EndReason.LOST)
            with pytest.raises(LeadershipLost, match="term 7 of election 'mail' is over"):
                assert_leader(election)
        assert assert_leader("mail") == later.token
    finally:
        held_terms.remove(later)


def test_a_held_term_that_has_lapsed_is_none(clock: ManualClock, held: Term) -> None:
    """Nobody has to notice the deadline for it to count."""
    assert assert_leader("news") == held.token
    clock.advance(10.0)

    with pytest.raises(NotLeader, match="does not lead election 'news'"):
        assert_leader("news")


def test_the_child_of_a_fork_does_not_act(term: Term, held: Term) -> None:
    """It copies the run and the process's terms, and leads by neither."""
    with running(make_run(term)):
        assert "LeadershipLost" in in_forked_child(assert_leader)
        assert "NotLeader" in in_forked_child(lambda: assert_leader("news"))
        assert in_forked_child(Lost(term).is_set) == "True"
        assert assert_leader() == term.token


# -- Lost ---------------------------------------------------------------------------------------------


def test_lost_is_the_terms_end_whether_or_not_it_was_noticed(clock: ManualClock) -> None:
    """Set by arithmetic at the deadline, or when somebody ends the term before."""
    lapsing, ending = make_term(clock), make_term(clock)
    assert not Lost(lapsing).is_set()
    ending.end(EndReason.RESIGNED)

    assert Lost(ending).is_set()
    clock.advance(9.999)
    assert not Lost(lapsing).is_set()
    clock.advance(0.001)
    assert Lost(lapsing).is_set()
    assert not lapsing.ended.is_set()


def test_a_wait_ends_with_the_term(term: Term) -> None:
    """A body that waits between two steps is woken by the end of its term."""
    waiting = Background(Lost(term).wait)
    assert not waiting.over(0.05)
    term.end(EndReason.LOST)

    assert waiting.result() is True


def test_a_wait_ends_at_a_deadline_that_passes_unnoticed(clock: ManualClock, term: Term) -> None:
    """No event is set then, so the wait looks at the clock now and then."""
    waiting = Background(lambda: Lost(term).wait(60.0))
    assert not waiting.over(0.05)
    clock.advance(10.0)

    assert waiting.result(within=5.0) is True
    assert not term.ended.is_set()


def test_a_wait_goes_on_when_the_term_is_renewed(clock: ManualClock, term: Term) -> None:
    """The deadline it waits for is the one that counts, not the one it began with."""
    waiting = Background(lambda: Lost(term).wait(60.0))
    assert term.extend(clock.now() + 20.0)
    clock.advance(15.0)

    assert not waiting.over(0.5)
    clock.advance(5.0)
    assert waiting.result(within=5.0) is True


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.3])
def test_a_wait_that_times_out_says_false(term: Term, timeout: float) -> None:
    """The leadership still stands; the body may go on."""
    assert Background(lambda: Lost(term).wait(timeout)).result(within=5.0) is False
