"""The stores that scenarios run on, as URLs."""

from pathlib import Path

import pytest

from leader_jobs.config import Settings
from testsupport.etcd import EtcdCluster

__all__ = ["store_settings"]


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Settings:
    """Settings for a node on the embedded store, and for one on a real etcd; the ttl is 2 s."""
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("etcd")
        return Settings(store=cluster.url, namespace=namespace, ttl=2.0, node="node")
    return Settings(store=f"sqlite:///{tmp_path}/store.sqlite3", ttl=2.0, node="node")
