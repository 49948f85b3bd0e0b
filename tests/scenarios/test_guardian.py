"""The guardian: takeover in milliseconds on etcd when only the process died, and never a term less."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores.base import Candidacy, Store
from testsupport.background import Background
from testsupport.certificates import Authority
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.faultrounds import ROUNDS
from testsupport.guarded_node import ELECTION, GuardedNode
from testsupport.processes import is_alive, time_of_death

pytestmark = [pytest.mark.etcd, pytest.mark.alone]

CLOCK = SystemClock()

Start = Callable[..., GuardedNode]


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


@pytest.fixture(autouse=True, params=range(ROUNDS), ids=lambda n: f"round-{n + 1}")
def _round() -> None:
    """Have each test run as often as is asked for."""


@pytest.fixture
def start(etcd: EtcdCluster, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts nodes, which are killed with the test."""
    with ExitStack() as stack:

        def start_node(node: str = "victim", **settings: Any) -> GuardedNode:
            popen = settings.pop("popen", {})
            settings = {"store": etcd.url, "namespace": namespace, "ttl": 60.0, **settings}
            log = tmp_path / f"{node}.log"
            return stack.enter_context(GuardedNode({**settings, "node": node}, log=log, **popen))

        yield start_node


class Heir:
    """A candidate of the test's own that stands behind a node."""

    def __init__(self, store: Store, ttl: float = 60.0) -> None:
        self.store = store
        self.candidacy: Candidacy = store.enrol(ELECTION, b"", ttl, deadline=soon())

    def leads(self) -> bool:
        """Return whether it is its turn."""
        return self.store.standing(self.candidacy, deadline=soon(20.0)).leads

    def wait(self, within: float) -> float:
        """Wait until it leads; return when that was, or fail after *within* seconds."""
        limit = soon(within)
        while not self.leads():
            assert CLOCK.now() < limit, f"it was not its turn within {within} s"
            standing = self.store.standing(self.candidacy, deadline=soon(20.0))
            if not standing.leads:
                self.store.wait(self.candidacy, standing, timeout=limit - CLOCK.now())
        return CLOCK.now()


@pytest.fixture
def heir(etcd: EtcdCluster, make_store: MakeStore) -> Callable[[], Heir]:
    """Makes who stands behind the node."""
    return lambda: Heir(make_store(etcd.endpoints))


def test_a_killed_process(start: Start, heir: Callable[[], Heir]) -> None:
    """Ten times: the next in line leads within a quarter of a second, with leases of a minute."""
    for _ in range(10):
        node = start()
        behind = heir()
        killed_at = CLOCK.now()
        node.kill()

        assert behind.wait(within=5.0) - killed_at < 0.25
        assert node.guardian_is_over()
        behind.store.withdraw(behind.candidacy, deadline=soon())


def test_its_cost(start: Start) -> None:
    """It takes 12 MB at most, and sleeps."""
    node = start()
    node.term()
    while "poll" not in Path(f"/proc/{node.guardian}/wchan").read_text():
        assert is_alive(node.guardian)
    before = status_of(node.guardian)

    rest(1.5)

    after = status_of(node.guardian)
    assert int(after["VmRSS"].split()[0]) <= 12 * 1024
    assert after["voluntary_ctxt_switches"] == before["voluntary_ctxt_switches"]


def test_a_process_that_ends_by_itself(start: Start, heir: Callable[[], Heir]) -> None:
    """Its guardian goes with it, and leaves the withdrawal to it."""
    node = start()
    behind = heir()
    assert node.process.stdin is not None
    node.process.stdin.close()

    behind.wait(within=5.0)
    assert node.process.wait(5.0) == 0
    assert node.guardian_is_over()
    assert "guardian" not in node.log


def test_a_signal_to_the_whole_group(start: Start, heir: Callable[[], Heir]) -> None:
    """SIGTERM and SIGINT to everybody, then the process is killed: the guardian is still there."""
    node = start(popen={"process_group": 0})
    behind = heir()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(node.guardian, number)
    os.killpg(node.pid, signal.SIGKILL)
    killed_at = CLOCK.now()

    assert behind.wait(within=5.0) - killed_at < 0.25


def test_a_frozen_process_lives(start: Start, heir: Callable[[], Heir]) -> None:
    """Nothing but death makes the guardian act: the term outlives a freeze."""
    node = start()
    token = node.term()
    behind = heir()
    node.signal(signal.SIGSTOP)

    standing = behind.store.standing(behind.candidacy, deadline=soon())
    wait = Background(lambda: behind.store.wait(behind.candidacy, standing, timeout=60.0))
    assert not wait.over(within=1.0)
    node.signal(signal.SIGCONT)
    assert not behind.leads()
    assert behind.store.candidates(ELECTION, deadline=soon())[0].token == token
    behind.store.wake(behind.candidacy)


def test_a_process_that_closes_everything(start: Start, heir: Callable[[], Heir]) -> None:
    """As a daemon does: its guardian hears no more of it, and still waits for its death."""
    node = start()
    node.term()
    behind = heir()
    node.tell("close")
    assert node.ask_guardian() == node.guardian
    assert not behind.leads()
    killed_at = CLOCK.now()
    node.kill()

    assert behind.wait(within=5.0) - killed_at < 0.25


def test_a_child_of_a_fork(start: Start, heir: Callable[[], Heir]) -> None:
    """A child that outlives the process neither holds the guardian up nor takes it along."""
    node = start()
    node.term()
    behind = heir()
    child = node.fork()
    try:
        killed_at = CLOCK.now()
        node.kill()
        assert behind.wait(within=5.0) - killed_at < 0.25
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
    time_of_death(child)


# Attacks: what may fail is the speed.


def test_the_guardian_is_killed_first(start: Start, heir: Callable[[], Heir]) -> None:
    """The term goes on, another guardian is there with the next renewal, and it is said once."""
    node = start(ttl=2.0)
    token = node.term()
    behind = heir()
    os.kill(node.guardian, signal.SIGKILL)

    limit = soon()
    while (other := node.ask_guardian()) in (0, node.guardian):
        assert CLOCK.now() < limit, node.log
    assert behind.store.candidates(ELECTION, deadline=soon())[0].token == token
    assert "another one takes over" in node.log
    killed_at = CLOCK.now()
    node.kill()
    assert behind.wait(within=5.0) - killed_at < 0.25
    time_of_death(other)


def test_both_are_killed_together(start: Start, heir: Callable[[], Heir]) -> None:
    """As when a whole machine dies: the lease runs out, and not before."""
    node = start(ttl=2.0)
    node.term()
    behind = heir()
    os.kill(node.guardian, signal.SIGSTOP)
    killed_at = CLOCK.now()
    node.kill()
    os.kill(node.guardian, signal.SIGKILL)

    took = behind.wait(within=10.0) - killed_at
    assert 2.0 * 2 / 3 - 0.3 < took < 3.0


def test_a_guardian_that_wakes_too_late(start: Start, heir: Callable[[], Heir]) -> None:
    """It was frozen when the process died; thawed when others lead, it hurts none of them."""
    node = start(ttl=2.0)
    node.term()
    behind = heir()
    os.kill(node.guardian, signal.SIGSTOP)
    node.kill()
    behind.wait(within=10.0)
    successor = start("successor", ttl=2.0)
    os.kill(node.guardian, signal.SIGCONT)

    assert node.guardian_is_over()
    assert behind.leads()
    behind.store.withdraw(behind.candidacy, deadline=soon())
    assert successor.term() > behind.candidacy.token


def test_the_number_of_the_process_is_given_to_another(
    start: Start, heir: Callable[[], Heir]
) -> None:
    """Who gets the dead process's number is not taken for it: the lease of the dead is revoked."""
    node = start()
    behind = heir()
    os.kill(node.guardian, signal.SIGSTOP)
    node.kill()
    namesake = start_with_pid(node.pid, lambda: start("namesake"))
    assert namesake.pid == node.pid
    assert not behind.leads()
    thawed_at = CLOCK.now()
    os.kill(node.guardian, signal.SIGCONT)

    assert behind.wait(within=5.0) - thawed_at < 0.5
    assert node.guardian_is_over()
    behind.store.withdraw(behind.candidacy, deadline=soon())
    assert namesake.term() > behind.candidacy.token
    assert namesake.ask_guardian() == namesake.guardian


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_etcd_is_away_at_that_moment(
    make_cluster: MakeCluster,
    make_store: MakeStore,
    start: Start,
    fault: str,
) -> None:
    """The guardian tries until the lease is gone, and is done when etcd is back."""
    cluster = make_cluster()
    node = start(store=cluster.url)
    behind = Heir(make_store(cluster.endpoints))
    (member,) = cluster.members
    getattr(member, fault)()
    node.kill()
    assert is_alive(node.guardian)
    (member.start if fault == "kill" else member.thaw)()
    member.wait_healthy()

    back_at = CLOCK.now()
    assert behind.wait(within=20.0) - back_at < 2.0
    assert node.guardian_is_over()


def test_a_member_that_is_frozen(
    make_cluster: MakeCluster, make_store: MakeStore, start: Start
) -> None:
    """It goes on to the next one after a second."""
    cluster = make_cluster(3)
    node = start(store=cluster.url)
    first, *others = cluster.members
    behind = Heir(make_store([member.endpoint for member in others]))
    first.freeze()
    killed_at = CLOCK.now()
    node.kill()

    assert behind.wait(within=20.0) - killed_at < 4.0
    first.thaw()


# Secured clusters


def test_a_secured_cluster(
    make_cluster: MakeCluster,
    make_store: MakeStore,
    start: Start,
    namespace: str,
    authority: Authority,
    tmp_path: Path,
) -> None:
    """Certificates on both sides and a user, whose token has run out when the process dies."""
    cluster = make_cluster(
        tls=authority,
        client_certificates=True,
        extra_args=["--bcrypt-cost=4", "--auth-token-ttl=2"],
    )
    cluster.enable_auth(f"{namespace}/", user="app", password="hush-hush")
    pair = authority.issue("client")
    (tmp_path / "password").write_text("hush-hush\n")
    user = {"user": "app", "password_file": tmp_path / "password"}
    files = {"ca_file": authority.ca_file, "cert_file": pair.cert, "key_file": pair.key}
    node = start(store=cluster.url, **{k: str(v) for k, v in {**user, **files}.items()})
    behind = Heir(make_store(cluster.endpoints, tls=True, **user, **files))
    rest(2.5)
    killed_at = CLOCK.now()
    node.kill()

    assert behind.wait(within=5.0) - killed_at < 1.0
    assert b"hush-hush" not in Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
    assert node.guardian_is_over()
    assert "hush-hush" not in node.log


def rest(seconds: float) -> None:
    """Let time go by, which is what some things here are about."""
    CLOCK.wait(threading.Event(), seconds)


def status_of(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def start_with_pid(pid: int, start: Callable[[], GuardedNode]) -> GuardedNode:
    """Have the next process get the number *pid*, which must be free; skips where root is needed."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("only root may say which number the next process gets")
    last.write_text(str(pid - 1))
    return start()
