"""Users, tokens and certificates on real servers, and what is said when they do not fit."""

from pathlib import Path
from typing import Any

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import StoreRefused, StoreUnavailable
from leader_jobs.stores.base import Write
from testsupport.background import Background
from testsupport.certificates import Authority
from testsupport.etcd import Binaries, EtcdCluster, all_binaries
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.proxy import TcpProxy

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()
APP = {"user": "app", "password": "hush-hush"}
#: Tests on a server that is set up for them run on every version there is.
EACH = pytest.mark.parametrize("binaries", all_binaries(), ids=lambda found: found.version)


def soon(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


def guarded(
    make_cluster: MakeCluster, namespace: str, size: int = 1, **options: Any
) -> EtcdCluster:
    """Start a cluster where the user "app" may do anything in the test's namespace."""
    arguments = ["--bcrypt-cost=4", *options.pop("extra_args", ())]
    cluster = make_cluster(size, extra_args=arguments, **options)
    cluster.enable_auth(f"{namespace}/", user=APP["user"], password=APP["password"])
    return cluster


# Users


@EACH
def test_a_user_with_the_right_role(
    make_cluster: MakeCluster, make_store: MakeStore, namespace: str, binaries: Binaries
) -> None:
    """Everything works after one login, from a file too."""
    cluster = guarded(make_cluster, namespace, binaries=binaries)
    store = make_store(cluster.endpoints, **APP)
    leader = store.enrol("mail", b"", 30, deadline=soon())
    waiter = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(waiter, deadline=soon())
    wait = Background(lambda: store.wait(waiter, standing, timeout=30.0))

    assert store.renew(leader, leading=True, deadline=soon()) == 30.0
    store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
    assert [one.ttl for one in store.candidates("mail", deadline=soon(), leases=True)] == [30.0] * 2
    assert not wait.over(within=0.1)
    store.withdraw(leader, deadline=soon())
    wait.result(5.0)


def test_logins_that_do_not_fit(
    make_cluster: MakeCluster, make_store: MakeStore, namespace: str, tmp_path: Path
) -> None:
    """No login, a wrong password, a role without rights: each one line that says what is wrong."""
    cluster = guarded(make_cluster, namespace)
    file = tmp_path / "password"
    file.write_text("wrong\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "set user and password"),
        ({"user": "app", "password": "wrong"}, "'app' log in"),
        ({"user": "app", "password_file": file}, "'app' log in"),
        ({**APP, "namespace": "elsewhere"}, "permission denied"),
    ]
    for options, message in cases:
        with pytest.raises(StoreRefused, match=message) as caught:
            make_store(cluster.endpoints, **options).read("mail", "", deadline=soon())
        assert "wrong" not in str(caught.value)
        assert "hush-hush" not in str(caught.value)
    file.write_text("hush-hush\n")
    store = make_store(cluster.endpoints, user="app", password_file=file)
    assert store.read("mail", "", deadline=soon()) == {}


@EACH
def test_a_watch_that_is_not_allowed(
    make_cluster: MakeCluster, make_store: MakeStore, namespace: str, binaries: Binaries
) -> None:
    """The server says "created" and "cancelled" at once and keeps the stream open; the wait ends."""
    cluster = guarded(make_cluster, namespace, binaries=binaries)
    allowed = make_store(cluster.endpoints, **APP)
    candidacy = allowed.enrol("mail", b"", 30, deadline=soon())
    standing = allowed.standing(candidacy, deadline=soon())
    for options in ({}, {**APP, "namespace": "elsewhere"}):
        store = make_store(cluster.endpoints, **options)
        began = CLOCK.now()
        store.wait(candidacy, standing, timeout=30.0)
        assert CLOCK.now() - began < 2.0


@EACH
def test_a_token_that_expired_on_another_member(
    make_cluster: MakeCluster, make_store: MakeStore, namespace: str, binaries: Binaries
) -> None:
    """Each member counts from its own last use; after moving there the client logs in again."""
    cluster = guarded(
        make_cluster,
        namespace,
        2,
        binaries=binaries,
        heartbeat=20,
        election=200,
        extra_args=["--auth-token-ttl=2"],
    )
    home, away = cluster.members
    with TcpProxy(home.endpoint) as proxy:
        store = make_store([proxy.endpoint, away.endpoint], **APP)
        leader = store.enrol("mail", b"", 30, deadline=soon())
        token = store._client.token(soon())
        limit = soon(4.0)
        while CLOCK.now() < limit:
            store.renew(leader, leading=True, deadline=soon())
        assert store._client.token(soon()) == token
        proxy.cut()

        assert store.renew(leader, leading=True, deadline=soon()) == 30.0
        store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
        assert store._client.token(soon()) != token


def test_a_commit_under_an_expired_token(
    make_cluster: MakeCluster, make_store: MakeStore, namespace: str
) -> None:
    """A rejected token is a definite no, so even a commit is sent again after the login."""
    cluster = guarded(make_cluster, namespace)
    store = make_store(cluster.endpoints, **APP)
    leader = store.enrol("mail", b"", 30, deadline=soon())
    store._client._token = "nonsense.1"

    store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
    store._client._token = "nonsense.1"
    # The watch is rejected too; the look that follows every wait logs in again.
    store.wait(leader, store.standing(leader, deadline=soon()), timeout=0.2)
    assert store.standing(leader, deadline=soon()).leads


# Certificates


@EACH
def test_certificates_on_both_sides(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority, binaries: Binaries
) -> None:
    """Calls and waits go over TLS, and a wait over TLS can be woken."""
    cluster = make_cluster(tls=authority, client_certificates=True, binaries=binaries)
    pair = authority.issue("client")
    store = make_store(
        cluster.endpoints,
        tls=True,
        ca_file=authority.ca_file,
        cert_file=pair.cert,
        key_file=pair.key,
    )
    leader = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    wait = Background(lambda: store.wait(leader, standing, timeout=30.0))

    assert store.renew(leader, leading=True, deadline=soon()) == 30.0
    assert not wait.over(within=0.2)
    store.wake(leader)
    wait.result(1.0)
    again = Background(lambda: store.wait(leader, standing, timeout=30.0))
    assert not again.over(within=0.2)
    cluster.etcdctl("lease", "revoke", leader.id)
    again.result(5.0)


def test_tls_that_does_not_fit(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority, tmp_path: Path
) -> None:
    """Each mismatch between the sides is named, without trying until the deadline."""
    cluster = make_cluster(tls=authority, client_certificates=True)
    stranger = Authority(tmp_path / "stranger", "Somebody Else")
    foreign = stranger.issue("client")
    ours = authority.issue("client")
    right = {"tls": True, "ca_file": authority.ca_file}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tls": True}, "certificate verify failed"),
        ({"tls": True, "ca_file": stranger.ca_file}, "certificate verify failed"),
        (right, "TLS fails with every endpoint"),
        ({**right, "cert_file": foreign.cert, "key_file": foreign.key}, "TLS fails with every"),
    ]
    for options, message in cases:
        began = CLOCK.now()
        with pytest.raises(StoreRefused, match=message):
            make_store(cluster.endpoints, **options).read("mail", "", deadline=soon(10))
        assert CLOCK.now() - began < 3.0
    # etcd hangs up on whoever does not speak TLS, as a server that dies does.
    with pytest.raises(StoreUnavailable, match="etcds://"):
        make_store(cluster.endpoints).read("mail", "", deadline=soon(0.5))
    store = make_store(cluster.endpoints, **right, cert_file=ours.cert, key_file=ours.key)
    assert store.read("mail", "", deadline=soon()) == {}


def test_tls_towards_a_plain_server(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """A server that does not speak TLS is not taken for one that is away for a moment."""
    store = make_store(etcd.endpoints, tls=True)

    with pytest.raises((StoreRefused, StoreUnavailable)) as caught:
        store.read("mail", "", deadline=soon(1.0))

    assert etcd.endpoints[0] in str(caught.value)
    assert "TLS" in str(caught.value)


@pytest.mark.gateway
def test_a_certificate_with_a_common_name(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority, namespace: str
) -> None:
    """The gateway does not serve it while authentication is on; the message says what will do."""
    cluster = make_cluster(tls=authority, client_certificates=True, extra_args=["--bcrypt-cost=4"])
    cluster.enable_auth(f"{namespace}/", user=APP["user"], password=APP["password"])
    named = authority.issue("named", common_name="app")
    nameless = authority.issue("client")
    tls = {"tls": True, "ca_file": authority.ca_file}

    for options in ({}, APP):
        with pytest.raises(StoreRefused, match=r"CommonName.*without one") as caught:
            make_store(
                cluster.endpoints, **tls, cert_file=named.cert, key_file=named.key, **options
            ).read("mail", "", deadline=soon())
        assert "\n" not in str(caught.value)
    store = make_store(
        cluster.endpoints, **tls, cert_file=nameless.cert, key_file=nameless.key, **APP
    )
    assert store.read("mail", "", deadline=soon()) == {}


@pytest.mark.gateway
def test_a_server_certificate_for_another_host(
    make_cluster: MakeCluster, make_store: MakeStore, authority: Authority
) -> None:
    """The name is verified, not the authority alone."""
    cluster = make_cluster(tls=authority, hosts=["elsewhere.example"])
    store = make_store(cluster.endpoints, tls=True, ca_file=authority.ca_file)

    with pytest.raises(StoreRefused, match=r"not valid for '127\.0\.0\.1'"):
        store.read("mail", "", deadline=soon())
