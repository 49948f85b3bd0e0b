"""
From a claim to a message: under the occurrence's id, with its ticket.

A message that is not known to have reached the broker is sent again, under the same id.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.beat import BeatLazyFunc, ScheduleEntry
from kombu import Connection
from kombu.exceptions import OperationalError

from leader_jobs.adapters.celery_entries import HEADER, BeatJob
from leader_jobs.ledger import Claim
from leader_jobs.tickets import Ticket

__all__ = ["BrokerTrouble", "NoMessage", "NotTaken", "Publisher"]

#: Transports behind which there is no server that could answer.
_NOBODY: Final = frozenset({"filesystem", "memory"})
#: Seconds after which a broker that does not answer is given up on, for the time being.
_TIMEOUT: Final = 10.0


class BrokerTrouble(Exception):
    """The broker did not take a message, or is not known to have taken it."""


class NotTaken(BrokerTrouble):
    """The broker answers, and does not take this message: its queue can not be declared, say."""


class NoMessage(Exception):
    """There is nothing to be sent."""


class Publisher:
    """
    Sends messages over a connection of its own.

    Args:
        app: the application.
        election: the election whose leader sends.
        send: sends the message of an entry with a producer.
    """

    def __init__(
        self, app: Celery, election: str, send: Callable[[ScheduleEntry, Any], None]
    ) -> None:
        self._app = app
        self._election = election
        self._send = send
        self._link: tuple[Connection, Any] | None = None
        self._troubled: Claim | None = None

    def publish(self, claim: Claim, job: BeatJob, entry: ScheduleEntry) -> None:
        """
        Hand a message for *claim* to the broker.

        Raises:
            NotTaken: the broker answers, and did not take this one.
            BrokerTrouble: it is not known to have been taken; trying again may help.
            Exception: there can be no such message: its arguments can not be serialised, say.
        """
        message = _clone(entry, self._options(claim, job, entry))
        connection, producer = self._connected()
        try:
            self._send(message, producer)
        except Exception as error:
            # Celery says what failed, and Kombu says that it was the broker, before the cause itself.
            cause = error.__cause__ or error.__context__ or error
            root = cause.__cause__ or cause
            if not _is_trouble(cause, connection):
                raise cause from None
            self.close()
            taken = isinstance(root, connection.channel_errors) or self._is_its_own(claim)
            raise (NotTaken if taken else BrokerTrouble)(_words(root)) from error

    def _is_its_own(self, claim: Claim) -> bool:
        """
        Whether the trouble is that of *claim* alone: it was in trouble before, and the broker answers.

        What looks like trouble with the broker may come from what a task does as it is sent.
        """
        again, self._troubled = claim == self._troubled, claim
        if again:
            with suppress(BrokerTrouble):
                connection, _ = self._connected()
                return connection.transport.driver_type not in _NOBODY
        return False

    def close(self) -> None:
        """Let go of the connection; the next message opens another one."""
        connected, self._link = self._link, None
        if connected is not None:
            _release(connected[0])

    def _connected(self) -> tuple[Connection, Any]:
        if self._link is None:
            try:
                self._link = self._connect()
            except Exception as error:  # a wrong URL, too: another node may have it right
                raise BrokerTrouble(_words(error.__cause__ or error)) from error
        return self._link

    def _connect(self) -> tuple[Connection, Any]:
        connection = self._app.connection_for_write()
        try:
            connection.transport_options = {
                **_patience(connection),
                **(connection.transport_options or {}),
            }
            producer = self._app.amqp.Producer(connection.default_channel, auto_declare=False)
        except Exception:
            _release(connection)
            raise
        return connection, producer

    def _options(self, claim: Claim, job: BeatJob, entry: ScheduleEntry) -> dict[str, Any]:
        options = {key: value for key, value in (entry.options or {}).items() if key != HEADER}
        ticket = Ticket(
            election=self._election,
            job=claim.job,
            planned_at=claim.planned_at,
            sequence=claim.sequence,
            attempt=claim.attempt,
            token=claim.token,
            policy=job.policy if job.guarded else None,
            rerun_on_crash=job.rerun_on_crash if job.guarded else None,
        )
        # A dict of its own: beat and its users share one among the messages of an entry.
        options["headers"] = {**(options.get("headers") or {}), HEADER: ticket.encode()}
        options["task_id"] = claim.occurrence
        options.setdefault("retry", False)  # we try again ourselves, and look at the term each time
        if claim.retries:
            options["retries"] = claim.retries
        expires = options.get("expires")
        if isinstance(expires, (int, float)) and not isinstance(expires, bool):
            options["expires"] = claim.planned_at + timedelta(seconds=expires)
        return options


def _patience(connection: Connection) -> Mapping[str, Any]:
    """Return the transport options that bound how long a broker is waited for."""
    driver = connection.transport.driver_type
    # Kombu would try again by itself, for seconds; each of several hosts is tried once.
    options: dict[str, Any] = {"max_retries": max(0, len(connection.alt) - 1)}
    if driver == "amqp":
        # Without confirmation a message may be lost in a socket whose other end has died.
        options |= {"confirm_publish": True, "read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT}
    if driver == "redis":
        options |= {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    return options


def _clone(entry: ScheduleEntry, options: dict[str, Any]) -> ScheduleEntry:
    """Return a copy of *entry* with other options; `copy.copy` fails for some classes of entries."""
    clone: ScheduleEntry = entry.__class__.__new__(entry.__class__)
    clone.__dict__.update(entry.__dict__)
    clone.options = options
    # Not in the middle of sending: what it raises there might look like trouble with the broker.
    clone.args = tuple(_now(value) for value in entry.args or ())
    clone.kwargs = {name: _now(value) for name, value in (entry.kwargs or {}).items()}
    return clone


def _now(value: Any) -> Any:
    return value() if isinstance(value, BeatLazyFunc) else value


def _is_trouble(error: BaseException, connection: Connection) -> bool:
    kinds = connection.connection_errors + connection.channel_errors
    return isinstance(error, (OperationalError, OSError, *kinds))


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or repr(error)


def _release(connection: Connection) -> None:
    with suppress(Exception):  # it is of no use any more, whatever it says
        connection.release()
