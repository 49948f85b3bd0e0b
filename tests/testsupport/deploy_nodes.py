"""Nodes as the recipes for VIPs and balancers have them: an application, and beside it who stands."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from leader_jobs.clock import SystemClock
from testsupport import cli
from testsupport.parenthood import die_with_parent

__all__ = ["Stander", "application", "application_process", "end_all", "killed_at_the_end"]

_CLOCK = SystemClock()


class Stander:
    """
    A process that stands in an election and answers probes.

    Args:
        name: the node's label.
        store: where the election is held.
        log: where what it logs goes.
        options: more options of ``leader-jobs run``.
        launcher: what the command line begins with; it must become the process.
    """

    def __init__(
        self,
        name: str,
        store: str,
        *,
        log: Path,
        options: Sequence[str] = (),
        launcher: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._log = log
        arguments = ("run", "--store", store, "--node", name, *options, "--", "sleep", "3600")
        with log.open("ab") as output:
            self._log_begins = output.tell()
            self.process = subprocess.Popen(
                [*launcher, *cli.COMMAND, *arguments],
                env=cli.environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
            )

    @property
    def log(self) -> str:
        """What it logged."""
        return self._log.read_bytes()[self._log_begins :].decode()

    def await_standing(self, within: float = 40.0) -> None:
        """Wait until it is in the electorate."""
        limit = _CLOCK.now() + within
        while not re.search("stands by in|leads election", self.log):
            assert self.process.poll() is None, self.log
            assert _CLOCK.now() < limit, self.log
            _CLOCK.wait(threading.Event(), 0.02)

    def kill(self) -> None:
        """End it as the kernel would when memory is short."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it with SIGTERM if it is there, or with SIGKILL in the end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.kill()


def end_all(nodes: Mapping[str, Stander]) -> None:
    """End every node."""
    for node in nodes.values():
        node.end()


class _Naming(BaseHTTPRequestHandler):
    """Says the name of the node that it serves on."""

    protocol_version = "HTTP/1.1"
    name = ""

    def do_GET(self) -> None:
        """Answer with the name."""
        body = self.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """A server that balancers may hang up on, and that asks no name server for its name."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind, and nothing more."""
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


def _server(name: str, host: str, port: int) -> ThreadingHTTPServer:
    return _Server((host, port), type("Naming", (_Naming,), {"name": name}))


@contextmanager
def application(name: str, host: str, port: int) -> Iterator[None]:
    """Have an application answer with *name*; it lives, whoever leads."""
    with _server(name, host, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@contextmanager
def application_process(name: str, port: int, launcher: Sequence[str]) -> Iterator[None]:
    """The same as a process, started by *launcher*."""
    command = [*launcher, sys.executable, "-m", __name__, name, str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with killed_at_the_end(command, env=environment):
        yield


@contextmanager
def killed_at_the_end(
    command: Sequence[str], *, env: dict[str, str] | None = None, log: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command during the block."""
    with (log or Path(os.devnull)).open("ab") as output:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    _server(sys.argv[1], "", int(sys.argv[2])).serve_forever()
