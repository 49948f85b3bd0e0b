"""
etcd over gRPC: for sites without the JSON gateway, or whose users are the names in certificates.

Keepalives and watches are streams to gRPC. Each of ours carries one request, so it is sent as a call
of one request, which is the same on the wire and needs no thread to send it.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Final

from leader_jobs.clock import Clock
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import Unanswered, verdict
from leader_jobs.stores._etcd_grpc_lines import Lines
from leader_jobs.stores._etcd_protobuf import Messages
from leader_jobs.stores._etcd_socket import Endpoint

__all__ = ["GrpcTransport"]

_Metadata = list[tuple[str, str]]

_HAS_LEADER: Final = ("hasleader", "true")
_TIMED_OUT: Final = "timed out"
_DEADLINE_EXCEEDED: Final = 4
_UNAVAILABLE: Final = 14
#: How gRPC begins what it says of a call that found no connection to go by.
_NOT_SENT: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "errors resolving",
    "DNS resolution failed",
)
#: What is in it if the two sides disagree about TLS.
_TLS: Final = ("handshake failed", "verification check failed", "not in peer certificate")


class GrpcTransport:
    """
    A `leader_jobs.stores._etcd_transport.Transport` over gRPC.

    Args:
        grpc: the module.
        messages: how requests and replies become messages and back.
        dial: makes a channel, given an address and options.
        clock: where moments come from.

    In the child of a fork it refuses everything.
    """

    def __init__(
        self, grpc: ModuleType, messages: Messages, dial: Callable[..., Any], *, clock: Clock
    ) -> None:
        self._grpc = grpc
        self._messages = messages
        self._clock = clock
        self._lines = Lines(grpc, dial)

    def once(
        self, endpoint: Endpoint, path: str, body: wire.Json, token: str | None, until: float
    ) -> wire.Json:
        """Ask one member once. See `leader_jobs.stores._etcd_transport.Transport`."""
        method = self._messages.method(path)
        with self._lines.lend(endpoint) as line:
            if not line.settle(self._clock, until, threading.Event()):
                raise Unanswered(_TIMED_OUT, sent=False)
            call = line.channel.unary_unary(method.name, **method.codec)
            request, left = self._messages.encode(body, method), until - self._clock.now()
            try:
                reply = call(request, timeout=max(0.0, left), metadata=_metadata(token))
            except self._grpc.RpcError as error:
                raise _trouble(error) from error
        return self._messages.decode(reply)

    def stream(self, endpoint: Endpoint) -> "GrpcStream":
        """Return a conversation with a member; nothing is opened yet."""
        return GrpcStream(endpoint, self._grpc, self._messages, self._lines, clock=self._clock)

    def ahead(
        self,
        endpoint: Endpoint,
        token: str | None,
        deadline: float,
    ) -> None:
        """Return None: no message says what time it is."""
        return

    def drop(self, endpoint: Endpoint) -> None:
        """Have later calls to *endpoint* go by a new connection."""
        self._lines.drop(endpoint)

    def close(self) -> None:
        """Close connections that nobody uses, the others when their last call is done."""
        self._lines.close()

    def forget(self) -> None:
        """Touch nothing any more, in the child of a fork."""
        self._lines.forget()


class GrpcStream:
    """A `leader_jobs.stores._etcd_transport.Stream` on the channel that all share."""

    def __init__(
        self,
        endpoint: Endpoint,
        grpc: ModuleType,
        messages: Messages,
        lines: Lines,
        *,
        clock: Clock,
    ) -> None:
        self.endpoint = endpoint
        self.aborted = False
        self._grpc = grpc
        self._messages = messages
        self._lines = lines
        self._clock = clock
        self._late = False
        self._woken = threading.Event()
        self._lent = ExitStack()
        self._channel: Any = None
        self._call: Any = None
        self._lock = threading.Lock()

    def open(self, deadline: float) -> None:
        """Have a connection by *deadline*."""
        line = self._lent.enter_context(self._lines.lend(self.endpoint))
        if not line.settle(self._clock, deadline, self._woken) and not self.aborted:
            raise TimeoutError(_TIMED_OUT)
        self._channel = line.channel

    def ask(self, path: str, body: wire.Json, token: str | None, deadline: float) -> wire.Json:
        """Return the reply to one call."""
        method = self._messages.method(path)
        multi = self._channel.unary_unary(method.name, **method.codec)
        request = self._messages.encode(body, method)
        with self._told():
            call = self._begin(multi.future, request, deadline, _metadata(token))
            return self._messages.decode(call.result())

    @contextmanager
    def watch(
        self, body: wire.Json, token: str | None, *, soon: float, until: float
    ) -> Iterator[Iterator[wire.Json]]:
        """Lend the messages of one watch."""
        method = self._messages.method(wire.WATCH)
        multi = self._channel.unary_stream(method.name, **method.codec)
        request = self._messages.encode(body, method)
        begun = threading.Event()
        with self._told():
            call = self._begin(multi, request, until, [*_metadata(token), _HAS_LEADER])
            watchdog = threading.Thread(
                target=self._bark, args=(call, begun, soon), name="etcd-watchdog", daemon=True
            )
            watchdog.start()
            try:
                yield self._each(call, begun)
            finally:
                begun.set()
                call.cancel()

    def _each(self, call: Any, begun: threading.Event) -> Iterator[wire.Json]:
        for message in call:
            begun.set()
            yield {"result": self._messages.decode(message)}

    def _bark(self, call: Any, begun: threading.Event, soon: float) -> None:
        """End a watch that has not begun in time: gRPC knows one deadline, that of its end."""
        if not self._clock.wait(begun, soon - self._clock.now()):
            self._late = True
            call.cancel()

    def _begin(
        self, call: Callable[..., Any], request: Any, deadline: float, metadata: _Metadata
    ) -> Any:
        """Begin a call that `abort` ends."""
        left = max(0.0, deadline - self._clock.now())
        with self._lock:
            if self.aborted:
                raise _given_up()
            self._call = call(request, timeout=left, metadata=metadata)
        return self._call

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell a conversation that broke from one whose time is up, or that was given up."""
        try:
            yield
        except self._grpc.FutureCancelledError as error:
            raise _given_up() from error
        except self._grpc.RpcError as error:
            if self._late or _is_late(error):
                raise TimeoutError(_TIMED_OUT) from error
            raise _trouble(error) from error

    def abort(self) -> None:
        """Make what blocks in another thread, and whatever comes later, fail now."""
        with self._lock:
            self.aborted = True
            call = self._call
        self._woken.set()
        if call is not None:
            call.cancel()

    def close(self) -> None:
        """Let go of the channel."""
        self._lent.close()


def _metadata(token: str | None) -> _Metadata:
    return [("token", token)] if token else []


def _given_up() -> Unanswered:
    return Unanswered("the conversation was given up", sent=True)


def _is_late(error: Any) -> bool:
    """Whether the time of a call was up: by our clock, or by the member's, which says so in words."""
    return _code(error) == _DEADLINE_EXCEEDED or "deadline exceeded" in _details(error)


def _trouble(error: Any) -> Exception:
    """Return what to raise for a call that gRPC says has failed."""
    details = _details(error)
    if _code(error) == _DEADLINE_EXCEEDED:
        return Unanswered(_TIMED_OUT, sent=True)
    if _code(error) == _UNAVAILABLE and details.startswith(_NOT_SENT):
        tls = any(words in details for words in _TLS)
        return Unanswered(_reason(details), sent=False, tls=tls)
    return verdict(_code(error), details)


def _code(error: Any) -> int:
    code: int = error.code().value[0]
    return code


def _details(error: Any) -> str:
    return str(error.details() or "no message")


def _reason(details: str) -> str:
    """Say in a few words why there is no connection; gRPC tells the whole story of its layers."""
    if tls := re.search(r"OPENSSL_internal:(.*?)(: OK)?$", details):
        return f"TLS: {tls[1].lower().replace('_', ' ')}"
    if "Socket closed" in details:
        return "hung up without an answer; does one side alone speak TLS (etcds://, etcds+grpc://)?"
    if "hostname verification" in details.lower() or "not in peer certificate" in details:
        return "TLS: the certificate is not valid for that host"
    last = re.sub(r"^.*last error: \w+: (ipv[46]:\S+: )?", "", details)
    return last.removeprefix("Failed to connect to remote host: ").lower()
