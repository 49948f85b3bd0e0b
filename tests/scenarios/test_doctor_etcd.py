"""The doctor visits real clusters: healthy ones, and ones where something is the matter."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.doctor import Finding, Level, examine
from leader_jobs.doctor.cluster import known_bugs
from testsupport.cli import run
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster
from testsupport.node_fleet import Fleet

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def visit(*endpoints: str, timeout: float = 5.0, **settings: Any) -> list[Finding]:
    """Examine what is at some endpoints."""
    url = f"etcd://{','.join(endpoints)}"
    return list(examine(Settings(store=url, **settings), clock=CLOCK, timeout=timeout))


def told(findings: list[Finding], check: str, level: Level | None = None) -> list[str]:
    """Return what was said of one thing, at one level or at any."""
    return [f.message for f in findings if f.check == check and level in (None, f.level)]


def test_a_healthy_cluster(etcd_cluster: EtcdCluster, namespace: str) -> None:
    """All of it is looked at, all is well but for what is known of the version; nothing stays behind."""
    answer = run("--store", etcd_cluster.url, "--namespace", namespace, "doctor", "--json")
    report = answer.json
    found = {finding["check"]: finding for finding in report["findings"]}

    assert (answer.code, report["ok"]) == (0, True)
    for check in ("settings", "endpoint", "cluster", "clock", "rights", "ttl", "pace", "expiry"):
        assert found[check]["level"] == "ok", found[check]
    assert found["cluster"]["message"] == "all 3 members are named"
    bugs = known_bugs(etcd_cluster.binaries.version)
    assert (found["version"]["level"] == "warning") == bool(bugs)
    assert all(bug in found["version"]["message"] for bug in bugs)
    assert found["leader"]["level"] == "warning"
    assert etcd_cluster.etcdctl("get", "--prefix", "--keys-only", namespace) == ""


def test_members_that_are_away_or_of_another_cluster(
    etcd: EtcdCluster, etcd_cluster: EtcdCluster, namespace: str
) -> None:
    """Each endpoint is asked on its own."""
    away = "127.0.0.1:1"
    found = visit(
        *etcd.endpoints, away, *etcd_cluster.endpoints[:1], namespace=namespace, timeout=0.5
    )

    (missed,) = told(found, "endpoint", Level.PROBLEM)
    assert away in missed
    assert "refused" in missed
    assert len(told(found, "endpoint", Level.OK)) == 2
    (split,) = told(found, "cluster", Level.PROBLEM)
    assert "an election of its own" in split
    found = visit(away, namespace=namespace, timeout=0.2)
    assert [finding.fatal for finding in found] == [False, False, True]
    assert run("--store", f"etcd://{away}", "doctor", "--timeout", "0.2").code == 2


def test_a_cluster_that_is_named_in_part(etcd_cluster: EtcdCluster, namespace: str) -> None:
    """Calls could not go on with the members that nobody named."""
    found = visit(*etcd_cluster.endpoints[1:], namespace=namespace)
    assert told(found, "cluster", Level.WARNING) == [
        "the store's URL names 2 of the cluster's 3 members"
    ]


def test_users_and_rights(make_cluster: MakeCluster, namespace: str, tmp_path: Path) -> None:
    """Who may not log in, and who may not do all that is needed; and the command that cures it does."""
    cluster = make_cluster(1, extra_args=["--bcrypt-cost=4"])
    cluster.enable_auth(f"{namespace}/ledger/", user="app", password="hush-hush")
    settings: dict[str, Any] = {"namespace": namespace, "user": "app", "password": "hush-hush"}

    strangers: list[dict[str, Any]] = [{**settings, "password": "wrong"}, {"namespace": namespace}]
    for wrong in strangers:
        found = visit(*cluster.endpoints, **wrong)
        assert found[-1].fatal
        (problem, _) = [finding for finding in found if finding.level is Level.PROBLEM]
        assert problem.check == "endpoint"
        assert "user" in problem.remedy
        assert "password" in problem.remedy

    found = visit(*cluster.endpoints, **settings)
    missing = [finding for finding in found if finding.check == "rights"]
    prefixes = [f"{namespace}/elections/{name}/" for name in ("default", "default.runners")]
    assert [f.message.rpartition(" ")[2] for f in missing] == prefixes
    assert not told(found, "expiry")
    for finding in missing:
        _, *arguments = finding.remedy.replace("ROLE", "app").split()
        cluster.etcdctl("--user=root:root", *arguments)
    found = visit(*cluster.endpoints, **settings)
    assert [finding for finding in found if finding.level is Level.PROBLEM] == []
    assert told(found, "expiry")
    assert "hush-hush" not in repr(found)


def fill(cluster: EtcdCluster) -> None:
    """Write until that is refused."""
    for number in range(20):
        cluster.etcdctl("put", f"filler/{number}", "x" * 100_000)


def test_a_cluster_that_is_full(make_cluster: MakeCluster, namespace: str) -> None:
    """The alarm is named, with what to do, before anything is tried."""
    cluster = make_cluster(1, extra_args=["--quota-backend-bytes=300000"])
    with pytest.raises(AssertionError, match="space exceeded"):
        fill(cluster)
    found = visit(*cluster.endpoints, namespace=namespace, timeout=1.0)

    (alarm,) = [finding for finding in found if finding.check == "alarm"]
    assert "NOSPACE" in alarm.message
    assert "defragment" in alarm.remedy
    assert found[-1].fatal


def test_what_stands_in_an_election(etcd: EtcdCluster, namespace: str, tmp_path: Path) -> None:
    """A key without a lease, a stranger in line, a node whose clock is wrong: each is named."""
    with Fleet(tmp_path, etcd.url, ttl=30.0, namespace=namespace) as fleet:
        fleet.start("late", skew=-9.0)
        _, leader = fleet.leader()
        squatter = f"{namespace}/elections/default/squatter; reboot"
        etcd.etcdctl("put", squatter, "hello")
        fleet.await_run(leader.token)
        found = visit(*etcd.endpoints, namespace=namespace)

    (problem,) = [finding for finding in found if finding.check == "squatter"]
    assert problem.message == (
        f"the key {squatter} has no lease: whoever stands behind it never leads"
    )
    assert etcd.etcdctl(*shlex.split(problem.remedy)[1:]) == "1\n"
    assert told(found, "foreign", Level.WARNING) == [
        "candidates of another program stand in line: hello"
    ]
    (clock,) = told(found, "clock", Level.WARNING)
    assert clock.startswith("the clock of node late is 8.")
    assert " s behind this host's" in clock
