"""The site with its nodes, and fixtures: one on the embedded store that all tests of a browser share."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.control import Control
from leader_jobs.leaders import find_leader
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from testsupport.browser import Browser
from testsupport.browser_site.processes import NAME, PASSWORD, Node, Website

__all__ = ["Stage"]

CLOCK = SystemClock()


class Stage:
    """
    A site, its store, and the nodes that stand in its election.

    Args:
        store: the URL of the store.
        names: one for each node.
        stack: what ends with the tests.
        namespace: the prefix in a shared store.
    """

    def __init__(
        self, store: str, names: tuple[str, ...], stack: ExitStack, namespace: str = "leader-jobs"
    ) -> None:
        settings = Settings(store=store, namespace=namespace)
        self.store: Store = stack.enter_context(closing(open_store(settings, clock=CLOCK)))
        self.site = stack.enter_context(Website(store, namespace))
        self.nodes = [stack.enter_context(Node(name, self.site, self.store)) for name in names]
        self.control = Control(self.store, "default", by="test", clock=CLOCK)

    @property
    def page(self) -> str:
        """Where the page of the election is."""
        return f"{self.site.url}default/change/"

    def leader(self) -> Node:
        """Return the node that leads."""
        leader = find_leader("default", store=self.store, clock=CLOCK)
        assert leader is not None
        return next(node for node in self.nodes if node.name == leader.node)

    def log_in(self, browser: Browser) -> None:
        """Log the browser in, as a person does."""
        browser.open(f"{self.site.url}")
        browser.find("[name=username]").send_keys(NAME)
        browser.find("[name=password]").send_keys(PASSWORD)
        browser.find("[type=submit]").click()

    def recover(self) -> None:
        """Have every node stand, and nothing paused, whatever was done to them."""
        now = CLOCK.utcnow()
        orders = self.control.orders()
        for job in (None, *orders.jobs):
            if orders.pause_of(job, now) is not None:
                self.control.resume(job)
        for node in self.nodes:
            node.heal()


@pytest.fixture(scope="session", name="shared_stage")
def _shared_stage(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Stage]:
    """Three nodes on the embedded store, and the browser is logged in."""
    folder = tmp_path_factory.mktemp("election")
    with ExitStack() as stack:
        names = ("web-1", "web-2", "web-3")
        stage = Stage(f"sqlite:///{folder}/store.sqlite3", names, stack)
        stage.log_in(chromium)
        yield stage


@pytest.fixture(name="stage")
def _stage(shared_stage: Stage, browser: Browser) -> Iterator[Stage]:
    """The stage, in order, with the page of its election open in the browser."""
    browser.open(shared_stage.page)
    yield shared_stage
    shared_stage.recover()
