"""The recipe for HAProxy: a real one, in front of three real nodes, one of which leads."""

import http.client
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Self

import pytest

from leader_jobs.clock import SystemClock
from testsupport import cli
from testsupport.deploy_nodes import Stander, application, end_all, killed_at_the_end
from testsupport.deploying import adapted, give_up
from testsupport.etcd import EtcdCluster
from testsupport.ports import free_port
from testsupport.processes import time_of_death
from testsupport.servers import environment_of, find_binary

CLOCK = SystemClock()
NAMES = ("n1", "n2", "n3")
#: Addresses of the loopback device, so that a port is the same on every node.
HOSTS = {"n1": "127.101.0.1", "n2": "127.101.0.2", "n3": "127.101.0.3"}
NOBODY = "nobody"


def haproxy() -> Path:
    """Return where HAProxy is."""
    found = find_binary("TEST_HAPROXY", "usr/sbin/haproxy")
    if found is None:
        give_up("there is no haproxy: scripts/fetch-balancers fetches it")
    assert found is not None
    return found


class Fleet:
    """Three nodes behind a HAProxy, and a client that asks it again and again."""

    def __init__(self, folder: Path, cluster: EtcdCluster, namespace: str) -> None:
        self._folder = folder
        self._store = ("--store", cluster.url, "--namespace", namespace)
        self._url = cluster.url
        self._namespace = namespace
        self._ports = {"front": free_port(), "application": free_port(), "probes": free_port()}
        self._stopping = threading.Event()
        self.nodes: dict[str, Stander] = {}
        self.answers: list[tuple[float, str]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name, host in HOSTS.items():
                stack.enter_context(application(name, host, self._ports["application"]))
                self.start(name)
            stack.callback(end_all, self.nodes)
            self._run_haproxy(stack)
            client = threading.Thread(target=self._ask_on)
            client.start()
            stack.callback(client.join)
            stack.callback(self._stopping.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str) -> None:
        """Start who stands for a node."""
        probes = ("--probe-host", HOSTS[name], "--probe-port", str(self._ports["probes"]))
        options = ("--namespace", self._namespace, "--ttl", "60", *probes)
        log = self._folder / f"{name}.log"
        self.nodes[name] = Stander(name, self._url, log=log, options=options)

    def config(self) -> Path:
        """Write the recipe, with the addresses and ports of this test, and return where it is."""
        changes = {
            "bind :8080": f"bind 127.0.0.1:{self._ports['front']}",
            "port 8081": f"port {self._ports['probes']}",
            **{
                f"10.0.0.{n}:8000": f"127.101.0.{n}:{self._ports['application']}" for n in (1, 2, 3)
            },
        }
        path = self._folder / "haproxy.cfg"
        path.write_text(adapted("haproxy.cfg", changes))
        return path

    def _run_haproxy(self, stack: ExitStack) -> None:
        binary = haproxy()
        command = [str(binary), "-db", "-f", str(self.config())]
        log = self._folder / "haproxy.log"
        stack.enter_context(killed_at_the_end(command, env=environment_of(binary), log=log))

    def _ask_on(self) -> None:
        while not self._stopping.is_set():
            self.answers.append((CLOCK.now(), self._ask()))
            CLOCK.wait(self._stopping, 0.01)

    def _ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["front"], timeout=5.0)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):  # HAProxy itself is not up yet
            return NOBODY
        finally:
            connection.close()
        return text if response.status == 200 else NOBODY

    def await_answer(self, of: set[str], within: float = 30.0) -> str:
        """Wait until one of these nodes answers, and return which."""
        limit = CLOCK.now() + within
        while not (self.answers and self.answers[-1][1] in of):
            assert CLOCK.now() < limit, [
                self.answers[-3:],
                (self._folder / "haproxy.log").read_text(),
            ]
            CLOCK.wait(threading.Event(), 0.01)
        return self.answers[-1][1]

    def transfer(self, heir: str) -> None:
        """Have the leader hand over."""
        self.nodes[heir].await_standing()
        answer = cli.run("transfer", heir, "--wait", "20", "--timeout", "20", *self._store)
        assert answer.code == 0, answer

    def who_answered(self) -> list[str]:
        """Return who answered, one after the other, leaving out nobody."""
        return [name for name, _ in groupby(name for _, name in self.answers if name != NOBODY)]


def test_haproxy_has_no_complaint(tmp_path: Path) -> None:
    """The recipe as it stands."""
    binary = haproxy()
    (tmp_path / "haproxy.cfg").write_text(adapted("haproxy.cfg", {}))
    run = subprocess.run(
        [str(binary), "-c", "-f", str(tmp_path / "haproxy.cfg")],
        env=environment_of(binary),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr + run.stdout


@pytest.fixture(name="fleet")
def _fleet(tmp_path: Path, etcd: EtcdCluster, namespace: str) -> Iterator[Fleet]:
    with Fleet(tmp_path, etcd, namespace) as fleet:
        yield fleet


@pytest.mark.alone
@pytest.mark.etcd
def test_requests_follow_the_leader(fleet: Fleet) -> None:
    """
    Through kill -9 and a transfer: once the next leader has answered, the last one does not any more, though
    its application lives on; and with leases of a minute that takes no minute.
    """
    for node in fleet.nodes.values():
        node.await_standing()
    first = fleet.await_answer(set(NAMES))
    others = set(NAMES) - {first}
    fleet.nodes[first].kill()
    time_of_death(fleet.nodes[first].process.pid)
    second = fleet.await_answer(others)
    (third,) = others - {second}
    fleet.transfer(third)
    fleet.await_answer({third})
    fleet.start(first)
    fleet.transfer(first)
    fleet.await_answer({first})

    assert fleet.who_answered() == [first, second, third, first]
