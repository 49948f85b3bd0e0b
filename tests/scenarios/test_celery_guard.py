"""Real workers of every pool: whatever the broker and the leader deliver, a body starts once."""

import os
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.config import Settings
from leader_jobs.names import runners_of
from leader_jobs.records import State
from testsupport.brokers import Broker, RabbitServer, RedisServer
from testsupport.guarded_fleet import GuardedFleet, ticket_of

pytestmark = [pytest.mark.slow]

TTL = 2.0
#: Redis delivers again what was not acknowledged for so long.
IMPATIENT: dict[str, Any] = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded store."""
    return Settings(store=f"sqlite:///{tmp_path}/store.sqlite3", ttl=TTL, node="judge")


def go_through_everything(fleet: GuardedFleet) -> None:
    """What a message can be, and what becomes of it, on two workers."""
    nodes = fleet.start_all("a", "b")
    copies(fleet)
    retries(fleet)
    forgeries(fleet)
    calls(fleet)
    subtasks(fleet)
    assert [node.terminate() for node in nodes] == [0, 0], fleet.story()
    assert entrants(fleet) == 0, "leases were left behind"


def entrants(fleet: GuardedFleet) -> int:
    """Return how many processes show that they live."""
    within = fleet.clock.now() + 5.0
    return len(fleet.store.candidates(runners_of("default"), deadline=within))


def copies(fleet: GuardedFleet) -> None:
    """Of the same message, before, while and after the body runs."""
    claim = fleet.claim("late", "copied")
    fleet.publish(claim, 0.3, copies=5)
    fleet.wait_state(State.SUCCEEDED, "copied")
    fleet.publish(claim)
    fleet.wait_logged(f"{claim.occurrence} is ignored", 5)
    assert len(fleet.lines(job="copied")) == 1, fleet.story()


def retries(fleet: GuardedFleet) -> None:
    """Asked for by the body: by messages of its own, or by handing its message back."""
    fleet.publish(fleet.claim("retrying", "retried"), 2, copies=2)
    fleet.publish(fleet.claim("requeued", "requeued"))
    assert fleet.wait_state(State.SUCCEEDED, "retried").retries == 2
    fleet.wait_state(State.SUCCEEDED, "requeued")
    assert [line.extra for line in fleet.lines(job="retried")] == ["0", "1", "2"], fleet.story()
    assert [line.extra for line in fleet.lines(job="requeued")] == ["False", "True"], fleet.story()


def forgeries(fleet: GuardedFleet) -> None:
    """Malformed, of another task, of an occurrence that nobody claimed."""
    claim = fleet.claim("early", "forged")
    fleet.publish(claim, headers={HEADER: "let me in"})
    other = {"headers": {HEADER: ticket_of(claim).encode()}, "task_id": claim.occurrence}
    fleet.send("late", **other)
    fleet.wait_logged(f"{claim.occurrence} is rejected", 2)
    never = ticket_of(claim).encode() | {"planned_at": "2020-01-01T00:00:00+00:00"}
    fleet.send("early", headers={HEADER: never}, task_id="mine")
    fleet.wait_logged("message mine is rejected")
    assert fleet.lines(job="forged") == [], fleet.story()

    fleet.publish(claim)
    fleet.wait_state(State.SUCCEEDED, "forged")


def calls(fleet: GuardedFleet) -> None:
    """Without a ticket, on workers that do not lead."""
    fleet.send("early", task_id="called")
    fleet.wait_logged("message called is ignored: no ticket")
    entry = fleet.wait_state(State.SKIPPED, "testsupport.guarded_app.early")
    assert entry.reason == "no ticket, and this node does not lead election 'default'"


def subtasks(fleet: GuardedFleet) -> None:
    """They do not inherit the ticket; unrestricted tasks are told what theirs says."""
    fleet.publish(fleet.claim("parent", "family"))
    claim = fleet.claim("plain", "free")
    fleet.publish(claim, copies=2)
    fleet.wait(lambda: len(of_task(fleet, "child")) == 3, "not all children ran")
    fleet.wait(lambda: len(of_task(fleet, "plain")) == 2, "the unrestricted task did not run")
    assert of_task(fleet, "child") == ["False"] * 3
    assert of_task(fleet, "plain") == [claim.planned_at.isoformat()] * 2


def of_task(fleet: GuardedFleet, task: str) -> list[str]:
    """Return what bodies of *task* had to say."""
    return [line.extra for line in fleet.lines() if line.task == task]


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent", "eventlet"])
def test_every_pool(
    pool: str, tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """On the embedded store."""
    with GuardedFleet(tmp_path, redis_broker, settings, pool=pool) as fleet:
        go_through_everything(fleet)


@pytest.mark.redis
def test_spawned_children(tmp_path: Path, redis_broker: RedisServer, settings: Settings) -> None:
    """They run a copy of the application, which is guarded like the original."""
    config: dict[str, Any] = {"worker_pool_start_method": "spawn"}
    with GuardedFleet(tmp_path, redis_broker, settings, **config) as fleet:
        fleet.start_all("a")
        copies(fleet)
        retries(fleet)


@pytest.mark.rabbitmq
@pytest.mark.etcd
def test_rabbitmq_and_etcd(
    tmp_path: Path, rabbit_broker: RabbitServer, etcd: Any, namespace: str
) -> None:
    """Nothing of it is a matter of broker or store."""
    settings = Settings(store=etcd.url, namespace=namespace, ttl=TTL, node="judge")
    with GuardedFleet(tmp_path, rabbit_broker, settings) as fleet:
        go_through_everything(fleet)


@pytest.mark.redis
def test_killed_children(
    tmp_path: Path, redis_broker: RedisServer, store_settings: Settings
) -> None:
    """
    A message that comes back from the dead starts nothing, unless its job asked for that.

    The store may need the lease's time to see that the process is dead; the leader sees to the rest.
    """
    with GuardedFleet(tmp_path, redis_broker, store_settings) as fleet:
        fleet.start_all("a")
        fleet.publish(fleet.claim("fragile", "fragile"), 30.0)
        fleet.publish(fleet.claim("sturdy", "sturdy", rerun=True), 30.0)
        for line in fleet.wait_lines(2):
            os.kill(line.pid, signal.SIGKILL)

        assert fleet.look_after("fragile").state is State.INTERRUPTED
        entry = fleet.look_after("sturdy", 30.0)
        assert (entry.state, entry.attempt) == (State.SUCCEEDED, 2), fleet.story()
        assert [line.attempt for line in fleet.lines(job="fragile")] == [1], fleet.story()
        assert [line.attempt for line in fleet.lines(job="sturdy")] == [1, 2], fleet.story()


def revive(broker: Broker) -> dict[str, Any]:
    """Return what makes a broker deliver again what a killed worker held."""
    return {"broker_transport_options": IMPATIENT} if isinstance(broker, RedisServer) else {}


def test_a_killed_worker(tmp_path: Path, broker_server: Broker, settings: Settings) -> None:
    """Its messages go to another one, of which the same is true."""
    with GuardedFleet(tmp_path, broker_server, settings, **revive(broker_server)) as fleet:
        (node,) = fleet.start_all("a")
        fleet.publish(fleet.claim("late", "late"), 30.0)
        fleet.publish(fleet.claim("sturdy", "sturdy", rerun=True), 30.0)
        fleet.wait_lines(2)
        node.kill()
        fleet.start_all("b")

        assert fleet.look_after("late").state is State.INTERRUPTED
        assert fleet.look_after("sturdy", 30.0).state is State.SUCCEEDED
        counted = Counter(line.job for line in fleet.lines())
        assert counted == {"late": 1, "sturdy": 2}, fleet.story()


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_broker_that_does_not_wait(
    pool: str, tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """It delivers a message again while the body runs, to whichever worker."""
    revived = revive(redis_broker)
    with GuardedFleet(tmp_path, redis_broker, settings, pool=pool, **revived) as fleet:
        fleet.start_all("a", "b")
        claim = fleet.claim("late")
        fleet.publish(claim, 5.0)
        fleet.wait_logged(f"{claim.occurrence} is ignored")
        fleet.wait_state(State.SUCCEEDED)
        assert len(fleet.lines()) == 1, fleet.story()


@contextmanager
def away(settings: Settings) -> Iterator[None]:
    """Keep everybody from writing to the store for the time of the block."""
    path = settings.store.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_store_that_is_away(
    pool: str, tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """When a message comes it has to wait, when a body ends its record has to; nothing is lost."""
    with GuardedFleet(tmp_path, redis_broker, settings, pool=pool) as fleet:
        fleet.start_all("a")
        first, second = fleet.claim("late", "ending"), fleet.claim("early", "starting")
        fleet.publish(first, 0.5)
        fleet.publish(second)  # taken by a worker that waits for the store, or comes a moment later
        fleet.wait_lines(1)
        with away(settings):
            fleet.wait_lines(1, "end")
            fleet.clock.wait(threading.Event(), 2 * TTL)
        fleet.wait_state(State.SUCCEEDED, "starting", within=30.0)
        fleet.wait_state(State.SUCCEEDED, "ending", within=30.0)
        assert Counter(line.job for line in fleet.lines()) == {"ending": 1, "starting": 1}


@pytest.mark.redis
def test_a_frozen_worker(tmp_path: Path, redis_broker: RedisServer, settings: Settings) -> None:
    """It is taken for dead; what its bodies do when it wakes changes nothing in the ledger."""
    with GuardedFleet(tmp_path, redis_broker, settings, pool="threads") as fleet:
        (node,) = fleet.start_all("a")
        fleet.publish(fleet.claim("late", "late"), 1.0)
        fleet.publish(fleet.claim("sturdy", "sturdy", rerun=True), 1.0)
        fleet.wait_lines(2)
        node.freeze()
        fleet.start_all("b")
        assert fleet.look_after("late").state is State.INTERRUPTED
        assert fleet.look_after("sturdy").state is State.SUCCEEDED
        node.thaw()

        fleet.wait_logged("had been taken for dead meanwhile", 2)
        assert fleet.last("late").state is State.INTERRUPTED
        assert [line.attempt for line in fleet.lines(job="late")] == [1], fleet.story()
        assert [line.attempt for line in fleet.lines(job="sturdy")] == [1, 2], fleet.story()


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown(
    pool: str, tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """What runs comes to its end, and that is recorded."""
    with GuardedFleet(tmp_path, redis_broker, settings, pool=pool) as fleet:
        (node,) = fleet.start_all("a")
        fleet.publish(fleet.claim("late"), 1.0)
        fleet.wait_lines(1)
        assert node.terminate() == 0, fleet.story()
        assert fleet.last().state is State.SUCCEEDED
        assert entrants(fleet) == 0


@pytest.mark.redis
def test_time_limits(tmp_path: Path, redis_broker: RedisServer, settings: Settings) -> None:
    """A soft one fails the run, a hard one takes the process; each child of the pool runs one task."""
    with GuardedFleet(tmp_path, redis_broker, settings, worker_max_tasks_per_child=1) as fleet:
        fleet.start_all("a")
        fleet.publish(fleet.claim("late", "soft"), 30.0, soft_time_limit=1)
        fleet.publish(fleet.claim("late", "hard"), 30.0, time_limit=1)
        assert "SoftTimeLimitExceeded" in fleet.wait_state(State.FAILED, "soft").reason
        assert fleet.look_after("hard").state is State.INTERRUPTED
        fleet.publish(fleet.claim("late", "next"))
        fleet.wait_state(State.SUCCEEDED, "next")
        assert len(fleet.lines()) == 3, fleet.story()


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_workers_that_stand_in_an_election(
    pool: str, tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """What needs no ticket there is run by the elected one, whoever gets the message."""
    config: dict[str, Any] = {"leader_jobs_worker_elections": ["reports"]}
    with GuardedFleet(tmp_path, redis_broker, settings, pool=pool, **config) as fleet:
        fleet.start_all("a", "b")
        for number in range(3):
            fleet.send("led", task_id=f"queued{number}", queue="leader_jobs.reports")
        assert len({line.extra for line in fleet.wait_lines(3)}) == 1, fleet.story()

        for number in range(6):
            fleet.send("led", task_id=f"anywhere{number}")
        fleet.wait(
            lambda: len(fleet.lines()) - 3 + fleet.logged("is ignored: no ticket") == 6,
            "not all of them were taken",
        )
        assert len({line.extra for line in fleet.lines()}) == 1, fleet.story()

        fleet.publish(fleet.claim("late"), copies=3)
        fleet.wait_state(State.SUCCEEDED)
