"""The recipes for an address that follows the leader: keepalived, and hooks, on hosts of a network."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from testsupport import cli
from testsupport.deploy_nodes import Stander, application_process, end_all, killed_at_the_end
from testsupport.deploying import adapted, give_up
from testsupport.lan import Lan, why_not
from testsupport.servers import environment_of, find_binary

CLOCK = SystemClock()
NAMES = ("n1", "n2", "n3")
CLIENT = "client"
ADDRESSES = {"n1": "10.0.0.1/24", "n2": "10.0.0.2/24", "n3": "10.0.0.3/24", CLIENT: "10.0.0.9/24"}
VIP = "10.0.0.100/24"
#: Where the scripts of the recipes are put, on top of what is there: keepalived trusts no script that
#: lies where anybody else may write. Not /usr/local/bin, where Python may be.
SCRIPTS = "/usr/local/sbin"
WITH_SCRIPTS = f'mount --bind "$0" {SCRIPTS} && exec "$@"'
ASK = ("curl", "--silent", "--max-time", "2")


def binary(variable: str, path: str) -> Path:
    """Return where a program is."""
    found = find_binary(variable, path)
    if found is None:
        give_up(f"there is no {Path(path).name}: scripts/fetch-balancers fetches it")
    assert found is not None
    return found


class Site:
    """
    Hosts of a network, with an application on each; one address follows who leads.

    The election is held in a file, which hosts that share a kernel may do.
    """

    def __init__(self, folder: Path, lan: Lan, stack: ExitStack) -> None:
        self.folder = folder
        self.lan = lan
        self.stack = stack
        self.store = f"sqlite:///{folder}/store.sqlite3"
        self.nodes: dict[str, Stander] = {}
        self._scripts = put_scripts(folder / "scripts")
        stack.callback(end_all, self.nodes)
        for name in NAMES:
            stack.enter_context(application_process(name, 8000, lan.launcher(name)))
        for name in NAMES:
            self.await_client(name, address=ADDRESSES[name], within=40.0)

    def launcher(self, name: str) -> tuple[str, ...]:
        """Return what a command line begins with for the command to run on a node, with the scripts there."""
        mounted = ("unshare", "--mount", "sh", "-c", WITH_SCRIPTS, str(self._scripts))
        return (*self.lan.launcher(name), *mounted)

    def run(self, name: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on a node to its end."""
        return subprocess.run(
            [*self.launcher(name), *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def start(self, name: str, *options: str) -> None:
        """Start who stands for a node."""
        self.nodes[name] = Stander(
            name,
            self.store,
            log=self.folder / f"{name}.log",
            options=("--probe-port", "8081", *options),
            launcher=self.launcher(name),
        )

    def await_holder(self, of: set[str], within: float = 40.0) -> str:
        """Wait until one node of these alone has the address, and return which."""
        limit = CLOCK.now() + within
        while len(held := self.lan.holders(VIP)) != 1 or not held <= of:
            assert CLOCK.now() < limit, (held, self.logs())
            CLOCK.wait(threading.Event(), 0.05)
        return held.pop()

    def await_client(self, name: str, *, address: str = VIP, within: float = 20.0) -> None:
        """Wait until the client reaches the application on a node by an address."""
        url = f"http://{address.partition('/')[0]}:8000/"
        limit = CLOCK.now() + within
        while (said := self.lan.run(CLIENT, *ASK, url).stdout) != name:
            neighbours = self.lan.run(CLIENT, "ip", "neighbour").stdout
            assert CLOCK.now() < limit, (said, neighbours, self.lan.holders(VIP), self.logs())
            CLOCK.wait(threading.Event(), 0.05)

    def transfer(self, heir: str) -> None:
        """Have the leader hand over."""
        self.nodes[heir].await_standing()
        answer = cli.run("transfer", heir, "--wait", "20", "--store", self.store)
        assert answer.code == 0, answer

    def logs(self) -> str:
        """Return what everything logged."""
        return "\n".join(log.read_text()[-1500:] for log in sorted(self.folder.glob("*.log")))


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[Site]:
    if reason := why_not():
        give_up(reason)
    with Lan(ADDRESSES) as lan, ExitStack() as stack:
        yield Site(tmp_path, lan, stack)


def put_scripts(folder: Path) -> Path:
    """Put the scripts of the recipes, and the arping that there is, into a folder."""
    folder.mkdir(mode=0o755)
    arping = binary("TEST_ARPING", "usr/bin/arping")
    libraries = environment_of(arping).get("LD_LIBRARY_PATH", "")
    scripts = {
        "check-leader": adapted("check-leader", {}),
        "leader-address": adapted("leader-address", {}),
        "arping": f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {arping} "$@"\n',
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def keepalived(site: Site) -> tuple[list[str], dict[str, str]]:
    """Return how keepalived is called with the recipe, and its environment."""
    program = binary("TEST_KEEPALIVED", "usr/sbin/keepalived")
    changes = {
        "/usr/local/bin": SCRIPTS,
        # An account that there is everywhere.
        "script_user keepalived_script": "script_user nobody",
    }
    config = site.folder / "keepalived.conf"
    config.write_text(adapted("keepalived.conf", changes))
    return [str(program), f"--use-file={config}"], environment_of(program)


def run_keepalived(site: Site, name: str) -> None:
    """Run keepalived on a node."""
    command, environment = keepalived(site)
    own = [f"--{kind}pid={site.folder}/{name}.{kind}pid" for kind in ("", "vrrp_")]
    command += ["--dont-fork", "--log-console", "--vrrp", *own]
    log = site.folder / f"{name}-keepalived.log"
    site.stack.enter_context(
        killed_at_the_end([*site.launcher(name), *command], env=environment, log=log)
    )


def test_keepalived_has_no_complaint(site: Site) -> None:
    """It takes the recipe for a good one, and the script for a safe one; it would say so otherwise."""
    command, environment = keepalived(site)
    with_libraries = ("env", f"LD_LIBRARY_PATH={environment.get('LD_LIBRARY_PATH', '')}")

    def complaints() -> str:
        # Its status says nothing: some releases end themselves with a signal here.
        run = site.run("n1", *with_libraries, *command, "--config-test")
        return run.stdout + run.stderr

    assert complaints() == ""
    config = site.folder / "keepalived.conf"
    config.write_text(config.read_text().replace("track_script", "track_skript"))
    assert "track_skript" in complaints()


@pytest.mark.alone
def test_keepalived_moves_the_address_with_the_leader(site: Site) -> None:
    """Through kill -9 of who stands, and a hand-over: one node has it, and clients reach it."""
    for name in NAMES:
        site.start(name)
        run_keepalived(site, name)
    first = site.await_holder(set(NAMES))
    site.await_client(first)
    others = set(NAMES) - {first}

    site.nodes[first].kill()
    second = site.await_holder(others)
    site.await_client(second)
    (third,) = others - {second}
    site.transfer(third)
    assert site.await_holder({third}) == third
    site.await_client(third)


def hooks() -> tuple[str, ...]:
    """Return the hooks of the recipe as options."""
    text = adapted("leader-address.conf", {"/usr/local/bin": SCRIPTS})
    found = dict(re.findall(r'^Environment="LEADER_JOBS_(\w+)=(.*)"$', text, re.MULTILINE))
    return ("--on-elected", found["ON_ELECTED"], "--on-stepped-down", found["ON_STEPPED_DOWN"])


@pytest.mark.alone
def test_hooks_move_the_address_with_the_leader(site: Site) -> None:
    """
    Through a hand-over at once; after kill -9 the old node has the address too, until what systemd runs then
    takes it away, but clients reach the new one.
    """
    for name in NAMES:
        site.start(name, *hooks())
    first = site.await_holder(set(NAMES))
    site.await_client(first)
    (second, third) = sorted(set(NAMES) - {first})
    site.transfer(second)
    assert site.await_holder({second}) == second
    site.await_client(second)

    site.nodes[second].kill()
    limit = CLOCK.now() + 20.0
    while not (held := site.lan.holders(VIP)) - {second}:
        assert CLOCK.now() < limit, site.logs()
        CLOCK.wait(threading.Event(), 0.05)
    assert second in held
    (heir,) = held - {second}
    site.await_client(heir)
    assert heir in (first, third)
    (after,) = re.findall(
        r"^ExecStopPost=\+(.*)$",
        adapted("leader-address.conf", {"/usr/local/bin": SCRIPTS}),
        re.MULTILINE,
    )
    for _ in range(2):  # there may be nothing to take away
        assert site.run(second, *after.split()).returncode == 0
    assert site.lan.holders(VIP) == {heir}
