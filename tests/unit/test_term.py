"""Terms: leadership as arithmetic on process, token and clock."""

import pytest

from leader_jobs.stores.base import Candidacy
from leader_jobs.term import EndReason, Term, TermBoard, held_terms
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.forking import in_forked_child


def make_term(clock: ManualClock, *, lasts: float = 10.0, election: str = "mail") -> Term:
    """Return a term that began at this moment."""
    candidacy = Candidacy(election=election, id="a", token=7, ttl=15.0)
    return Term(candidacy=candidacy, deadline=clock.now() + lasts, clock=clock)


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="term")
def _term(clock: ManualClock) -> Term:
    return make_term(clock)


def test_it_carries_what_its_candidacy_was_granted(term: Term) -> None:
    """Election, token and ttl are those of the candidacy."""
    assert (term.election, term.token, term.ttl) == ("mail", 7, 15.0)
    assert term.candidacy.id == "a"


def test_it_is_active_until_its_deadline(clock: ManualClock, term: Term) -> None:
    """The deadline itself is already too late."""
    clock.advance(9.999)
    active, remaining = term.active, term.remaining
    clock.advance(0.001)

    assert active
    assert remaining == pytest.approx(0.001)
    assert not term.active
    assert term.remaining == 0.0


def test_a_renewal_moves_the_deadline(clock: ManualClock, term: Term) -> None:
    """A good renewal makes the term last longer."""
    clock.advance(5.0)

    assert term.extend(clock.now() + 10.0)
    clock.advance(9.0)
    assert term.active
    assert term.remaining == 1.0


def test_a_late_reply_never_shortens_it(clock: ManualClock, term: Term) -> None:
    """Of two replies out of order the better one counts."""
    deadline = term.deadline

    assert term.extend(clock.now() + 1.0)
    assert term.deadline == deadline


def test_a_passed_deadline_is_never_extended(clock: ManualClock, term: Term) -> None:
    """A reply that arrives too late does not bring the term back, seen or unseen."""
    clock.advance(10.0)

    assert not term.extend(clock.now() + 100.0)
    assert not term.active


def test_once_over_it_is_over_for_ever(term: Term) -> None:
    """Whoever once saw the term over will never see it active, even if the clock erred."""
    moments = iter([2000.0, 1000.0, 1000.0])

    class _Backwards(ManualClock):
        def now(self) -> float:
            return next(moments)

    broken = Term(candidacy=term.candidacy, deadline=1010.0, clock=_Backwards())

    assert [broken.active, broken.active] == [False, False]
    assert not broken.extend(3000.0)


def test_a_thread_that_slept_sees_it_at_once(clock: ManualClock, term: Term) -> None:
    """Nobody has to notice the end for `active` to tell it, in whatever thread."""
    assert Background(lambda: term.active).result()
    clock.advance(3600.0)

    assert not Background(lambda: term.active).result()
    assert not term.ended.is_set()


def test_a_step_of_the_wall_clock_changes_nothing(clock: ManualClock, term: Term) -> None:
    """NTP may step an hour in either direction."""
    clock.step_wall(3600)
    forward = term.remaining
    clock.step_wall(-7200)

    assert forward == term.remaining == 10.0


def test_only_the_first_end_counts(term: Term) -> None:
    """The reason that came first stays."""
    assert term.end(EndReason.RESIGNED)
    assert not term.end(EndReason.LOST)

    assert term.reason is EndReason.RESIGNED
    assert term.ended.is_set()
    assert not term.active
    assert not term.extend(1e9)


def test_the_end_of_a_lapsed_term_can_still_be_noticed(clock: ManualClock, term: Term) -> None:
    """The deadline ends the term; somebody says so later."""
    clock.advance(10.0)
    lapsed = term.active

    assert not lapsed
    assert term.end(EndReason.DEADLINE)
    assert term.reason is EndReason.DEADLINE


def test_nothing_new_starts_while_suspended(clock: ManualClock, term: Term) -> None:
    """A suspended term is active, but no work may start under it."""
    assert term.may_start
    term.suspended = True
    suspended = term.active, term.may_start
    term.suspended = False
    resumed = term.may_start
    clock.advance(10.0)

    assert suspended == (True, False)
    assert resumed
    assert not term.may_start


def test_its_repr_says_what_it_is(clock: ManualClock, term: Term) -> None:
    """Logs show token, election and state."""
    active = repr(term)
    clock.advance(10.0)
    lapsed = repr(term)
    term.end(EndReason.LOST)

    assert active == "<Term 7 of mail: active>"
    assert lapsed == "<Term 7 of mail: over (deadline)>"
    assert repr(term) == "<Term 7 of mail: over (lost)>"


def test_the_child_of_a_fork_does_not_lead(term: Term) -> None:
    """A forked worker holds a copy of the object and no leadership."""
    answer = in_forked_child(
        lambda: (term.active, term.may_start, term.remaining, term.extend(1e9))
    )

    assert answer == "(False, False, 0.0, False)"
    assert term.active


def test_the_child_of_a_fork_can_not_end_it(term: Term) -> None:
    """A dying worker does not resign for its parent."""
    assert in_forked_child(lambda: term.end(EndReason.RESIGNED)) == "False"
    assert term.active


def test_the_board_finds_the_active_term(clock: ManualClock, term: Term) -> None:
    """Each election is found by its name, as long as its term is active."""
    board, other = TermBoard(), make_term(clock, election="other", lasts=20.0)
    board.post(term)
    board.post(other)

    assert board.find("mail") is term
    assert board.find("other") is other
    assert board.find("nobody") is None
    clock.advance(10.0)
    assert board.find("mail") is None
    assert board.find("other") is other


def test_the_board_finds_the_next_term(clock: ManualClock, term: Term) -> None:
    """A new term of an election takes the place of the one that ended."""
    board = TermBoard()
    board.post(term)
    term.end(EndReason.LOST)
    following = make_term(clock)
    board.post(following)

    assert board.find("mail") is following


def test_the_board_forgets_what_is_removed(clock: ManualClock, term: Term) -> None:
    """Only the removed term goes, and removing it twice is harmless."""
    board, other = TermBoard(), make_term(clock, election="other")
    board.post(term)
    board.post(other)

    board.remove(term)
    board.remove(term)

    assert board.find("mail") is None
    assert board.find("other") is other


def test_the_process_wide_board_is_empty_after_a_fork(term: Term) -> None:
    """Code in a forked worker that asks whether it leads hears no, without any call of ours."""
    held_terms.post(term)
    try:
        here = held_terms.find("mail")
        there = in_forked_child(lambda: (held_terms.find("mail"), held_terms._terms))
    finally:
        held_terms.remove(term)

    assert here is term
    assert there == "(None, ())"
