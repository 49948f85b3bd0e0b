"""Races that the store decides, run often enough to lose one if it could be lost."""

import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from leader_jobs.exceptions import Conflict, Fenced
from leader_jobs.stores.base import ABSENT, Candidacy, Store, Write
from testsupport.background import Background
from testsupport.place import ELECTION, Place

THREADS = 8


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Let threads take turns in the middle of everything."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def together(tasks: list[Callable[[], int]]) -> list[int]:
    """Run the tasks in threads that start as nearly at once as can be; return their results."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], int]) -> int:
        start.wait(10.0)
        return task()

    threads = [Background(partial(run, task)) for task in tasks]
    return [thread.result(within=50.0) for thread in threads]


def test_of_two_commits_with_one_expectation_one_wins(place: Place) -> None:
    """Eight threads on two store objects claim the same occurrence; one gets it, in each round."""
    stores = [place.store, place.open()]

    def claim(store: Store, key: str, name: int) -> int:
        try:
            writes = [Write(key, b"%d" % name, expect=ABSENT)]
            store.commit(ELECTION, writes, candidacy=None, deadline=place.within(30.0))
        except Conflict:
            return 0
        return 1

    for round_ in range(15):
        key = f"occurrence/{round_}"
        wins = together([partial(claim, stores[n % 2], key, n) for n in range(THREADS)])
        assert sum(wins) == 1
        assert place.read(key)[key].value == b"%d" % wins.index(1)


def test_concurrent_increments_lose_nothing(place: Place) -> None:
    """Read, add one, write at the version read: every increment that passed is in the sum."""
    stores = [place.store, place.open()]
    place.commit(Write("sum", b"0"))

    def increment(store: Store, times: int) -> int:
        refused = 0
        while times:
            record = store.read(ELECTION, "sum", deadline=place.within(30.0))["sum"]
            write = Write("sum", b"%d" % (int(record.value) + 1), expect=record.version)
            try:
                store.commit(ELECTION, [write], candidacy=None, deadline=place.within(30.0))
            except Conflict:
                refused += 1
            else:
                times -= 1
        return refused

    together([partial(increment, stores[n % 2], 20) for n in range(THREADS)])

    assert int(place.read()["sum"].value) == 20 * THREADS


def test_terms_do_not_overlap_in_the_register(place: Place) -> None:
    """
    Candidates come, write under their term for as long as they lead, and go, all at once.

    The tokens in the log they share must never go back, and no leader may ever meet a conflict, for
    that would be somebody else's write in its term. Each leader is withdrawn by another thread in
    the middle of its writing.
    """
    stores = [place.store, place.open()]
    place.commit(Write("log", b""))

    def append(store: Store, me: Candidacy) -> None:
        record = store.read(ELECTION, "log", deadline=place.within(30.0))["log"]
        write = Write("log", record.value + b"%d " % me.token, expect=record.version)
        store.commit(ELECTION, [write], candidacy=me, deadline=place.within(30.0))

    def stand(store: Store) -> int:
        written = 0
        for _ in range(4):
            me = place.enrol(store=store)
            while not (standing := store.standing(me, deadline=place.within(30.0))).leads:
                store.wait(me, standing, timeout=10.0)
            append(store, me)
            written += 1
            leaving = Background(partial(store.withdraw, me, deadline=place.within(30.0)))
            try:
                while True:
                    append(store, me)
                    written += 1
            except Fenced:
                leaving.result()
        return written

    written = together([partial(stand, stores[n % 2]) for n in range(4)])

    tokens = [int(token) for token in place.read()["log"].value.split()]
    assert tokens == sorted(tokens)
    assert len(tokens) == sum(written)
    assert len(set(tokens)) == 16
