"""A participant that is frozen, forked, patched or cut off knows what it is not."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import Fenced
from leader_jobs.leaders import find_leader
from leader_jobs.stores.base import Store, Write
from leader_jobs.stores.factory import open_store
from leader_jobs.term import held_terms
from testsupport.etcd_fixtures import MakeCluster
from testsupport.parenthood import die_with_parent

pytestmark = pytest.mark.slow
_TESTS = Path(__file__).parents[1]
_SOON = 10.0


@pytest.fixture(name="clock")
def _clock() -> SystemClock:
    return SystemClock()


@pytest.fixture(name="store")
def _store(store_settings: Settings, clock: SystemClock) -> Iterator[Store]:
    with closing(open_store(store_settings, clock=clock)) as store:
        yield store


@pytest.fixture(name="candidate")
def _candidate(store_settings: Settings, store: Store) -> Iterator[Candidate]:
    with Candidate("e", store=store, node="one", ttl=store_settings.ttl) as candidate:
        yield candidate


class Participant:
    """A process that stands in election ``e`` and prints, in a tight loop, whether it leads."""

    PROGRAM = """
import sys
from leader_jobs import Candidate, Settings, open_store
from leader_jobs.clock import SystemClock
clock = SystemClock()
settings = Settings(store=sys.argv[1], namespace=sys.argv[2], ttl=2.0)
candidate = Candidate("e", store=open_store(settings, clock=clock), node="frozen", ttl=2.0)
term = candidate.campaign(20)
print("leads", term.token, flush=True)
last = clock.now()
while True:
    active, now = term.active, clock.now()
    if now - last > 1.0:
        print("awake", active, flush=True)
        break
    last = now
print("found", candidate.term is None, flush=True)
sys.stdin.read()
candidate.stop()
"""

    def __init__(self, settings: Settings) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.PROGRAM, settings.store, settings.namespace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
        )

    def line(self) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        """Let it end."""
        self.process.communicate("")


def test_a_frozen_leader_is_none_at_its_first_look(
    store_settings: Settings, candidate: Candidate
) -> None:
    """Stopped past its lease and continued, a process that held a term sees at once that it is over."""
    candidate.stop()
    with closing(Participant(store_settings)) as participant:
        assert participant.line().startswith("leads")
        candidate.start()
        participant.process.send_signal(signal.SIGSTOP)
        successor = candidate.wait_for_term(_SOON)
        assert successor is not None
        participant.process.send_signal(signal.SIGCONT)

        assert participant.line() == "awake False"
        assert participant.line() == "found True"
        assert successor.active


def test_a_leader_that_held_the_interpreter_is_fenced(
    candidate: Candidate, store: Store, clock: SystemClock
) -> None:
    """With every thread of the process stuck past the lease, the term is over and writes refused."""
    term = candidate.wait_for_term(_SOON)
    assert term is not None
    # A C function called through PyDLL keeps the interpreter lock, as a runaway extension does.
    ctypes.PyDLL(None).usleep(2_600_000)

    assert not term.active
    with pytest.raises(Fenced):
        store.commit(
            "e", [Write("k", b"v")], candidacy=term.candidacy, deadline=clock.now() + _SOON
        )


def _ask_in_child(
    settings: Settings, candidate: Candidate, answers: "multiprocessing.SimpleQueue[object]"
) -> None:
    """What the child of a fork finds, and a candidacy of its own."""
    answers.put(candidate.term is None and held_terms.find("e") is None)
    with closing(open_store(settings)) as store:
        own = Candidate("e", store=store, node="child", ttl=settings.ttl)
        own.start()
        answers.put(own.wait_for_term(0.3) is None)
        leader = find_leader("e", store=store)
        answers.put(leader.node if leader is not None else None)
        own.stop()
    candidate.stop()


def test_the_child_of_a_fork_owns_nothing(
    store_settings: Settings, candidate: Candidate, store: Store
) -> None:
    """A forked child holds no term, stands for itself, and takes nothing along when it ends."""
    term = candidate.wait_for_term(_SOON)
    assert term is not None
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_ask_in_child, args=(store_settings, candidate, answers))
    child.start()

    assert answers.get() is True, "the child holds no term"
    assert answers.get() is True, "a candidate of the child's own waits behind the parent"
    assert answers.get() == "one", "the child sees the parent lead"
    child.join(_SOON)
    assert child.exitcode == 0
    assert term.active
    assert candidate.verify(2.0)
    leader = find_leader("e", store=store)
    assert leader is not None
    assert leader.token == term.token


_GEVENT = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
from leader_jobs import Candidate, Settings, open_store
from leader_jobs.clock import SystemClock
clock = SystemClock()
gaps, last = [], clock.now()
def beat():
    global last
    while True:
        gevent.sleep(0.005)
        now = clock.now()
        gaps.append(now - last)
        last = now
gevent.spawn(beat)
settings = Settings(store=sys.argv[1], namespace=sys.argv[2], ttl=2.0)
store = open_store(settings, clock=clock)
one = Candidate("e", store=store, node="one", ttl=2.0)
two = Candidate("e", store=store, node="two", ttl=2.0)
term = one.campaign(10)
two.start()
gevent.sleep(2.5)
assert term.active, "the lease was kept"
one.stop()
successor = two.wait_for_term(5)
assert successor is not None and successor.token > term.token
two.stop()
store.close()
print(max(gaps))
"""


def test_it_works_under_gevent_without_blocking_the_hub(store_settings: Settings) -> None:
    """Monkey-patched, candidates keep their leases and hand over, and other greenlets go on."""
    result = subprocess.run(
        [sys.executable, "-c", _GEVENT, store_settings.store, store_settings.namespace],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 0.5, "the longest time no other greenlet ran"


@pytest.mark.etcd
def test_with_every_member_frozen_nobody_leads(
    make_cluster: MakeCluster, namespace: str, clock: SystemClock
) -> None:
    """The term ends by its own arithmetic, and a new one begins when the members are back."""
    cluster = make_cluster(3)
    settings = Settings(store=cluster.url, namespace=namespace)
    with (
        closing(open_store(settings, clock=clock)) as store,
        Candidate("e", store=store, node="one", ttl=3.0) as candidate,
    ):
        term = candidate.wait_for_term(_SOON)
        assert term is not None
        for member in cluster.members:
            member.freeze()
        frozen = clock.now()
        assert term.ended.wait(_SOON)
        took = clock.now() - frozen
        assert not term.active
        for member in cluster.members:
            member.thaw()
        again = candidate.wait_for_term(_SOON)

    assert took <= 2.4 + 0.5, "the lease of 3 s less its margin, and the time to say so"
    assert again is not None
    assert again.token > term.token


@pytest.mark.etcd
def test_a_client_that_asked_for_less_shows_the_granted_ttl(
    make_cluster: MakeCluster, namespace: str
) -> None:
    """A server with slow timers grants 8 s to who asked for 2; that is what counts and shows."""
    cluster = make_cluster(1, heartbeat=500, election=5000)
    settings = Settings(store=cluster.url, namespace=namespace)
    with (
        closing(open_store(settings)) as store,
        Candidate("e", store=store, node="one", ttl=2.0) as candidate,
    ):
        term = candidate.wait_for_term(20.0)
        assert term is not None
        leader = find_leader("e", store=store)

    assert term.ttl == 8.0
    assert leader is not None
    assert leader.ttl == 8.0


def test_an_exit_without_stop_still_resigns(store_settings: Settings, candidate: Candidate) -> None:
    """A program that just ends gives its place up on the way out; nobody waits for its lease."""
    candidate.stop()
    program = (
        "import sys\n"
        "from leader_jobs import Candidate, Settings, open_store\n"
        "settings = Settings(store=sys.argv[1], namespace=sys.argv[2], ttl=60.0)\n"
        "Candidate('e', store=open_store(settings), node='careless', ttl=60.0).campaign(20)\n"
    )
    command = [sys.executable, "-c", program, store_settings.store, store_settings.namespace]
    assert subprocess.run(command, cwd=_TESTS, timeout=30, check=False).returncode == os.EX_OK
    candidate.start()

    assert candidate.wait_for_term(_SOON) is not None
