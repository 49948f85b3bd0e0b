"""Terms lent to the children of a pool: never more than the truth, and over when the parent is."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from leader_jobs.adapters.celery_terms import SharedTerms
from leader_jobs.exceptions import NotLeader
from leader_jobs.jobs import OnStandby, leader_only
from leader_jobs.runs import Lost, assert_leader
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import EndReason, Term, held_terms
from leader_jobs.testing import ManualClock
from testsupport.forking import in_forked_child
from testsupport.processes import Diary

ELECTIONS = ("mail", "reports")


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="shared")
def _shared(clock: ManualClock) -> SharedTerms:
    return SharedTerms(ELECTIONS, clock)


def make_term(clock: ManualClock, token: int = 7, *, election: str = "reports") -> Term:
    """Return a term of ten seconds that begins now."""
    candidacy = Candidacy(election=election, id="a", token=token, ttl=15.0)
    return Term(candidacy=candidacy, deadline=clock.now() + 10.0, clock=clock)


def seen(shared: SharedTerms, election: str = "reports") -> str:
    """What a child finds: token, ttl, seconds left, and whether work may start."""

    def look() -> object:
        term = shared.find(election)
        return term and (term.token, term.ttl, term.remaining, term.may_start)

    return in_forked_child(look)


def test_a_child_sees_the_term_of_its_parent(clock: ManualClock, shared: SharedTerms) -> None:
    """Token, granted ttl and the time that is left are those of the parent's term."""
    shared.show(make_term(clock))
    clock.advance(4.0)

    assert seen(shared) == repr((7, 15.0, 6.0, True))
    assert seen(shared, "mail") == "None"
    assert seen(shared, "unknown") == "None"


def test_nothing_is_seen_before_and_after_a_term(clock: ManualClock, shared: SharedTerms) -> None:
    """A place that was never written, or was cleared, holds no term."""
    before = seen(shared)
    shared.show(make_term(clock))
    shared.clear("reports")

    assert (before, seen(shared)) == ("None", "None")


def test_the_deadline_counts_in_the_child_too(clock: ManualClock, shared: SharedTerms) -> None:
    """No message has to reach a child for a term to be over."""
    shared.show(make_term(clock))
    clock.advance(10.0)

    assert seen(shared) == "None"


def test_a_renewal_reaches_the_child(clock: ManualClock, shared: SharedTerms) -> None:
    """A term that was extended lasts longer in the child, as soon as it was copied."""
    term = make_term(clock)
    shared.show(term)
    clock.advance(5.0)
    term.extend(clock.now() + 10.0)
    stale = seen(shared)
    shared.show(term)

    assert stale == repr((7, 15.0, 5.0, True))
    assert seen(shared) == repr((7, 15.0, 10.0, True))


def test_nothing_starts_while_renewals_fail(clock: ManualClock, shared: SharedTerms) -> None:
    """A term in doubt goes on, but no work may start under it."""
    term = make_term(clock)
    term.suspended = True
    shared.show(term)

    assert seen(shared) == repr((7, 15.0, 10.0, False))


def test_a_term_that_is_over_is_never_shown(clock: ManualClock, shared: SharedTerms) -> None:
    """Showing what has just ended leaves nothing behind."""
    term = make_term(clock)
    shared.show(term)
    term.end(EndReason.LOST)
    shared.show(term)

    assert seen(shared) == "None"


@pytest.mark.parametrize("place", range(29))
def test_what_was_read_while_it_was_written_is_no_term(
    clock: ManualClock, shared: SharedTerms, place: int
) -> None:
    """Wherever a record is torn, it reads as no term."""
    shared.show(make_term(clock, election="mail"))
    shared._memory[place] ^= 0x55

    assert seen(shared, "mail") == "None"


def test_a_lost_term_stays_lost_when_the_parent_leads_again(
    clock: ManualClock, shared: SharedTerms
) -> None:
    """What began under one term is told to stop, although the next one is there at once."""

    def begin_then_be_re_elected() -> object:
        first = shared.find("reports")
        assert first is not None
        lost = Lost(first)
        before = lost.is_set()
        shared.show(make_term(clock, token=8))  # the memory is the parent's as well
        second = shared.find("reports")
        assert second is not None
        return before, lost.is_set(), second.token, Lost(second).is_set()

    shared.show(make_term(clock))

    assert in_forked_child(begin_then_be_re_elected) == repr((False, True, 8, False))


def test_an_old_copy_does_not_end_a_term_for_what_begins_later(
    clock: ManualClock, shared: SharedTerms
) -> None:
    """A child that was told late of a renewal stops what runs, and may start again."""

    def look_late() -> object:
        first = shared.find("reports")
        assert first is not None
        clock.advance(10.0)
        over = Lost(first).is_set()
        candidacy = Candidacy(election="reports", id="a", token=7, ttl=15.0)
        shared.show(Term(candidacy=candidacy, deadline=clock.now() + 5.0, clock=clock))
        second = shared.find("reports")
        return over, Lost(first).is_set(), second and second.token

    shared.show(make_term(clock))

    assert in_forked_child(look_late) == repr((True, True, 7))


def test_the_child_of_a_child_leads_nothing(clock: ManualClock, shared: SharedTerms) -> None:
    """What a task forks is not the child of the process that holds the term."""
    shared.show(make_term(clock))

    def fork_again() -> object:
        term = shared.find("reports")
        assert term is not None
        return seen(shared), in_forked_child(lambda: term.active), term.active

    assert in_forked_child(fork_again) == repr(("None", "False", True))


@pytest.fixture(name="clean_board")
def _clean_board() -> Iterator[None]:
    held_terms.forget_all()
    yield
    held_terms.forget_all()


@pytest.mark.usefixtures("clean_board")
def test_guards_work_in_a_child_as_everywhere(clock: ManualClock, shared: SharedTerms) -> None:
    """`assert_leader` and `leader_only` find what is lent through the board of terms."""

    @leader_only(election="reports", on_standby=OnStandby.RAISE)
    def body() -> str:
        return "ran"

    def in_pool() -> object:
        held_terms.borrow(shared.find)
        return assert_leader("reports"), body()

    shared.show(make_term(clock))
    ran = in_forked_child(in_pool)
    shared.clear("reports")

    assert ran == repr((7, "ran"))
    assert in_forked_child(in_pool).startswith(NotLeader.__name__)


HOLDER = textwrap.dedent("""
    import os, sys, threading
    from leader_jobs.adapters.celery_terms import SharedTerms
    from leader_jobs.clock import SystemClock
    from leader_jobs.stores.base import Candidacy
    from leader_jobs.term import Term

    clock = SystemClock()
    shared = SharedTerms(["reports"], clock)
    candidacy = Candidacy(election="reports", id="a", token=7, ttl=15.0)
    shared.show(Term(candidacy=candidacy, deadline=clock.now() + float(sys.argv[2]), clock=clock))

    def note(text):
        fd = os.open(sys.argv[1], os.O_WRONLY)
        os.write(fd, f"{text}\\n".encode())
        os.close(fd)

    if os.fork() == 0:
        term = shared.find("reports")
        note(os.getpid())
        note(term.active)
        while term.active and os.getppid():
            clock.wait(threading.Event(), 0.01)
        note(term.deadline - clock.now())
        os._exit(0)
    threading.Event().wait(30)
""")


def _hold(diary: Diary, lasts: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(diary.path), str(lasts)])


def test_a_term_dies_with_the_process_that_holds_it(tmp_path: Path) -> None:
    """A child of a killed parent is no leader, long before the deadline."""
    with Diary.opened(tmp_path / "diary") as diary:
        holder = _hold(diary, 60.0)
        diary.number()
        began = diary.line()
        holder.kill()
        holder.wait(10)

        assert began == "True"
        assert float(diary.line()) > 30.0


def test_a_frozen_parent_extends_nothing(tmp_path: Path) -> None:
    """The child of a frozen parent leads until the deadline it knows of, and no longer."""
    with Diary.opened(tmp_path / "diary") as diary:
        holder = _hold(diary, 1.0)
        diary.number()
        began = diary.line()
        holder.send_signal(signal.SIGSTOP)
        try:
            assert began == "True"
            assert -0.5 < float(diary.line(5.0)) <= 0.0
        finally:
            holder.kill()
            holder.wait(10)
