"""Authentication that is switched on and off while nodes run, and tokens that expire."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testsupport.etcd import EtcdCluster
from testsupport.faults import BRIEF, ROUNDS, TTL, Fault, rounds
from testsupport.sick_fleet import SickFleet

pytestmark = [pytest.mark.alone, pytest.mark.etcd, pytest.mark.timeout(60 + 30 * ROUNDS)]

_USER, _PASSWORD = "app", "secret"


@contextmanager
def _authentication(cluster: EtcdCluster) -> Iterator[None]:
    """Switch it on for a while."""
    cluster.etcdctl("auth", "enable")
    try:
        yield
    finally:
        cluster.etcdctl("--user=root:root", "auth", "disable")


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members that know users, and whose tokens expire after a second without use."""
    with EtcdCluster(3, **BRIEF, extra_args=("--auth-token-ttl=1",)) as cluster:
        cluster.enable_auth("test/", user=_USER, password=_PASSWORD)
        cluster.etcdctl("--user=root:root", "auth", "disable")
        yield cluster


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nodes know user and password."""
    monkeypatch.setenv("LEADER_JOBS_USER", _USER)
    monkeypatch.setenv("LEADER_JOBS_PASSWORD", _PASSWORD)


@pytest.fixture
def fleet(cluster: EtcdCluster, tmp_path: Path, namespace: str) -> Iterator[SickFleet]:
    """A fleet without nodes, whose judge may log in."""
    with SickFleet(
        tmp_path, cluster, ttl=TTL, namespace=namespace, user=_USER, password=_PASSWORD
    ) as fleet:
        yield fleet


@pytest.mark.usefixtures("credentials")
def test_auth_switched_on(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Nodes that have user and password log in when they are first asked to, and go on."""
    fault = Fault(name="authentication switched on, and off again; nodes have a user", term="stays")
    fleet.populate()
    for turn in rounds(fault, fleet):
        with _authentication(cluster):
            turn.examine()
            fleet.pause(1.1 * TTL)


def test_auth_switched_on_for_strangers(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Nodes that have none say so in one line and do nothing; when they are let in again, they catch up."""
    fault = Fault(
        name="authentication switched on, and off again; nodes have no user",
        term="ends",
        says="etcd asks for a login .* set user and password",
    )
    fleet.populate()
    for turn in rounds(fault, fleet):
        with _authentication(cluster):
            turn.await_said()
            fleet.pause(1.1 * TTL)


def test_strangers_in_line(
    cluster: EtcdCluster, fleet: SickFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that is not let in any more stands in nobody's way."""

    def start(name: str, *, known: bool) -> None:
        with monkeypatch.context() as patch:
            if known:
                patch.setenv("LEADER_JOBS_USER", _USER)
                patch.setenv("LEADER_JOBS_PASSWORD", _PASSWORD)
            fleet.start(name)

    fault = Fault(
        name="authentication switched on; the next in line has no user, and the leader dies",
        term="ends",
        says="etcd asks for a login .* set user and password",
    )
    start("known-0", known=True)
    fleet.leader()
    start("stranger", known=False)
    for turn in rounds(fault, fleet):
        start(f"known-{turn.number + 1}", known=True)
        fleet.heal()
        leader = fleet.leading()
        with _authentication(cluster):
            leader.kill()
            fleet.await_run(turn.mark.token + 1)


@pytest.mark.usefixtures("credentials")
def test_tokens_expire(cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Each member forgets tokens by itself; calls that move to another one log in there."""
    fault = Fault(
        name="tokens expire after 1 s, and the member our leader talks to is killed", term="stays"
    )
    with _authentication(cluster):
        fleet.populate()
        for turn in rounds(fault, fleet):
            member = fleet.member_of(fleet.leading())
            member.kill()
            turn.examine()
            fleet.pause(1.1 * TTL)
            member.start()
