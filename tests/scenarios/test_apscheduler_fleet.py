"""
The contract of schedulers: whatever is done to four processes, what their jobs wrote shows each run
time once.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from leader_jobs.records import MOST_ATTEMPTS
from testsupport.apscheduler_fleet import CONTRACT, SchedulerFleet, every, once
from testsupport.apscheduler_node import POINTS
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster
from testsupport.node_fleet import Node
from testsupport.storms import (
    SECONDS,
    SOAKING,
    Fault,
    Heal,
    Storm,
    etcd_faults,
    nothing,
    seeded,
    sqlite_faults,
)

_SECONDS: Final = SECONDS if SOAKING else 6.0
#: How long a store is away, in seconds.
_OUTAGE: Final = 2.5
#: One-shot jobs, during the storm.
_ONE_SHOTS: Final = {f"once{n}": once(2.5 + 0.7 * n) for n in range(int(_SECONDS / 0.7))}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(_SECONDS * 2 + 180)]


class LeaderStorm(Storm):
    """
    Hurts whoever leads.

    Args:
        fleet: the fleet.
        chance: what decides.
        outage: takes its store away.
        faults: what may happen to its store meanwhile.

    Attributes:
        hurt: the names of the nodes that were killed or frozen.
    """

    def __init__(
        self,
        fleet: SchedulerFleet,
        chance: random.Random,
        *,
        outage: Fault,
        faults: Sequence[Fault],
    ) -> None:
        super().__init__(fleet, chance, fill_up=fleet.fill_up)
        self.fleet = fleet
        self.chance = chance
        self.outage = outage
        self.hurt: set[str] = set()
        self.faults = [self._kill, self._terminate, self._freeze, self._trap, *faults]

    def rage(self, seconds: float) -> None:
        """Do so for some time; afterwards all is well again."""
        super().rage(seconds)
        self.fleet.disarm()
        self._thaw()
        self.fleet.fill_up()
        pids = {int(pid) for pid, _, name in self.fleet.sprung() if name != "SIGTERM"}
        self.hurt |= {node.name for node in self.fleet.nodes if node.process.pid in pids}

    def _leader(self) -> Node:
        """Return who was seen at work last."""
        name = self.fleet.last_at_work()
        living = self.fleet.living()
        return next((node for node in living if node.name == name), self.chance.choice(living))

    def _kill(self) -> Heal:
        node = self._leader()
        self.hurt.add(node.name)
        node.kill()
        return nothing

    def _terminate(self) -> Heal:
        self._leader().process.terminate()
        return nothing

    def _freeze(self) -> Heal:
        node = self._leader()
        self.hurt.add(node.name)
        node.freeze()
        return self._thaw

    def _trap(self) -> Heal:
        number = self.chance.choice(("SIGKILL", "SIGSTOP", "SIGTERM"))
        self.fleet.set_trap(number, self.chance.choice([*POINTS, "begun"]))
        return self._thaw

    def _thaw(self) -> None:
        for node in self.fleet.living():
            node.thaw()


def _kill_all(cluster: EtcdCluster) -> Heal:
    for member in cluster.members:
        member.kill()

    def start() -> None:
        for member in cluster.members:
            member.start()

    return start


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def storm(
    request: pytest.FixtureRequest, tmp_path: Path, make_cluster: MakeCluster
) -> Iterator[LeaderStorm]:
    """Four schedulers on each store with jobs of every kind, and what can be done to them."""
    chance = seeded()
    path = tmp_path / "store.sqlite3"
    url, faults = f"sqlite:///{path}", sqlite_faults(path)
    outage = faults[0]
    if request.param == "etcd":
        cluster = make_cluster(3)
        url, faults = cluster.url, etcd_faults(cluster, chance)
        outage = lambda: _kill_all(cluster)  # noqa: E731
    with SchedulerFleet(tmp_path, url, CONTRACT | _ONE_SHOTS, until_minute=6.0) as fleet:
        fleet.populate()
        yield LeaderStorm(fleet, chance, outage=outage, faults=faults if SOAKING else ())


def test_the_contract(storm: LeaderStorm) -> None:
    """Nothing is doubled, nothing is missed; who was neither killed nor frozen ended all it began."""
    storm.rage(_SECONDS)
    heal = storm.outage()
    storm.fleet.pause(_OUTAGE)
    heal()
    verdict = storm.fleet.stop(within=30.0)
    print(verdict)  # noqa: T201  for make soak-apscheduler

    assert (verdict.doubled, verdict.missed) == ([], [])
    assert SOAKING or storm.fleet.interrupted_on() <= storm.hurt, "the store took no lease away"
    assert verdict.run > 5 * _SECONDS, "the fleet was at work when it was hurt"
    assert verdict.minutes > 0, "one job was due across the minute"


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[..., SchedulerFleet]]:
    """Starts a fleet on the embedded store, with the jobs of a plan."""
    with ExitStack() as stack:

        def make(plan: dict[str, Any], **options: Any) -> SchedulerFleet:
            url = f"sqlite:///{tmp_path}/store.sqlite3"
            fleet = stack.enter_context(SchedulerFleet(tmp_path, url, plan, **options))
            fleet.populate()
            return fleet

        yield make


#: Where leaders are hurt: in CI where it hurts most, everywhere where there is time.
_HURT: Final = (
    [(name, point) for name in ("SIGKILL", "SIGTERM", "SIGSTOP") for point in [*POINTS, "begun"]]
    if SOAKING
    else [
        *[("SIGKILL", point) for point in ("claimed", "recorded", "ended")],
        *[("SIGTERM", point) for point in ("submitted", "recorded")],
        *[("SIGSTOP", point) for point in ("claimed", "recorded", "begun")],
    ]
)


def test_hurt_between_any_two_steps_of_a_run(make_fleet: Callable[..., SchedulerFleet]) -> None:
    """Killed, asked to end, or frozen past its lease there, a leader repeats and loses nothing."""
    fleet = make_fleet({f"s{number}": every(1) for number in range(3)})
    hurt = set()
    for times, (name, point) in enumerate(_HURT, 1):
        token = max(fleet.tokens())
        fleet.set_trap(name, point)
        node = fleet.await_sprung(times)
        if name == "SIGTERM":
            assert node.process.wait(10.0) == 0, fleet.logs()
        else:
            hurt.add(node.name)
        if name == "SIGSTOP":
            _, successor = fleet.leader(newer_than=token)
            fleet.await_run(successor.token)
            node.thaw()
            fleet.await_back(node, successor.token)
        else:
            node.process.wait(10.0)
        fleet.note_history()
        fleet.fill_up()
    verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])
    assert fleet.interrupted_on() <= hurt, "who is asked to end leaves no run unfinished"


def test_clock_steps(make_fleet: Callable[..., SchedulerFleet]) -> None:
    """The wall clock goes forward, and back: what was passed over is run once, and nothing again."""
    fleet = make_fleet(CONTRACT, until_minute=12.0)
    fleet.clock.step(20.0)
    fleet.settle()
    fleet.clock.step(-4.0)
    node, leader = fleet.leader()
    node.kill()
    fleet.leader(newer_than=leader.token)
    fleet.pause(4.5)
    verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])
    assert verdict.run > 5 * 20, "what the clock passed over was run"
    assert verdict.passed > 0, "of the job that coalesces, the latest was"
    assert verdict.minutes > 0, "the minute was passed over, too"


def test_bodies_that_hurt(make_fleet: Callable[..., SchedulerFleet]) -> None:
    """One holds the interpreter for longer than the lease, two kill their process, in a pool of one."""
    plan = {f"s{number}": every(1, body=["works", 0.1]) for number in range(3)} | {
        "greedy": once(3.0, body=["holds", 3.0]),
        "mortal": once(3.5, body=["dies", 0.0]),
        "deadly": once(4.0, body=["dies", 0.0], rerun=True),
    }
    fleet = make_fleet(plan, workers=1)

    def died_often() -> bool:
        fleet.fill_up()
        return len(fleet.begun("deadly")) == MOST_ATTEMPTS and len(fleet.begun("mortal")) == 1

    fleet.await_that(died_often, "it did not die so often")
    fleet.fill_up()
    verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed) == ([], [])
    assert fleet.tokens() == sorted(fleet.tokens()), "what waited in the pool did not begin"
