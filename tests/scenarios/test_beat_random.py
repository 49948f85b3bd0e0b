"""Everything at once, at random: beats, broker and store are hurt while workers run guarded tasks."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from testsupport.beat_fleet import BEATS, BeatFleet
from testsupport.brokers import BrokerServer
from testsupport.etcd_fixtures import MakeCluster
from testsupport.storms import (
    SECONDS,
    SOAKING,
    Heal,
    Storm,
    etcd_faults,
    nothing,
    seeded,
    sqlite_faults,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS * 2 + 180)]


class BeatStorm(Storm):
    """
    Hurts a fleet of beats, and its broker.

    Args:
        fleet: the fleet.
        broker: its broker.
        chance: what decides.
    """

    def __init__(self, fleet: BeatFleet, broker: BrokerServer, chance: random.Random) -> None:
        super().__init__(fleet, chance, fill_up=self._fill_up_beats)
        self.fleet = fleet
        self.broker = broker
        self.chance = chance
        self.faults += [
            self._kill,
            self._terminate,
            self._freeze,
            self._trap,
            self._lose_broker,
            self._freeze_broker,
        ]
        self._started = 0

    def aim(self) -> None:
        """Kill a leader between claim and send, and freeze the next one there past its lease."""
        fleet = self.fleet
        fleet.set_trap(signal.SIGKILL, 4)
        fleet.await_sprung(1)
        _, leader = fleet.leader()
        fleet.set_trap(signal.SIGSTOP, 3)
        fleet.await_sprung(2)
        _, successor = fleet.leader(newer_than=leader.token)
        fleet.await_published(successor.token)
        self._thaw()

    def rage(self, seconds: float) -> None:
        """Do so for some time; afterwards all is well again."""
        super().rage(seconds)
        self.fleet.take_trap_away()
        self._thaw()

    def _fill_up_beats(self) -> None:
        while len(self.fleet.living_beats()) < len(BEATS):
            self._started += 1
            self.fleet.beat(f"r{self._started}")

    def _thaw(self) -> None:
        for node in self.fleet.living_beats():
            node.thaw()

    # -- faults -----------------------------------------------------------------------------------

    def _kill(self) -> Heal:
        self.chance.choice(self.fleet.living_beats()).kill()
        return nothing

    def _terminate(self) -> Heal:
        self.chance.choice(self.fleet.living_beats()).process.terminate()
        return nothing

    def _freeze(self) -> Heal:
        self.chance.choice(self.fleet.living_beats()).freeze()
        return self._thaw

    def _trap(self) -> Heal:
        number = self.chance.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM))
        self.fleet.set_trap(number, self.chance.randint(1, 5))
        return self._thaw

    def _lose_broker(self) -> Heal:
        self.broker.kill()
        return self.broker.heal

    def _freeze_broker(self) -> Heal:
        if self.broker.alive:
            self.broker.freeze()
        return self.broker.heal


#: What beats are tried on: the first in CI, all where there is time.
_PLACES: Final = [
    pytest.param(("etcd", "redis_broker"), marks=[pytest.mark.etcd, pytest.mark.redis]),
    pytest.param(("sqlite", "rabbit_broker"), marks=pytest.mark.rabbitmq),
    pytest.param(("sqlite", "redis_broker"), marks=pytest.mark.redis),
    pytest.param(("etcd", "rabbit_broker"), marks=[pytest.mark.etcd, pytest.mark.rabbitmq]),
]


@pytest.fixture(params=_PLACES if SOAKING else _PLACES[:1], ids="-".join)
def storm(
    request: pytest.FixtureRequest, tmp_path: Path, make_cluster: MakeCluster
) -> Iterator[BeatStorm]:
    """Three beats and two workers, and what can be done to them."""
    store, name = request.param
    chance = seeded()
    broker: BrokerServer = request.getfixturevalue(name)
    path = tmp_path / "store.sqlite3"
    url, faults = f"sqlite:///{path}", sqlite_faults(path)
    if store == "etcd":
        cluster = make_cluster(3)
        url, faults = cluster.url, etcd_faults(cluster, chance)
    # What a worker had received from Redis when that died would come back after an hour.
    options = {"visibility_timeout": 5} if name == "redis_broker" else {}
    conf = {"broker_transport_options": options}
    with BeatFleet(tmp_path, url, broker, task="guarded", patience=5.0, conf=conf) as fleet:
        fleet.worker("w1", "-P", "prefork")
        fleet.worker("w2", "-P", "threads")
        fleet.populate()
        storm = BeatStorm(fleet, broker, chance)
        storm.faults += faults
        yield storm


def test_all_at_random(storm: BeatStorm) -> None:
    """Whatever happens to them: no instant without a body, none with two, none with two ids."""
    storm.aim()
    storm.rage(SECONDS)
    verdict = storm.fleet.finish(within=120.0)
    print(f"{verdict.planned} planned, {verdict.copies} copies")  # noqa: T201  for make soak

    assert verdict.wrong == []
