"""
Message brokers for tests: real Redis and RabbitMQ servers, and Celery's transport on a folder.

All say what lies in a queue without taking it out, and where Celery finds them:
``app.conf.update(broker.settings)``.
"""

import base64
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import amqp
from amqp.exceptions import NotFound
from kombu import Connection, Queue
from kombu.serialization import loads as load_body
from kombu.utils.json import loads
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from leader_jobs.clock import SystemClock
from testsupport.ports import free_port
from testsupport.servers import Server, environment_of, find_binary

__all__ = [
    "Broker",
    "BrokerServer",
    "FilesystemBroker",
    "Message",
    "RabbitServer",
    "RedisServer",
]

_CLOCK: Final = SystemClock()
_PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")


class Message(NamedTuple):
    """A message as it lies in a queue; *body* is deserialized: Celery's is [args, kwargs, embed]."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any


class Broker(ABC):
    """Something that Celery publishes to."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Celery's ``broker_url``."""

    @property
    def transport_options(self) -> dict[str, Any]:
        """Celery's ``broker_transport_options``."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """Both, as Celery's configuration spells them."""
        return {"broker_url": self.url, "broker_transport_options": self.transport_options}

    @abstractmethod
    def messages(self, queue: str) -> list[Message]:
        """
        Return what waits in *queue*, the next one first; nothing is taken out.

        What a consumer has received and not acknowledged is not waiting. A queue that does not
        exist is empty.
        """

    def wait_messages(self, queue: str, count: int, within: float = 10.0) -> list[Message]:
        """Wait until at least *count* messages wait in *queue*; fail after *within* seconds."""
        limit = _CLOCK.now() + within
        while len(found := self.messages(queue)) < count:
            assert _CLOCK.now() < limit, f"{len(found)} of {count} messages within {within} s"
        return found

    def purge(self, queue: str) -> int:
        """Throw away what waits in *queue*; return how many messages that were."""
        with self.connect() as connection, suppress(NotFound):
            return Queue(queue, channel=connection.channel()).purge() or 0
        return 0

    def connect(self) -> Connection:
        """Return a new connection to the broker, to be closed by the caller (``with`` does)."""
        return Connection(self.url, transport_options=self.transport_options, connect_timeout=5)


class FilesystemBroker(Broker):
    """
    Kombu's transport on a folder, for machines without a server.

    Two weaknesses of that transport: messages of the same millisecond come in any order, and a file
    is there a moment before its content, so that a worker may take out a message that is empty.

    Args:
        folder: where to keep the messages.
    """

    def __init__(self, folder: Path) -> None:
        self._queues = folder / "queues"
        self._others = {"control_folder": folder / "control", "processed_folder": folder / "done"}
        for path in (self._queues, *self._others.values()):
            path.mkdir(parents=True)

    @property
    def url(self) -> str:
        """Celery's ``broker_url``; the folders are in `transport_options`."""
        return "filesystem://"

    @property
    def transport_options(self) -> dict[str, Any]:
        """Celery's ``broker_transport_options``: the folders."""
        folders = {"data_folder_in": self._queues, "data_folder_out": self._queues, **self._others}
        return {name: str(path) for name, path in folders.items()} | {"store_processed": True}

    def messages(self, queue: str) -> list[Message]:
        """Return what waits in *queue*, the next one first."""
        found = []
        for path in sorted(self._queues.iterdir()):
            if path.name.partition(".")[2] == f"{queue}.msg":
                with suppress(FileNotFoundError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
                    found.append(file.read())
        return [_unpacked(payload) for payload in found if payload]


class BrokerServer(Broker, Server):
    """A broker that is a process."""

    @staticmethod
    @abstractmethod
    def binary() -> Path | None:
        """Return where the server is on this machine; None if it is not."""

    def settle(self) -> None:
        """Have queues that were just declared survive SIGKILL, where the server takes its time."""


class RedisServer(BrokerServer):
    """
    A Redis server.

    Args:
        durable: whether everything acknowledged survives SIGKILL; otherwise a restarted server is
            empty.
    """

    def __init__(self, *, durable: bool = True) -> None:
        super().__init__()
        self._durable = durable

    @staticmethod
    @cache
    def binary() -> Path | None:
        """Return where ``redis-server`` is; the variable ``TEST_REDIS_BIN`` may name it."""
        return find_binary("TEST_REDIS_BIN", "usr/bin/redis-server")

    @property
    def url(self) -> str:
        """Celery's ``broker_url``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def messages(self, queue: str) -> list[Message]:
        """Return what waits in *queue*, the next one first; lower numbers of priority first."""
        found: list[bytes | str] = []
        with closing(self._client()) as client:
            for priority in _PRIORITIES:
                found += reversed(client.lrange(queue + priority, 0, -1))
        return [_unpacked(payload) for payload in found]

    def _client(self) -> Redis:
        return Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def _prepare(self) -> None:
        pass

    def _command(self) -> tuple[list[str], dict[str, str]]:
        binary = self.binary()
        assert binary is not None, "there is no redis-server: run scripts/fetch-brokers"
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            "appendfsync": "always",
        }
        pairs = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(binary), *pairs], environment_of(binary)

    def _answers(self) -> bool:
        with closing(self._client()) as client, suppress(RedisError):
            return bool(client.ping())
        return False


class RabbitServer(BrokerServer):
    """
    A RabbitMQ node with an epmd of its own, which meets no other node of the machine.

    Unless the transport option ``confirm_publish`` is True, a publish returns before the server has
    the message. Reading from and closing a connection to a frozen server waits for ever, unless the
    option ``read_timeout`` limits it. A queue declared within two seconds before a SIGKILL may be
    lost, with all that is confirmed in it: `settle` before `kill`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._node = f"test-{self.port}@localhost"
        self._vhost = "%2F"

    @staticmethod
    @cache
    def binary() -> Path | None:
        """Return where ``rabbitmq-server`` is; the variable ``TEST_RABBITMQ_BIN`` may name it."""
        # Debian's /usr/sbin/rabbitmq-server is a wrapper that insists on a user.
        return find_binary("TEST_RABBITMQ_BIN", "usr/lib/rabbitmq/bin/rabbitmq-server")

    @property
    def url(self) -> str:
        """Celery's ``broker_url``."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{self._vhost}"

    def messages(self, queue: str) -> list[Message]:
        """
        Return what waits in *queue*, the next one first.

        They are received and given back, so they are marked as redelivered from then on.
        """
        found = []
        with self.connect() as connection, suppress(NotFound):
            channel: Any = connection.channel()
            waiting = Queue(queue, channel=channel)
            while (message := waiting.get(no_ack=False)) is not None:
                found.append(Message(message.headers, message.properties, message.payload))
            # Closing the channel, unlike closing the connection, returns when all is given back.
            channel.close()
        return found

    def settle(self) -> None:
        """
        Have queues that were just declared survive SIGKILL.

        The server answers a declaration when Mnesia has logged that it is prepared. That it is
        committed may be buffered for two seconds more, and prepared alone counts for nothing.
        """
        self._evaluate("mnesia:sync_log()")

    @contextmanager
    def own_vhost(self) -> Iterator[None]:
        """Speak of a new virtual host instead, until it is removed; the server is healed before."""
        vhost = f"test-{uuid.uuid4().hex}"
        everything = ", ".join(['<<".*">>'] * 3)
        self._evaluate(
            f'ok = rabbit_vhost:add(<<"{vhost}">>, <<"tests">>),'
            "rabbit_auth_backend_internal:set_permissions("
            f'<<"guest">>, <<"{vhost}">>, {everything}, <<"tests">>)'
        )
        former, self._vhost = self._vhost, vhost
        try:
            yield
        finally:
            self._vhost = former
            self.heal()
            self._evaluate(f'rabbit_vhost:delete(<<"{vhost}">>, <<"tests">>)')

    def pids(self) -> set[int]:
        """Return every process that belongs to it, its epmd included."""
        assert self._epmd is not None, "the server was never started"
        return super().pids() | {self._epmd.pid}

    def _environment(self) -> dict[str, str]:
        binary = self.binary()
        assert binary is not None, "there is no rabbitmq-server: run scripts/fetch-brokers"
        inherited = {
            name: value
            for name, value in environment_of(binary).items()
            if not name.startswith(("RABBITMQ_", "ERL_"))
        }
        # The cookie that nodes and their callers show each other lies in the home directory.
        return inherited | {"HOME": str(self.folder), "ERL_EPMD_PORT": str(self._epmd_port)}

    def _prepare(self) -> None:
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text(
            "vm_memory_high_watermark.absolute = 256MB\ndisk_free_limit.absolute = 1MB\n"
        )
        # Erlang would start one in the background that outlives everybody.
        self._epmd = self._spawn(["epmd", "-address", "127.0.0.1"], self._environment())
        self._cleanup.callback(_end_epmd, self._epmd)
        limit = _CLOCK.now() + 5.0
        while not self._epmd_answers():
            assert _CLOCK.now() < limit, f"epmd does not answer: {self._tail()}"

    def _epmd_answers(self) -> bool:
        """Return whether epmd lists its names: a request "n" is answered with its port first."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._epmd_port), 1) as link:
            link.sendall(b"\x00\x01n")
            return link.recv(4) == struct.pack(">I", self._epmd_port)
        return False

    def _command(self) -> tuple[list[str], dict[str, str]]:
        environment = self._environment() | {
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                # Small, for one starts faster then.
                "+S 2:2 +SDio 8 +A 1 +P 65536 +t 1048576 -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "ERL_CRASH_DUMP_SECONDS": "0",
            # Has the script become the server, rather than wait for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        return [str(self.binary())], environment

    def _answers(self) -> bool:
        # Kombu's own connection would try again two seconds later.
        connection = amqp.Connection(f"127.0.0.1:{self.port}", connect_timeout=1)
        with suppress(OSError, *amqp.Connection.recoverable_connection_errors):
            connection.connect()
            connection.close()
            return True
        return False

    def _evaluate(self, expression: str) -> None:
        """Have the server evaluate Erlang; fail unless that yields ok."""
        environment = self._environment()
        caller = shutil.which("erl_call", path=environment["PATH"])
        assert caller is not None, "there is no erl_call, which comes with Erlang"
        result = subprocess.run(
            [caller, "-sname", self._node, "-e"],
            input=f"{expression}.\n",
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert result.stdout == "{ok, ok}", f"{expression}: {result.stdout}{result.stderr}"


def _end_epmd(epmd: subprocess.Popen[bytes]) -> None:
    epmd.kill()
    epmd.wait()


def _unpacked(payload: bytes | str) -> Message:
    """Read a message as kombu's virtual transports write it."""
    whole = loads(payload)
    properties, body = whole["properties"], whole["body"]
    if properties.get("body_encoding") == "base64":
        body = base64.b64decode(body)
    body = load_body(body, whole["content-type"], whole["content-encoding"])
    return Message(whole["headers"], properties, body)
