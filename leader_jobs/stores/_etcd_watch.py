"""
Waiting for a change: one stream per watch, for the length of one wait.

A watch is a hint. Whatever ends it (an event, silence until the limit, a cancelled or compacted
watch, a member that died, a wake-up from another thread), the waiter looks again, linearizably; so
nothing here reports *what* happened, and a stream that says nothing costs time, never safety.

Every stream asks for ``hasleader``: a member cut off from its cluster then ends it, where otherwise
it stays silent and even goes on sending progress messages. A stream has a limit to its silence
because a frozen member sends nothing at all.
"""

import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreError
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import TokenRejected, Unanswered
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_transport import Stream
from leader_jobs.stores._pace import Pace

__all__ = ["RegisterWatch", "Waiter"]

#: Sends a range request by the stream's connection and returns the reply.
_Ask = Callable[[wire.Json], wire.Json]
#: Returns what to watch, or None if there is no need to.
_Plan = Callable[[_Ask], wire.Json | None]

_log = logging.getLogger(__name__)

#: Seconds by which a timeout may fire early; some event loops round.
_SLACK: Final = 0.01


class Waiter:
    """
    One thread's wait that other threads can end.

    Args:
        client: the cluster.
        clock: where moments come from.
        call_timeout: seconds that opening a stream may take.

    A wake-up that comes while nobody waits is kept for the next wait: it then returns at once.
    """

    def __init__(self, client: Client, *, clock: Clock, call_timeout: float) -> None:
        self._client = client
        self._clock = clock
        self._call_timeout = call_timeout
        self._woken = threading.Event()
        self._stream: Stream | None = None

    def wake(self) -> None:
        """End the wait in another thread, or the next one if there is none."""
        self._woken.set()
        stream = self._stream
        if stream is not None:
            stream.abort()

    def wait(self, request: wire.Json, *, timeout: float) -> None:
        """
        Wait until *request*'s watch has news, somebody calls `wake`, or *timeout* seconds passed.

        Returns on any trouble too, but not before a moment has passed, so that a caller who comes
        straight back does not spin.
        """
        self._wait(lambda _: request, timeout)

    def wait_newer(self, prefix: bytes, after: int, *, timeout: float) -> None:
        """Wait, likewise, until a key under *prefix* was changed after revision *after*."""

        def plan(ask: _Ask) -> wire.Json | None:
            # The server may have compacted what a watch from *after* on would begin with.
            look = wire.read_range(ask(wire.newer(prefix, after)))
            if look.entries:
                return None
            return wire.watch(prefix, prefix=True, start=look.header.revision + 1)

        self._wait(plan, timeout)

    def rest(self, seconds: float) -> None:
        """Wait until somebody calls `wake`, which ends the next wait too, or *seconds* passed."""
        self._clock.wait(self._woken, seconds)

    def forget(self) -> None:
        """Begin afresh in the child of a fork: who waits there is the parent."""
        self._woken = threading.Event()
        self._stream = None

    def _wait(self, plan: _Plan, timeout: float) -> None:
        began = self._clock.now()
        if not self._woken.is_set() and not self._watch(plan, began + timeout):
            rest = random.uniform(0.1, 0.3) - (self._clock.now() - began)  # noqa: S311  jitter
            self._clock.wait(self._woken, min(rest, timeout))
        self._woken.clear()

    def _watch(self, plan: _Plan, until: float) -> bool:
        """Run one stream; True if it had news or was silent to the end, False on trouble."""
        with self._client.stream() as stream:
            self._stream = stream
            try:
                # A wake-up between the check in `wait` and here found no stream to abort.
                return self._woken.is_set() or self._follow(stream, plan, until)
            except TimeoutError as error:
                if self._clock.now() >= until - _SLACK:
                    return True
                self._client.leave(stream.endpoint, f"no watch: {error}")
            except Unanswered as error:
                if not stream.aborted:
                    self._client.leave(stream.endpoint, f"watch ended: {error}")
            except (StoreError, ValueError) as error:
                _log.info("etcd watch at %s ended: %s", stream.endpoint, error)
            finally:
                self._stream = None
        return False

    def _follow(self, stream: Stream, plan: _Plan, until: float) -> bool:
        soon = min(until, self._clock.now() + self._call_timeout)
        token = self._client.token(soon)
        try:
            stream.open(soon)
            request = plan(lambda body: stream.ask(wire.RANGE, body, token, soon))
            if request is None:
                return True
            with stream.watch(request, token, soon=soon, until=until) as messages:
                for message in map(wire.news, messages):
                    if message.over:
                        _log.info("etcd ended the watch at %s: %s", stream.endpoint, message.reason)
                    if message.over or message.changed:
                        return message.changed
        except TokenRejected as error:
            self._client.reject(token)
            _log.info("etcd watch at %s: %s", stream.endpoint, error)
            return False
        msg = "the member closed the stream"
        raise Unanswered(msg, sent=True)


class RegisterWatch:
    """
    A `leader_jobs.stores.base.Watch` on the records whose etcd keys begin with *prefix*.

    Args:
        waiter: of this watch alone.
        prefix: namespace, election and all.
        clock: where moments come from.
    """

    def __init__(self, waiter: Waiter, prefix: bytes, *, clock: Clock) -> None:
        self._waiter = waiter
        self._prefix = prefix
        self._clock = clock
        self._pace = Pace(clock)

    def wait(self, after: int, *, timeout: float) -> None:
        """Wait until a record may be newer than *after*. See `leader_jobs.stores.base.Watch`."""
        end = self._clock.now() + timeout
        self._waiter.rest(min(self._pace.pause(), timeout))
        self._waiter.wait_newer(self._prefix, after, timeout=end - self._clock.now())

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        self._waiter.wake()

    def forget(self) -> None:
        """Begin afresh in the child of a fork."""
        self._waiter.forget()
