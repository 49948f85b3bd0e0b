"""
Lines to etcd's members: a gRPC channel each, made when first asked for and shared by all threads.

A channel that is dropped is closed when the last call on it is done: closing it under a call would
make the outcome of that call unknown for no reason. Channels share nothing with each other, so that
a new one is a new connection, with no patience left over from the last.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from leader_jobs.clock import Clock
from leader_jobs.stores._etcd_grpc_process import note_use, refuse_forks
from leader_jobs.stores._etcd_socket import Endpoint

__all__ = ["Line", "Lines"]

#: A channel asks for nothing that the site did not say, takes large answers, and hears within 15 s
#: that what it comes through (a NAT, a switch) has forgotten it; a server takes offence at more than
#: one ping in 5 s.
_OPTIONS: Final = {
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.max_receive_message_length": -1,
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.http2.ping_timeout_ms": 5_000,
    "grpc.http2.max_pings_without_data": 0,
}
#: What a child of a fork must not even let go of: that, too, would call into gRPC.
_inherited: Final[list["Line"]] = []


class Line:
    """
    A channel, and who is using it.

    Attributes:
        channel: gRPC's.
        users: how many calls and streams go by it.
        dropped: whether it is to be closed after the last of them.
    """

    def __init__(self, channel: Any, settled: frozenset[Any]) -> None:
        self.channel = channel
        self.users = 0
        self.dropped = False
        self._settled_states = settled
        self._settled = False

    def settle(self, clock: Clock, until: float, woken: threading.Event) -> bool:
        """
        Wait until there is a connection or known to be none; a call says then what is the matter.

        Args:
            clock: where moments come from.
            until: when to give up.
            woken: ends the wait when somebody sets it.

        Returns:
            Whether it is known; if not, nothing was sent.
        """
        if not self._settled:

            def note(state: Any) -> None:
                if state in self._settled_states:
                    self._settled = True
                    woken.set()

            self.channel.subscribe(note, try_to_connect=True)
            clock.wait(woken, max(0.0, until - clock.now()))
            self.channel.unsubscribe(note)
        return self._settled


class Lines:
    """
    The lines of one client.

    Args:
        grpc: the module.
        dial: makes a channel, given an address and options.
    """

    def __init__(self, grpc: ModuleType, dial: Callable[..., Any]) -> None:
        states = grpc.ChannelConnectivity
        self._settled = frozenset({states.READY, states.TRANSIENT_FAILURE, states.SHUTDOWN})
        self._dial = dial
        self._lines: dict[Endpoint, Line] = {}
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, endpoint: Endpoint) -> Iterator[Line]:
        """
        Lend the line to *endpoint*.

        Raises:
            StoreRefused: this process is a fork of one that has used gRPC.
        """
        refuse_forks()
        with self._lock:
            line = self._lines.get(endpoint)
            if line is None:
                note_use()
                channel = self._dial(str(endpoint), options=list(_OPTIONS.items()))
                line = self._lines[endpoint] = Line(channel, self._settled)
            line.users += 1
        try:
            yield line
        finally:
            with self._lock:
                line.users -= 1
                over = line.dropped and line.users == 0
            if over:
                line.channel.close()

    def drop(self, endpoint: Endpoint) -> None:
        """Have later calls to *endpoint* go by a new line."""
        with self._lock:
            line = self._lines.pop(endpoint, None)
            if line is None:
                return
            line.dropped = True
            over = line.users == 0
        if over:
            line.channel.close()

    def close(self) -> None:
        """Have all later calls go by new lines."""
        for endpoint in list(self._lines):
            self.drop(endpoint)

    def forget(self) -> None:
        """Touch nothing any more, in the child of a fork."""
        _inherited.extend(self._lines.values())
        self._lines = {}
        self._lock = threading.Lock()
