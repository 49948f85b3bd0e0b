"""How an etcd cluster is named in settings, and what is said about a name that makes no sense."""

from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores._etcd_login import Credentials, parse_endpoints, tls_context
from leader_jobs.stores._etcd_socket import Endpoint
from leader_jobs.stores.etcd import EtcdStore


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("h1:1234", Endpoint("h1", 1234)),
        ("h1", Endpoint("h1", 2379)),
        (" h1:1 ", Endpoint("h1", 1)),
        ("10.0.0.1:2379", Endpoint("10.0.0.1", 2379)),
        ("[::1]:65535", Endpoint("::1", 65535)),
        ("[fe80::1%eth0]", Endpoint("fe80::1%eth0", 2379)),
    ],
)
def test_endpoints_that_make_sense(text: str, endpoint: Endpoint) -> None:
    """Host and port, with the usual port for those who do not say."""
    assert parse_endpoints([text]) == (endpoint,)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "write host:port"),
        (":2379", "write host:port"),
        ("h 1:2379", "write host:port"),
        ("h1:", "from 1 to 65535"),
        ("h1:0", "from 1 to 65535"),
        ("h1:65536", "from 1 to 65535"),
        ("h1:http", "from 1 to 65535"),
        ("h1:-5", "from 1 to 65535"),
        ("h1:²", "from 1 to 65535"),
        ("::1:2379", "brackets"),
        ("[::1:2379", "bracket"),
        ("[]:2379", "bracket"),
        ("http://h1:2379", "host:port alone"),
        ("h1:2379/prefix", "namespace"),
        ("h1:2379?tls=1", "host:port alone"),
    ],
)
def test_endpoints_that_make_no_sense(text: str, advice: str) -> None:
    """One line names the endpoint and says what to write."""
    with pytest.raises(ConfigurationError) as caught:
        parse_endpoints([text])

    message = str(caught.value)
    assert advice in message
    assert repr(text) in message
    assert "\n" not in message


def test_credentials_in_an_endpoint_are_not_repeated() -> None:
    """The message points at the settings and keeps the password to itself."""
    with pytest.raises(ConfigurationError) as caught:
        parse_endpoints(["app:secret@h1:2379"])

    assert "secret" not in str(caught.value)
    assert "set user and password" in str(caught.value)


def test_an_endpoint_named_twice_counts_once() -> None:
    """A round of all endpoints asks each member once."""
    assert len(parse_endpoints(["h1", "h1:2379", "h2"])) == 2


def test_no_endpoint_at_all() -> None:
    """An empty list is a mistake, not a cluster."""
    with pytest.raises(ConfigurationError, match="no etcd endpoint"):
        parse_endpoints([])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("etcd://h1:2379,h2:2379", "etcd://h1:2379,h2:2379 (namespace shop)"),
        ("etcd://[::1]", "etcd://[::1]:2379 (namespace shop)"),
        ("etcds://h1/", "etcds://h1:2379 (namespace shop)"),
    ],
)
def test_from_settings(url: str, shown: str) -> None:
    """A URL becomes a store that says where it is."""
    store = EtcdStore.from_settings(Settings(store=url, namespace="shop"), clock=SystemClock())

    assert store.description == shown


@pytest.mark.parametrize("url", ["etcd://", "etcd://h1,,h2", "etcd:///"])
def test_a_url_without_hosts(url: str) -> None:
    """What is missing is said at construction."""
    with pytest.raises(ConfigurationError, match="write host:port"):
        EtcdStore.from_settings(Settings(store=url), clock=SystemClock())


def test_no_password_shows(tmp_path: Path) -> None:
    """Neither the store nor its credentials print the password."""
    store = EtcdStore(
        ["h1"], namespace="shop", clock=SystemClock(), user="app", password="hush-hush"
    )

    assert "hush-hush" not in repr(store) + store.description
    assert "hush-hush" not in repr(Credentials("app", "hush-hush"))
    assert "hush-hush" not in repr(Credentials("app", "hush-hush", tmp_path))


def test_a_password_file_is_read_at_each_login(tmp_path: Path) -> None:
    """A rotated password is picked up; the line's end is not part of it."""
    file = tmp_path / "password"
    credentials = Credentials("app", password_file=file)

    file.write_text("old\n")
    assert credentials.read_password() == "old"
    file.write_text("new word \r\n")
    assert credentials.read_password() == "new word "


def test_a_password_file_that_can_not_be_read(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        Credentials("app", password_file=tmp_path / "nowhere").read_password()


def test_a_user_without_password() -> None:
    """The message names the user and both settings."""
    with pytest.raises(ConfigurationError, match=r"'app'.*password_file"):
        Credentials("app").read_password()


def test_tls_files_that_do_not_exist(tmp_path: Path) -> None:
    """Missing files are a matter of configuration, named at construction."""
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigurationError, match=r"ca_file .*missing.pem"):
        tls_context(missing, None, None)
    with pytest.raises(ConfigurationError, match=r"cert_file .*missing.pem"):
        tls_context(None, missing, missing)


def test_tls_files_that_are_something_else(tmp_path: Path) -> None:
    """A file that is no certificate is named too."""
    file = tmp_path / "file.pem"
    file.write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"ca_file .*PEM"):
        tls_context(file, None, None)
    with pytest.raises(ConfigurationError, match=r"cert_file .*PEM"):
        tls_context(None, file, file)
