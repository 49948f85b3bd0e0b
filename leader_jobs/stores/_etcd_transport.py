"""
What the etcd client asks of a transport: one try of one call, and one stream for one watch.

Requests and replies are what `_etcd_wire` builds and reads, the JSON of etcd's gateway, whatever
goes over the wire. Which member is asked, for how long and how often is decided above, once for all
transports; below is only how to say it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from leader_jobs.stores._etcd_socket import Endpoint
from leader_jobs.stores._etcd_wire import Json

__all__ = ["Stream", "Transport"]


class Stream(Protocol):
    """
    One thread's conversation with one member, which other threads can end.

    Its methods raise `TimeoutError` when their deadline passes, `Unanswered` when the conversation
    breaks or is given up, and what a call raises when the member says no.
    """

    @property
    def endpoint(self) -> Endpoint:
        """The member."""
        ...

    @property
    def aborted(self) -> bool:
        """Whether it was our side that gave the conversation up."""
        ...

    def open(self, deadline: float) -> None:
        """Have a connection by *deadline*."""
        ...

    def ask(self, path: str, body: Json, token: str | None, deadline: float) -> Json:
        """Return the reply to one call."""
        ...

    def watch(
        self, body: Json, token: str | None, *, soon: float, until: float
    ) -> AbstractContextManager[Iterator[Json]]:
        """
        Lend the messages of one watch; the iterator ends where the member ends the stream.

        Args:
            body: what to watch.
            token: of the login, or None.
            soon: by when the first message must be here.
            until: by when each later one must.
        """
        ...

    def abort(self) -> None:
        """Make what blocks in another thread, and whatever comes later, fail now."""
        ...

    def close(self) -> None:
        """Let go of the member."""
        ...


class Transport(Protocol):
    """How members are spoken to; shared by threads."""

    def once(
        self, endpoint: Endpoint, path: str, body: Json, token: str | None, until: float
    ) -> Json:
        """
        Ask one member once.

        Raises:
            Unanswered: there was no answer by *until*, or none that settles anything.
            TokenRejected: log in again.
            Refusal: the server said no.
            StoreRefused: this can not work here.
        """
        ...

    def stream(self, endpoint: Endpoint) -> Stream:
        """Return a conversation with a member; nothing is opened yet."""
        ...

    def ahead(
        self, endpoint: Endpoint, token: str | None, deadline: float
    ) -> tuple[float, float] | None:
        """Return between how many seconds the member's clock is ahead of ours; None: it does not say."""
        ...

    def drop(self, endpoint: Endpoint) -> None:
        """Let go of connections to a member that no call is using."""
        ...

    def close(self) -> None:
        """Let go of connections that no call is using; calls that come later open new ones."""
        ...

    def forget(self) -> None:
        """Drop what belongs to the parent of a fork, without touching it."""
        ...
