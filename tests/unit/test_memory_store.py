"""What the store in memory has beyond the contract: failures on demand, and a clock moved by hand."""

import threading
from functools import partial

import pytest

from leader_jobs.exceptions import CandidacyLost, Conflict, Fenced, StoreRefused, StoreUnavailable
from leader_jobs.stores.base import ABSENT, Candidacy, Limits, Store, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.forking import in_forked_child

HOUR = 3600.0
NEVER = 1e9


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


def enrol(store: Store, ttl: float = 10.0) -> Candidacy:
    """Enrol a candidate in the only election here."""
    return store.enrol("mail", b"", ttl, deadline=NEVER)


def leads(store: Store, candidacy: Candidacy) -> bool:
    """Return whether the candidacy leads."""
    return store.standing(candidacy, deadline=NEVER).leads


def write(store: Store, value: bytes, *, under: Candidacy | None = None) -> int:
    """Write the only record here."""
    return store.commit("mail", [Write("a", value)], candidacy=under, deadline=NEVER)


def value(store: Store) -> bytes | None:
    """Read the only record here."""
    record = store.read("mail", "a", deadline=NEVER).get("a")
    return None if record is None else record.value


def test_it_is_a_store(store: MemoryStore) -> None:
    """It has everything that the contract names."""
    stands_for: Store = store

    assert "memory" in stands_for.description


# -- time -------------------------------------------------------------------------------------------


def test_a_lease_ends_when_the_clock_says_so(clock: ManualClock, store: MemoryStore) -> None:
    """Not a moment before its ttl, and no later."""
    leader, waiter = enrol(store), enrol(store, ttl=HOUR)

    clock.advance(9.999)
    before = leads(store, leader)
    clock.advance(0.001)

    assert before
    assert leads(store, waiter)
    with pytest.raises(CandidacyLost):
        store.renew(leader, leading=True, deadline=NEVER)


def test_a_renewal_counts_from_its_call(clock: ManualClock, store: MemoryStore) -> None:
    """The lease lasts its ttl from the renewal on."""
    leader = enrol(store)
    clock.advance(9.0)
    store.renew(leader, leading=True, deadline=NEVER)

    clock.advance(9.999)
    before = leads(store, leader)
    clock.advance(0.001)

    assert before
    assert store.candidates("mail", deadline=NEVER) == ()


def test_remaining_time_is_shown(clock: ManualClock, store: MemoryStore) -> None:
    """The list counts down as the clock goes on."""
    enrol(store)
    clock.advance(4.0)

    (entrant,) = store.candidates("mail", deadline=NEVER, leases=True)

    assert (entrant.ttl, entrant.remaining) == (10.0, 6.0)


def test_a_wait_ends_when_the_predecessor_expires(clock: ManualClock, store: MemoryStore) -> None:
    """Nobody needs to look for the end of a lease to be noticed, though renewals moved it."""
    leader, waiter = enrol(store), enrol(store, ttl=HOUR)
    standing = store.standing(waiter, deadline=NEVER)
    wait = Background(partial(store.wait, waiter, standing, timeout=HOUR))

    clock.advance(9.0)
    store.renew(leader, leading=True, deadline=NEVER)
    clock.advance(9.0)
    early = wait.over(within=0.05)
    clock.advance(1.0)

    assert not early
    wait.result()


def test_a_wait_ends_with_its_timeout_on_the_clock(clock: ManualClock, store: MemoryStore) -> None:
    """An hour passes as fast as the test likes."""
    leader = enrol(store, ttl=2 * HOUR)
    standing = store.standing(leader, deadline=NEVER)
    waits = [
        Background(partial(store.wait, leader, standing, timeout=HOUR)),
        Background(partial(store.wait_for_change, "mail", timeout=HOUR)),
        Background(partial(store.watch("mail", "a").wait, ABSENT, timeout=HOUR)),
    ]

    early = [wait.over(within=0.05) for wait in waits]
    # A wait measures from its own beginning, which may be after the first advance.
    while not all(wait.over(within=0.01) for wait in waits):
        clock.advance(HOUR / 2)

    assert early == [False, False, False]


# -- failures on demand -----------------------------------------------------------------------------


def test_a_cut_lets_nothing_through(store: MemoryStore) -> None:
    """Every call fails without effect, until the store is restored."""
    leader = enrol(store)
    store.cut()

    for call in (
        partial(enrol, store),
        partial(store.renew, leader, leading=True, deadline=NEVER),
        partial(leads, store, leader),
        partial(store.withdraw, leader, deadline=NEVER),
        partial(store.candidates, "mail", deadline=NEVER),
        partial(value, store),
        partial(write, store, b"1", under=leader),
        partial(store.elections, deadline=NEVER),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    store.restore()

    assert value(store) is None
    assert [entrant.id for entrant in store.candidates("mail", deadline=NEVER)] == [leader.id]


def test_a_cut_can_be_that_of_one_candidate(store: MemoryStore) -> None:
    """One node is partitioned, the others and observers are not."""
    first, second = enrol(store), enrol(store)
    store.cut(first.id)

    with pytest.raises(StoreUnavailable):
        store.renew(first, leading=True, deadline=NEVER)
    with pytest.raises(StoreUnavailable):
        write(store, b"1", under=first)
    assert not leads(store, second)
    assert len(store.candidates("mail", deadline=NEVER)) == 2
    store.restore()
    assert leads(store, first)


def test_leases_run_out_during_a_cut(clock: ManualClock, store: MemoryStore) -> None:
    """A partition does not stop time."""
    first, second = enrol(store), enrol(store, ttl=HOUR)
    store.cut(first.id)

    clock.advance(10.0)

    assert leads(store, second)
    store.restore()
    with pytest.raises(CandidacyLost):
        leads(store, first)


def test_a_cut_ends_waits(store: MemoryStore) -> None:
    """Trouble ends a wait, both one under way and one that begins during it."""
    leader = enrol(store)
    standing = store.standing(leader, deadline=NEVER)
    watch = store.watch("mail", "a")
    calls = [
        partial(store.wait, leader, standing, timeout=HOUR),
        partial(watch.wait, ABSENT, timeout=HOUR),
    ]
    waits = [Background(call) for call in calls]
    early = [wait.over(within=0.05) for wait in waits]

    store.cut()

    assert early == [False, False]
    for wait in waits:
        wait.result()
    for call in calls:
        Background(call).result()


def test_a_cut_of_one_candidate_leaves_watches_alone(store: MemoryStore) -> None:
    """A watch is nobody's in particular."""
    leader = enrol(store)
    watch = store.watch("mail", "a")
    wait = Background(partial(watch.wait, ABSENT, timeout=HOUR))

    store.cut(leader.id)

    assert not wait.over(within=0.05)
    write(store, b"1")
    wait.result()


def test_an_election_of_candidates_goes_with_their_leases(
    clock: ManualClock, store: MemoryStore
) -> None:
    """Those whose lease ran out make no election."""
    enrol(store)
    before = store.elections(deadline=NEVER)
    clock.advance(10.0)

    assert before == ("mail",)
    assert store.elections(deadline=NEVER) == ()


def test_a_lost_reply_hides_what_was_done(store: MemoryStore) -> None:
    """The commit is in, its writer does not know, and only that one call is concerned."""
    store.lose_reply()

    with pytest.raises(StoreUnavailable):
        write(store, b"1")

    assert value(store) == b"1"
    write(store, b"2")
    assert value(store) == b"2"


def test_a_lost_reply_of_an_enrolment_leaves_a_candidate(
    clock: ManualClock, store: MemoryStore
) -> None:
    """What nobody knows of blocks the election until its lease is over."""
    store.lose_reply()
    with pytest.raises(StoreUnavailable):
        enrol(store)
    second = enrol(store, ttl=HOUR)

    before = leads(store, second)
    clock.advance(10.0)

    assert not before
    assert leads(store, second)


def test_renewals_do_not_use_a_lost_reply_up(store: MemoryStore) -> None:
    """A renewal in the background leaves the fault to the call it is meant for."""
    leader = enrol(store)
    store.lose_reply()

    store.renew(leader, leading=True, deadline=NEVER)
    with pytest.raises(StoreUnavailable):
        store.withdraw(leader, deadline=NEVER)

    assert store.candidates("mail", deadline=NEVER) == ()


def test_the_lost_reply_can_be_that_of_a_renewal(clock: ManualClock, store: MemoryStore) -> None:
    """Named calls only: the lease was extended though the renewal failed."""
    leader = enrol(store)
    store.lose_reply("renew")
    clock.advance(9.0)

    write(store, b"1")
    with pytest.raises(StoreUnavailable):
        store.renew(leader, leading=True, deadline=NEVER)
    clock.advance(9.0)

    assert leads(store, leader)


def test_a_refused_commit_has_no_reply_to_lose(store: MemoryStore) -> None:
    """The fault waits for a call that takes effect."""
    store.lose_reply()

    with pytest.raises(Conflict):
        store.commit("mail", [Write("a", b"", expect=5)], candidacy=None, deadline=NEVER)
    with pytest.raises(StoreUnavailable):
        write(store, b"1")


def test_a_living_lease_can_be_revoked(store: MemoryStore) -> None:
    """The leader is told through its wait, its successor leads, its commits are fenced."""
    leader, waiter = enrol(store), enrol(store)
    standing = store.standing(leader, deadline=NEVER)
    wait = Background(partial(store.wait, leader, standing, timeout=HOUR))

    store.expire(leader)
    store.expire(leader)

    wait.result()
    assert leads(store, waiter)
    with pytest.raises(Fenced):
        write(store, b"1", under=leader)


# -- limits, names, processes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "writes",
    [
        [Write("a", b"", expect=ABSENT), Write("b", b"", expect=ABSENT)],
        [Write("a", b""), Write("b", b""), Write("c", b"")],
        [Write("a", b"12345678"), Write("b", b"9")],
        [Write("ä", b"123456789")],
    ],
    ids=["guards", "writes", "size", "size of a key in bytes"],
)
def test_small_limits_are_kept(clock: ManualClock, writes: list[Write]) -> None:
    """A caller that packs too much is refused, and the message shows both numbers."""
    store = MemoryStore(clock, limits=Limits(guards=1, writes=2, size=10))

    store.commit(
        "mail", [Write("a", b"12345678", ABSENT), Write("b", b"")], candidacy=None, deadline=NEVER
    )
    with pytest.raises(StoreRefused, match=r"is beyond"):
        store.commit("mail", writes, candidacy=None, deadline=NEVER)


def test_a_named_store_is_shared_within_the_process(clock: ManualClock) -> None:
    """Whoever says the same name gets the same store, threads included."""
    start, found = threading.Barrier(4), list[MemoryStore]()

    def find() -> None:
        start.wait(10.0)
        found.append(MemoryStore.named("shared-by-threads", clock))

    for thread in [Background(find) for _ in range(4)]:
        thread.result()

    assert len(set(map(id, found))) == 1
    assert MemoryStore.named("another", clock) is not found[0]


def test_the_child_of_a_fork_has_an_empty_store(store: MemoryStore) -> None:
    """It knows nothing of its parent's candidates and records, and changes none of them."""
    leader = enrol(store)
    write(store, b"parent")

    def child() -> tuple[object, ...]:
        before = store.candidates("mail", deadline=NEVER), value(store)
        mine = enrol(store)
        write(store, b"child", under=mine)
        store.withdraw(leader, deadline=NEVER)
        return *before, leads(store, mine), mine.id == leader.id, value(store)

    assert in_forked_child(child) == "((), None, True, False, b'child')"
    assert leads(store, leader)
    assert value(store) == b"parent"


def test_a_fork_in_the_middle_of_a_call_does_not_hang_the_child(store: MemoryStore) -> None:
    """The lock another thread held at the fork is not the child's."""
    enrol(store)

    with store._state.lock:
        answer = in_forked_child(lambda: store.candidates("mail", deadline=NEVER))

    assert answer == "()"
