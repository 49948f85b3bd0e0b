"""A broker of one's own, and the record of every message that reaches its queue."""

import base64
import json
import re
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from leader_jobs.tickets import Ticket
from testsupport.brokers import RedisServer

__all__ = ["Message", "QuickRedis", "Recorder"]

_QUEUE: Final = "celery"
_ORIGIN: Final = re.compile(r"gen(\d+)@")


@dataclass(frozen=True)
class Message:
    """
    A message that arrived.

    Attributes:
        at: when, on the wall clock.
        entry: of which entry of the schedule.
        id: the task's id.
        pid: of the process that published it.
        planned: the instant its ticket names; None if the peer writes no tickets.
    """

    at: float
    entry: str
    id: str
    pid: int
    planned: float | None

    @classmethod
    def of(cls, at: float, payload: bytes) -> Self:
        """Read the message *payload* that arrived *at* some moment."""
        message = json.loads(payload)
        headers = message["headers"]
        arguments = json.loads(base64.b64decode(message["body"]))[0]
        origin = _ORIGIN.match(headers["origin"])
        assert origin is not None, headers["origin"]
        return cls(at, arguments[0], headers["id"], int(origin[1]), _planned(headers))


def _planned(headers: dict[str, Any]) -> float | None:
    ticket = headers.get("leader_jobs")
    return Ticket.decode(ticket).planned_at.timestamp() if ticket else None


class QuickRedis(RedisServer):
    """A server that keeps what it has acknowledged over SIGKILL, without a sync to disk for each."""

    def _command(self) -> tuple[list[str], dict[str, str]]:
        command, environment = super()._command()
        return [*command, "--appendfsync", "no"], environment


class Recorder:
    """
    Takes every message off the queue as it arrives, in a thread of its own.

    Args:
        server: whose queue; it may go away and come back.

    A message's time is when it was taken: some 0.1 ms after it arrived, on an idle machine.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._taken: list[tuple[float, bytes]] = []
        self._read: list[Message] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def messages(self) -> list[Message]:
        """Return what has arrived so far, in order."""
        self._read.extend(Message.of(*taken) for taken in self._taken[len(self._read) :])
        return list(self._read)

    def since(self, moment: float) -> list[Message]:
        """Return what has arrived after *moment*."""
        return [message for message in self.messages() if message.at > moment]

    @property
    def count(self) -> int:
        """How many messages have arrived."""
        return len(self._taken)

    def _run(self) -> None:
        while not self._over.is_set():
            client = Redis(port=self._server.port, retry=Retry(NoBackoff(), 0))
            with suppress(RedisError), closing(client):
                self._take(client)
            self._over.wait(0.02)

    def _take(self, client: Redis) -> None:
        while not self._over.is_set():
            first: Any = client.brpop([_QUEUE], timeout=1)
            if first is None:
                continue
            self._taken.append((time.time(), first[1]))
            rest: Any = client.rpop(_QUEUE, 1000) or []
            now = time.time()
            self._taken.extend((now, payload) for payload in rest)
