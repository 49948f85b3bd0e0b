"""Everything at once: members and nodes freeze and die at random."""

from pathlib import Path

import pytest

from testsupport.etcd import EtcdCluster
from testsupport.faults import BRIEF, ROUNDS, TTL, Fault, rounds
from testsupport.sick_fleet import SickFleet
from testsupport.storms import Heal, Storm, etcd_faults, nothing, seeded

pytestmark = [
    pytest.mark.alone,
    pytest.mark.etcd,
    pytest.mark.timeout(60 + 60 * ROUNDS),
    pytest.mark.skipif(ROUNDS == 1, reason="storms are for `make faults`"),
]
_NODES = 3
_SECONDS = 12.0


def test_storm(tmp_path: Path) -> None:
    """Whatever comes together, nothing happens twice and nothing is forgotten."""
    fault = Fault(
        name="members and nodes frozen and killed at random for 12 s",
        term="may end",
        overlap=TTL / 3,
    )
    chance = seeded()
    with EtcdCluster(3, **BRIEF) as cluster, SickFleet(tmp_path, cluster, ttl=TTL) as fleet:

        def fill_up() -> None:
            for _ in range(_NODES - sum(node.alive for node in fleet.nodes)):
                fleet.start(f"n{len(fleet.nodes)}")

        def kill_node() -> Heal:
            chance.choice([node for node in fleet.nodes if node.alive]).kill()
            return nothing

        def freeze_node() -> Heal:
            node = chance.choice([node for node in fleet.nodes if node.alive])
            node.freeze()
            return node.thaw

        fill_up()
        for _ in rounds(fault, fleet):
            storm = Storm(fleet, chance, fill_up=fill_up)
            storm.faults = [*etcd_faults(cluster, chance), kill_node, freeze_node]
            storm.rage(_SECONDS)
