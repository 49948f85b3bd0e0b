"""The leader's steward: orders are obeyed, answered and acknowledged, and terms are logged."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.control import Control
from leader_jobs.orders import Answer, Refusal
from leader_jobs.proposals import Proposal
from leader_jobs.standing import place_of
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import Term
from leader_jobs.terms import GONE, TERMS_PREFIX, TermRecord, read_terms
from leader_jobs.vitals import Place, vitals

ELECTION = "steered"
WITHIN = 5.0
clock = SystemClock()


@pytest.fixture
def store() -> MemoryStore:
    """A store of the test's own."""
    return MemoryStore(clock)


class Fleet:
    """Places of several nodes on one store."""

    def __init__(self, store: MemoryStore, stack: ExitStack) -> None:
        self.store = store
        self._stack = stack

    def place(self, node: str, ttl: float = 15.0) -> Place:
        """Have a node stand, and return its place once it does."""
        settings = Settings(store="memory://", election=ELECTION, node=node, ttl=ttl)
        place = place_of(settings, ELECTION, store=self.store, clock=clock)
        self._stack.enter_context(place.candidate)
        while place.candidate.candidacy is None:
            self.store.wait_for_change(ELECTION, timeout=0.05)
        return place

    def candidates(self) -> list[int]:
        """Return the tokens of the candidates, in order."""
        found = self.store.candidates(ELECTION, deadline=clock.now() + WITHIN)
        return [entrant.token for entrant in found]

    def terms(self) -> list[TermRecord]:
        """Return the log of terms."""
        rows = self.store.read(ELECTION, TERMS_PREFIX, deadline=clock.now() + WITHIN)
        return [record for record, _ in read_terms(rows)]


@pytest.fixture
def fleet(store: MemoryStore) -> Iterator[Fleet]:
    """Nodes that are stopped when the test ends."""
    with ExitStack() as stack:
        yield Fleet(store, stack)


@pytest.fixture
def control(store: MemoryStore) -> Control:
    """An operator called ada."""
    return Control(store, ELECTION, by="ada", clock=clock)


def lead(place: Place) -> Term:
    """Wait until a place leads."""
    term = place.candidate.wait_for_term(WITHIN)
    assert term is not None
    return term


def test_a_pause_is_heard_and_holds_through_successions(fleet: Fleet, control: Control) -> None:
    """The leader acknowledges it, and the next leader goes by it from its first look."""
    one = fleet.place("one")
    lead(one)
    two = fleet.place("two")
    receipt = control.wait_heard(control.pause(reason="upgrade"), within=WITHIN)
    assert receipt is not None
    assert receipt.node == "one"
    assert one.orders.is_paused()

    one.candidate.stop()
    lead(two)
    with two.orders.held() as orders:
        pause = orders.pause_of(None, clock.utcnow())
    assert pause is not None
    assert (pause.by, pause.reason) == ("ada", "upgrade")

    assert control.wait_heard(control.resume(), within=WITHIN) is not None
    assert not two.orders.is_paused()


def test_a_pause_ends_by_itself(fleet: Fleet, control: Control) -> None:
    """At the instant it was given, without anybody writing anything."""
    one = fleet.place("one")
    lead(one)
    until = clock.utcnow() + timedelta(seconds=0.3)
    control.wait_heard(control.pause(until=until), within=WITHIN)
    assert one.orders.is_paused()
    while clock.utcnow() < until:
        one.orders.known.next_end(clock.utcnow())
    assert not one.orders.is_paused()
    with pytest.raises(Refusal, match="is not paused"):
        control.resume()


def test_the_leader_resigns_when_asked(fleet: Fleet, control: Control) -> None:
    """And the next in line leads; a request that comes for a former term is refused."""
    one = fleet.place("one")
    term = lead(one)
    two = fleet.place("two")
    request = control.wait_answer(control.resign(), within=WITHIN)
    assert request.answer is Answer.OBEYED
    assert request.answered_by == "one"
    assert lead(two).token > term.token
    assert not term.active


@pytest.mark.parametrize("by_label", [True, False])
def test_leadership_is_handed_over_past_others(
    fleet: Fleet, control: Control, *, by_label: bool
) -> None:
    """Those ahead of the heir step back behind it, and everybody stands on."""
    one = fleet.place("one")
    lead(one)
    two, three, four = fleet.place("two"), fleet.place("three"), fleet.place("four")
    assert four.candidate.candidacy is not None
    heir = "four" if by_label else four.candidate.candidacy.id
    request = control.wait_answer(control.transfer(heir), within=WITHIN)
    assert request.answer is Answer.OBEYED

    assert lead(four).active
    assert [place.candidate.term for place in (one, two, three)] == [None, None, None]
    while len(fleet.candidates()) < 4:
        fleet.store.wait_for_change(ELECTION, timeout=0.05)
    # The order is used up: whoever leads after that, leads.
    four.candidate.stop()
    successor = fleet.candidates()[0]
    while not any(
        place.candidate.term is not None and place.candidate.term.token == successor
        for place in (one, two, three)
    ):
        fleet.store.wait_for_change(ELECTION, timeout=0.05)


def test_an_heir_that_is_gone_binds_nobody(fleet: Fleet, control: Control) -> None:
    """If it withdraws after the leader resigned for it, the next in line leads."""
    one = fleet.place("one")
    lead(one)
    two, three = fleet.place("two"), fleet.place("three")
    # The heir dies just after the leader has obeyed: its candidacy goes without a word.
    assert three.candidate.candidacy is not None
    request = control.transfer("three")
    fleet.store.expire(three.candidate.candidacy)
    control.wait_answer(request, within=WITHIN)
    three.candidate.stop()
    assert any(
        place.candidate.wait_for_term(1.0) is not None or place.candidate.term is not None
        for place in (two, one)
    )


def test_what_makes_no_sense_is_refused_in_a_sentence(
    fleet: Fleet, control: Control, store: MemoryStore
) -> None:
    """Before anything is written, where it can be known."""
    with pytest.raises(Refusal, match="nobody leads election 'steered'"):
        control.resign()
    lead(fleet.place("one"))
    with pytest.raises(Refusal, match="'one' leads already"):
        control.transfer("one")
    with pytest.raises(Refusal, match="no candidate 'tow' stands"):
        control.transfer("tow")
    with pytest.raises(Refusal, match="election 'steered' has no job 'tidy'"):
        control.run_now("tidy")
    with pytest.raises(Refusal, match="is past"):
        control.pause(until=datetime(2020, 1, 1, tzinfo=UTC))
    store.enrol(ELECTION, b"<script>", 60.0, deadline=clock.now() + WITHIN)
    with pytest.raises(Refusal, match="'<script>' is of another program"):
        control.transfer("<script>")


def test_an_heir_that_does_not_renew_its_lease_is_refused(
    fleet: Fleet, control: Control, store: MemoryStore
) -> None:
    """It may be frozen: everybody would step back for a candidate that does nothing."""
    lead(fleet.place("one"))
    proposal = Proposal.of_this_process("stiff", "0").encode()
    store.enrol(ELECTION, proposal, 1.0, deadline=clock.now() + WITHIN)
    clock.wait(threading.Event(), 0.6)
    with pytest.raises(Refusal, match=r"'stiff' has not renewed its lease for 0\.\d s"):
        control.transfer("stiff")


def test_a_foreign_leader_is_said_not_to_obey(control: Control, store: MemoryStore) -> None:
    """Nobody waits for an answer that never comes."""
    store.enrol(ELECTION, b"etcdctl", 60.0, deadline=clock.now() + WITHIN)
    for ask in (control.resign, lambda: control.transfer("etcdctl")):
        with pytest.raises(Refusal, match="'etcdctl', is of another program and obeys no orders"):
            ask()


def test_terms_are_logged_with_their_ends(fleet: Fleet) -> None:
    """Those of a leader that resigned by its own word, that of one that vanished by its successor's."""
    one = fleet.place("one")
    first = lead(one)
    two = fleet.place("two")
    while not fleet.terms():
        fleet.store.wait_for_change(ELECTION, timeout=0.05)
    one.candidate.stop()
    second = lead(two)
    three = fleet.place("three")
    while len(fleet.terms()) < 2:
        fleet.store.wait_for_change(ELECTION, timeout=0.05)
    # As a process that is killed: nothing of it writes anything any more.
    assert two.candidate.candidacy is not None
    fleet.store.cut(two.candidate.candidacy.id)
    fleet.store.expire(two.candidate.candidacy)
    third = lead(three)
    while len(fleet.terms()) < 3:
        fleet.store.wait_for_change(ELECTION, timeout=0.05)
    terms = fleet.terms()
    assert [(t.token, t.node) for t in terms] == [
        (first.token, "one"),
        (second.token, "two"),
        (third.token, "three"),
    ]
    assert terms[0].reason == "resigned"
    assert terms[1].took is not None
    assert terms[1].took < 1.0
    assert terms[1].reason in (GONE, "lost")
    assert terms[2].ended_at is None


def test_probes_see_the_places_that_stand(fleet: Fleet) -> None:
    """From when their candidates stand until they are stopped."""
    one = fleet.place("one")
    assert one in vitals.places()
    one.candidate.stop()
    assert one not in vitals.places()
