"""The commands in docs/stores.md are run as they stand there, and what they allow is enough."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.stores.base import Write
from leader_jobs.stores.factory import open_store
from testsupport.certificates import Authority, Pair
from testsupport.cli import COMMAND, environ
from testsupport.etcd import EtcdCluster, etcdctl_environment, newest_binaries
from testsupport.etcd_fixtures import MakeCluster

pytestmark = [pytest.mark.etcd, pytest.mark.gateway]

CLOCK: Final = SystemClock()
PAGE: Final = Path(__file__).parents[2] / "docs" / "stores.md"


def recipe(title: str) -> str:
    """Return the block of commands of the page that begins with a comment of that text."""
    (found,) = re.findall(
        rf"^```sh\n# {title}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return str(found)


def shell(commands: str, folder: Path, **variables: str) -> None:
    """Run commands as an operator pastes them, with the etcdctl of the newest server."""
    path = f"{newest_binaries().etcdctl.resolve().parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-euc", commands],
        cwd=folder,
        env=etcdctl_environment() | variables | {"PATH": path},
        check=True,
        capture_output=True,
        timeout=60,
    )


class Made(Authority):
    """The authority that the page's commands make in *folder*, with what it has issued."""

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        self._made = folder

    def issue(self, name: str, **_: object) -> Pair:
        """Return the certificate of the member, or that of clients."""
        stem = "etcd1" if name == "etcd" else "client"
        return Pair(self._made / f"{stem}.pem", self._made / f"{stem}-key.pem")


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    for name in ("root", "password"):
        (tmp_path / f"{name}.txt").write_text(f"{name}-secret\n")
    return tmp_path


def assert_enough(cluster: EtcdCluster, folder: Path, **settings: object) -> None:
    """Lead and write in one election, in a process and by hand."""
    found = Settings.load(
        {"USER": "leader-jobs", "PASSWORD_FILE": str(folder / "password.txt"), **settings},
        environ={},
        store=cluster.url,
        election="shop",
    )
    store = open_store(found, clock=CLOCK)
    store.check("shop", deadline=CLOCK.now() + 10)
    leader = store.enrol("shop", b"", 30, deadline=CLOCK.now() + 10)
    store.commit("shop", [Write("a", b"1")], candidacy=leader, deadline=CLOCK.now() + 10)
    store.withdraw(leader, deadline=CLOCK.now() + 10)
    store.close()
    variables = {
        f"LEADER_JOBS_{name}": str(text)
        for name, text in {
            "STORE": cluster.url,
            "USER": "leader-jobs",
            "PASSWORD_FILE": folder / "password.txt",
            **settings,
        }.items()
    }
    ran = subprocess.run(
        [*COMMAND, "--election", "shop", "run", "--", "sh", "-c", "echo led $LEADER_JOBS_TOKEN"],
        env=environ(**variables),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^led \d+$", ran.stdout, re.MULTILINE)
    assert "secret" not in ran.stdout + ran.stderr


def test_all_elections_over_plain_http(make_cluster: MakeCluster, folder: Path) -> None:
    """The role of the page lets a node lead in any election of the namespace."""
    cluster = make_cluster(binaries=newest_binaries(), extra_args=["--bcrypt-cost=4"])
    shell(recipe("all elections"), folder, ETCDCTL_ENDPOINTS=cluster.endpoints[0])
    assert_enough(cluster, folder)


def test_one_election_over_mutual_tls(make_cluster: MakeCluster, folder: Path) -> None:
    """The certificates and the confined role of the page do, together."""
    shell(recipe("certificates"), folder)
    cluster = make_cluster(
        binaries=newest_binaries(),
        extra_args=["--bcrypt-cost=4"],
        tls=Made(folder),
        client_certificates=True,
    )
    shell(
        recipe("one election")
        + re.sub(
            "^.*role (add|grant-permission) leader-jobs.*\n",
            "",
            recipe("all elections"),
            flags=re.MULTILINE,
        ).replace("grant-role leader-jobs leader-jobs", "grant-role leader-jobs shop"),
        folder,
        ETCDCTL_ENDPOINTS=cluster.endpoints[0],
        ETCDCTL_CACERT=f"{folder}/ca.pem",
        ETCDCTL_CERT=f"{folder}/client.pem",
        ETCDCTL_KEY=f"{folder}/client-key.pem",
    )
    assert_enough(
        cluster,
        folder,
        CA_FILE=str(folder / "ca.pem"),
        CERT_FILE=str(folder / "client.pem"),
        KEY_FILE=str(folder / "client-key.pem"),
    )


def test_json_web_tokens_that_expire(make_cluster: MakeCluster, folder: Path) -> None:
    """A token of two seconds is renewed by logging in again, as often as it takes."""
    shell("openssl genrsa -out jwt.pem 2048; openssl rsa -in jwt.pem -pubout -out jwt.pub", folder)
    token = f"jwt,pub-key={folder}/jwt.pub,priv-key={folder}/jwt.pem,sign-method=RS256,ttl=2s"
    cluster = make_cluster(
        binaries=newest_binaries(), extra_args=["--bcrypt-cost=4", f"--auth-token={token}"]
    )
    shell(recipe("all elections"), folder, ETCDCTL_ENDPOINTS=cluster.endpoints[0])
    settings = Settings(
        store=cluster.url, user="leader-jobs", password_file=folder / "password.txt"
    )
    store = open_store(settings, clock=CLOCK)
    leader = store.enrol("mail", b"", 30, deadline=CLOCK.now() + 10)
    until, number = CLOCK.now() + 4.5, 0
    while CLOCK.now() < until:
        number += 1
        store.renew(leader, leading=True, deadline=CLOCK.now() + 10)
        write = Write("a", str(number).encode())
        store.commit("mail", [write], candidacy=leader, deadline=CLOCK.now() + 10)
    assert store.standing(leader, deadline=CLOCK.now() + 10).leads
    store.close()
