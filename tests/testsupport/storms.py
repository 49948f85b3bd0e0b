"""
Faults at random: a fleet and its store are hurt, and what does not heal by itself is made good again.

``SOAK_SECONDS`` says for how long, ``SOAK_SEED`` repeats the choices of a round that failed.
"""

import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from testsupport.etcd import EtcdCluster
from testsupport.node_fleet import Fleet

__all__ = [
    "SECONDS",
    "SOAKING",
    "Fault",
    "Heal",
    "Storm",
    "etcd_faults",
    "nothing",
    "seeded",
    "sqlite_faults",
]

#: Whether there is time.
SOAKING: Final = "SOAK_SECONDS" in os.environ
#: How long a storm lasts, in seconds.
SECONDS: Final = float(os.environ.get("SOAK_SECONDS", "15"))

#: What a fault returns: what makes it good again.
Heal = Callable[[], object]
#: Something that is done to a fleet.
Fault = Callable[[], Heal]


def seeded() -> random.Random:
    """Return chance, as the seed says that is printed."""
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(1_000_000)))
    print(f"SOAK_SEED={seed}")  # noqa: T201  shown if the test fails
    return random.Random(seed)


class Storm:
    """
    Hurts a fleet at random, and makes good again what does not do so by itself.

    Args:
        fleet: the fleet.
        chance: what decides.
        fill_up: starts a node for each one that has ended.

    Attributes:
        faults: what may happen.
    """

    def __init__(
        self, fleet: Fleet, chance: random.Random, *, fill_up: Callable[[], object]
    ) -> None:
        self.faults: list[Fault] = []
        self._fleet = fleet
        self._chance = chance
        self._fill_up = fill_up
        self._heals: list[tuple[float, Heal]] = []

    def rage(self, seconds: float) -> None:
        """Do so for some time; afterwards all is well again."""
        limit = self._fleet.clock.now() + seconds
        while self._fleet.clock.now() < limit:
            fault = self._chance.choice(self.faults)
            heal_at = self._fleet.clock.now() + self._chance.uniform(0.5, 4.0)
            self._heals.append((heal_at, fault()))
            self._fleet.pause(self._chance.uniform(0.1, 1.5))
            self._heal(self._fleet.clock.now())
            self._fill_up()
        for _, heal in self._heals:
            heal()

    def _heal(self, now: float) -> None:
        due = [heal for moment, heal in self._heals if moment <= now]
        self._heals = [entry for entry in self._heals if entry[0] > now]
        for heal in due:
            heal()


def nothing() -> None:
    """Heal what needs no healing."""


def etcd_faults(cluster: EtcdCluster, chance: random.Random) -> Sequence[Fault]:
    """Members that die or freeze: one is no matter, and two are a quorum."""

    def lose_member() -> Heal:
        member = chance.choice(cluster.members)
        if not member.alive:
            return nothing
        member.kill()
        return member.start

    def freeze_member() -> Heal:
        member = chance.choice(cluster.members)
        if not member.alive:
            return nothing
        member.freeze()
        return member.thaw

    return [lose_member, freeze_member, freeze_member]


def sqlite_faults(path: Path) -> Sequence[Fault]:
    """Somebody else who holds the database's write lock for too long."""

    def lock() -> Heal:
        other = sqlite3.connect(path, isolation_level=None, timeout=0.1)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:  # it is locked already
            other.close()
        return other.close

    return [lock]
