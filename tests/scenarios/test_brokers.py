"""The brokers that other scenarios rely on do what those scenarios believe they do."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from kombu import Connection, Producer, Queue
from redis.exceptions import TimeoutError as RedisTimeoutError

from testsupport.broker_fixtures import demand
from testsupport.brokers import Broker, BrokerServer, RabbitServer, RedisServer
from testsupport.processes import Diary, is_alive, time_of_death

TESTS: Final = Path(__file__).parents[1]

#: Starts a server, tells which processes that are, and waits.
STARTED_BY_ANOTHER: Final = """
import signal, sys
from pathlib import Path
from testsupport import brokers
with getattr(brokers, sys.argv[1])() as server:
    Path(sys.argv[2]).write_text(" ".join(map(str, server.pids())) + "\\n")
    signal.pause()
"""


@contextmanager
def producer(broker: Broker) -> Iterator[Producer]:
    """A producer on a connection of its own, which waits a second for the broker and no longer."""
    options = {"confirm_publish": True, "socket_timeout": 1.0}
    with Connection(broker.url, transport_options=broker.transport_options | options) as connection:
        yield Producer(connection.channel())


def publish(to: Producer, number: int, **options: Any) -> None:
    """Publish a number to the queue "jobs"; where the broker confirms, wait for that."""
    queue = Queue("jobs")
    to.publish(number, routing_key=queue.name, declare=[queue], confirm_timeout=1.0, **options)


def numbers(broker: Broker) -> list[int]:
    """Return what lies in the queue "jobs"."""
    return [message.body for message in broker.messages("jobs")]


@pytest.fixture(
    params=[
        pytest.param(RedisServer, marks=pytest.mark.redis),
        pytest.param(RabbitServer, marks=pytest.mark.rabbitmq),
    ]
)
def kind(request: pytest.FixtureRequest) -> type[BrokerServer]:
    """Each kind of server."""
    demanded: type[BrokerServer] = request.param
    demand(demanded)
    return demanded


def test_looking_takes_nothing_out(broker: Broker) -> None:
    """Messages stay until they are purged; a queue that never was is empty."""
    with producer(broker) as to:
        for number in range(3):
            publish(to, number, headers={"n": number}, correlation_id=f"id-{number}")

    assert sorted(numbers(broker)) == [0, 1, 2]
    for message in broker.wait_messages("jobs", 3):
        assert message.headers["n"] == message.body
        assert message.properties["correlation_id"] == f"id-{message.body}"
    assert broker.purge("jobs") == 3
    assert numbers(broker) == []
    assert (broker.messages("nowhere"), broker.purge("nowhere")) == ([], 0)


def test_what_was_confirmed_survives_kill_9(broker_server: BrokerServer) -> None:
    """A server killed the moment it has confirmed comes back at the same place, with everything."""
    url, killed = broker_server.url, broker_server.process
    with producer(broker_server) as to:
        publish(to, 0)
        broker_server.settle()
        for number in (1, 2):
            publish(to, number)
        broker_server.kill()
    assert killed.returncode == -signal.SIGKILL

    broker_server.start()

    assert numbers(broker_server) == [0, 1, 2]
    assert broker_server.url == url


def test_a_frozen_server_lets_a_publish_time_out(broker_server: BrokerServer) -> None:
    """A thawed server takes messages again, and that of the publisher who gave up comes late."""
    with producer(broker_server) as to:
        publish(to, 1)
        broker_server.freeze()
        with pytest.raises((TimeoutError, RedisTimeoutError)):
            publish(to, 2)
        assert broker_server.alive
        # Closing a connection to RabbitMQ waits for its answer.
        broker_server.thaw()

    with producer(broker_server) as to:
        publish(to, 3)

    broker_server.wait_messages("jobs", 3)
    assert sorted(numbers(broker_server)) == [1, 2, 3]


@pytest.mark.redis
def test_a_redis_that_is_not_durable_comes_back_empty() -> None:
    """What such a server had acknowledged is gone with it."""
    demand(RedisServer)
    with RedisServer(durable=False) as server:
        with producer(server) as to:
            publish(to, 1)
        assert numbers(server) == [1]

        server.restart()

        assert numbers(server) == []


def test_nothing_of_a_server_outlives_its_context(kind: type[BrokerServer]) -> None:
    """When asked to stop the server does; in the end no process and no file is left."""
    with kind() as server:
        pids = server.pids()
        assert all(is_alive(pid) for pid in pids)
        server.stop()
        assert server.process.returncode == 0

    assert [pid for pid in pids if is_alive(pid)] == []
    assert not server.folder.exists()


def test_nothing_of_a_server_outlives_the_tests(kind: type[BrokerServer], tmp_path: Path) -> None:
    """If the process that started it is killed, all of it ends, helpers included."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "TMPDIR": str(tmp_path)}
    with Diary.opened(tmp_path / "diary") as diary:
        command = [sys.executable, "-c", STARTED_BY_ANOTHER, kind.__name__, str(diary.path)]
        with subprocess.Popen(command, env=environment) as starter:
            try:
                pids = [int(pid) for pid in diary.line(within=40.0).split()]
                assert all(is_alive(pid) for pid in pids)
            finally:
                starter.kill()

    for pid in pids:
        time_of_death(pid)
