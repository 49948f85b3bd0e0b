"""A TCP proxy that behaves as badly as a network can, without needing any rights."""

import ctypes
import socket
import struct
import threading
from contextlib import suppress
from enum import Enum
from typing import Final, Self

__all__ = ["Direction", "TcpProxy"]

_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


_BOTH: Final = (Direction.TO_SERVER, Direction.TO_CLIENT)


class TcpProxy:
    """
    Passes connections on to *target*, until told otherwise; used as a context manager.

    Args:
        target: ``host:port`` of the server.

    Attributes:
        endpoint: ``host:port`` for clients.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._changed = threading.Condition()
        self._listener = _listen(0)
        self._port: int = self._listener.getsockname()[1]
        self.endpoint = f"127.0.0.1:{self._port}"
        self._swallowed: set[Direction] = set()
        self._held: set[Direction] = set()
        self._passed = dict.fromkeys(Direction, 0)
        self._accepted = 0
        self._links: list[socket.socket] = []
        self._accepter = self._accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    # Faults

    def cut(self) -> None:
        """Close every connection and refuse new ones."""
        with self._changed:
            self._swallowed.clear()
            self._held.clear()
            links, self._links = self._links, []
            self._changed.notify_all()
        for link in [self._listener, *links]:
            _shut(link)
        self._accepter.join()
        for link in [self._listener, *links]:
            link.close()

    def stall(self, *directions: Direction) -> None:
        """Accept and swallow, both ways unless told otherwise; what is swallowed never arrives."""
        with self._changed:
            self._swallowed.update(directions or _BOTH)

    def hold(self, *directions: Direction) -> None:
        """Keep bytes back, both ways unless told otherwise; they arrive once `restore` is called."""
        with self._changed:
            self._held.update(directions or _BOTH)

    def drop_packets(self) -> None:
        """Have the kernel throw incoming packets away, SYNs included: nothing is acknowledged."""
        with self._changed:
            for link in (self._listener, *self._links):
                _attach_drop_all(link)

    def restore(self) -> None:
        """Pass bytes on again."""
        with self._changed:
            self._swallowed.clear()
            self._held.clear()
            for link in (self._listener, *self._links):
                with suppress(OSError):
                    link.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            self._changed.notify_all()
        if self._listener.fileno() < 0:
            self._listener = _listen(self._port)
            self._accepter = self._accept()

    # Observations

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._accepted

    def passed(self, direction: Direction) -> int:
        """Return how many bytes were passed on that way so far."""
        return self._passed[direction]

    def wait_passed(self, direction: Direction, more_than: int, within: float = 10.0) -> None:
        """Wait until more than so many bytes were passed on that way."""
        with self._changed:
            enough = self._changed.wait_for(lambda: self._passed[direction] > more_than, within)
        assert enough, f"not more than {more_than} bytes {direction.value} within {within} s"

    # Machinery

    def _accept(self) -> threading.Thread:
        thread = threading.Thread(target=self._accept_all, args=(self._listener,), daemon=True)
        thread.start()
        return thread

    def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._changed:
                self._accepted += 1
                self._links += [client, server]
            for source, sink, direction in (
                (client, server, Direction.TO_SERVER),
                (server, client, Direction.TO_CLIENT),
            ):
                threading.Thread(
                    target=self._pump, args=(source, sink, direction), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        late = False
        with suppress(OSError):
            while data := source.recv(65536):
                with self._changed:
                    late = late or direction in self._held
                    self._changed.wait_for(lambda: direction not in self._held)
                    if direction in self._swallowed:
                        continue
                    # Before it arrives: whoever has had an answer finds it counted.
                    self._passed[direction] += len(data)
                    self._changed.notify_all()
                sink.sendall(data)
        # A sender that hangs up can not take back what is under way: its farewell is lost.
        if not late:
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def _shut(link: socket.socket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _attach_drop_all(link: socket.socket) -> None:
    """Attach the classic BPF program "return 0": accept no byte of any packet."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    filter_ = struct.pack("HL", 1, ctypes.addressof(program))
    link.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
