"""The same pages on etcd: leases of whole seconds, takeovers by lease, a store that can be away."""

from contextlib import ExitStack

import pytest

from testsupport.browser import Browser
from testsupport.browser_site.stage import Stage
from testsupport.etcd_fixtures import MakeCluster

pytestmark = pytest.mark.etcd


def test_a_takeover_an_order_and_an_outage_are_seen(
    browser: Browser, make_cluster: MakeCluster, namespace: str
) -> None:
    """All on one page that is never loaded anew, but for the order."""
    cluster = make_cluster()
    with ExitStack() as stack:
        stage = Stage(cluster.url, ("web-1", "web-2"), stack, namespace)
        stage.log_in(browser)
        browser.open(stage.page)
        leader = stage.leader()
        other = next(node for node in stage.nodes if node is not leader)
        browser.wait_for(f"{leader.name} leads", ".lj-hero h2")
        leader.kill()
        browser.wait_for(f"{other.name} leads", ".lj-hero h2")

        browser.click("Pause tick", ".lj-jobs")
        browser.click("Pause", "form.lj-form")
        browser.wait_for(f"obeyed by {other.name}", ".messagelist")

        browser.run("window.marked = true")
        (member,) = cluster.members
        member.kill()
        browser.wait_for("The store does not answer", ".lj-hero h2")
        assert "What follows was last seen at" in browser.say()
        assert f"Last known: {other.name} leads" in browser.say()
        assert browser.barriers(".lj") == []
        assert browser.all(".lj a.lj-button") == []
        member.start()
        member.wait_healthy()
        browser.wait(lambda: "does not answer" not in browser.say(), "the outage has no end")
        browser.wait_for(f"{other.name} leads", ".lj-hero h2")
        assert browser.run("return window.marked")
