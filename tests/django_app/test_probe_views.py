"""The probes as views of a web process: through Django's own stack, for the process that answers."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import include, path

from django_leader_jobs import probing
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.config import application
from leader_jobs.standing import place_of
from leader_jobs.stores.factory import open_store
from leader_jobs.vitals import vitals

CLOCK = SystemClock()
urlpatterns = [path("leader-jobs/", include("django_leader_jobs.urls"))]
pytestmark = pytest.mark.urls(__name__)


@pytest.fixture(name="client")
def _client(settings: Any, tmp_path: Path) -> Iterator[Client]:
    """Return a browser of a site whose store is a file."""
    settings.LEADER_JOBS = {"STORE": f"sqlite:///{tmp_path}/store.sqlite3", "NODE": "web-1"}
    vitals.forget_all()  # whatever other tests left standing is none of this site's
    probing._probes.cache_clear()
    yield Client()
    probing._probes().close()
    probing._probes.cache_clear()


@pytest.fixture(name="stand")
def _stand() -> Iterator[Any]:
    """Return what has this process stand in an election until it leads, as a scheduler in it does."""
    with ExitStack() as stack:

        def stand(election: str) -> Candidate:
            store = open_store(application.settings, clock=CLOCK)
            stack.callback(store.close)
            place = place_of(application.settings, election, store=store, clock=CLOCK)
            stack.callback(place.candidate.stop)
            stack.callback(lambda: place.ledger)  # places live as long as who stands in them
            place.candidate.campaign(5.0)
            return place.candidate

        yield stand


def test_a_process_that_stands_nowhere(client: Client) -> None:
    """A web process is alive, and ready when the store answers; it leads nothing."""
    assert client.get("/leader-jobs/livez").content == b"alive: stands in no election\n"
    assert client.get("/leader-jobs/readyz").content == b"ready: the store answers\n"
    assert client.get("/leader-jobs/leader").status_code == 503
    status = client.get("/leader-jobs/status")
    assert status["Content-Type"] == "application/json"
    assert status.json()["elections"] == []
    assert status["Cache-Control"] == "no-store"


def test_a_process_with_an_elected_scheduler(client: Client, stand: Any) -> None:
    """It answers for that."""
    stand("mail")
    assert b"leads election 'mail'" in client.get("/leader-jobs/leader").content
    stand("web").resign()

    assert client.get("/leader-jobs/leader").status_code == 400
    assert client.get("/leader-jobs/leader?election=mail").status_code == 200
    roles = {
        e["election"]: e["role"] for e in client.get("/leader-jobs/status").json()["elections"]
    }
    assert roles["mail"] == "leader"


def test_a_store_that_can_not_be_used(client: Client, settings: Any) -> None:
    """The settings of this moment count, and what is wrong with them is said."""
    assert client.get("/leader-jobs/readyz").status_code == 200
    settings.LEADER_JOBS = {"STORE": "etcd://127.0.0.1:1"}
    probing._probes.cache_clear()
    answer = client.get("/leader-jobs/readyz")
    assert answer.status_code == 503
    assert b"127.0.0.1:1" in answer.content
    settings.LEADER_JOBS = {"STORE": "memory://", "TTL": 1}
    probing._probes.cache_clear()
    assert b"ttl is 1" in client.get("/leader-jobs/readyz").content
    assert client.get("/leader-jobs/livez").status_code == 200
    assert client.get("/leader-jobs/metrics").status_code == 404


def test_metrics_where_they_are_asked_for(client: Client, settings: Any, stand: Any) -> None:
    """And nowhere else, although the library is there."""
    assert client.get("/leader-jobs/metrics").status_code == 404
    settings.LEADER_JOBS = settings.LEADER_JOBS | {"METRICS": True}
    stand("mail")

    answer = client.get("/leader-jobs/metrics")
    assert answer.status_code == 200
    assert b'leader_jobs_leader{election="mail",node="web-1"} 1.0' in answer.content


def test_an_answer_that_says_no_is_no_error(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A balancer asks every standby twice a second; nobody is sent a mail for each answer."""
    assert client.get("/leader-jobs/leader").status_code == 503

    assert [record for record in caplog.records if record.name == "django.request"] == []


@pytest.mark.parametrize("name", ["livez", "readyz", "leader", "status", "metrics"])
def test_methods(client: Client, name: str) -> None:
    """Nothing can be changed by asking."""
    url = f"/leader-jobs/{name}"
    for method in (client.post, client.put, client.delete, client.patch):
        assert method(url).status_code == 405
    assert client.head(url).content == b""
    assert client.head(url).status_code == client.get(url).status_code


def test_a_site_that_wants_a_login_everywhere_else(client: Client, settings: Any) -> None:
    """Who asks for probes has no session, and is not sent to the login page."""
    middleware = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    try:
        from django.contrib.auth.middleware import LoginRequiredMiddleware  # noqa: F401
    except ImportError:
        pytest.skip("Django has no such middleware before 5.1")
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, middleware]

    assert client.get("/leader-jobs/livez").status_code == 200
