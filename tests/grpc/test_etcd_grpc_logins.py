"""Users that are the names in certificates: what the gateway can not do."""

import json
from typing import Any

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import StoreRefused
from leader_jobs.stores._etcd_answers import PERMISSION_DENIED, Refusal
from leader_jobs.stores.base import Write
from testsupport.background import Background
from testsupport.certificates import Authority
from testsupport.etcd import Binaries, EtcdCluster, all_binaries
from testsupport.etcd_fixtures import MakeCluster, MakeStore

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


def guarded(
    make_cluster: MakeCluster, authority: Authority, namespace: str, **options: Any
) -> EtcdCluster:
    """Start a cluster where the user "app" may do anything in the test's namespace."""
    cluster = make_cluster(
        tls=authority, client_certificates=True, extra_args=["--bcrypt-cost=4"], **options
    )
    cluster.enable_auth(f"{namespace}/", user="app", password="hush-hush")
    return cluster


def certified(authority: Authority, name: str, common_name: str | None) -> dict[str, Any]:
    """Return the options of a store with a certificate of that common name."""
    pair = authority.issue(name, common_name=common_name)
    files = {"ca_file": authority.ca_file, "cert_file": pair.cert, "key_file": pair.key}
    return {"tls": True, **files}


@pytest.mark.parametrize("binaries", all_binaries(), ids=lambda found: found.version)
def test_a_user_that_is_a_common_name(
    make_cluster: MakeCluster,
    make_store: MakeStore,
    authority: Authority,
    namespace: str,
    binaries: Binaries,
) -> None:
    """It needs no password, and has the rights of its role: calls and waits, and nothing elsewhere."""
    cluster = guarded(make_cluster, authority, namespace, binaries=binaries)
    app = certified(authority, "app", "app")
    store = make_store(cluster.endpoints, **app)
    leader = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=30.0))
    assert store.renew(leader, leading=True, deadline=soon()) == 30.0
    store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
    assert not wait.over(within=0.1)
    store.withdraw(leader, deadline=soon())
    wait.result(2.0)

    with pytest.raises(Refusal, match="permission denied") as caught:
        make_store(cluster.endpoints, namespace="elsewhere", **app).read(
            "mail", "", deadline=soon()
        )
    assert caught.value.code == PERMISSION_DENIED


def test_a_common_name_that_is_nobody(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority, namespace: str
) -> None:
    """No user of that name, or no name at all: one line that says what is wrong; a login helps both."""
    cluster = guarded(make_cluster, authority, namespace)
    for name, common_name in (("nobody", "nobody"), ("nameless", None)):
        options = certified(authority, name, common_name)
        with pytest.raises(StoreRefused) as caught:
            make_store(cluster.endpoints, **options).read("mail", "", deadline=soon())
        assert "\n" not in str(caught.value)
        store = make_store(cluster.endpoints, user="app", password="hush-hush", **options)
        assert store.read("mail", "", deadline=soon()) == {}


def test_a_server_certificate_for_another_host(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority
) -> None:
    """The name is verified, not the authority alone."""
    cluster = make_cluster(tls=authority, hosts=["elsewhere.example"])
    store = make_store(cluster.endpoints, **certified(authority, "client", None))

    with pytest.raises(
        StoreRefused, match=r"TLS fails with every endpoint.*not valid for that host"
    ):
        store.read("mail", "", deadline=soon())


def test_no_secret_is_shown(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority, namespace: str
) -> None:
    """Neither password nor token is in what is raised, whatever it was raised from."""
    cluster = guarded(make_cluster, authority, namespace)
    options = certified(authority, "nameless", None)
    with pytest.raises(StoreRefused, match="'app' log in") as caught:
        make_store(cluster.endpoints, user="app", password="wr0ng-0ne", **options).read(
            "mail", "", deadline=soon()
        )
    error: BaseException | None = caught.value
    said = []
    while error is not None:
        said += [repr(error), str(error), json.dumps(list(map(repr, error.args)))]
        error = error.__cause__ or error.__context__
    assert len(said) > 3
    assert not any("wr0ng-0ne" in text for text in said)
