"""A snapshot is restored while nodes run jobs, or while they are down: nothing is run twice."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from leader_jobs.exceptions import CandidacyLost, Fenced, HistoryRewound
from leader_jobs.stores.base import ABSENT, Write
from testsupport.etcd import EtcdCluster, newest_binaries
from testsupport.etcd_fixtures import MakeStore
from testsupport.faults import BRIEF, ROUNDS
from testsupport.job_node import JOBS
from testsupport.node_fleet import Verdict
from testsupport.ports import free_port
from testsupport.restoring import Backup, can_bump
from testsupport.sick_fleet import SickFleet

pytestmark = [pytest.mark.alone, pytest.mark.etcd, pytest.mark.timeout(60 + 40 * ROUNDS)]

_TTL = 3.0
_NOTICED = "etcd's history was taken back"
_NOTED = "the ledger of election 'default' was taken back"

_SAME = ["--initial-cluster-token=etcd-cluster"]
_BUMPED = ["--bump-revision=1000000000", "--mark-compacted"]


class RestoredFleet(SickFleet):
    """A fleet whose ledger is taken back: an occurrence may be passed over for that."""

    lenient = frozenset(JOBS)

    def look_anew(self) -> None:
        """Have the judge, who looks on at the store, take note of the restore, too."""
        with suppress(HistoryRewound):
            self._ledger.jobs()

    def passed_over(self) -> int:
        """Return how many entries say that a restore is why something was not run."""
        entries = [entry for job in self.jobs for entry in self._ledger.history(job)]
        return sum(entry.reason == "restored" for entry in entries)

    def reasons(self) -> set[str]:
        """Return why jobs that catch up on everything were not run."""
        jobs = [job for job in self.jobs if job != "latest"]
        entries = [entry for job in jobs for entry in self._ledger.history(job)]
        return {entry.reason for entry in entries if entry.state in ("skipped", "coalesced")}

    def gap(self) -> float:
        """Return the longest time in which no body began, in seconds."""
        starts = sorted(float(line[6]) for line in self._lines("begin"))
        return max(later - start for start, later in pairwise(starts))

    def await_bodies(self, many: int) -> None:
        """Wait until so many more bodies have begun."""
        goal = len(self._lines("begin")) + many
        self.await_that(lambda: len(self._lines("begin")) >= goal, f"no {many} bodies", 30.0)

    def await_logged(self, text: str) -> None:
        """Wait until a node has logged *text*."""
        self.await_that(
            lambda: any(text in node.log.read_text() for node in self.nodes),
            f"nobody logs {text!r}",
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Three members of the newest version there is, to be restored."""
    # Members are added and removed without waiting until etcd has seen the others for long enough.
    options = ["--strict-reconfig-check=false"]
    with EtcdCluster(3, binaries=newest_binaries(), extra_args=options, **BRIEF) as cluster:
        yield cluster


def _record(fault: str, verdicts: list[Verdict], gap: float, holds: str) -> None:
    results = os.environ.get("FAULT_RESULTS")
    if results is None:
        return
    line = {
        "fault": fault,
        "rounds": len(verdicts),
        "planned": sum(verdict.planned for verdict in verdicts),
        "doubled": sum(len(verdict.doubled) for verdict in verdicts),
        "missed": sum(len(verdict.missed) for verdict in verdicts),
        "idle": round(gap, 1),
        "holds": f"ends, and another begins; {holds}",
    }
    with Path(results).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _judge(fleet: RestoredFleet) -> Verdict:
    verdict = fleet.stop(within=30.0)
    assert verdict.doubled == [], fleet.logs()
    assert verdict.missed == [], fleet.logs()
    assert fleet.passed_over() > 0
    assert fleet.reasons() == {"restored"}
    return verdict


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("the same token", _SAME),
        ("a new token", ["--initial-cluster-token=restored-{turn}"]),
        ("the same token and revisions bumped", [*_SAME, *_BUMPED]),
    ],
    ids=["same-token", "new-token", "bumped"],
)
def test_nodes_live_through_a_restore(
    cluster: EtcdCluster, tmp_path: Path, namespace: str, name: str, options: list[str]
) -> None:
    """Whoever led knows better than the store: what ran since the snapshot is not run again."""
    if "bumped" in name and not can_bump(cluster):
        pytest.skip(f"etcd {cluster.binaries.version} can not bump revisions")
    verdicts, gap = [], 0.0
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        place = f"{namespace}/{turn}"
        with RestoredFleet(folder, cluster, ttl=_TTL, namespace=place) as fleet:
            fleet.populate("a", "b", "c")
            fleet.await_bodies(4)
            backup = Backup(cluster, folder)
            fleet.await_bodies(10)
            backup.restore(*(option.format(turn=turn) for option in options))
            fleet.look_anew()
            fleet.await_logged(_NOTED)
            fleet.await_logged(_NOTICED)
            fleet.await_bodies(4)
            verdicts.append(_judge(fleet))
            gap = max(gap, fleet.gap())
    _record(f"snapshot restore, {name}", verdicts, gap, "noticed by the nodes that ran")


def test_nodes_that_come_later_see_a_new_cluster(
    cluster: EtcdCluster, tmp_path: Path, namespace: str
) -> None:
    """With a new token the cluster has another id than the ledger was written in."""
    verdicts, gap = [], 0.0
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        place = f"{namespace}/{turn}"
        with RestoredFleet(folder, cluster, ttl=_TTL, namespace=place) as fleet:
            fleet.populate("a")
            fleet.await_bodies(4)
            backup = Backup(cluster, folder)
            fleet.await_bodies(10)
            assert fleet.nodes[0].terminate() == 0
            backup.restore(f"--initial-cluster-token=later-{turn}")
            fleet.start("b")
            fleet.look_anew()
            fleet.await_logged(_NOTED)
            fleet.await_bodies(4)
            verdicts.append(_judge(fleet))
            gap = max(gap, fleet.gap())
    _record(
        "snapshot restore, a new token, all nodes down",
        verdicts,
        gap,
        "noticed by the record of the cluster's id",
    )


@pytest.mark.parametrize("options", [_SAME, [*_SAME, *_BUMPED]], ids=["same-token", "bumped"])
def test_a_term_that_came_back_is_fenced(
    cluster: EtcdCluster,
    tmp_path: Path,
    make_store: MakeStore,
    within: Callable[[float], float],
    options: list[str],
) -> None:
    """Its key and lease are in the snapshot; the store itself refuses what it writes."""
    if "--mark-compacted" in options and not can_bump(cluster):
        pytest.skip(f"etcd {cluster.binaries.version} can not bump revisions")
    store = make_store(cluster.endpoints)
    candidacy = store.enrol("mail", b"{}", 60.0, deadline=within(5))
    version = ABSENT
    for value in (b"1", b"2"):
        write = Write("jobs/a", value, version)
        version = store.commit("mail", [write], candidacy=candidacy, deadline=within(5))
    backup = Backup(cluster, tmp_path)
    write = Write("jobs/a", b"3", version)
    version = store.commit("mail", [write], candidacy=candidacy, deadline=within(5))
    backup.restore(*options)
    other = Write("jobs/b", b"1", ABSENT)
    with pytest.raises(Fenced, match="taken back"):
        store.commit("mail", [other], candidacy=candidacy, deadline=within(10))
    assert store.origin.seen_until is not None
    found = store.read("mail", "jobs/", deadline=within(5))
    assert {key: record.value for key, record in found.items()} == {"jobs/a": b"2"}
    for call in (store.standing, partial(store.renew, leading=True)):
        with pytest.raises(CandidacyLost):
            call(candidacy, deadline=within(5))
    store.withdraw(candidacy, deadline=within(5))
    again = store.enrol("mail", b"{}", 60.0, deadline=within(5))
    assert store.standing(again, deadline=within(5)).leads
    store.commit("mail", [other], candidacy=again, deadline=within(5))


@contextmanager
def _another_member(cluster: EtcdCluster) -> Iterator[None]:
    """Have one member more, which is never started and has no vote, for the time of the block."""
    url = f"--peer-urls=http://127.0.0.1:{free_port()}"
    added = cluster.etcdctl("member", "add", "learner", url, "--learner")
    yield
    cluster.etcdctl("member", "remove", added.split()[1])


def test_what_is_no_restore_is_no_alarm(
    cluster: EtcdCluster, make_store: MakeStore, within: Callable[[float], float]
) -> None:
    """Leaders and members that change, compaction, defragmentation, a record that is removed."""
    store, other = make_store(cluster.endpoints), make_store(cluster.endpoints[::-1])
    candidacy = store.enrol("mail", b"{}", 60.0, deadline=within(5))

    def go_on() -> None:
        for number in range(5):
            write = Write("jobs/a", str(number).encode())
            version = store.commit("mail", [write], candidacy=candidacy, deadline=within(10))
            found = other.read("mail", "jobs/", deadline=within(10))
            assert found["jobs/a"].version == version
            guarded = Write("jobs/a", b"x", version)
            store.commit("mail", [guarded], candidacy=candidacy, deadline=within(10))
        store.renew(candidacy, leading=True, deadline=within(10))

    go_on()
    for member in cluster.members:
        cluster.make_leader(member)
        go_on()
    with _another_member(cluster):
        go_on()
    latest = other.read("mail", "jobs/", deadline=within(5))["jobs/a"].version
    cluster.etcdctl("compact", str(latest))
    cluster.etcdctl("defrag")
    go_on()
    member = cluster.etcd_leader()
    member.kill()
    other.read("mail", "jobs/", deadline=within(10))
    member.start()
    cluster.wait_healthy()
    go_on()
    other.commit("mail", [Write("jobs/a", None)], candidacy=None, deadline=within(5))
    go_on()
    assert [each.origin.seen_until for each in (store, other)] == [None, None]
