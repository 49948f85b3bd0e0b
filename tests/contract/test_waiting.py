"""Waiting to be told: the same on every store."""

from functools import partial

import pytest

from leader_jobs.stores.base import Candidacy, Store
from testsupport.background import Background
from testsupport.place import ELECTION, Place

HOUR = 3600.0


def waiting(place: Place, candidacy: Candidacy, *, store: Store | None = None) -> Background[None]:
    """Look where *candidacy* stands, then wait for an hour in a thread of its own."""
    store = store or place.store
    standing = store.standing(candidacy, deadline=place.within())
    return Background(lambda: store.wait(candidacy, standing, timeout=HOUR))


def test_a_wait_ends_with_its_timeout(place: Place) -> None:
    """Nothing happens, and yet the wait is over in time."""
    leader, waiter = place.enrol(), place.enrol()

    for candidacy in (leader, waiter):
        standing = place.store.standing(candidacy, deadline=place.within())
        Background(partial(place.store.wait, candidacy, standing, timeout=0.05)).result(5.0)


def test_the_successor_is_told_of_a_withdrawal(place: Place) -> None:
    """Leadership is handed over at once, not at the next look."""
    leader, waiter = place.enrol(), place.enrol()
    wait = waiting(place, waiter)

    place.store.withdraw(leader, deadline=place.within())

    wait.result()
    assert place.leads(waiter)


def test_the_successor_in_another_process_is_told(place: Place) -> None:
    """The news crosses from one store object to another."""
    leader = place.enrol()
    elsewhere = place.open()
    waiter = place.enrol(store=elsewhere)
    wait = waiting(place, waiter, store=elsewhere)

    place.store.withdraw(leader, deadline=place.within())

    wait.result()
    assert elsewhere.standing(waiter, deadline=place.within()).leads


def test_a_withdrawal_before_the_wait_ends_it(place: Place) -> None:
    """What happened between the look and the wait is not missed."""
    leader, waiter = place.enrol(), place.enrol()
    standing = place.store.standing(waiter, deadline=place.within())
    place.store.withdraw(leader, deadline=place.within())

    Background(lambda: place.store.wait(waiter, standing, timeout=HOUR)).result()


def test_only_the_successor_is_told(place: Place) -> None:
    """One candidate leaves the middle: one is woken, and it is not the leader."""
    first, second, third, fourth = (place.enrol() for _ in range(4))
    others = [waiting(place, first), waiting(place, second), waiting(place, fourth)]
    successor = waiting(place, third)

    place.store.withdraw(second, deadline=place.within())
    successor.result()

    assert not others[0].over(within=0.3)
    assert not others[2].over(within=0.0)
    assert place.leads(first)
    assert place.store.standing(third, deadline=place.within()).predecessor == first.id
    for candidacy in (first, second, fourth):
        place.store.wake(candidacy)
    for wait in others:
        wait.result()


def test_the_successor_is_told_of_an_expiry(place: Place) -> None:
    """A frozen leader is superseded about a ttl later, without anybody asking."""
    frozen, waiter = place.enrol(ttl=place.ttl), place.enrol()

    waiting(place, waiter).result()

    place.wait_gone(frozen, ahead_of=waiter)
    assert place.leads(waiter)


def test_a_leader_is_told_of_its_own_end(place: Place) -> None:
    """A leader watches its own entry: a lease may end though nobody withdrew it."""
    leader = place.enrol(ttl=place.ttl)

    waiting(place, leader).result()

    place.wait_lost(leader)


def test_a_leader_is_told_when_it_was_withdrawn_elsewhere(place: Place) -> None:
    """A thread that withdraws the candidacy ends the wait of the one that leads."""
    leader = place.enrol()
    wait = waiting(place, leader)

    place.store.withdraw(leader, deadline=place.within())

    wait.result()
    place.wait_lost(leader)


@pytest.mark.parametrize("role", ["leader", "waiter"])
def test_wake_ends_a_wait(place: Place, role: str) -> None:
    """An owner that stops does not wait for an hour."""
    candidates = {"leader": place.enrol(), "waiter": place.enrol()}
    wait = waiting(place, candidates[role])
    early = wait.over(within=0.1)

    place.store.wake(candidates[role])

    assert not early
    wait.result()


def test_wake_just_before_a_wait_ends_it(place: Place) -> None:
    """An owner can not know whether its thread has begun to wait; no wake is lost."""
    candidacy = place.enrol()
    standing = place.store.standing(candidacy, deadline=place.within())

    place.store.wake(candidacy)

    Background(lambda: place.store.wait(candidacy, standing, timeout=HOUR)).result()


def test_wake_ends_one_wait_only(place: Place) -> None:
    """The next wait waits again."""
    candidacy = place.enrol()
    wait = waiting(place, candidacy)
    place.store.wake(candidacy)
    wait.result()

    again = waiting(place, candidacy)

    assert not again.over(within=0.2)
    place.store.wake(candidacy)
    again.result()


def test_wake_leaves_others_waiting(place: Place) -> None:
    """Each wait is ended by its own candidacy's name."""
    first, second = place.enrol(), place.enrol()
    woken, other = waiting(place, first), waiting(place, second)

    place.store.wake(first)
    woken.result()

    assert not other.over(within=0.2)
    place.store.wake(second)
    other.result()


@pytest.mark.parametrize("change", ["somebody comes", "somebody goes"])
def test_an_observer_is_told_of_a_change(place: Place, change: str) -> None:
    """Somebody who does not stand sees candidates come and go."""
    present = [place.enrol() for _ in range(20)]
    wait = Background(partial(place.open().wait_for_change, ELECTION, timeout=HOUR))

    # A change before the observer began to wait may be missed, so let there be more than one.
    for candidacy in present:
        if change == "somebody comes":
            place.enrol()
        else:
            place.store.withdraw(candidacy, deadline=place.within())
        if wait.over(within=0.5):
            break

    wait.result(within=0.0)


def test_an_observer_is_told_of_an_expiry(place: Place) -> None:
    """A leader that vanished is noticed though nobody follows it."""
    place.enrol(ttl=place.ttl)

    Background(lambda: place.store.wait_for_change(ELECTION, timeout=HOUR)).result()


def test_an_observer_waits_no_longer_than_asked(place: Place) -> None:
    """Nothing happens, and yet the wait is over in time."""
    Background(lambda: place.store.wait_for_change(ELECTION, timeout=0.05)).result(5.0)
