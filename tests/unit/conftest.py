"""
Fixtures of tests that drive the ledger by hand: a clock, a store in memory, two nodes, a claim.

And a place on each kind of store, for what can not be seen in memory alone.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leader_jobs.config import Settings
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.stores.base import Limits
from leader_jobs.testing import ManualClock
from testsupport.ledgers import WIDE, CountingStore, LedgerNode, claim_one, make_job
from testsupport.place import Place


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="limits")
def _limits() -> Limits:
    return WIDE


@pytest.fixture(name="store")
def _store(clock: ManualClock, limits: Limits) -> CountingStore:
    return CountingStore(clock, limits)


@pytest.fixture(name="node")
def _node(store: CountingStore, clock: ManualClock) -> LedgerNode:
    """Return a node that leads."""
    return LedgerNode("a", store, clock)


@pytest.fixture(name="other")
def _other(node: LedgerNode, store: CountingStore, clock: ManualClock) -> LedgerNode:
    """Return a node that stands behind the first one."""
    assert node.ledger.living() == {"a"}
    return LedgerNode("b", store, clock)


@pytest.fixture(name="job")
def _job() -> Job:
    return make_job()


@pytest.fixture(name="claim")
def _claim(node: LedgerNode, job: Job, clock: ManualClock) -> Claim:
    """Return a claim of the first node, which leads."""
    return claim_one(node, job, clock)


@pytest.fixture(
    name="place", params=["memory", "sqlite", pytest.param("etcd", marks=pytest.mark.etcd)]
)
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        settings = Settings(store=f"memory://{tmp_path.name}")
    elif request.param == "sqlite":
        settings = Settings(store=f"sqlite:///{tmp_path}/store.sqlite3")
    else:
        url = request.getfixturevalue("etcd").url
        settings = Settings(store=url, namespace=request.getfixturevalue("namespace"))
    place = Place(settings, ttl=1.0)
    yield place
    place.close()
