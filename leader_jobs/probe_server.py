"""
Answers probes over HTTP, on a port of its own, with the standard library alone.

It is meant for supervisors and load balancers that are near: it binds to the loopback address unless
told otherwise, knows GET and HEAD only, and has no log of requests. Whatever is sent to it can hold up
neither the process nor, for long, other probes: each request has a thread of its own, of a few, and two
seconds to arrive.
"""

import errno
import io
import logging
import os
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.probes import Answer, Probes

__all__ = ["ProbeServer"]

_log = logging.getLogger(__name__)
_AT_ONCE: Final = 16
_BACKLOG: Final = 64
_PATIENCE: Final = 2.0
_LONGEST_HEAD: Final = 16_384
_PAUSE: Final = 0.1
_STOP_LIMIT: Final = 1.0


class ProbeServer:
    """
    Serves probes until it is stopped.

    Args:
        probes: what to answer.
        host: the address to bind to.
        port: the port, or 0 for any that is free.
        clock: where moments come from.

    The child of a fork has no server: its copy of the socket is closed as soon as it is born.
    """

    def __init__(self, probes: Probes, *, host: str, port: int, clock: Clock | None = None) -> None:
        self._probes = probes
        self._host = host
        self._port = port
        self._clock: Clock = clock or SystemClock()
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def start(self) -> None:
        """
        Listen, from now on.

        Raises:
            ConfigurationError: it can not listen there; the message says why.
        """
        self._listener = self._bind()
        self._port = self._listener.getsockname()[1]
        _open.add(self)
        name = "leader-jobs-probes"
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), name=name)
        self._thread.daemon = True
        self._thread.start()
        _log.info("probes are answered on http://%s:%d", _in_url(self._host), self._port)

    def stop(self) -> None:
        """Listen no more; a second call changes nothing."""
        listener, thread = self._listener, self._thread
        self.forget()
        if listener is None or thread is None:
            return
        self._stopping.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # which ends the `accept` under way
        listener.close()
        thread.join(_STOP_LIMIT)
        self._probes.close()

    def forget(self) -> socket.socket | None:
        """Listen no more as far as this object is concerned; return what it listened on."""
        listener, self._listener, self._thread = self._listener, None, None
        _open.discard(self)
        return listener

    def _bind(self) -> socket.socket:
        listener: socket.socket | None = None
        try:
            found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = found[0]
            listener = socket.socket(family, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            if listener is not None:
                listener.close()
            raise ConfigurationError(self._said_of(error)) from None
        return listener

    def _said_of(self, error: OSError) -> str:
        if error.errno == errno.EADDRINUSE:
            return (
                f"probe_port is {self._port}, and another process listens there on {self._host}; give "
                "each process of this host a port of its own"
            )
        return (
            f"probe_port is {self._port} and probe_host {self._host!r}: can not listen there "
            f"({error.strerror or error})"
        )

    # -- the thread -------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                # One who went away meanwhile, or no descriptor left; or we are stopping.
                _log.debug("no connection was accepted: %s", error)
                self._clock.wait(self._stopping, _PAUSE)
                continue
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        target = threading.Thread(
            target=self._answer, args=(connection,), name="leader-jobs-probe", daemon=True
        )
        try:
            target.start()
        except RuntimeError as error:  # there can be no more threads
            _log.debug("a probe was not answered: %s", error)
            connection.close()
            self._slots.release()

    def _answer(self, connection: socket.socket) -> None:
        try:
            head = self._read_head(connection)
            connection.settimeout(_PATIENCE)
            _Handler(connection, head, self._probes)
            connection.shutdown(socket.SHUT_WR)  # a child may have been born with a copy of it
            connection.settimeout(_PAUSE)
            connection.recv(_LONGEST_HEAD)  # what is left unread would have the answer thrown away
        except OSError as error:
            _log.debug("a probe was not answered: %s", error)
        except Exception:  # noqa: BLE001  a bug may cost an answer, never fill up standard error
            _log.exception("a probe was not answered")
        finally:
            connection.close()
            self._slots.release()

    def _read_head(self, connection: socket.socket) -> bytes:
        """Read what is sent up to the first empty line, which has to be there in time."""
        limit = self._clock.now() + _PATIENCE
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head:
            left = limit - self._clock.now()
            if left <= 0 or len(head) > _LONGEST_HEAD:
                msg = "the request is too long, or too long in coming"
                raise TimeoutError(msg)
            connection.settimeout(left)
            received = connection.recv(4096)
            if not received:
                break
            head += received
        return head


class _Handler(BaseHTTPRequestHandler):
    """
    Answers one request, of which *head* was read.

    It is done when it is made, as the base class has it.
    """

    server_version = "leader-jobs"
    sys_version = ""
    error_message_format = "%(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def __init__(self, connection: socket.socket, head: bytes, probes: Probes) -> None:
        self._head = head
        self._probes = probes
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type]  # there is no server

    def setup(self) -> None:
        """Read from what was read, write to the connection."""
        super().setup()
        self.rfile = io.BytesIO(self._head)

    def _answer(self) -> None:
        wanted = urlsplit(self.path)
        elections = parse_qs(wanted.query).get("election", [None])
        try:
            answer = self._probes.answer(wanted.path, election=elections[0])
        except Exception:  # noqa: BLE001  whoever asks shall know that there is no answer
            _log.exception("no answer to %s", wanted.path)
            answer = Answer.saying(500, "no answer could be found; see the log")
        self._send(answer)

    def __getattr__(self, name: str) -> Any:
        """Return what answers a method of HTTP, which the base class looks for under ``do_GET``, …."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._answer if name in ("do_GET", "do_HEAD") else self._refuse

    def _refuse(self) -> None:
        self._send(Answer.saying(405, "only GET and HEAD are answered here"))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if answer.status == 405:  # noqa: PLR2004  its only use
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Say nothing: supervisors ask every few seconds."""


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


_open: Final[set[ProbeServer]] = set()


def _close_in_child() -> None:
    """Close the child's copies, or the port would be in use for as long as a child lives."""
    for server in list(_open):
        listener = server.forget()
        if listener is not None:
            with suppress(OSError):
                listener.close()


os.register_at_fork(after_in_child=_close_in_child)
