"""A presence shows that a process lives, and nothing more."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.exceptions import ConfigurationError, StoreUnavailable
from leader_jobs.ledger import Ledger
from leader_jobs.names import runners_of
from leader_jobs.presence import Presence
from leader_jobs.runs import Lost
from leader_jobs.stores.base import Candidacy, Entrant, Store
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.stores.sqlite import SqliteStore
from leader_jobs.term import EndReason
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.forking import in_forked_child
from testsupport.ledgers import passing
from testsupport.place import ELECTION

TTL: Final = 10.0


@pytest.fixture(name="presence")
def _presence(store: MemoryStore, clock: ManualClock) -> Iterator[Presence]:
    presence = make(store, clock)
    yield presence
    store.restore()
    with passing(clock):
        presence.stop()


def make(store: Store, clock: Clock, ttl: float = TTL) -> Presence:
    """Return a presence of this process."""
    return Presence(ELECTION, store=store, node="a", version="0", ttl=ttl, clock=clock)


def living(store: Store, clock: Clock) -> frozenset[str]:
    """Return who is alive, as a leader would ask."""
    return Ledger(store, ELECTION, node="b", owner="b", clock=clock).living()


def entrants(store: MemoryStore, clock: Clock) -> tuple[Entrant, ...]:
    """Return who stands in the electorate of those who run jobs."""
    return store.candidates(runners_of(ELECTION), deadline=clock.now() + 1)


def expire(store: MemoryStore, clock: Clock) -> None:
    """End every lease in that electorate."""
    for entrant in entrants(store, clock):
        store.expire(Candidacy(runners_of(ELECTION), entrant.id, entrant.token, TTL))


def wait(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    clock = SystemClock()
    limit = clock.now() + 10
    while not condition():
        assert clock.now() < limit, "it never came true"
        clock.wait(threading.Event(), 0.005)


def test_nothing_is_shown_before_the_first_run(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """Neither a thread nor a lease comes with the object."""
    before = threading.active_count()

    assert presence.incarnation
    assert threading.active_count() == before
    assert entrants(store, clock) == ()


def test_it_is_alive_from_the_first_run_on(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """Under its incarnation, until the deadline of the term for certain."""
    term = presence.begin(1.0)

    assert living(store, clock) == {presence.incarnation}
    assert term.active
    assert term.remaining == pytest.approx(8.0)
    assert presence.begin(0.0) is term


def test_it_never_leads(presence: Presence, store: MemoryStore, clock: ManualClock) -> None:
    """It stands in an electorate of its own, whose name no election can have."""
    presence.begin(1.0)

    assert store.candidates(ELECTION, deadline=clock.now() + 1) == ()
    with pytest.raises(ConfigurationError, match="kept for workers"):
        Presence(runners_of(ELECTION), store=store, node="a", version="0", ttl=TTL, clock=clock)


def test_many_threads_share_one_lease(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """Whoever comes first begins it."""
    begun = [Background(lambda: presence.begin(5.0)) for _ in range(8)]

    assert len({id(one.result()) for one in begun}) == 1
    assert len(entrants(store, clock)) == 1


def test_it_is_renewed(presence: Presence, store: MemoryStore, clock: ManualClock) -> None:
    """For as long as the process lives."""
    term = presence.begin(1.0)
    with passing(clock):
        wait(lambda: clock.now() > 1000 + 5 * TTL)

    assert term.active
    assert living(store, clock) == {presence.incarnation}


def test_a_store_that_is_away_is_waited_for(
    presence: Presence, store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for ever; it says what the matter is, once, and begins when the store is back."""
    caplog.set_level("DEBUG")
    store.cut()
    with passing(clock), pytest.raises(StoreUnavailable, match=r"after 3 s: enrol: .* cut off"):
        presence.begin(3.0)
    assert [r.levelname for r in caplog.records].count("WARNING") == 1
    store.restore()

    with passing(clock):
        assert presence.begin(30.0).active


def test_a_lapsed_lease_is_lost_and_followed_by_another(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """What was started under the former is told; the incarnation stays that of the process."""
    former = presence.begin(1.0)
    lost = Lost(former)
    expire(store, clock)
    assert living(store, clock) == frozenset()

    with passing(clock):
        wait(former.ended.is_set)
        later = presence.begin(30.0)

    assert lost.is_set()
    assert former.reason is EndReason.LOST
    assert later.active
    assert living(store, clock) == {presence.incarnation}
    assert len(entrants(store, clock)) == 1


def test_a_lease_in_doubt_is_withdrawn_when_another_stands(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """The term ends before the lease does; nothing is left behind, and there is no gap."""
    former = presence.begin(1.0)
    ends = clock.now() + TTL
    store.cut()
    creep(clock, former.ended.is_set)
    store.restore()
    creep(clock, lambda: [e.id for e in entrants(store, clock)] != [former.candidacy.id])

    creep(clock, lambda: len(entrants(store, clock)) == 1)
    assert clock.now() < ends
    assert living(store, clock) == {presence.incarnation}


def creep(clock: ManualClock, condition: Callable[[], object]) -> None:
    """Let time pass slowly until *condition* holds."""
    real = SystemClock()
    limit = real.now() + 15
    while not condition():
        assert real.now() < limit, "it never came true"
        clock.advance(0.02)
        real.wait(threading.Event(), 0.002)


def test_nothing_begins_while_renewals_fail(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """Although the lease may have seconds to go; when they work again, it does."""
    term = presence.begin(1.0)
    store.cut()
    with passing(clock):
        wait(lambda: term.suspended)
    assert term.active

    with passing(clock), pytest.raises(StoreUnavailable, match=r"renew: .* cut off"):
        presence.begin(0.2)

    store.restore()
    with passing(clock):
        assert presence.begin(30.0).may_start


def test_stopping_withdraws_at_once(
    presence: Presence, store: MemoryStore, clock: ManualClock
) -> None:
    """And tells what still runs."""
    term = presence.begin(1.0)
    presence.stop()

    assert not term.active
    assert term.reason is EndReason.RESIGNED
    assert entrants(store, clock) == ()

    presence.stop()
    assert presence.begin(1.0).active, "it can begin again"


def test_a_child_has_a_presence_of_its_own(tmp_path: Path) -> None:
    """With an incarnation of its own; stopping it leaves the parent's alone."""
    clock = SystemClock()
    store = SqliteStore(tmp_path / "store.sqlite3", clock=clock)
    presence = make(store, clock)
    term = presence.begin(5.0)
    mine = presence.incarnation

    def in_child() -> tuple[bool, bool, int, int]:
        inherited = term.active
        presence.stop()
        presence.begin(5.0)
        both = living(store, clock)
        presence.stop()
        return inherited, presence.incarnation != mine, len(both), len(living(store, clock))

    try:
        assert in_forked_child(in_child) == "(False, True, 2, 1)"
        assert term.active
        assert living(store, clock) == {mine}
    finally:
        presence.stop()
        store.close()
