"""
etcd over HTTP: the members' JSON gateway, by `http.client`.

A connection serves one call at a time and goes back to the idle ones after a whole exchange; after
anything less, what comes next on it could be the answer to something else. A watch has a connection
of its own.
"""

import http.client
import json
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import Unanswered, check, headers
from leader_jobs.stores._etcd_socket import Connection, Endpoint

__all__ = ["HttpTransport"]

_IDLE_CONNECTIONS: Final = 4
_HAS_LEADER: Final = {"Grpc-Metadata-hasleader": "true"}
_OK: Final = 200
#: Every member answers it with little.
_STATUS: Final = "/v3/maintenance/status"


class HttpTransport:
    """
    A `leader_jobs.stores._etcd_transport.Transport` to the JSON gateway.

    Args:
        clock: where moments come from.
        tls: how to secure connections, or None for plain HTTP.

    A child of a fork opens connections of its own.
    """

    def __init__(self, *, clock: Clock, tls: ssl.SSLContext | None = None) -> None:
        self._clock = clock
        self._tls = tls
        self.forget()

    def forget(self) -> None:
        """Drop connections and locks without touching them."""
        self._idle: defaultdict[Endpoint, list[Connection]] = defaultdict(list)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close idle connections, and those that are lent as soon as they come back."""
        with self._lock:
            former, self._idle = self._idle, defaultdict(list)
        for group in former.values():
            for connection in group:
                connection.close()

    def drop(self, endpoint: Endpoint) -> None:
        """Close idle connections to *endpoint*."""
        with self._lock:
            idle = self._idle.pop(endpoint, [])
        for connection in idle:
            connection.close()

    def once(
        self, endpoint: Endpoint, path: str, body: wire.Json, token: str | None, until: float
    ) -> wire.Json:
        """Ask one member once. See `leader_jobs.stores._etcd_transport.Transport`."""
        with self._connection(endpoint, until) as connection:
            response = connection.post(
                path, json.dumps(body).encode(), headers(token), deadline=until
            )
            text = response.read()
        return check(endpoint, response.status, text)

    def stream(self, endpoint: Endpoint) -> "HttpStream":
        """Return a conversation with a member; nothing is opened yet."""
        return HttpStream(self._new(endpoint))

    def ahead(
        self, endpoint: Endpoint, token: str | None, deadline: float
    ) -> tuple[float, float] | None:
        """Return the bounds that the Date of an answer sets to how far the clocks are apart."""
        with closing(self._new(endpoint)) as connection:
            try:
                connection.open(deadline)
                before = self._clock.utcnow()
                response = connection.post(_STATUS, b"{}", headers(token), deadline=deadline)
                after = self._clock.utcnow()
                date = parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
            except (OSError, http.client.HTTPException, TypeError, ValueError):
                return None
        latest = date + timedelta(seconds=1)
        return (date - after).total_seconds(), (latest - before).total_seconds()

    @contextmanager
    def _connection(self, endpoint: Endpoint, until: float) -> Iterator[Connection]:
        """Lend an open connection; it goes back to the idle ones only after a whole exchange."""
        home = self._idle
        connection = self._take(endpoint)
        whole = False
        try:
            try:
                connection.open(until)
            except OSError as error:
                raise Unanswered(_reason(error), sent=False, tls=_is_tls(error)) from error
            yield connection
            whole = True
        except (OSError, http.client.HTTPException) as error:
            raise Unanswered(_reason(error), sent=True, tls=_is_tls(error)) from error
        finally:
            if not (whole and self._give_back(connection, home)):
                connection.close()

    def _new(self, endpoint: Endpoint) -> Connection:
        return Connection(endpoint, tls=self._tls, clock=self._clock)

    def _take(self, endpoint: Endpoint) -> Connection:
        while True:
            with self._lock:
                idle = self._idle[endpoint]
                connection = idle.pop() if idle else None
            if connection is None:
                return self._new(endpoint)
            if not connection.stale():
                return connection
            connection.close()

    def _give_back(
        self, connection: Connection, home: defaultdict[Endpoint, list[Connection]]
    ) -> bool:
        with self._lock:
            idle = home[connection.endpoint]
            closed = home is not self._idle
            if closed or connection.sock is None or len(idle) >= _IDLE_CONNECTIONS:
                return False
            idle.append(connection)
            return True


class HttpStream:
    """A `leader_jobs.stores._etcd_transport.Stream` on a connection of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def endpoint(self) -> Endpoint:
        """The member."""
        return self._connection.endpoint

    @property
    def aborted(self) -> bool:
        """Whether it was our side that gave the conversation up."""
        return self._connection.aborted

    def open(self, deadline: float) -> None:
        """Have the connection open by *deadline*."""
        with _broken():
            self._connection.open(deadline)

    def ask(self, path: str, body: wire.Json, token: str | None, deadline: float) -> wire.Json:
        """Return the reply to one call."""
        data = json.dumps(body).encode()
        with _broken():
            response = self._connection.post(path, data, headers(token), deadline=deadline)
            text = response.read()
        return check(self.endpoint, response.status, text)

    @contextmanager
    def watch(
        self, body: wire.Json, token: str | None, *, soon: float, until: float
    ) -> Iterator[Iterator[wire.Json]]:
        """Lend the messages of one watch: a line of JSON each."""
        data = json.dumps(body).encode()
        with _broken():
            response = self._connection.post(
                wire.WATCH, data, headers(token) | _HAS_LEADER, deadline=soon
            )
            with response:
                if response.status != _OK:
                    check(self.endpoint, response.status, response.read())
                yield self._messages(response, until)

    def _messages(self, response: http.client.HTTPResponse, until: float) -> Iterator[wire.Json]:
        while line := response.readline():
            # What follows the first message may take its time.
            self._connection.extend(until)
            yield check(self.endpoint, _OK, line)

    def abort(self) -> None:
        """Make what blocks in another thread, and whatever comes later, fail now."""
        self._connection.abort()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def _broken() -> Iterator[None]:
    """Tell a conversation that broke from one whose time is up."""
    try:
        yield
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise Unanswered(str(error), sent=True) from error


def _is_tls(error: Exception) -> bool:
    """Whether the two sides disagree about TLS (rather than the connection just breaking)."""
    breaks = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    return isinstance(error, ssl.SSLError) and not isinstance(error, breaks)


def _reason(error: Exception) -> str:
    """Say in a few words what is the matter; `StoreUnavailable` strings several together."""
    match error:
        case TimeoutError():
            return "timed out"
        case ssl.SSLCertVerificationError():
            return f"TLS: certificate verify failed: {error.verify_message}"
        case ssl.SSLEOFError() | ConnectionResetError():
            return "hung up without an answer; does one side alone speak TLS (etcds://)?"
        case ssl.SSLError():
            return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
        case OSError(strerror=str(text)):
            return text.lower()
    return str(error) or type(error).__name__
