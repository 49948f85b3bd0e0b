"""
Fixtures that run real message brokers.

Where a server is missing, tests that ask for it are skipped; with ``REQUIRE_BROKERS=1`` in the
environment they fail instead. The filesystem transport is always there. Every test finds a broker
without any queue, so Celery's default queue is its own.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from testsupport.brokers import Broker, BrokerServer, FilesystemBroker, RabbitServer, RedisServer

__all__ = ["demand"]

_SERVERS: Final = [
    pytest.param("redis_broker", marks=pytest.mark.redis, id="redis"),
    pytest.param("rabbit_broker", marks=pytest.mark.rabbitmq, id="rabbitmq"),
]


def demand(kind: type[BrokerServer]) -> None:
    """Skip the test, or fail it, if there is no server of that kind."""
    if kind.binary() is None:
        reason = f"no binary for {kind.__name__}: run scripts/fetch-brokers"
        (pytest.fail if os.environ.get("REQUIRE_BROKERS") == "1" else pytest.skip)(reason)


@pytest.fixture
def filesystem_broker(tmp_path: Path) -> FilesystemBroker:
    """Celery's transport on a folder of the test's own."""
    return FilesystemBroker(tmp_path / "broker")


@pytest.fixture
def redis_broker() -> Iterator[RedisServer]:
    """A durable Redis server of the test's own, which may be hurt."""
    demand(RedisServer)
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """The RabbitMQ server that all tests share; use `rabbit_broker`."""
    demand(RabbitServer)
    with RabbitServer() as server:
        yield server


@pytest.fixture
def rabbit_broker(rabbit_server: RabbitServer) -> Iterator[RabbitServer]:
    """The shared RabbitMQ server with a virtual host of the test's own; it may be hurt."""
    with rabbit_server.own_vhost():
        yield rabbit_server


@pytest.fixture(params=_SERVERS)
def broker_server(request: pytest.FixtureRequest) -> BrokerServer:
    """Each broker that is a server; it may be hurt."""
    server: BrokerServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=[pytest.param("filesystem_broker", id="filesystem"), *_SERVERS])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each broker there is."""
    found: Broker = request.getfixturevalue(request.param)
    return found
