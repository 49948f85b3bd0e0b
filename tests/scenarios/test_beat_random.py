"""
Everything at once, at random: beats, broker and store are hurt while workers run guarded tasks.

``SOAK_SECONDS`` says for how long, ``SOAK_SEED`` repeats the choices of a round that failed.
"""

import os
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from testsupport.beat_fleet import BEATS, BeatFleet
from testsupport.brokers import BrokerServer
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster

_SECONDS: Final = float(os.environ.get("SOAK_SECONDS", "15"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(_SECONDS * 2 + 180)]

#: What a fault returns: what makes it good again.
Heal = Callable[[], object]


class Storm:
    """
    Hurts a fleet at random, and makes good again what does not do so by itself.

    Args:
        fleet: the fleet.
        broker: its broker.
        chance: what decides.
    """

    def __init__(self, fleet: BeatFleet, broker: BrokerServer, chance: random.Random) -> None:
        self.fleet = fleet
        self.broker = broker
        self.chance = chance
        self.faults: list[Callable[[], Heal]] = [
            self._kill,
            self._terminate,
            self._freeze,
            self._trap,
            self._lose_broker,
            self._freeze_broker,
        ]
        self._heals: list[tuple[float, Heal]] = []
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
        limit = self.fleet.clock.now() + seconds
        while self.fleet.clock.now() < limit:
            fault = self.chance.choice(self.faults)
            heal_at = self.fleet.clock.now() + self.chance.uniform(0.5, 4.0)
            self._heals.append((heal_at, fault()))
            self.fleet.pause(self.chance.uniform(0.1, 1.5))
            self._heal(self.fleet.clock.now())
            self._fill_up()
        for _, heal in self._heals:
            heal()
        self._thaw()

    def _heal(self, now: float) -> None:
        due = [heal for moment, heal in self._heals if moment <= now]
        self._heals = [entry for entry in self._heals if entry[0] > now]
        for heal in due:
            heal()

    def _fill_up(self) -> None:
        """Start a beat for each one that has ended."""
        while len(self.fleet.living_beats()) < len(BEATS):
            self._started += 1
            self.fleet.beat(f"r{self._started}")

    def _thaw(self) -> None:
        for node in self.fleet.living_beats():
            node.thaw()

    # -- faults -----------------------------------------------------------------------------------

    def _kill(self) -> Heal:
        self.chance.choice(self.fleet.living_beats()).kill()
        return _nothing

    def _terminate(self) -> Heal:
        self.chance.choice(self.fleet.living_beats()).process.terminate()
        return _nothing

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


def _nothing() -> None:
    pass


def _etcd_faults(cluster: EtcdCluster, chance: random.Random) -> list[Callable[[], Heal]]:
    """Members that die or freeze: one is no matter, and two are a quorum."""

    def lose_member() -> Heal:
        member = chance.choice(cluster.members)
        if not member.alive:
            return _nothing
        member.kill()
        return member.start

    def freeze_member() -> Heal:
        member = chance.choice(cluster.members)
        if not member.alive:
            return _nothing
        member.freeze()
        return member.thaw

    return [lose_member, freeze_member, freeze_member]


def _sqlite_faults(path: Path) -> list[Callable[[], Heal]]:
    """Somebody else who holds the database's write lock for too long."""

    def lock() -> Heal:
        other = sqlite3.connect(path, isolation_level=None, timeout=0.1)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # it is locked already
            other.close()
        return other.close

    return [lock]


@pytest.fixture
def chance() -> random.Random:
    """Chance, as the seed says that is printed."""
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"SOAK_SEED={seed}")  # noqa: T201  shown if the test fails
    return random.Random(seed)


#: What beats are tried on: the first in CI, all where there is time.
_PLACES: Final = [
    pytest.param(("etcd", "redis_broker"), marks=[pytest.mark.etcd, pytest.mark.redis]),
    pytest.param(("sqlite", "rabbit_broker"), marks=pytest.mark.rabbitmq),
    pytest.param(("sqlite", "redis_broker"), marks=pytest.mark.redis),
    pytest.param(("etcd", "rabbit_broker"), marks=[pytest.mark.etcd, pytest.mark.rabbitmq]),
]


@pytest.fixture(params=_PLACES if "SOAK_SECONDS" in os.environ else _PLACES[:1], ids="-".join)
def storm(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_cluster: MakeCluster,
    chance: random.Random,
) -> Iterator[Storm]:
    """Three beats and two workers, and what can be done to them."""
    store, name = request.param
    broker: BrokerServer = request.getfixturevalue(name)
    path = tmp_path / "store.sqlite3"
    url, faults = f"sqlite:///{path}", _sqlite_faults(path)
    if store == "etcd":
        cluster = make_cluster(3)
        url, faults = cluster.url, _etcd_faults(cluster, chance)
    # What a worker had received from Redis when that died would come back after an hour.
    options = {"visibility_timeout": 5} if name == "redis_broker" else {}
    conf = {"broker_transport_options": options}
    with BeatFleet(tmp_path, url, broker, task="guarded", patience=5.0, conf=conf) as fleet:
        fleet.worker("w1", "-P", "prefork")
        fleet.worker("w2", "-P", "threads")
        fleet.populate()
        storm = Storm(fleet, broker, chance)
        storm.faults += faults
        yield storm


def test_all_at_random(storm: Storm) -> None:
    """Whatever happens to them: no instant without a body, none with two, none with two ids."""
    storm.aim()
    storm.rage(_SECONDS)
    verdict = storm.fleet.finish(within=120.0)
    print(f"{verdict.planned} planned, {verdict.copies} copies")  # noqa: T201  for make soak

    assert verdict.wrong == []
    assert verdict.copies > 0, "there was something to be turned away"
