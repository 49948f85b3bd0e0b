"""A standby finds out before it has to lead that it could not: credentials and rights on real servers."""

import logging
import queue
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.events import Doubted, Event, Reassured
from leader_jobs.exceptions import StoreRefused
from leader_jobs.stores.base import Write
from leader_jobs.stores.etcd import EtcdStore
from testsupport.etcd import EtcdCluster, newest_binaries

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()
E = TypeVar("E", bound=Event)
#: A standby looks every 4 s then.
TTL = 1.0
WITHIN = 20.0


@pytest.fixture(name="cluster", scope="module")
def _cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster(
        binaries=newest_binaries(), extra_args=["--bcrypt-cost=4"], heartbeat=20, election=200
    ) as cluster:
        cluster.enable_auth("nothing/", user="nobody", password="nothing")
        yield cluster


class Site:
    """A user of its own with a role of its own, and a stranger who leads."""

    def __init__(self, cluster: EtcdCluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.user = namespace.replace("/", "-")
        self.file = folder / "password"
        self.file.write_text("first\n")
        self.ledger = f"{namespace}/ledger/mail/"
        self.root("user", "add", f"{self.user}:first")
        self.root("role", "add", self.user)
        self.grant(self.ledger)
        self.grant(f"{namespace}/elections/mail")
        self.root("user", "grant-role", self.user, self.user)

    def root(self, *arguments: str) -> None:
        """Do as the administrator."""
        self.cluster.etcdctl("--user=root:root", *arguments)

    def grant(self, prefix: str) -> None:
        """Let the role do anything under *prefix*."""
        self.root("role", "grant-permission", self.user, "--prefix=true", "readwrite", prefix)

    def revoke(self, prefix: str) -> None:
        """Let the role do nothing there."""
        self.root("role", "revoke-permission", self.user, "--prefix=true", prefix)

    def password(self, text: str) -> None:
        """Give the user another password."""
        self.root("user", "delete", self.user)
        self.root("user", "add", f"{self.user}:{text}")
        self.root("user", "grant-role", self.user, self.user)

    def store(self, **options: Any) -> EtcdStore:
        """Open a store as the user, or as another one."""
        options = options or {"user": self.user, "password_file": self.file}
        return EtcdStore(
            self.cluster.endpoints,
            namespace=self.namespace,
            clock=CLOCK,
            call_timeout=1.0,
            **options,
        )


@pytest.fixture(name="site")
def _site(cluster: EtcdCluster, namespace: str, tmp_path: Path) -> Site:
    return Site(cluster, namespace, tmp_path)


#: What is done, what cures it, and what the standby says meanwhile.
CASES: dict[str, tuple[Callable[[Site], None], Callable[[Site], None], str]] = {
    "password": (lambda s: s.password("second"), lambda s: s.password("first"), "log in"),
    "role": (
        lambda s: s.root("user", "revoke-role", s.user, s.user),
        lambda s: s.root("user", "grant-role", s.user, s.user),
        "permission denied|may not read and write",
    ),
    "ledger": (
        lambda s: s.revoke(s.ledger),
        lambda s: s.grant(s.ledger),
        "may not read and write keys under .*/ledger/mail/; etcdctl role grant-permission",
    ),
    "file": (
        lambda s: void(s.file.write_text("wrong\n")),
        lambda s: void(s.file.write_text("first\n")),
        "log in",
    ),
    "no file": (
        lambda s: s.file.unlink(),
        lambda s: void(s.file.write_text("first\n")),
        "password_file .* can not be read: No such file",
    ),
}


def void(_: object) -> None:
    """Take a value and return none."""


@pytest.mark.parametrize("case", CASES)
def test_what_a_standby_could_not_do(
    site: Site, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, within a look or two, stands on, and says when it is over."""
    hurt, cure, message = CASES[case]
    caplog.set_level(logging.INFO, "leader_jobs")
    heard: queue.Queue[Event] = queue.Queue()
    with (
        closing(site.store(user="root", password="root")) as stranger,
        closing(site.store()) as store,
    ):
        stranger.enrol("mail", b"", 60, deadline=CLOCK.now() + 5)
        with Candidate("mail", store=store, node="n1", ttl=TTL, observers=[heard.put]) as node:
            await_event(heard, Event)
            hurt(site)
            doubt = await_event(heard, Doubted)
            assert str(node.doubt) == doubt.error
            assert node.term is None
            cure(site)
            await_event(heard, Reassured)
            assert node.doubt is None
            assert node.alive

    said = [r.getMessage() for r in caplog.records if "could not lead" in r.getMessage()]
    assert len(said) == 1
    assert_matches(message, said[0])
    assert "first" not in caplog.text


def assert_matches(pattern: str, text: str) -> None:
    """Check that *pattern* is found, and that it is one line."""
    assert re.search(pattern, text), text
    assert "\n" not in text


def await_event(heard: "queue.Queue[Event]", kind: type[E]) -> E:
    """Return the next event of a kind."""
    while True:
        event = heard.get(timeout=WITHIN)
        if isinstance(event, kind):
            return event


def test_a_check_changes_nothing(site: Site) -> None:
    """It may be asked for again and again; a term and its commits go on, and no key is left."""
    with closing(site.store()) as store:
        leader = store.enrol("mail", b"", 30, deadline=CLOCK.now() + 5)
        before = store.standing(leader, deadline=CLOCK.now() + 5).revision
        for _ in range(3):
            store.check("mail", deadline=CLOCK.now() + 5)
        assert store.standing(leader, deadline=CLOCK.now() + 5).revision == before
        site.file.write_text("wrong\n")
        with pytest.raises(StoreRefused, match="log in"):
            store.check("mail", deadline=CLOCK.now() + 5)
        store.commit("mail", [Write("a", b"1")], candidacy=leader, deadline=CLOCK.now() + 5)
        assert store.renew(leader, leading=True, deadline=CLOCK.now() + 5) == 30.0
        store.withdraw(leader, deadline=CLOCK.now() + 5)
