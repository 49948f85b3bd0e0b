"""Strangers in the same election: ``etcdctl elect``, and keys that are no candidates at all."""

import logging
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores.base import Candidacy
from leader_jobs.stores.etcd import EtcdStore
from testsupport.background import Background
from testsupport.etcd import EtcdCluster, etcdctl_environment
from testsupport.etcd_fixtures import MakeStore

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


def election_of(store: EtcdStore) -> str:
    """Return the election's name as ``etcdctl elect`` wants it."""
    return store._keys.electorate("mail").decode().removesuffix("/")


@contextmanager
def etcdctl(cluster: EtcdCluster, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``etcdctl`` beside the test, its output in a pipe."""
    with subprocess.Popen(
        cluster.etcdctl_command(*arguments),
        env=etcdctl_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line the process prints."""
    assert process.stdout is not None
    return Background(process.stdout.readline).result(10.0).strip()


def wait_for_turn(store: EtcdStore, candidacy: Candidacy, within: float = 10.0) -> float:
    """Wait until *candidacy* leads; return how long that took."""
    began = CLOCK.now()
    while not (standing := store.standing(candidacy, deadline=soon())).leads:
        assert CLOCK.now() < began + within
        store.wait(candidacy, standing, timeout=within)
    return CLOCK.now() - began


def wait_for_candidates(store: EtcdStore, count: int) -> list[bytes]:
    """Wait until so many stand; return their proposals in order of succession."""
    limit = soon(10.0)
    while len(found := store.candidates("mail", deadline=soon())) != count:
        assert CLOCK.now() < limit
        store.wait_for_change("mail", timeout=0.2)
    return [entrant.proposal for entrant in found]


def test_we_lead_and_etcdctl_waits(each_etcd: EtcdCluster, make_store: MakeStore) -> None:
    """It sees our key and proposal, waits behind us, and leads when we are gone."""
    store = make_store(each_etcd.endpoints)
    leader = store.enrol("mail", b"ours", 30, deadline=soon())
    with (
        etcdctl(each_etcd, "elect", "-l", election_of(store)) as observer,
        etcdctl(each_etcd, "elect", election_of(store), "theirs") as candidate,
    ):
        assert line(observer) == f"{election_of(store)}/{leader.id}"
        assert line(observer) == "ours"
        assert wait_for_candidates(store, 2) == [b"ours", b"theirs"]
        assert candidate.poll() is None

        store.withdraw(leader, deadline=soon())

        assert line(candidate).startswith(f"{election_of(store)}/")
        assert line(candidate) == "theirs"
        assert wait_for_candidates(store, 1) == [b"theirs"]


@pytest.mark.parametrize("farewell", [signal.SIGTERM, signal.SIGINT])
def test_etcdctl_leads_and_we_wait(
    each_etcd: EtcdCluster, make_store: MakeStore, farewell: signal.Signals
) -> None:
    """We see it lead, wait behind it, and lead as soon as it resigns."""
    store = make_store(each_etcd.endpoints)
    with etcdctl(each_etcd, "elect", election_of(store), "theirs") as candidate:
        key = line(candidate)
        ours = store.enrol("mail", b"ours", 30, deadline=soon())
        standing = store.standing(ours, deadline=soon())
        assert standing.predecessor is not None
        assert key == f"{election_of(store)}/{standing.predecessor}"
        (theirs, _) = store.candidates("mail", deadline=soon(), leases=True)
        assert theirs.proposal == b"theirs"
        assert theirs.ttl == 60.0

        candidate.send_signal(farewell)

        assert wait_for_turn(store, ours) < 2.0


def test_three_in_a_queue(each_etcd: EtcdCluster, make_store: MakeStore) -> None:
    """Ours, etcdctl, ours: leadership passes in the order of arrival."""
    store = make_store(each_etcd.endpoints)
    first = store.enrol("mail", b"first", 30, deadline=soon())
    with etcdctl(each_etcd, "elect", election_of(store), "second") as second:
        wait_for_candidates(store, 2)
        third = store.enrol("mail", b"third", 30, deadline=soon())
        standing = store.standing(third, deadline=soon())
        wait = Background(lambda: store.wait(third, standing, timeout=30.0))

        store.withdraw(first, deadline=soon())
        line(second)

        assert not wait.over(within=0.3)
        second.send_signal(signal.SIGTERM)
        wait.result(5.0)
        assert wait_for_turn(store, third) < 2.0


def test_a_waiter_in_the_middle_dies(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """Its successor alone is woken and moves up; the leader leads on."""
    store = make_store(etcd.endpoints)
    queue = [store.enrol("mail", b"", 30, deadline=soon()) for _ in range(4)]
    leader, middle, successor, last = queue
    standings = {one: store.standing(one, deadline=soon()) for one in (leader, successor, last)}
    waits = {
        one: Background(partial(store.wait, one, at, timeout=30.0)) for one, at in standings.items()
    }

    etcd.etcdctl("lease", "revoke", middle.id)

    waits[successor].result(5.0)
    assert store.standing(successor, deadline=soon()).predecessor == leader.id
    assert store.standing(leader, deadline=soon()).leads
    assert not waits[leader].over(within=0.3)
    assert not waits[last].over(within=0.0)
    store.close()


@pytest.mark.parametrize(
    ("suffix", "shown"),
    [
        ("sub/1f", "sub/1f"),
        ("hello world%", "hello%20world%25"),
        ("\N{SNOWMAN}", "%E2%98%83"),
        ("", ""),
    ],
    ids=["nested", "text", "unicode", "empty"],
)
def test_a_key_that_is_no_candidate(
    each_etcd: EtcdCluster,
    make_store: MakeStore,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    shown: str,
) -> None:
    """It keeps everybody from leading: listed, named in a warning, waited for until it is gone."""
    store = make_store(each_etcd.endpoints)
    key = f"{election_of(store)}/{suffix}"
    each_etcd.etcdctl("put", key, "in the way")
    ours = store.enrol("mail", b"ours", 30, deadline=soon())

    with caplog.at_level(logging.WARNING, logger="leader_jobs"):
        standings = [store.standing(ours, deadline=soon()) for _ in range(3)]

    assert standings[0].predecessor == shown
    assert len(caplog.records) == 1
    assert key in caplog.records[0].getMessage()
    (stranger, _) = store.candidates("mail", deadline=soon(), leases=True)
    assert (stranger.id, stranger.proposal, stranger.ttl) == (shown, b"in the way", None)
    wait = Background(lambda: store.wait(ours, standings[0], timeout=30.0))
    assert not wait.over(within=0.2)

    each_etcd.etcdctl("del", key)

    wait.result(5.0)
    assert store.standing(ours, deadline=soon()).leads
