"""
The guardian: a process that revokes a candidate's lease the moment the candidate's process is gone.

A program of its own, run by path with ``python -I -S`` and never imported. etcd sees leases, not
processes: without it the successor of a process that was killed waits for the lease to run out. The
kernel tells it of the death by a descriptor of that very process, which no other process that gets
the same number can be taken for; nothing else makes it revoke anything. So it can fail to speed a
takeover up, but it can not end the term of a process that lives. It sleeps until then, and ends with
what it guards.

Arguments: the descriptors of the process (``pidfd_open(2)``) and of the reading end of the lifeline,
whose writing end is held by whatever must be gone too before anybody else may lead. Standard input
is a socket of packets, each a JSON object: at first how to reach the cluster (``endpoints``, ``tls``,
``login``, ``token``, ``library``), then ``{"guard": id, "request": [path, body], "patience": seconds}`` and
``{"release": id}``. It is started with the signals blocked that ask processes to end: they are for
whom it guards, whose whole group or unit may get them.

At the death, which may be one of memory or of a disk, it needs nothing that it has not loaded,
except for TLS, which would cost as much memory as all the rest, and for gRPC, which is the library's
affair. It imports little for the same reason.
"""

import contextlib
import json
import os
import select
import socket
import sys
import time

# The clock of leader_jobs.clock; a program run in isolated mode can not import the library.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_PACKET = 1 << 16
#: Seconds that one try at one endpoint may take, and between two rounds of all of them.
_TRY = 1.0
_PAUSE = 0.1
#: The lease was revoked; there is no such lease.
_DONE = (200, 404)


def _now() -> float:
    return time.clock_gettime(_BOOT_CLOCK)


class Guardian:
    """Guards the leases of one process."""

    def __init__(self, process: int, lifeline: int) -> None:
        self.process = process
        self.lifeline = lifeline
        self.control = socket.socket(fileno=os.dup(0))
        self.cluster: dict = {}  # type: ignore[type-arg]
        self.leases: dict[str, dict] = {}  # type: ignore[type-arg]

    def run(self) -> None:
        """Sleep until the process is gone, or has nothing left to guard."""
        if not self.outlive():
            return
        died_at = _now()
        self.await_lifeline(died_at + max(lease["patience"] for lease in self.leases.values()))
        for lease in self.leases.values():
            send = self.have_sent if self.cluster["library"] else self.give_up
            send(lease["request"], died_at + lease["patience"])

    def outlive(self) -> bool:
        """Return True when the process has died with leases, False when it let go of us."""
        news = select.poll()
        news.register(self.process, select.POLLIN)
        news.register(self.control, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in news.poll()]
            if self.process in ready:
                while self.listen(socket.MSG_DONTWAIT):
                    pass  # what it said last
                return bool(self.leases)
            if not self.listen():
                # Closing descriptors is not dying: a process may do it and live.
                news.unregister(self.control)
                if not self.leases:
                    return False

    def listen(self, flags: int = 0) -> bool:
        """Take in one packet; False if there is none, and never will be."""
        try:
            packet = self.control.recv(_PACKET, flags)
        except OSError:
            return False
        if not packet:
            return False
        message = json.loads(packet)
        if "guard" in message:
            self.leases[message["guard"]] = message
        elif "release" in message:
            self.leases.pop(message["release"], None)
        else:
            self.cluster = message
        return True

    def await_lifeline(self, until: float) -> None:
        """Wait until nobody holds the other end; a lease that runs out meanwhile needs no revoking."""
        held = select.poll()
        held.register(self.lifeline, select.POLLIN)
        held.poll(max(0.0, until - _now()) * 1000)

    def have_sent(self, request: list[str], until: float) -> None:
        """Have the library send a request, which takes its time to be loaded."""
        sys.path[:] = self.cluster["library"]
        from leader_jobs.exceptions import StoreError
        from leader_jobs.stores._etcd_guard import send

        with contextlib.suppress(StoreError):
            send(self.cluster, request, until)

    def give_up(self, request: list[str], until: float) -> None:
        """Send a request to one endpoint after the other until it is done or *until* has come."""
        endpoints = self.cluster["endpoints"]
        turn = 0
        while _now() < until:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                endpoint = endpoints[turn % len(endpoints)]
                if self.try_at(endpoint, request):
                    return
            turn += 1
            if turn % len(endpoints) == 0:
                select.select((), (), (), _PAUSE)

    def try_at(self, endpoint: list, request: list[str]) -> bool:  # type: ignore[type-arg]
        """Send a request to one endpoint, logging in anew if that helps; True if it is done."""
        status, _ = self.post(endpoint, request)
        if status not in _DONE and self.cluster["login"]:
            status, answer = self.post(endpoint, self.cluster["login"])
            self.cluster["token"] = json.loads(answer)["token"]
            status, _ = self.post(endpoint, request)
        return status in _DONE

    def post(self, endpoint: list, request: list[str]) -> tuple[int, bytes]:  # type: ignore[type-arg]
        """Post a body to a path; return the status and the body of the answer."""
        (host, port), (path, body) = endpoint, request
        name = f"[{host}]" if ":" in host else host
        token = f"Authorization: {self.cluster['token']}\r\n" if self.cluster["token"] else ""
        head = (
            f"POST {path} HTTP/1.0\r\nHost: {name}:{port}\r\n{token}"
            f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
        )
        until = _now() + _TRY
        with contextlib.closing(self.connect(host, port)) as sock:
            sock.sendall((head + body).encode())
            answer = b""
            while received := self.receive(sock, until):
                answer += received
        head_, _, answer = answer.partition(b"\r\n\r\n")
        return int(head_.split()[1]), answer

    def connect(self, host: str, port: int) -> socket.socket:
        """Return a connection, secured if the cluster is."""
        sock = socket.create_connection((host, port), _TRY)
        if not self.cluster["tls"]:
            return sock
        import ssl  # 4 MB that are wanted once

        ca_file, cert_file, key_file = self.cluster["tls"]
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file:
            context.load_cert_chain(cert_file, key_file, password="")
        try:
            return context.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def receive(self, sock: socket.socket, until: float) -> bytes:
        """Return what comes next, empty at the end."""
        left = until - _now()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        return sock.recv(_PACKET)


if __name__ == "__main__":
    os.chdir("/")
    Guardian(*map(int, sys.argv[1:])).run()
