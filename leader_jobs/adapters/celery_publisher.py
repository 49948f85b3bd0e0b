"""
From a claim to a message: under the occurrence's id, with its ticket.

A message that is not known to have reached the broker is sent again, under the same id.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from celery import Celery
from celery.beat import ScheduleEntry
from kombu import Connection
from kombu.exceptions import OperationalError

from leader_jobs.adapters.celery_entries import HEADER, BeatJob
from leader_jobs.ledger import Claim
from leader_jobs.tickets import Ticket

__all__ = ["BrokerTrouble", "Publisher"]

#: Seconds after which a broker that does not answer is given up on, for the time being.
_TIMEOUT: Final = 10.0


class BrokerTrouble(Exception):
    """The broker did not take a message, or is not known to have taken it."""


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
        self._connection: Connection | None = None
        self._producer: Any = None

    def publish(self, claim: Claim, job: BeatJob, entry: ScheduleEntry) -> None:
        """
        Hand a message for *claim* to the broker.

        Raises:
            BrokerTrouble: it is not known to have been taken; trying again may help.
            Exception: there can be no such message: its arguments can not be serialised, say.
        """
        message = _clone(entry, self._options(claim, entry))
        try:
            self._send(message, self._connected())
        except Exception as error:
            cause = error.__cause__ or error.__context__ or error
            if self._is_trouble(cause):
                self.close()
                raise BrokerTrouble(str(cause) or repr(cause)) from error
            raise cause from None

    def close(self) -> None:
        """Let go of the connection; the next message opens another one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception as error:
                if not self._is_trouble(error):
                    raise

    def _connected(self) -> Any:
        if self._producer is None:
            connection = self._app.connection_for_write()
            connection.transport_options = {
                **_patience(connection),
                **(connection.transport_options or {}),
            }
            self._connection = connection
            self._producer = self._app.amqp.Producer(connection, auto_declare=False)
        return self._producer

    def _is_trouble(self, error: BaseException) -> bool:
        kinds: tuple[type[BaseException], ...] = (OperationalError, OSError)
        if self._connection is not None:
            kinds += tuple(self._connection.connection_errors)
            kinds += tuple(self._connection.channel_errors)
        return isinstance(error, kinds)

    def _options(self, claim: Claim, entry: ScheduleEntry) -> dict[str, Any]:
        options = {key: value for key, value in (entry.options or {}).items() if key != HEADER}
        ticket = Ticket(
            election=self._election,
            job=claim.job,
            planned_at=claim.planned_at,
            sequence=claim.sequence,
            attempt=claim.attempt,
            token=claim.token,
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
    if driver == "amqp":
        # Without confirmation a message may be lost in a socket whose other end has died.
        return {"confirm_publish": True, "read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT}
    if driver == "redis":
        return {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
    return {}


def _clone(entry: ScheduleEntry, options: dict[str, Any]) -> ScheduleEntry:
    """Return a copy of *entry* with other options; `copy.copy` fails for some classes of entries."""
    clone: ScheduleEntry = entry.__class__.__new__(entry.__class__)
    clone.__dict__.update(entry.__dict__)
    clone.options = options
    return clone
