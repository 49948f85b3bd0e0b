"""
Calls to an etcd cluster: several endpoints, one absolute deadline, an honest outcome.

A call ends in one of three ways. It returns the parsed reply. It raises `Refusal`: the server
answered and said no. Or it raises `StoreUnavailable`: nobody answered in time and the outcome is
*unknown*. Only repeatable calls are sent again after an unknown outcome; any call may move to the
next endpoint while no connection could be opened, because then nothing was sent.

Each try has a timeout of its own, after which the endpoint is left for the next one: a frozen member
accepts connections and bytes and is noticed in no other way. Tokens expire on each member by its own
clock, so a rejected token means: log in again, once, and repeat.
"""

import hashlib
import logging
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from leader_jobs.clock import Clock
from leader_jobs.exceptions import ConfigurationError, StoreRefused, StoreUnavailable
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import (
    FAILED_PRECONDITION,
    Refusal,
    TokenRejected,
    Unanswered,
)
from leader_jobs.stores._etcd_history import History
from leader_jobs.stores._etcd_login import Credentials
from leader_jobs.stores._etcd_socket import Endpoint
from leader_jobs.stores._etcd_transport import Stream, Transport

__all__ = ["Client"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LOGIN_TIMEOUT: Final = 3.0
_TLS_REMEDY: Final = "check etcds:// against the servers, ca_file, cert_file and key_file"
#: Seconds after which `Client.prove_login` logs in although nothing has changed, at the latest.
_LOGIN_EVERY: Final = 1800.0


@dataclass(frozen=True, slots=True)
class _Request(Generic[T]):
    """
    A call in hand: what to send where, how to read the reply, how long to wait for one.

    Password and token stay out of its repr, which tracebacks show.
    """

    path: str
    body: wire.Json = field(repr=False)
    read: Callable[[wire.Json], T]
    token: str | None = field(repr=False)
    patience: float
    repeatable: bool = True


class Client:
    """
    A cluster, as threads share it.

    Args:
        endpoints: the members, in the order to try them.
        transport: how they are spoken to.
        clock: where moments come from.
        call_timeout: seconds one try may take before the next endpoint is asked.
        credentials: whom to log in as, or None.

    A child of a fork starts afresh with the first call: `forget` drops what belongs to the parent.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        transport: Transport,
        *,
        clock: Clock,
        call_timeout: float,
        credentials: Credentials | None = None,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self._transport = transport
        self._clock = clock
        self._call_timeout = call_timeout
        self._credentials = credentials
        self._token: str | None = None
        #: What the last login was with, and until when it is proof enough.
        self._proved = ("", 0.0)
        self._turn = 0
        #: Endpoints that were left and have not answered since: said once, not at every try.
        self._silent: set[Endpoint] = set()
        #: What the answers have shown.
        self.history = History(clock)
        self._reset()

    def _reset(self) -> None:
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._login_lock = threading.Lock()

    def forget(self) -> None:
        """Drop connections and locks without touching them: in the child they are the parent's."""
        with warnings.catch_warnings():
            # The child's copies of the descriptors close as they go; on the wire nothing happens.
            warnings.simplefilter("ignore", ResourceWarning)
            self._transport.forget()
            self._reset()
        self.history.forget()

    def close(self) -> None:
        """Close idle connections and end the streams; calls that come later open new ones."""
        with self._lock:
            streams = list(self._streams)
        self._transport.close()
        for stream in streams:
            stream.abort()

    # Calls

    def call(
        self,
        path: str,
        body: wire.Json,
        read: Callable[[wire.Json], T],
        *,
        deadline: float,
        repeatable: bool = True,
    ) -> T:
        """
        Ask the cluster.

        Args:
            path: of the method.
            body: the request, as `_etcd_wire` builds it.
            read: the reader of `_etcd_wire` for the reply.
            deadline: when to give up.
            repeatable: whether sending it twice is as good as sending it once.

        Raises:
            Refusal: the server said no.
            StoreRefused: the login or TLS does not work, or this is not etcd.
            StoreUnavailable: the outcome is unknown.
            HistoryRewound: likewise, and what is known from earlier calls counts no more.
        """
        mark = self.history.mark()
        for again in (False, True):
            token = self.token(deadline)
            request = _Request(path, body, read, token, self._call_timeout, repeatable)
            try:
                reply = self._persist(request, deadline)
            except TokenRejected as error:
                self.reject(token)
                if self._credentials is None:
                    msg = f"etcd asks for a login ({error}); set user and password"
                    raise StoreRefused(msg) from error
                if again:
                    msg = f"etcd rejects the token it has just given out: {error}"
                    raise StoreRefused(msg) from error
            else:
                self.history.check(mark, reply)
                return reply
        raise AssertionError  # pragma: no cover  the second round returns or raises

    def _persist(self, request: _Request[T], deadline: float) -> T:
        """Try the endpoints in turn until one answers or *deadline* passes."""
        began = self._clock.now()
        troubles: dict[Endpoint, Unanswered] = {}
        tries = 0
        while (now := self._clock.now()) < deadline:
            endpoint = self.current
            try:
                return self._try(endpoint, request, min(deadline, now + request.patience))
            except Unanswered as trouble:
                troubles[endpoint] = trouble
                self.leave(endpoint, str(trouble))
                if trouble.sent and not request.repeatable:
                    break
            self._check_tls(troubles)
            tries += 1
            self._pause(tries, deadline)
        raise StoreUnavailable(_sum_up(troubles, self._clock.now() - began))

    def _try(self, endpoint: Endpoint, request: _Request[T], until: float) -> T:
        reply = self._transport.once(endpoint, request.path, request.body, request.token, until)
        self._silent.discard(endpoint)
        try:
            return request.read(reply)
        except ValueError as error:
            why = f"an answer that makes no sense: {error}"
            raise Unanswered(why, sent=True) from error

    def _pause(self, tries: int, deadline: float) -> None:
        """Go on to the next endpoint at once, but rest after each round of all of them."""
        rounds, position = divmod(tries, len(self.endpoints))
        if position == 0:
            pause = min(0.05 * 2**rounds, 0.5) * random.uniform(0.5, 1.0)  # noqa: S311  jitter
            left = deadline - self._clock.now()
            self._clock.wait(threading.Event(), min(pause, left))

    def _check_tls(self, troubles: dict[Endpoint, Unanswered]) -> None:
        if all(e in troubles and troubles[e].tls for e in self.endpoints):
            remedy = next((trouble.remedy for trouble in troubles.values() if trouble.remedy), None)
            msg = f"TLS fails with every endpoint ({_list(troubles)}); {remedy or _TLS_REMEDY}"
            raise StoreRefused(msg)

    def ahead(self, endpoint: Endpoint, deadline: float) -> tuple[float, float] | None:
        """Return between how many seconds the member's clock is ahead of ours; None: it does not say."""
        return self._transport.ahead(endpoint, self.token(deadline), deadline)

    # Endpoints

    @property
    def current(self) -> Endpoint:
        """The endpoint that calls go to now."""
        return self.endpoints[self._turn % len(self.endpoints)]

    def leave(self, endpoint: Endpoint, why: str) -> None:
        """
        Go on to the next endpoint, unless another thread already did.

        Idle connections to *endpoint* are closed and its streams ended: a member that answers no
        calls sends no events either, and its silence would look like peace.
        """
        with self._lock:
            moved = self.current == endpoint and len(self.endpoints) > 1
            if moved:
                self._turn = (self._turn + 1) % len(self.endpoints)
            streams = [stream for stream in self._streams if stream.endpoint == endpoint]
            level = logging.DEBUG if endpoint in self._silent else logging.INFO
            self._silent.add(endpoint)
        self._transport.drop(endpoint)
        for stream in streams:
            stream.abort()
        if moved:
            _log.log(level, "etcd endpoint %s: %s; going on with %s", endpoint, why, self.current)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """Lend a new conversation, not open yet, for a watch that `leave` and `close` may end."""
        stream = self._transport.stream(self.current)
        with self._lock:
            self._streams.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)
            stream.close()

    # Login

    def token(self, deadline: float) -> str | None:
        """
        Return the token to send, logging in if there is none; None without credentials.

        Raises:
            StoreRefused: wrong user or password, or a password file that can not be read.
            StoreUnavailable: no answer by *deadline*.
        """
        credentials, token = self._credentials, self._token
        if credentials is None or token is not None:
            return token
        # One login serves all threads: each costs a server some 80 ms of processor time.
        if not self._login_lock.acquire(timeout=max(0.0, deadline - self._clock.now())):
            msg = "etcd login: another thread is still trying"
            raise StoreUnavailable(msg)
        try:
            if self._token is None:
                self._token = self._log_in(credentials, deadline)
            return self._token
        finally:
            self._login_lock.release()

    def prove_login(self, deadline: float) -> None:
        """
        Log in although there is a token, if the password has changed since or that was long ago.

        Raises:
            StoreRefused: that does not work any more; the token stays in use.
            StoreUnavailable: no answer by *deadline*.
        """
        credentials = self._credentials
        if credentials is None:
            return
        known, until = self._proved
        if _digest(_password(credentials)) != known or self._clock.now() >= until:
            self._token = self._log_in(credentials, deadline)

    @property
    def user(self) -> str | None:
        """Whom calls log in as, if anybody."""
        return None if self._credentials is None else self._credentials.user

    @property
    def known_token(self) -> str:
        """The token in use, without logging in for one; empty if there is none."""
        return self._token or ""

    def _log_in(self, credentials: Credentials, deadline: float) -> str:
        password = _password(credentials)
        body = wire.authenticate(credentials.user, password)
        request = _Request(
            wire.AUTHENTICATE, body, wire.read_token, token=None, patience=_LOGIN_TIMEOUT
        )
        try:
            token = self._persist(request, deadline)
        except TokenRejected as error:
            msg = f"etcd login of user {credentials.user!r} has to be repeated: {error}"
            raise StoreUnavailable(msg) from error
        except Refusal as refusal:
            if refusal.code == FAILED_PRECONDITION:
                # "authentication is not enabled": carry on without, as the Go client does.
                return ""
            msg = (
                f"etcd does not let user {credentials.user!r} log in ({refusal}); "
                "compare user, password or password_file with the server's"
            )
            raise Refusal(msg, refusal.code) from refusal
        pause = _LOGIN_EVERY * random.uniform(0.7, 1.0)  # noqa: S311  jitter
        self._proved = _digest(password), self._clock.now() + pause
        return token

    def reject(self, token: str | None) -> None:
        """Forget *token*, so that the next call logs in again."""
        with self._lock:
            if self._token == token:
                self._token = None


def _password(credentials: Credentials) -> str:
    try:
        return credentials.read_password()
    except ConfigurationError as error:
        raise StoreRefused(str(error)) from error


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _sum_up(troubles: dict[Endpoint, Unanswered], seconds: float) -> str:
    if not troubles:
        return "etcd was not asked: the deadline had passed before the call"
    return f"etcd did not answer within {seconds:.1f} s ({_list(troubles)})"


def _list(troubles: dict[Endpoint, Unanswered]) -> str:
    return "; ".join(f"{endpoint}: {trouble}" for endpoint, trouble in troubles.items())
