"""Disks that are slow, that stall, and that are full."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from leader_jobs.exceptions import StoreUnavailable
from leader_jobs.stores.base import Write
from testsupport.etcd import EtcdCluster, Site
from testsupport.faults import BRIEF, ROUNDS, TTL, Fault, rounds
from testsupport.sick_disk import Disk
from testsupport.sick_fleet import SickFleet

pytestmark = [pytest.mark.alone, pytest.mark.etcd, pytest.mark.timeout(60 + 30 * ROUNDS)]

_QUOTA = 2 * 2**20
_CHUNK = 500_000
_RUBBISH = "rubbish/"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """A disk that can stall; skips where root may not make one."""
    with Disk(tmp_path_factory.mktemp("disk")) as disk:
        yield disk


@pytest.fixture(scope="module")
def cluster(disk: Disk) -> Iterator[EtcdCluster]:
    """A cluster whose first member keeps its data on that disk, and waits for it."""
    sites = [Site(folder=disk.path, durable=True), Site(), Site()]
    with EtcdCluster(3, **BRIEF, sites=sites) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fleet(cluster: EtcdCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SickFleet]:
    """Two nodes that live through everything that is done to that disk here."""
    with SickFleet(tmp_path_factory.mktemp("fleet"), cluster, ttl=TTL) as fleet:
        yield fleet.populate()


@pytest.mark.parametrize(
    ("seconds", "fault"),
    [
        (0.1, Fault(name="fsyncs of etcd's leader take half an election timeout", term="stays")),
        (0.3, Fault(name="fsyncs of etcd's leader take 1.5 election timeouts", term="may end")),
    ],
    ids=["slow", "slower"],
)
def test_slow_disk(
    disk: Disk, cluster: EtcdCluster, fleet: SickFleet, seconds: float, fault: Fault
) -> None:
    """Each fsync of a member waits, for longer than a ttl; slower ones cost it the lead, again and again."""
    first = cluster.members[0]
    for turn in rounds(fault, fleet):
        fleet.drive(fleet.leading(), first)
        cluster.make_leader(first)
        until = fleet.clock.now() + 1.1 * TTL
        while fleet.clock.now() < until:
            disk.freeze()
            fleet.pause(seconds)
            disk.thaw()
        turn.examine()


def test_stalled_disk(disk: Disk, cluster: EtcdCluster, fleet: SickFleet) -> None:
    """Old versions go on confirming leases that the others have long expired: that is not believed."""
    fault = Fault(
        name="the disk of etcd's leader, which our leader talks to, stalls for almost two ttls",
        term="may end",
        says=r"etcd endpoint .*; going on with",
        doctor="did not answer",
        overlap=TTL / 3,
    )
    first = cluster.members[0]
    for turn in rounds(fault, fleet):
        fleet.drive(fleet.leading(), first)
        cluster.make_leader(first)
        disk.freeze()
        fleet.pause(TTL)
        turn.examine()
        fleet.pause(0.7 * TTL)
        disk.thaw()


def test_full(tmp_path: Path) -> None:
    """Leases are kept but nothing is written, so nothing starts; with room again, all is caught up."""
    fault = Fault(
        name="no space: the database is at its quota (alarm NOSPACE) for longer than a ttl",
        term="stays",
        says="space exceeded",
        doctor="NOSPACE",
    )
    quota = (f"--quota-backend-bytes={_QUOTA}",)
    with (
        EtcdCluster(3, **BRIEF, extra_args=quota) as cluster,
        SickFleet(tmp_path, cluster, ttl=TTL) as fleet,
    ):
        fleet.populate()
        for turn in rounds(fault, fleet):
            _fill(fleet)
            turn.await_said()
            turn.examine()
            fleet.pause(1.1 * TTL)
            _make_room(cluster)


def _fill(fleet: SickFleet) -> None:
    """Write until there is no more room."""
    for number in count():
        rubbish = Write(f"{_RUBBISH}{number}", b"x" * _CHUNK)
        try:
            fleet.store.commit(
                "default", [rubbish], candidacy=None, deadline=fleet.clock.now() + 5.0
            )
        except StoreUnavailable as error:
            if "space exceeded" in str(error):
                return


def _make_room(cluster: EtcdCluster) -> None:
    """Do what an operator does."""
    deleted = cluster.etcdctl("del", "--prefix", f"fleet/ledger/default/{_RUBBISH}", "-w", "json")
    revision = json.loads(deleted)["header"]["revision"]
    for command in (f"compact {revision}", "defrag", "alarm disarm"):
        cluster.etcdctl(*command.split())
