"""Renewals: what a term may do after each answer, and after none."""

from collections.abc import Iterator

import pytest

from leader_jobs.exceptions import CandidacyLost, StoreError
from leader_jobs.renewal import Renewer
from leader_jobs.stores.base import Candidacy
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import EndReason, Term
from leader_jobs.testing import ManualClock

_TTL = 15.0
_VALID = 12.0


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


class Bench:
    """A renewer driven by hand, and what it announced."""

    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.announced: list[str] = []
        self.candidacy = store.enrol("e", b"", _TTL, deadline=clock.now() + 1)
        self.renewer = Renewer(
            store=store,
            candidacy=self.candidacy,
            clock=clock,
            announce_suspended=self._suspended,
            announce_resumed=self._resumed,
        )

    def _suspended(self, term: Term, error: StoreError) -> None:
        self.announced.append("suspended")

    def _resumed(self, term: Term) -> None:
        self.announced.append("resumed")


@pytest.fixture(name="bench")
def _bench(store: MemoryStore, clock: ManualClock) -> Iterator[Bench]:
    bench = Bench(store, clock)
    yield bench
    bench.renewer.stop()


def test_a_term_lasts_until_the_margin_before_the_lease(bench: Bench) -> None:
    """Of a lease of 15 s, 12 s may be used, counted from before the renewal was sent."""
    term = bench.renewer.begin_term()

    assert term.deadline == bench.clock.now() + _VALID


def test_the_deadline_counts_from_the_sending_of_the_renewal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that took three seconds leaves three seconds less."""
    term = bench.renewer.begin_term()
    before = bench.clock.now()
    answer = bench.store.renew

    def slow(candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        ttl = answer(candidacy, leading=leading, deadline=deadline)
        bench.clock.advance(2.0)
        return ttl

    monkeypatch.setattr(bench.store, "renew", slow)
    bench.clock.advance(5.0)
    bench.renewer.renew_once()

    assert term.deadline == before + 5.0 + _VALID


def test_good_renewals_keep_the_term(bench: Bench) -> None:
    """A term that is renewed in time outlives many leases."""
    term = bench.renewer.begin_term()
    for _ in range(20):
        bench.clock.advance(5.0)
        assert bench.renewer.renew_once() == pytest.approx(5.0)

    assert term.active
    assert bench.announced == []


def test_failing_renewals_suspend_and_then_end_the_term(bench: Bench) -> None:
    """In doubt nothing new starts; at the deadline the term is over although nobody answered."""
    term = bench.renewer.begin_term()
    bench.store.cut()
    bench.clock.advance(5.0)
    pause = bench.renewer.renew_once()

    assert pause < 1.0
    assert term.remaining > 0
    assert term.suspended
    assert not term.may_start

    bench.clock.advance(7.0)
    bench.renewer.renew_once()

    assert not term.active
    assert term.reason is EndReason.DEADLINE
    assert bench.renewer.over.is_set()
    assert bench.announced == ["suspended"]


def test_a_renewal_that_works_again_resumes_the_term(bench: Bench) -> None:
    """The doubt is over when a renewal worked, if that was before the deadline."""
    term = bench.renewer.begin_term()
    bench.store.cut()
    bench.clock.advance(5.0)
    bench.renewer.renew_once()
    bench.store.restore()
    bench.renewer.renew_once()

    assert term.may_start
    assert bench.announced == ["suspended", "resumed"]


def test_a_passed_deadline_is_never_extended(bench: Bench) -> None:
    """A renewal that works after the deadline, within the lease, does not bring the term back."""
    term = bench.renewer.begin_term()
    bench.clock.advance(_VALID)
    bench.renewer.renew_once()

    assert not term.active
    assert term.reason is EndReason.DEADLINE
    assert bench.renewer.over.is_set()


def test_a_revoked_lease_ends_the_term_at_once(bench: Bench) -> None:
    """Whatever the local deadline says, a store that knows us no more ends it."""
    term = bench.renewer.begin_term()
    bench.store.expire(bench.candidacy)
    bench.renewer.renew_once()

    assert not term.active
    assert term.reason is EndReason.LOST
    assert bench.renewer.over.is_set()


def test_a_term_does_not_begin_without_an_entry(bench: Bench) -> None:
    """After waiting, our own entry is looked at again before leading (etcd#21128)."""
    bench.store.expire(bench.candidacy)

    with pytest.raises(CandidacyLost):
        bench.renewer.begin_term()


def test_a_term_rests_on_a_confirmed_renewal_from_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only later renewals are confirmed by the store: the first one is, too."""
    confirmed = []
    renew = bench.store.renew

    def noting(candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        confirmed.append(leading)
        return renew(candidacy, leading=leading, deadline=deadline)

    monkeypatch.setattr(bench.store, "renew", noting)
    bench.renewer.renew_once()
    bench.renewer.begin_term()
    bench.renewer.renew_once()

    assert confirmed == [False, True, True]


def test_a_waiting_candidate_outlasts_a_store_that_is_away(bench: Bench) -> None:
    """Without a term there is nothing to lose: the place in the queue is kept if the lease lives."""
    bench.store.cut()
    bench.clock.advance(5.0)
    bench.renewer.renew_once()
    bench.store.restore()
    bench.renewer.renew_once()

    assert not bench.renewer.over.is_set()
    assert bench.announced == []


def test_a_bug_below_can_not_leave_a_term_unrenewed_in_silence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception nobody foresaw counts as a failed renewal, with its traceback in the log."""
    term = bench.renewer.begin_term()

    def broken(candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        raise RuntimeError

    monkeypatch.setattr(bench.store, "renew", broken)
    bench.renewer.renew_once()

    assert term.suspended
    assert "unexpectedly" in caplog.text


def test_a_waiting_candidate_gives_up_when_its_lease_must_be_over(bench: Bench) -> None:
    """After a whole ttl without an answer it stands anew, so that somebody hears of the trouble."""
    bench.store.cut()
    bench.clock.advance(_TTL - 1.0)
    bench.renewer.renew_once()
    assert not bench.renewer.over.is_set()
    bench.clock.advance(1.0)
    bench.renewer.renew_once()

    assert bench.renewer.over.wait(0)
