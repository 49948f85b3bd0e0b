"""
One HTTP connection to one etcd member, every operation of it held to an absolute deadline.

A timeout set on a socket starts anew with each read, so a member that sends a byte now and then, or
one whose disk is dying, would hold a caller for ever. `Channel` stands where `http.client` expects a
socket and sets what is left of the deadline before each operation. It also lets another thread end
a blocked read or connect, and nothing else notices a frozen peer: its kernel goes on acknowledging,
so TCP's own keepalive and user timeout stay silent. They are for the other case: a stream that waits
for events for minutes must hear that what it comes through (a NAT, a switch) has forgotten it.
"""

import http.client
import io
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from leader_jobs.clock import Clock

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Options of the TCP layer: requests leave at once; after 10 s of silence a peer is probed every 5 s,
#: and given up after three probes. A platform without one of them does without it.
_TCP_OPTIONS: Final = {
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}

__all__ = ["Channel", "Connection", "Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one member listens for clients."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Channel:
    """
    What `http.client` needs of a socket, under a deadline that the owner moves.

    Args:
        clock: whose moments `deadline` is one of.

    Attributes:
        deadline: when the operation in hand, and any later one, fails with `TimeoutError`.
        aborted: whether somebody called `abort`.
    """

    def __init__(self, clock: Clock) -> None:
        self.deadline = 0.0
        self._clock = clock
        self.aborted = False
        self._sock: socket.socket | None = None
        # Keeps `abort` from reaching a descriptor that is closed and already somebody else's.
        self._lock = threading.Lock()

    def open(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        """Connect, trying each address of the host within an equal share of the time left."""
        error: OSError | None = None
        addresses = _resolve(endpoint)
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            try:
                sock = self._install(socket.socket(family, kind, protocol))
                self._arm(share=len(addresses) - position)
                sock.connect(address)
                _set_options(sock)
                if tls is not None:
                    self._secure(sock, endpoint.host, tls)
            except OSError as failure:
                self.close()
                error = failure
            else:
                return
        raise error or OSError("the name has no address")

    def _secure(self, sock: socket.socket, host: str, tls: ssl.SSLContext) -> None:
        secured = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        self._install(secured)
        self._arm()
        secured.do_handshake()

    def _install(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            self._sock = sock
        return sock

    def _arm(self, share: int = 1) -> socket.socket:
        """Return the socket with a timeout of what is left (or of one *share* of it)."""
        left = self.deadline - self._clock.now()
        if self._sock is None or self.aborted:
            msg = "the connection was given up"
            raise ConnectionAbortedError(msg)
        if left <= 0:
            msg = "timed out"
            raise TimeoutError(msg)
        self._sock.settimeout(left / share)
        return self._sock

    def sendall(self, data: "ReadableBuffer") -> None:
        """Send all of *data*."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._arm().send(rest) :]

    def recv_into(self, buffer: "WriteableBuffer") -> int:
        """Receive what there is, at least one byte, or 0 at the end of the stream."""
        return self._arm().recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a buffered reader; closing it leaves the connection open."""
        return io.BufferedReader(_Inlet(self))

    def stale(self) -> bool:
        """Whether an idle connection is of no more use: closed by the peer, or out of step."""
        if self._sock is None:
            return True
        self._sock.settimeout(0)
        try:
            self._sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        return True

    def abort(self) -> None:
        """Make the operation that blocks in another thread, and every later one, fail now."""
        with self._lock:
            self.aborted = True
            if self._sock is not None:
                # The method of the base class: SSLSocket's own drops the TLS state under the reader.
                with suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._sock is not None:
                self._sock.close()
            self._sock = None


def _resolve(endpoint: Endpoint) -> list[Any]:
    try:
        return socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        msg = "the host's name is not valid"
        raise OSError(msg) from error


class _Inlet(io.RawIOBase):
    """The reading side of a channel as a raw file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        return self._channel.recv_into(buffer)


class Connection(http.client.HTTPConnection):
    """
    An HTTP/1.1 connection to *endpoint*; nothing is opened before `open`.

    Args:
        endpoint: the member.
        tls: how to secure the connection, or None for plain HTTP.
        clock: whose moments the deadlines are.

    ``http.client`` does not look at ``HTTP_PROXY``, which is what a connection to etcd wants.
    """

    def __init__(self, endpoint: Endpoint, *, tls: ssl.SSLContext | None, clock: Clock) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self.endpoint = endpoint
        self._tls = tls
        self._channel = Channel(clock)

    def connect(self) -> None:
        """Open the connection; `open` is the way in that has a deadline."""
        self._channel.open(self.endpoint, self._tls)
        self.sock = self._channel

    def open(self, deadline: float) -> None:
        """
        Have the connection open.

        Raises:
            OSError: it can not be opened by *deadline*; nothing was sent.
        """
        self._channel.deadline = deadline
        if self.sock is None:
            self.connect()

    def post(
        self, path: str, body: bytes, headers: dict[str, str], *, deadline: float
    ) -> http.client.HTTPResponse:
        """
        Send a request and return the response once its status line and headers are in.

        Raises:
            OSError: no answer by *deadline*, or the connection broke.
            http.client.HTTPException: the answer is not HTTP.
        """
        self._channel.deadline = deadline
        self.request("POST", path, body, {"Content-Type": "application/json", **headers})
        return self.getresponse()

    def extend(self, deadline: float) -> None:
        """Give reads of a response already begun until *deadline*."""
        self._channel.deadline = deadline

    def stale(self) -> bool:
        """Whether this idle connection is of no more use."""
        return self.sock is None or self._channel.stale()

    @property
    def aborted(self) -> bool:
        """Whether it was our side that gave this connection up."""
        return self._channel.aborted

    def abort(self) -> None:
        """Make whatever blocks on this connection in another thread fail now."""
        self._channel.abort()

    def close(self) -> None:
        """Close the connection, half-open ones too."""
        super().close()
        self._channel.close()


def _set_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
