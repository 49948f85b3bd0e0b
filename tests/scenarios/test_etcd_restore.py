"""A snapshot is restored while nodes run jobs, or while they are down: nothing is run twice."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from leader_jobs.exceptions import HistoryRewound
from testsupport.etcd import EtcdCluster, newest_binaries
from testsupport.faults import BRIEF, ROUNDS
from testsupport.job_node import JOBS
from testsupport.node_fleet import Verdict
from testsupport.restoring import Backup, can_bump
from testsupport.sick_fleet import SickFleet

pytestmark = [pytest.mark.slow, pytest.mark.etcd, pytest.mark.timeout(60 + 40 * ROUNDS)]

_TTL = 3.0
_NOTICED = "etcd's history was taken back"
_NOTED = "the ledger of election 'default' was taken back"


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
    with EtcdCluster(3, binaries=newest_binaries(), **BRIEF) as cluster:
        yield cluster


def _record(fault: str, verdicts: list[Verdict], gap: float, holds: str) -> None:
    results = os.environ.get("FAULT_RESULTS")
    if results is None:
        return
    line = {
        "fault": fault,
        "rounds": len(verdicts),
        "doubled": sum(len(verdict.doubled) for verdict in verdicts),
        "missed": sum(len(verdict.missed) for verdict in verdicts),
        "worst_gap": round(gap, 1),
        "holds": holds,
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
        ("the same token", ["--initial-cluster-token=etcd-cluster"]),
        ("a new token", ["--initial-cluster-token=restored-{turn}"]),
        (
            "the same token and revisions bumped",
            [
                "--initial-cluster-token=etcd-cluster",
                "--bump-revision=1000000000",
                "--mark-compacted",
            ],
        ),
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
