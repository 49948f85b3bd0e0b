"""Settings: their sources, what they refuse, and what they never show."""

from pathlib import Path
from typing import Any

import pytest

from leader_jobs.config import Settings, Timing, redact
from leader_jobs.exceptions import ConfigurationError

STORE = "sqlite:////var/lib/myapp/leader.sqlite3"


def load(mapping: dict[str, Any] | None = None, **arguments: Any) -> Settings:
    """Load without looking at the environment of the test run."""
    environ = arguments.pop("environ", {})
    arguments.setdefault("store", STORE)
    return Settings.load(mapping, environ=environ, **arguments)


def refused(mapping: dict[str, Any] | None = None, **arguments: Any) -> str:
    """Return the message with which these sources are refused; it is one line."""
    with pytest.raises(ConfigurationError) as caught:
        load(mapping, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- sources ----------------------------------------------------------------------------------------


def test_defaults() -> None:
    """Only the store must be said."""
    settings = load()

    assert settings.store == STORE
    assert (settings.namespace, settings.election, settings.ttl) == ("leader-jobs", "default", 15.0)
    assert settings.node


def test_arguments_win_over_environment_over_mapping_over_defaults() -> None:
    """Each source hides the ones below it, key by key."""
    settings = load(
        {"TTL": 20, "GRACE": 21, "WORKERS": 22},
        environ={"LEADER_JOBS_TTL": "30", "LEADER_JOBS_GRACE": "31"},
        ttl=40,
    )

    assert (settings.ttl, settings.grace, settings.workers) == (40.0, 31.0, 22)
    assert settings.election == "default"


def test_an_argument_that_is_none_was_not_given() -> None:
    """Command lines hand over None for what was not typed."""
    assert load({"TTL": 20}, ttl=None).ttl == 20.0


def test_none_in_the_mapping_was_not_given() -> None:
    """``"NODE": os.environ.get("HOST")`` may be None; the default holds then."""
    assert load({"TTL": None, "NODE": None}) == load(node=load({"NODE": None}).node)


def test_text_of_the_environment_is_converted() -> None:
    """Numbers and paths come as text from the environment."""
    settings = load(
        environ={
            "LEADER_JOBS_TTL": "4.5",
            "LEADER_JOBS_WORKERS": "3",
            "LEADER_JOBS_USER": "root",
            "LEADER_JOBS_PASSWORD_FILE": "/run/secret",
        }
    )

    assert (settings.ttl, settings.workers) == (4.5, 3)
    assert settings.password_file == Path("/run/secret")


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers configure by real environment variables."""
    monkeypatch.setenv("LEADER_JOBS_STORE", "memory://from-environment")

    assert Settings.load().store == "memory://from-environment"


def test_other_variables_are_nobodys_business() -> None:
    """Variables of others, and the token a supervised command is told, are no settings."""
    told = {"LEADER_JOBS_TOKEN": "7", "LEADER_JOBS_EVENT": "elected", "LEADER_JOBS_REASON": "lost"}
    settings = load(environ={"PATH": "/bin", "LEADER_JOBSTTL": "1", **told})

    assert settings.ttl == 15.0


def test_no_store_says_how_to_set_one() -> None:
    """The first thing a new user forgets gets an example."""
    message = refused(store=None)

    assert "LEADER_JOBS_STORE=sqlite:////" in message
    assert "LEADER_JOBS_STORE=etcd://" in message


# -- unknown keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "source", "hint"),
    [
        ({"mapping": {"ELECTON": "x"}}, "LEADER_JOBS['ELECTON']", "did you mean ELECTION?"),
        (
            {"environ": {"LEADER_JOBS_NAMESPCE": "x"}},
            "environment variable LEADER_JOBS_NAMESPCE",
            "did you mean LEADER_JOBS_NAMESPACE?",
        ),
        ({"worker": 5}, "argument 'worker'", "did you mean workers?"),
    ],
)
def test_a_near_miss_is_suggested(sources: dict[str, Any], source: str, hint: str) -> None:
    """A misspelt key names its source and the key that was meant, as one writes it there."""
    message = refused(**sources)

    assert source in message
    assert hint in message


def test_an_unknown_key_lists_the_known_ones() -> None:
    """A key like nothing we know gets the whole list."""
    message = refused({"ZZZZZZ": 1})

    assert "LEADER_JOBS['ZZZZZZ'] is not a setting" in message
    assert "STORE, NAMESPACE, ELECTION" in message


def test_the_mapping_goes_by_its_owners_name() -> None:
    """Messages speak of the mapping as the application calls it."""
    assert "settings.JOBS['TTL']" in refused({"TTL": "soon"}, mapping_name="settings.JOBS")


# -- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ttl", 1.99),
        ("ttl", 3601),
        ("ttl", float("nan")),
        ("ttl", float("inf")),
        ("grace", -0.1),
        ("grace", 86401),
        ("grace", float("nan")),
        ("workers", 0),
        ("workers", 1001),
        ("probe_port", -1),
        ("probe_port", 65536),
        ("hook_timeout", 0),
        ("hook_timeout", 3601),
    ],
)
def test_numbers_out_of_range_are_refused(key: str, value: Any) -> None:
    """The message names the key, the value and the range."""
    message = refused(None, **{key: value})

    assert message.startswith(f"{key} is {value:g}; it must be between ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("ttl", 2), ("ttl", 3600), ("grace", 0), ("workers", 1), ("probe_port", 0)],
)
def test_the_ends_of_a_range_belong_to_it(key: str, value: float) -> None:
    """The smallest and the largest value work."""
    assert getattr(load(None, **{key: value}), key) == value


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"TTL": "soon"}, "a number"),
        ({"TTL": [15]}, "a number"),
        ({"TTL": True}, "a number"),
        ({"WORKERS": "many"}, "a whole number"),
        ({"WORKERS": "2.5"}, "a whole number"),
        ({"WORKERS": 2.5}, "a whole number"),
        ({"WORKERS": False}, "a number"),
        ({"CA_FILE": 5}, "a path"),
        ({"NODE": 5}, "must be a string, not int"),
        ({"ELECTION": True}, "must be a string, not bool"),
        ({"STORE": Path("/var/lib/x")}, "must be a string"),
        ({"PROBE_PORT": "http"}, "a whole number"),
        ({"PROBE_HOST": 5}, "must be a string, not int"),
        ({"METRICS": "maybe"}, "true or false"),
        ({"METRICS": 2}, "true or false"),
        ({"METRICS": ""}, "true or false"),
        ({"ON_ELECTED": ["/bin/true"]}, "must be a string, not list"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(mapping: dict[str, Any], words: str) -> None:
    """A value is never guessed into shape; the message names source and what it must be."""
    message = refused(mapping, store=None if "STORE" in mapping else STORE)

    assert f"LEADER_JOBS['{next(iter(mapping))}']" in message
    assert words in message


@pytest.mark.parametrize(
    ("key", "value"), [("election", "a/b"), ("namespace", "a//b"), ("node", "line\nbreak")]
)
def test_names_are_checked(key: str, value: str) -> None:
    """A name that must not become a key does not get into settings."""
    assert key in refused(None, **{key: value})


@pytest.mark.parametrize(
    ("text", "truth"),
    [("1", True), ("true", True), ("Yes", True), ("0", False), ("FALSE", False), ("no", False)],
)
def test_yes_and_no_as_text(text: str, truth: bool) -> None:
    """The environment has no booleans, and a word for "no" is never taken for "yes"."""
    assert load(environ={"LEADER_JOBS_METRICS": text}).metrics is truth


@pytest.mark.parametrize("host", ["", "127.0.0.1/8", "http://localhost", "local host", "[::1]"])
def test_no_address(host: str) -> None:
    """What nobody could listen on is refused before anything starts."""
    assert f"probe_host is {host!r}" in refused(None, probe_host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "node-1.internal"])
def test_addresses(host: str) -> None:
    """Addresses of both families and names."""
    assert load(probe_host=host).probe_host == host


@pytest.mark.parametrize(
    ("command", "words"), [("", "is empty"), ("  ", "is empty"), ("logger 'lost", "No closing")]
)
@pytest.mark.parametrize("key", ["on_elected", "on_stepped_down"])
def test_commands_that_are_none(key: str, command: str, words: str) -> None:
    """A hook that could never run is refused by its key."""
    message = refused(None, **{key: command})

    assert message.startswith(f"{key} is ")
    assert words in message


def test_settings_can_not_be_changed() -> None:
    """What was checked stays as it was checked."""
    with pytest.raises(AttributeError):
        load().ttl = 1.0  # type: ignore[misc]  # the point of the test


# -- stores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [STORE, "etcd://h1:2379,h2:2379", "etcds://h1:2379", "memory://", "memory://tests"],
)
def test_known_stores(url: str) -> None:
    """Every kind of store there is."""
    assert load(store=url).store == url


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlit:////x", "did you mean sqlite://?"),
        ("etcd3://h", "did you mean etcd://?"),
        ("SQLITE:////x", "did you mean sqlite://?"),
        ("redis://h", "use sqlite://, etcd://, etcds:// or memory://"),
        ("/var/lib/leader.sqlite3", "use sqlite://, etcd://, etcds:// or memory://"),
        ("sqlite:/x", "did you mean sqlite://?"),
    ],
)
def test_unknown_stores_get_a_hint(url: str, hint: str) -> None:
    """A wrong scheme names the nearest one, or all."""
    message = refused(store=url)

    assert url in message
    assert hint in message


@pytest.mark.parametrize("url", ["sqlite://leader.sqlite3", "sqlite:///leader.sqlite3"])
def test_a_relative_path_is_refused(url: str) -> None:
    """Two working directories would be two elections."""
    message = refused(store=url)

    assert url in message
    assert "sqlite:////" in message


@pytest.mark.parametrize("scheme", ["etcd", "etcds", "redis"])
def test_credentials_in_the_url_are_refused_unseen(scheme: str) -> None:
    """A password that came in a URL is not repeated by the message that refuses it."""
    message = refused(store=f"{scheme}://root:hunter2@h1:2379")

    assert "hunter2" not in message


# -- credentials ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"user": "root"}, "no password"),
        ({"password": "hunter2"}, "no user"),
        ({"password_file": "/run/secret"}, "no user"),
        (
            {"user": "root", "password": "hunter2", "password_file": "/run/secret"},
            "keep one of them",
        ),
        ({"cert_file": "/c.pem"}, "go together"),
        ({"key_file": "/k.pem"}, "go together"),
        ({"ca_file": "/ca.pem"}, "etcds://"),
        ({"cert_file": "/c.pem", "key_file": "/k.pem"}, "etcds://"),
    ],
)
def test_half_a_credential_is_refused(arguments: dict[str, Any], words: str) -> None:
    """Credentials that can not work are refused before anything connects."""
    message = refused(store="etcd://h1:2379", **arguments)

    assert words in message
    assert "hunter2" not in message


def test_whole_credentials_are_taken() -> None:
    """User with password, authority and client certificate together."""
    settings = load(
        store="etcds://h1:2379",
        user="root",
        password="hunter2",
        ca_file="/ca.pem",
        cert_file="/c.pem",
        key_file="/k.pem",
    )

    assert settings.password == "hunter2"
    assert settings.cert_file == Path("/c.pem")


def test_no_secret_is_shown() -> None:
    """Neither repr nor str has the password, be it set or hidden in a URL."""
    settings = load(store="etcd://h1:2379", user="root", password="hunter2")
    hidden = Settings(store="memory://root:hunter2@x")

    for text in (repr(settings), str(settings), repr(hidden), f"{hidden}"):
        assert "hunter2" not in text
    assert "user='root'" in repr(settings)
    assert "memory://***@x" in repr(hidden)


def test_what_kubernetes_sets_beside_a_service_is_not_taken_for_settings() -> None:
    """A Service called leader-jobs puts variables with our prefix into every pod."""
    environ = {
        "LEADER_JOBS_STORE": STORE,
        "LEADER_JOBS_SERVICE_HOST": "10.0.0.1",
        "LEADER_JOBS_SERVICE_PORT_HTTP": "80",
        "LEADER_JOBS_PORT": "tcp://10.0.0.1:80",
        "LEADER_JOBS_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert Settings.load(environ=environ).store == STORE


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("etcd://h1:2379,h2:2379", "etcd://h1:2379,h2:2379"),
        ("etcd://root:hunter2@h1:2379", "etcd://***@h1:2379"),
        ("etcd://root:p@ss@h1:2379", "etcd://***@h1:2379"),
        ("etcd://root:pa/ss@h1:2379/x", "etcd://***@h1:2379/x"),
        (STORE, STORE),
    ],
)
def test_redact(url: str, shown: str) -> None:
    """Whatever stands before the last ``@`` is hidden."""
    assert redact(url) == shown


# -- timing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl", "margin", "valid", "renew", "call"),
    [
        (15.0, 3.0, 12.0, 5.0, 1.0),
        (2.0, 0.5, 1.5, 2 / 3, 1 / 3),
        (3600.0, 720.0, 2880.0, 1200.0, 1.0),
    ],
)
def test_timing(ttl: float, margin: float, valid: float, renew: float, call: float) -> None:
    """The margin is a fifth of the ttl and never under half a second."""
    timing = Timing(ttl)

    assert timing.safety_margin == margin
    assert timing.valid_for == valid
    assert timing.renew_every == pytest.approx(renew)
    assert timing.call_timeout == pytest.approx(call)


@pytest.mark.parametrize("ttl", [2.0, 3.0, 15.0, 60.0, 3600.0])
def test_a_renewal_can_fail_more_than_once(ttl: float) -> None:
    """Between renewal and deadline there is time for several tries."""
    timing = Timing(ttl)

    assert timing.renew_every + 2 * timing.call_timeout < timing.valid_for
    assert load(ttl=ttl).timing == timing
