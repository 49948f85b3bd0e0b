"""Watches on a part of a register, and the list of elections: the same on every store."""

import statistics
from functools import partial

import pytest

from leader_jobs.names import runners_of
from leader_jobs.stores.base import ABSENT, Watch, Write
from testsupport.background import Background
from testsupport.forking import in_forked_child
from testsupport.place import ELECTION, Place

HOUR = 3600.0
PREFIX = "control/"


def order(place: Place, value: bytes = b"", key: str = "control/a") -> int:
    """Write a record under the prefix, through a store object of its own."""
    store = place.open()
    return store.commit(ELECTION, [Write(key, value)], candidacy=None, deadline=place.within())


def waiting(watch: Watch, after: int) -> Background[None]:
    """Wait for an hour in a thread of its own."""
    return Background(partial(watch.wait, after, timeout=HOUR))


# -- watches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", PREFIX, "control/a"])
def test_a_commit_under_the_prefix_ends_a_wait(place: Place, prefix: str) -> None:
    """Whoever watches is told within a second of what another store object wrote."""
    before = order(place)
    watch = place.store.watch(ELECTION, prefix)
    wait = waiting(watch, before)
    assert not wait.over(within=0.1)

    order(place)

    wait.result(within=2.0)


def test_a_commit_through_the_same_store_ends_a_wait(place: Place) -> None:
    """What this process writes itself is no less of a change."""
    wait = waiting(place.store.watch(ELECTION, PREFIX), ABSENT)
    assert not wait.over(within=0.1)

    place.commit(Write("elsewhere", b""), Write("control/b", b""))

    wait.result(within=2.0)


def test_a_commit_elsewhere_is_no_news(place: Place) -> None:
    """Neither other records nor other elections, candidates and removals make a watch spin."""
    before = order(place)
    place.commit(Write("gone", b""), Write("history/a", b""))
    watch = place.store.watch(ELECTION, PREFIX)
    returns = 0

    def follow() -> None:
        nonlocal returns
        limit = place.within(0.5)
        while (left := limit - place.clock.now()) > 0:
            watch.wait(before, timeout=left)
            returns += 1

    following = Background(follow)
    # "controk" and "control0" are the neighbours of "control/" in any order.
    neighbours = ["history/a", "controk", "control", "control0", "control.", "heard"]
    while not following.over(within=0.01):
        place.commit(*(Write(key, b"") for key in neighbours), Write("gone", None))
        place.commit(Write("control/a", b""), election="other")
        place.store.withdraw(place.enrol(), deadline=place.within())
    following.result()

    assert returns <= 3


def test_what_is_newer_already_ends_a_wait_at_once(place: Place) -> None:
    """What happened between the read and the wait is not missed."""
    before = order(place)
    order(place)
    watch = place.store.watch(ELECTION, PREFIX)

    waiting(watch, before).result(within=2.0)
    waiting(watch, ABSENT).result(within=2.0)


def test_the_newest_version_under_a_prefix_may_be_old(place: Place) -> None:
    """Whoever knows it waits, whatever was written elsewhere since."""
    newest = order(place)
    for _ in range(5):
        place.commit(Write("heard", b""))
    wait = waiting(place.store.watch(ELECTION, PREFIX), newest)

    assert not wait.over(within=0.2)
    order(place)
    wait.result(within=2.0)


def test_a_watch_is_used_again_and_again(place: Place) -> None:
    """It tells of each change, and no wait leaves anything for the next."""
    watch = place.store.watch(ELECTION, PREFIX)
    seen = ABSENT
    for _ in range(5):
        newer = order(place)
        waiting(watch, seen).result(within=2.0)
        seen = newer

    wait = waiting(watch, seen)
    assert not wait.over(within=0.1)
    watch.wake()
    wait.result(within=2.0)


def test_a_watch_ends_with_its_timeout(place: Place) -> None:
    """Nothing happens, and yet the wait is over in time, and not before."""
    watch = place.store.watch(ELECTION, PREFIX)
    began = place.clock.now()

    Background(partial(watch.wait, ABSENT, timeout=0.2)).result(within=5.0)

    assert place.clock.now() - began > 0.18
    for timeout in (0.0, -1.0):
        Background(partial(watch.wait, ABSENT, timeout=timeout)).result(within=5.0)


def test_wake_ends_the_wait_of_a_watch(place: Place) -> None:
    """An owner that stops does not wait for an hour, and other watches go on."""
    watch, other = (place.store.watch(ELECTION, PREFIX) for _ in range(2))
    wait, others = waiting(watch, ABSENT), waiting(other, ABSENT)
    early = wait.over(within=0.1)

    watch.wake()

    assert not early
    wait.result(within=2.0)
    assert not others.over(within=0.1)
    other.wake()
    others.result(within=2.0)


def test_wake_before_a_wait_ends_it(place: Place) -> None:
    """No wake is lost, before the first wait or between two, and it ends one wait only."""
    watch = place.store.watch(ELECTION, PREFIX)
    for _ in range(2):
        watch.wake()
        waiting(watch, ABSENT).result(within=2.0)
        wait = waiting(watch, ABSENT)
        assert not wait.over(within=0.1)
        watch.wake()
        wait.result(within=2.0)


def test_the_child_of_a_fork_watches_on_its_own(place: Place) -> None:
    """It goes on with its copy of a watch, and the parent's wait hears nothing of it."""
    place.ask_for_forks()
    watch = place.store.watch(ELECTION, PREFIX)
    seen = order(place)
    wait = waiting(watch, seen)
    assert not wait.over(within=0.1)

    def child() -> bool:
        mine = place.commit(Write("heard", b""), Write("others/a", b""))
        elsewhere = place.store.watch(ELECTION, "others/")
        waiting(elsewhere, mine - 1).result(within=5.0)
        wait = waiting(watch, mine)
        early = wait.over(within=0.1)
        watch.wake()
        wait.result(within=5.0)
        return early

    assert in_forked_child(child) == "False"
    assert not wait.over(within=0.1)
    order(place)
    wait.result(within=2.0)


def test_the_news_is_fast(place: Place) -> None:
    """From the commit to the end of the wait it takes milliseconds."""
    watch = place.store.watch(ELECTION, PREFIX)
    writer = place.open()

    def moment_of_news(after: int) -> float:
        watch.wait(after, timeout=HOUR)
        return place.clock.now()

    seen, took = ABSENT, []
    for _ in range(11):
        wait = Background(partial(moment_of_news, seen))
        assert not wait.over(within=0.03)
        seen = writer.commit(
            ELECTION, [Write("control/a", b"")], candidacy=None, deadline=place.within()
        )
        committed = place.clock.now()
        took.append(wait.result(within=2.0) - committed)

    assert statistics.median(took) < 0.05, took


# -- elections --------------------------------------------------------------------------------------


def elections(place: Place) -> tuple[str, ...]:
    """List them."""
    return place.store.elections(deadline=place.within())


def test_without_candidates_and_records_there_are_no_elections(place: Place) -> None:
    """A store that nobody has used yet."""
    assert elections(place) == ()


def test_an_election_has_a_candidate_or_a_record(place: Place) -> None:
    """Each is named once, in order, seen from any store object."""
    place.enrol(election="with-candidates")
    place.enrol(election="with-candidates")
    place.commit(Write("a", b""), Write("b/c", b""), election="with.records")
    place.enrol(election="Both")
    place.commit(Write("a", b""), election="Both")
    # Names that are beginnings of each other, with neighbours of the slash.
    for name in ("a", "a-b", "a.b", "a0", "aa", "9"):
        place.commit(Write("a", b""), election=name)

    expected = ("9", "Both", "a", "a-b", "a.b", "a0", "aa", "with-candidates", "with.records")
    assert elections(place) == expected
    assert place.open().elections(deadline=place.within()) == expected


def test_an_election_goes_with_its_last_candidate_and_record(place: Place) -> None:
    """What was removed leaves no name behind."""
    candidacy = place.enrol(election="brief")
    place.commit(Write("a", b""), election="brief")
    assert elections(place) == ("brief",)

    place.store.withdraw(candidacy, deadline=place.within())
    assert elections(place) == ("brief",)
    place.commit(Write("a", None), election="brief")

    assert elections(place) == ()


def test_the_electorates_of_workers_are_no_elections(place: Place) -> None:
    """Processes that run jobs without standing lease their presence in a name of its own."""
    place.enrol(election=runners_of("mail"))
    assert elections(place) == ()

    place.enrol(election="mail")

    assert elections(place) == ("mail",)
