"""Candidates: elected, deposed, resigning, stopped, forked, and always honest about it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.events import (
    CampaignFailed,
    CandidateEnrolled,
    ElectionWon,
    Event,
    Suspended,
    TermEnded,
)
from leader_jobs.exceptions import NotLeader, StoreUnavailable
from leader_jobs.leaders import Leader, find_leader, watch_leader
from leader_jobs.proposals import Proposal
from leader_jobs.stores.base import Candidacy
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import EndReason, Term, held_terms
from testsupport.background import Background
from testsupport.forking import in_forked_child

_SOON = 5.0


class Diary:
    """Notes events, and lets a test wait for one of a kind."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, kind: type[Event], count: int = 1) -> Event:
        """Wait until the diary has *count* events of *kind*; return the last one."""

        def found() -> list[Event]:
            return [event for event in self.events if isinstance(event, kind)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, _SOON), self.events
            return found()[count - 1]


class Make(Protocol):
    """Makes a candidate that is stopped with the test."""

    def __call__(self, node: str, *, observer: Diary | None = None, ttl: float = 15.0) -> Candidate:
        """Return a candidate of election ``e`` that is not started yet."""
        ...


@pytest.fixture(name="store")
def _store() -> MemoryStore:
    return MemoryStore(SystemClock())


@pytest.fixture(name="make")
def _make(store: MemoryStore) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(node: str, *, observer: Diary | None = None, ttl: float = 15.0) -> Candidate:
            observers = [observer] if observer is not None else []
            candidate = Candidate("e", store=store, node=node, ttl=ttl, observers=observers)
            stack.callback(candidate.stop)
            return candidate

        yield make


def test_the_first_one_leads_and_says_so(make: Make, store: MemoryStore) -> None:
    """A lone candidate is elected, holds a term, and observers and the store show it."""
    diary = Diary()
    candidate = make("one", observer=diary)
    term = candidate.campaign(_SOON)

    assert candidate.term is term
    assert term.active
    assert held_terms.find("e") is term
    won = diary.wait_for(ElectionWon)
    assert won == ElectionWon("e", "one", term.token)
    leader = find_leader("e", store=store)
    assert leader is not None
    assert (leader.node, leader.token, leader.foreign) == ("one", term.token, False)


def test_nobody_leads_before_being_elected(make: Make) -> None:
    """Not being leader is the state one starts in."""
    candidate = make("one")

    assert candidate.term is None
    with pytest.raises(NotLeader, match="does not lead"):
        candidate.require_term()


def test_the_second_waits_until_the_first_resigns(make: Make) -> None:
    """Resigning hands over at once, with a greater token, and the term is over before that."""
    first, second = make("one"), make("two")
    term = first.campaign(_SOON)
    second.start()
    assert second.wait_for_term(0.1) is None
    first.resign()

    assert not term.active
    assert term.reason is EndReason.RESIGNED
    successor = second.wait_for_term(_SOON)
    assert successor is not None
    assert successor.token > term.token


def test_who_resigned_stands_again_behind_the_others(make: Make) -> None:
    """After a resignation the node is a standby, and is elected when its turn comes."""
    first, second = make("one"), make("two")
    first.campaign(_SOON)
    second.start()
    first.resign()
    assert second.wait_for_term(_SOON)
    second.stop()

    assert first.wait_for_term(_SOON) is not None


def test_a_revoked_lease_is_noticed_by_the_own_entry_watch(make: Make, store: MemoryStore) -> None:
    """A store that drops a living leader deposes it at once, and it stands again by itself."""
    diary = Diary()
    candidate = make("one", observer=diary)
    term = candidate.campaign(_SOON)
    store.expire(term.candidacy)

    ended = diary.wait_for(TermEnded)
    assert ended == TermEnded("e", "one", term.token, "lost")
    again = candidate.wait_for_term(_SOON)
    assert again is not None
    assert again.token > term.token


def test_a_store_that_is_away_suspends_then_ends_the_term(make: Make, store: MemoryStore) -> None:
    """The process lives on through an outage, and leads again when the store is back."""
    diary = Diary()
    candidate = make("one", observer=diary, ttl=1.5)
    term = candidate.campaign(_SOON)
    store.cut()

    assert isinstance(diary.wait_for(Suspended), Suspended)
    ended = diary.wait_for(TermEnded)
    assert ended == TermEnded("e", "one", term.token, "deadline")
    diary.wait_for(CampaignFailed)
    store.restore()
    assert candidate.wait_for_term(_SOON) is not None


def test_stop_withdraws_and_is_final(make: Make, store: MemoryStore) -> None:
    """After stop nothing of the candidate is left in the store, and nobody waits for it."""
    diary = Diary()
    candidate = make("one", observer=diary)
    candidate.start()
    waiting = [Background(lambda: list(candidate.terms())) for _ in range(2)]
    diary.wait_for(ElectionWon)
    term = candidate.require_term()
    candidate.stop()

    assert not term.active
    assert held_terms.find("e") is None
    assert find_leader("e", store=store) is None
    assert [found for each in waiting for found in each.result()] in ([], [term])


def test_stopping_a_standby_does_not_wait_for_its_turn(make: Make) -> None:
    """A standby leaves the queue at once."""
    make("one").campaign(_SOON)
    standby = make("two")
    diary = Diary()
    other = make("three", observer=diary)
    other.start()
    diary.wait_for(CandidateEnrolled)
    standby.start()
    Background(standby.stop).result(_SOON)
    Background(other.stop).result(_SOON)


def test_a_candidate_can_be_started_again(make: Make) -> None:
    """Stop and start again: a new candidacy, a new term."""
    candidate = make("one")
    first = candidate.campaign(_SOON)
    candidate.stop()
    second = candidate.campaign(_SOON)

    assert second.token > first.token


def test_campaign_gives_up_in_time(make: Make) -> None:
    """Waiting for a turn that does not come ends with `NotLeader`."""
    make("one").campaign(_SOON)

    with pytest.raises(NotLeader, match="not elected"):
        make("two").campaign(0.1)


def test_an_observer_that_fails_does_not_hurt_the_leader(store: MemoryStore) -> None:
    """Exceptions of observers go to the log and no further."""

    def broken(event: Event) -> None:
        raise RuntimeError

    with Candidate("e", store=store, node="one", observers=[broken]) as candidate:
        term = candidate.wait_for_term(_SOON)

        assert term is not None
        assert term.active


def test_verify_asks_the_store(make: Make, store: MemoryStore) -> None:
    """Verification says yes, says no without an answer, and ends a term that does not lead."""
    candidate = make("one")
    term = candidate.campaign(_SOON)
    assert candidate.verify(1.0)
    store.cut()
    assert not candidate.verify(0.2)
    assert term.remaining > 0
    store.restore()
    candidate.lose(term)

    assert not term.active
    assert not candidate.verify(1.0)


def test_the_child_of_a_fork_holds_nothing(make: Make) -> None:
    """In the child there is no term, and stopping or resigning there leaves the parent's alone."""
    candidate = make("one")
    term = candidate.campaign(_SOON)

    def child() -> tuple[bool, bool, bool]:
        candidate.resign()
        candidate.stop()
        return term.active, candidate.term is None, held_terms.find("e") is None

    assert in_forked_child(child) == repr((False, True, True))
    assert term.active
    assert candidate.term is term


def test_the_child_of_a_fork_can_stand_for_itself(make: Make) -> None:
    """Started in the child, the same object is another candidate (its store there is its own)."""
    candidate = make("one")
    parent = candidate.campaign(_SOON)

    def child() -> bool:
        return candidate.campaign(_SOON).active

    assert in_forked_child(child) == "True"
    assert parent.active


def test_several_elections_in_one_process_are_independent(store: MemoryStore) -> None:
    """A process may lead one election and be standby in another."""
    with ExitStack() as stack:

        def stand(election: str, node: str) -> Candidate:
            return stack.enter_context(Candidate(election, store=store, node=node))

        payroll = stand("payroll", "one")
        assert payroll.wait_for_term(_SOON)
        rival = stand("mail", "two")
        assert rival.wait_for_term(_SOON)
        mail = stand("mail", "one")

        assert mail.wait_for_term(0.1) is None
        assert payroll.term is not None
        assert mail.term is None


def test_a_leader_of_another_program_is_shown_not_parsed(store: MemoryStore) -> None:
    """A proposal is hostile input: shown as far as it is printable."""
    store.enrol("e", b"<script>\x00\xff" + b"x" * 5000, 30.0, deadline=SystemClock().now() + 1)
    leader = find_leader("e", store=store)

    assert leader is not None
    assert leader.foreign
    assert leader.node.startswith("<script>\N{REPLACEMENT CHARACTER}")
    assert len(leader.node) <= 200


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"null", b'{"node":"n"}', b"[" * 5000, b"\xff", b'{"pid":"x"}']
)
def test_foreign_proposals_are_told_apart(raw: bytes) -> None:
    """Whatever this library did not write is not a proposal of its."""
    assert Proposal.decode(raw) is None


def test_proposals_round_trip() -> None:
    """What a candidate says of itself can be read back."""
    proposal = Proposal.of_this_process("näme", "1.0")

    assert Proposal.decode(proposal.encode()) == proposal


def test_watch_leader_tells_of_changes(make: Make, store: MemoryStore) -> None:
    """An observer sees the leader, the successor, and nobody."""
    stop = threading.Event()
    seen: list[Leader | None] = []
    changed = threading.Condition()

    def watch() -> None:
        for leader in watch_leader("e", store=store, stop=stop):
            with changed:
                seen.append(leader)
                changed.notify_all()

    def wait_for(nodes: list[str | None]) -> None:
        def matches() -> bool:
            return [leader and leader.node for leader in seen] == nodes

        with changed:
            assert changed.wait_for(matches, _SOON), seen

    background = Background(watch)
    wait_for([None])
    first, second = make("one"), make("two")
    first.campaign(_SOON)
    wait_for([None, "one"])
    second.start()
    first.stop()
    wait_for([None, "one", "two"])
    stop.set()
    second.stop()
    background.result(15.0)


def test_each_term_is_given_out_once_and_only_while_it_is_active(
    make: Make, store: MemoryStore
) -> None:
    """A term that ended before anybody took it is not handed out."""
    diary = Diary()
    candidate = make("one", observer=diary)
    candidate.start()
    diary.wait_for(ElectionWon)
    first = candidate.term
    assert first is not None
    store.expire(first.candidacy)
    diary.wait_for(ElectionWon, 2)
    term: Term | None = candidate.wait_for_term(_SOON)

    assert term is not None
    assert term is not first
    assert candidate.wait_for_term(0.05) is None


def test_who_resigns_is_never_missing_from_the_electorate(make: Make, store: MemoryStore) -> None:
    """Bodies that still run are known to be alive by its entries, so one goes when the next is in."""
    candidate, rival = make("one"), make("two")
    candidate.campaign(_SOON)
    rival.start()
    missing = []
    withdraw = store.withdraw

    def looking(candidacy: Candidacy, *, deadline: float) -> None:
        withdraw(candidacy, deadline=deadline)
        entrants = store.candidates("e", deadline=deadline)
        living = [p.incarnation for e in entrants if (p := Proposal.decode(e.proposal))]
        missing.append(candidate.proposal.incarnation not in living)

    store.withdraw = looking  # type: ignore[method-assign]  # the moment right after is what counts
    candidate.resign()
    assert rival.wait_for_term(_SOON)
    store.withdraw = withdraw  # type: ignore[method-assign]

    assert missing == [False]


def test_an_entry_that_could_not_be_withdrawn_is_not_in_the_way_for_long(
    make: Make, store: MemoryStore
) -> None:
    """A store that was away may come back with the lease of our former candidacy in it, unharmed."""
    candidate = make("one")
    first = candidate.campaign(_SOON)
    withdraw = store.withdraw
    refused: list[Candidacy] = []

    def away_once(candidacy: Candidacy, *, deadline: float) -> None:
        if not refused:
            refused.append(candidacy)
            msg = "away"
            raise StoreUnavailable(msg)
        withdraw(candidacy, deadline=deadline)

    store.withdraw = away_once  # type: ignore[method-assign]  # as if it was gone at that moment
    candidate.resign()
    second = candidate.wait_for_term(_SOON)

    assert refused == [first.candidacy]
    assert second is not None
    assert second.token > first.token


def test_stopped_and_started_at_once_there_is_one_campaign(make: Make, store: MemoryStore) -> None:
    """A stop that does not wait, and a start right after, do not make two of the candidate."""
    candidate = make("one")
    candidate.campaign(_SOON)
    candidate.stop(timeout=0.0)
    second = candidate.campaign(_SOON)

    names = [thread.name for thread in threading.enumerate()]
    assert names.count("leader-jobs-campaign-e") == 1
    assert [e.token for e in store.candidates("e", deadline=SystemClock().now() + 1)] == [
        second.token
    ]
