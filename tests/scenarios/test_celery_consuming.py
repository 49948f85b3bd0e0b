"""Workers of every pool: one consumes the leader's queue, whatever happens to it."""

from pathlib import Path

import pytest

from leader_jobs.config import Settings
from testsupport.brokers import RabbitServer, RedisServer
from testsupport.consuming_fleet import WorkerFleet
from testsupport.etcd import EtcdCluster
from testsupport.pool_fleet import PoolWorker

pytestmark = [pytest.mark.slow]

TTL = 2.0
#: Redis gives back what a killed worker held when this has passed.
REDIS = {"visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The embedded store."""
    return Settings(store=f"sqlite:///{tmp_path}/store.sqlite3", ttl=TTL, node="judge")


def names(prefix: str, count: int) -> list[str]:
    """Names of messages."""
    return [f"{prefix}{number}" for number in range(count)]


def go_through_everything(fleet: WorkerFleet) -> None:
    """Elect, stop, freeze and kill leaders of three with a backlog, and judge."""
    fleet.start_all("a", "b", "c")
    first = fleet.leader()
    one_consumes(fleet, first)
    second = stop_gracefully(fleet, first)
    third = freeze_past_the_lease(fleet, second)
    kill(fleet, third, then=second)
    fleet.assert_fenced()
    begun = [line.name for line in fleet.lines("begin") if not line.name.startswith("kill")]
    assert len(begun) == len(set(begun)), fleet.story()  # the broker repeats only what was killed


def one_consumes(fleet: WorkerFleet, leader: PoolWorker) -> None:
    """All messages go to the elected worker."""
    fleet.send("consuming.early", *names("early", 3))
    fleet.send("consuming.late", *names("late", 3))
    lines = fleet.wait_all("begin", [*names("early", 3), *names("late", 3)])
    assert {line.node for line in lines} == {leader.name}, fleet.story()


def stop_gracefully(fleet: WorkerFleet, leader: PoolWorker) -> PoolWorker:
    """A leader that is told to stop ends what runs, then resigns; the rest goes to the next."""
    sent = names("term", 12)
    fleet.send("consuming.early", *sent, seconds=0.2)
    fleet.wait_any("begin", sent, leader)
    assert leader.terminate() == 0, fleet.story()
    begun, ended = fleet.wait_all("begin", sent), fleet.wait_all("end", sent)
    mine = [line.moment for line in ended if line.node == leader.name]
    theirs = [line.moment for line in begun if line.node != leader.name]
    # A green worker hears of a signal up to four seconds later, when it may have run everything.
    assert all(max(mine) < moment for moment in theirs), fleet.story()
    assert theirs or fleet.pool in ("gevent", "eventlet"), fleet.story()
    return fleet.leader(but_not=[leader])


def freeze_past_the_lease(fleet: WorkerFleet, leader: PoolWorker) -> PoolWorker:
    """A leader that slept through its lease gives back what it had fetched and starts none of it."""
    early, late = names("freeze-early", 6), names("freeze-late", 6)
    for pair in zip(early, late, strict=True):
        fleet.send("consuming.early", pair[0], seconds=0.3)
        fleet.send("consuming.late", pair[1], seconds=0.3)
    # In the middle of bodies: between the last look at the term and a body's first line, a freeze is
    # not seen.
    fleet.wait_all("begin", [early[0], late[0]][: fleet.width])
    leader.freeze()
    successor = fleet.leader(but_not=[leader])
    fleet.wait_any("begin", [*early, *late], successor)
    leader.thaw()
    fleet.wait_all("end", [*early, *late])
    return successor


def kill(fleet: WorkerFleet, leader: PoolWorker, then: PoolWorker) -> None:
    """What a killed leader had fetched is run by the next one."""
    sent = names("kill", 6)
    ids = fleet.send("consuming.late", *sent, seconds=0.2)
    # Redis loses what was on its way to a process that was killed.
    fleet.wait_fetched(leader, ids)
    leader.kill()
    assert fleet.leader(but_not=[leader]) is then
    fleet.wait_all("begin", sent)


@pytest.mark.rabbitmq
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet", "solo"])
def test_only_the_elected_worker_starts_tasks_in_every_pool(
    tmp_path: Path, rabbit_broker: RabbitServer, settings: Settings, pool: str
) -> None:
    """Through SIGTERM, a freeze and SIGKILL of leaders, nothing starts beside a leader, and all runs."""
    with WorkerFleet(
        tmp_path, rabbit_broker, settings, pool=pool, width=1 if pool == "solo" else 2
    ) as fleet:
        go_through_everything(fleet)


@pytest.mark.etcd
@pytest.mark.redis
def test_on_redis_and_etcd(
    tmp_path: Path, redis_broker: RedisServer, etcd: EtcdCluster, namespace: str
) -> None:
    """The same with messages in Redis and elections in etcd."""
    settings = Settings(store=etcd.url, namespace=namespace, ttl=TTL, node="judge")
    with WorkerFleet(tmp_path, redis_broker, settings, broker_transport_options=REDIS) as fleet:
        go_through_everything(fleet)


def take_the_term_away(fleet: WorkerFleet, leader: PoolWorker) -> None:
    """Have the leader sleep through its lease."""
    leader.freeze()
    fleet.wait(lambda: fleet.standing() == 0, "the lease does not run out")
    leader.thaw()


@pytest.mark.redis
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_what_runs_on_is_told_and_then_terminated(
    tmp_path: Path, redis_broker: RedisServer, settings: Settings, pool: str
) -> None:
    """On loss of the term a body sees `lost`; if it goes on, it is terminated after a while."""
    with WorkerFleet(
        tmp_path, redis_broker, settings, pool=pool, width=1, leader_jobs_revoke_after=0.5
    ) as fleet:
        [leader] = fleet.start_all("a")
        fleet.send("consuming.stubborn", "stubborn")
        fleet.wait_all("begin", ["stubborn"])
        take_the_term_away(fleet, leader)
        fleet.wait_all("lost", ["stubborn"])
        # There is room for one, and half a minute before the stubborn one would end by itself.
        fleet.send("consuming.early", "next")
        [line] = fleet.wait_all("begin", ["next"])
        assert line.token == 2, fleet.story()
        assert not fleet.of("end", ["stubborn"])


@pytest.mark.redis
def test_a_guarded_task_of_any_queue_runs_where_the_worker_leads(
    tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """The children of a prefork pool know that their worker leads, and those of the others do not."""
    with WorkerFleet(tmp_path, redis_broker, settings) as fleet:
        fleet.start_all("a", "b")
        leader = fleet.leader()
        fleet.wait_done(fleet.send("everywhere.guarded", *names("job", 30), queue="celery"))
        lines = fleet.lines("begin")
        assert {line.node for line in lines} == {leader.name}, fleet.story()
        assert len(lines) < 30, "the others took messages as well, and ran none"


@pytest.mark.redis
def test_a_pool_that_can_not_terminate_says_so(
    tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """Threads run on; the log says once that they do."""
    with WorkerFleet(
        tmp_path, redis_broker, settings, pool="threads", leader_jobs_revoke_after=0.0
    ) as fleet:
        [leader] = fleet.start_all("a")
        fleet.send("consuming.early", "one", "two", seconds=3.0)
        fleet.wait_all("begin", ["one", "two"])
        take_the_term_away(fleet, leader)
        fleet.wait_all("end", ["one", "two"])
        assert leader.log.read_text().count("can not terminate tasks") == 1


@pytest.mark.redis
def test_a_leader_that_lost_its_broker_consumes_again(
    tmp_path: Path, redis_broker: RedisServer, settings: Settings
) -> None:
    """The term goes on through a restart of the broker, and so does the consuming, on one node."""
    with WorkerFleet(tmp_path, redis_broker, settings) as fleet:
        fleet.start_all("a", "b")
        leader = fleet.leader()
        fleet.send("consuming.early", "before")
        fleet.wait_all("end", ["before"])
        redis_broker.kill()
        redis_broker.start()
        sent = names("after", 6)
        fleet.send("consuming.early", *sent)
        lines = fleet.wait_all("begin", ["before", *sent], within=30.0)
        assert {(line.node, line.token) for line in lines} == {(leader.name, 1)}, fleet.story()
        assert fleet.standing() == 2, "each worker stands once"
