"""Settings from Celery's configuration: spelt right, spelt wrong, and from elsewhere."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from leader_jobs.adapters.celery_settings import CeleryOptions, configure, options_of, settings_of
from leader_jobs.config import Settings, application
from leader_jobs.exceptions import ConfigurationError

_STORE = "sqlite:////tmp/store.sqlite3"


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have nothing from outside, and leave nothing behind."""
    monkeypatch.delenv("LEADER_JOBS_STORE", raising=False)
    application.configure(None)
    yield
    application.configure(None)


@pytest.fixture(name="app")
def _app() -> Iterator[Celery]:
    app = Celery("settings", set_as_current=False, broker="memory://")
    yield app
    app.close()


def test_settings_of_the_application(app: Celery) -> None:
    """Every setting is a key with the prefix; numbers may be text."""
    app.conf.update(leader_jobs_store=_STORE, leader_jobs_ttl="30", leader_jobs_node="n1")
    settings = settings_of(app)

    assert (settings.store, settings.ttl, settings.node) == (_STORE, 30.0, "n1")
    assert settings.election == "default"


def test_the_environment_wins(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for a container holds before what the project says."""
    app.conf.update(leader_jobs_store=_STORE, leader_jobs_ttl=30)
    monkeypatch.setenv("LEADER_JOBS_TTL", "5")

    assert settings_of(app).ttl == 5.0


def test_a_namespace_of_the_configuration(app: Celery) -> None:
    """Django's way: ``CELERY_LEADER_JOBS_STORE`` in the settings, read with a namespace."""

    class DjangoSettings:
        CELERY_LEADER_JOBS_STORE = _STORE
        CELERY_LEADER_JOBS_BEAT_SCHEDULER = "celery.beat:PersistentScheduler"

    app.config_from_object(DjangoSettings, namespace="CELERY")

    assert settings_of(app).store == _STORE
    assert options_of(app).beat_scheduler == "celery.beat:PersistentScheduler"


def test_an_application_that_says_nothing(app: Celery) -> None:
    """It has the settings of its process; Celery's own options alone are no settings."""
    app.conf.update(leader_jobs_worker_elections=["mail"])
    application.configure(lambda: Settings(store=_STORE, election="other"))

    assert settings_of(app).election == "other"


def test_a_process_goes_by_the_settings_of_its_application(app: Celery) -> None:
    """Whatever names no settings of its own, `leader_only` say, finds the same election."""
    app.conf.update(leader_jobs_store=_STORE, leader_jobs_election="mail")
    configure(app)

    assert application.election == "mail"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("leader_jobs_sotre", _STORE, "did you mean leader_jobs_store?"),
        ("leader_jobs_beat_schedule", "x", "did you mean leader_jobs_beat_scheduler?"),
        ("leader_jobs_zzzzzz", 1, "'leader_jobs_zzzzzz', which is not a setting"),
        ("leader_jobs_ttl", "soon", "ttl"),
        ("leader_jobs_ttl", True, "ttl"),
        ("leader_jobs_ttl", 1.0, "between 2 and 3600"),
        ("leader_jobs_election", "a b/c", "election"),
    ],
)
def test_misspelt_and_misplaced_settings(
    app: Celery, key: str, value: object, expected: str
) -> None:
    """The message names the key and the way out."""
    app.conf.update({"leader_jobs_store": _STORE, key: value})

    with pytest.raises(ConfigurationError) as found:
        settings_of(app)

    assert expected in str(found.value)


def test_options_and_their_defaults(app: Celery) -> None:
    """What only Celery has to know; one election may not be written without its list."""
    assert options_of(app) == CeleryOptions()
    app.conf.update(leader_jobs_worker_elections=["mail", "web"], leader_jobs_revoke_after=3)
    assert options_of(app).worker_elections == ("mail", "web")
    assert options_of(app).revoke_after == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("worker_elections", "mail", "write a list"),
        ("worker_elections", [1], "write a list"),
        ("worker_elections", ["a//b"], "a//b"),
        ("revoke_after", -1, "between 0 and 86400"),
    ],
)
def test_options_that_make_no_sense(app: Celery, key: str, value: Any, expected: str) -> None:
    """The message names the option, or the election."""
    app.conf.update({f"leader_jobs_{key}": value})

    with pytest.raises(ConfigurationError, match=expected):
        options_of(app)
