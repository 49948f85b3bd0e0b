"""Members whose clocks are off: the time of day, and the time since boot."""

from email.utils import parsedate_to_datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest

from testsupport.etcd import EtcdCluster, Member
from testsupport.faults import BRIEF, ROUNDS, TTL, Fault, rounds
from testsupport.sick_clock import booted_apart, put_wall_clock_off
from testsupport.sick_fleet import SickFleet

pytestmark = [pytest.mark.alone, pytest.mark.etcd, pytest.mark.timeout(60 + 30 * ROUNDS)]

_HOUR = 3600


def test_wall_clocks_off(tmp_path: Path) -> None:
    """Leases and tokens do not care what day a member believes it is, leader or not."""
    fault = Fault(
        name="the wall clocks of two members step an hour forward and an hour back",
        term="stays",
        doctor="clock is 1 h",
    )
    with (
        EtcdCluster(3, **BRIEF) as cluster,
        SickFleet(tmp_path, cluster, ttl=TTL) as fleet,
    ):
        fleet.populate()
        for turn in rounds(fault, fleet):
            for member, seconds in zip(cluster.members, (_HOUR, -_HOUR), strict=False):
                cluster.make_leader(member)
                put_wall_clock_off(member, seconds)
                assert _is_off(fleet, member) == pytest.approx(seconds, abs=5)
            turn.examine()
            fleet.pause(0.5 * TTL)
            for member in cluster.members[:2]:
                cluster.make_leader(member)
                put_wall_clock_off(member, 0)


def _is_off(fleet: SickFleet, member: Member) -> float:
    """Return how far the clock of a member is ahead, as it says itself."""
    host, _, port = member.endpoint.partition(":")
    connection = HTTPConnection(host, int(port), timeout=5)
    connection.request("GET", "/version")
    date = parsedate_to_datetime(connection.getresponse().headers["Date"])
    connection.close()
    return (date - fleet.clock.utcnow()).total_seconds()


def test_boot_clocks_apart(tmp_path: Path) -> None:
    """What counts from boot differs by hours between members, and the lead goes from one to another."""
    fault = Fault(
        name="boot clocks of members hours apart, etcd's leader moved and killed",
        term="stays",
    )
    with (
        EtcdCluster(3, **BRIEF, sites=booted_apart()) as cluster,
        SickFleet(tmp_path, cluster, ttl=TTL) as fleet,
    ):
        fleet.populate()
        for _ in rounds(fault, fleet):
            for member in cluster.members:
                cluster.make_leader(member)
                fleet.pause(0.3)
            victim = cluster.members[-1]
            victim.kill()
            fleet.pause(1.0)
            victim.start()
