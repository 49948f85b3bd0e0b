"""The guardian of a node that reaches etcd over gRPC alone."""

from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from testsupport.certificates import Authority
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.guarded_node import ELECTION, GuardedNode
from testsupport.over_grpc import etcd_url

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


@pytest.mark.alone  # it is about how soon, and has a large library to load
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "secured"])
def test_a_killed_process(
    make_cluster: MakeCluster,
    make_store: MakeStore,
    namespace: str,
    tmp_path: Path,
    authority: Authority,
    secured: bool,
) -> None:
    """The lease is revoked at the death, by way of the library, where there is no gateway."""
    off = ["--enable-grpc-gateway=false", "--bcrypt-cost=4"]
    options, ours = {}, {}
    if secured:
        cluster = make_cluster(tls=authority, client_certificates=True, extra_args=off)
        cluster.enable_auth(f"{namespace}/", user="app", password="hush-hush")
        pair = authority.issue("app", common_name="app")
        files = {"ca_file": authority.ca_file, "cert_file": pair.cert, "key_file": pair.key}
        options = {name: str(path) for name, path in files.items()}
        ours = {"tls": True, **files}
    else:
        cluster = make_cluster(extra_args=off)
    settings = {"store": etcd_url(cluster), "namespace": namespace, "ttl": 60.0, **options}
    store = make_store(cluster.endpoints, grpc=True, **ours)
    with GuardedNode({**settings, "node": "victim"}, log=tmp_path / "log") as node:
        heir = store.enrol(ELECTION, b"", 60.0, deadline=CLOCK.now() + 5.0)
        killed_at = CLOCK.now()
        node.kill()
        while not (standing := store.standing(heir, deadline=CLOCK.now() + 5.0)).leads:
            assert CLOCK.now() < killed_at + 5.0, node.log
            store.wait(heir, standing, timeout=5.0)
        assert CLOCK.now() - killed_at < 2.0
        assert node.guardian_is_over()
