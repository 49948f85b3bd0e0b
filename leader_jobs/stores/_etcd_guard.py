"""
The guard of this process's leases: the end of the conversation with the guardian that lives here.

The other end, the process that revokes the leases when this one dies, is
`leader_jobs.stores._etcd_guardian`. One of them serves all leases of a store. It is a convenience:
whatever goes wrong with it is said once and costs time at a takeover, never a term.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_connect import Access
from leader_jobs.stores._etcd_login import Credentials
from leader_jobs.stores._etcd_socket import Endpoint

__all__ = ["Guard", "Introduction", "introduce", "send"]

#: What a guardian is told of the cluster, secrets included.
Introduction = dict[str, Any]

_log = logging.getLogger(__name__)

_GUARDIAN: Final = Path(__file__).with_name("_etcd_guardian.py")
#: Signals that are meant for this process; a child begins with those blocked that its parent blocks.
_NOT_FOR_IT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Seconds before a guardian that died is replaced once more, and that one gets to end.
_REPLACE_EVERY: Final = 60.0
_END_WITHIN: Final = 1.0
#: Seconds that a guardian gives one endpoint, as `_etcd_guardian` itself does.
_CALL_TIMEOUT: Final = 1.0


def introduce(access: Access, *, token: str) -> Introduction:
    """
    Return what a guardian is told of the cluster; it goes through a socket that nobody else holds.

    Args:
        access: where it is, and how to be let in.
        token: the one in use.
    """
    login, credentials = None, access.credentials
    if credentials is not None:
        with suppress(ConfigurationError):  # the store itself says so, when it has to log in
            login = wire.authenticate(credentials.user, credentials.read_password())
    return {
        "endpoints": [[endpoint.host, endpoint.port] for endpoint in access.endpoints],
        "tls": access.files and [file and str(file.absolute()) for file in access.files],
        "login": login and [wire.AUTHENTICATE, json.dumps(login)],
        "token": token,
        # For what the guardian can not speak itself, the library that does is found there.
        "library": sys.path if access.grpc else None,
    }


def send(cluster: Introduction, request: Sequence[str], until: float) -> None:
    """
    Send a request for a guardian, over gRPC.

    Args:
        cluster: what `introduce` returned.
        request: its path and body.
        until: the moment to give up.

    Raises:
        StoreError: it was refused, or not answered.
    """
    ca_file, cert_file, key_file = map(_path, cluster["tls"] or (None, None, None))
    login = cluster["login"] and json.loads(cluster["login"][1])
    access = Access(
        endpoints=tuple(Endpoint(host, port) for host, port in cluster["endpoints"]),
        tls=bool(cluster["tls"]),
        grpc=True,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        credentials=Credentials(login["name"], login["password"]) if login else None,
    )
    client = access.client(clock=SystemClock(), call_timeout=_CALL_TIMEOUT)
    client.call(request[0], json.loads(request[1]), dict, deadline=until)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


class Guard:
    """
    Has leases revoked as soon as this process is dead.

    Args:
        cluster: returns what a guardian is to know of the cluster.
        clock: where moments come from.
    """

    def __init__(self, cluster: Callable[[], Introduction], *, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        #: What to tell the guardian of each lease.
        self._leases: dict[str, dict[str, Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        #: Reading and writing end of what processes hold that must be gone before the lease may be.
        self._lifeline: tuple[int, int] | None = None
        self._next_at = 0.0
        self._complained = False

    @property
    def pid(self) -> int | None:
        """The process id of the guardian, or None if there is none."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def guard(self, lease: str, request: list[str], *, patience: float) -> None:
        """
        Have *request*, path and body, sent when this process is dead.

        Args:
            lease: what the request revokes.
            request: its path and body.
            patience: seconds after which there is no use in it any more.
        """
        with self._lock:
            self._leases[lease] = {"guard": lease, "request": request, "patience": patience}
            if self._process is None:
                self._begin()
            else:
                self._say(self._leases[lease])

    def tend(self) -> None:
        """Replace a guardian that died; to be called now and then."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is None or self._clock.now() < self._next_at:
                return
            self._complain(f"it ended with status {process.returncode}; another one takes over")
            self._next_at = self._clock.now() + _REPLACE_EVERY
            self._drop()
            self._begin()

    def release(self, lease: str) -> None:
        """Guard *lease* no more; the guardian ends with the last of them."""
        with self._lock:
            if self._leases.pop(lease, None) is None:
                return
            self._say({"release": lease})
            if not self._leases:
                self._end()

    def lifeline(self, lease: str) -> tuple[int, ...]:
        """Return the descriptor that keeps *lease* from being revoked while a process holds it."""
        with self._lock:
            guarded = lease in self._leases and self._lifeline is not None
            return self._lifeline[1:] if guarded and self._lifeline else ()

    def forget(self) -> None:
        """Begin afresh in the child of a fork: who is guarded is the parent."""
        if self._control is not None:
            self._control.close()
        for end in self._lifeline or ():
            os.close(end)
        if self._process is not None:
            self._process.returncode = 0  # not ours to wait for
        self._reset()

    # -- the process ------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            self._process, self._control = self._start()
        except (OSError, AttributeError, ValueError) as error:
            # AttributeError: no such thing as a descriptor of a process on this platform.
            self._complain(f"it can not be started ({error})")
            return
        self._say(self._cluster())
        for lease in self._leases.values():
            self._say(lease)

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if not sys.executable:
            msg = "this process does not know its Python"
            raise ValueError(msg)
        if self._lifeline is None:
            self._lifeline = os.pipe()
        ourselves = os.pidfd_open(os.getpid())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        passed = (ourselves, self._lifeline[0])
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_IT)
        try:
            process = subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-I", "-S", str(_GUARDIAN), *map(str, passed)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=passed,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            theirs.close()
            os.close(ourselves)
        return process, ours

    def _say(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            with suppress(OSError):  # it died; `tend` is about to find out
                self._control.send(json.dumps(message).encode())

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
        self._process = self._control = None

    def _end(self) -> None:
        process = self._process
        self._drop()
        for end in self._lifeline or ():
            os.close(end)
        self._lifeline = None
        if process is None:
            return
        try:
            process.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:  # frozen, by somebody
            process.kill()
            process.wait()

    def _complain(self, what: str) -> None:
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        _log.log(
            level,
            "the guardian that revokes our lease when this process dies: %s; "
            "without it a takeover takes the ttl",
            what,
        )
