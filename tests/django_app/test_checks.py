"""What ``manage.py check`` and ``check --deploy`` say: each id, when it is due and when it is not."""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core import checks

from django_leader_jobs import checks as ours
from django_leader_jobs import deploy_checks
from leader_jobs import metrics
from leader_jobs.clock import SystemClock
from leader_jobs.config import ENVIRONMENT_PREFIX
from leader_jobs.stores import _sqlite_files
from testsupport.odd_gateway import Answer, OddGateway, Question, reply

#: The check looks at the setting alone; no connection is made with it.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
CLOCK = SystemClock()
_DOCS = Path(__file__).parents[2] / "docs"
Check = Callable[..., dict[str, str]]
SILENT: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


@pytest.fixture(name="check")
def _check(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    """Return what checks a project, and returns what is said by id; a good store if none is named."""
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)

    def check(
        deploy: bool = False, project: dict[str, Any] | None = None, **own: Any
    ) -> dict[str, str]:
        settings.LEADER_JOBS = {"STORE": f"sqlite:///{tmp_path}/store.sqlite3"} | own
        for name, value in (project or {}).items():
            setattr(settings, name, value)
        found = checks.run_checks(tags=["leader_jobs"], include_deployment_checks=deploy)
        said = {message.id: f"{message.msg} {message.hint}" for message in found}
        assert len(said) == len(found)
        assert not any("\n" in text for text in said.values())
        return {id_: text for id_, text in said.items() if id_ is not None}

    return check


def test_a_good_project_is_silent(check: Check, tmp_path: Path) -> None:
    """Also before a deployment; and nothing was opened to find that out."""
    assert check() == {}
    assert check(deploy=True) == {}
    assert list(tmp_path.iterdir()) == []


def test_settings_that_make_no_sense(check: Check) -> None:
    """E001, alone: nothing else can be said then."""
    said = check(deploy=True, TTL=1)
    assert said.keys() == {"leader_jobs.E001"}
    assert "ttl is 1; it must be between" in said["leader_jobs.E001"]
    assert check(STORE="sqlite:////tmp/").keys() == {"leader_jobs.E001"}


def test_a_hook_that_is_not_there(check: Check) -> None:
    """E003: the node would not start."""
    assert check(ON_ELECTED="true", ON_STEPPED_DOWN="sh -c 'exit 1'") == {}
    said = check(ON_STEPPED_DOWN="no-such-command")
    assert said.keys() == {"leader_jobs.E003"}
    assert "'no-such-command'" in said["leader_jobs.E003"]


def test_metrics_without_their_library(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """E004, if they are asked for."""
    assert check(METRICS=True) == {}
    monkeypatch.setattr(metrics, "_of_process", [])
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert check(METRICS=False) == {}
    assert check(METRICS=True).keys() == {"leader_jobs.E004"}


def test_a_network_disk(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """E005: nodes would not start, and it is better known before."""
    mount = "36 35 98:0 / / rw - nfs4 server:/ rw\n"
    monkeypatch.setattr(_sqlite_files, "_mountinfo", lambda: mount)
    said = check(deploy=True)
    assert said.keys() == {"leader_jobs.E005"}
    assert "nfs4" in said["leader_jobs.E005"]


def test_a_store_that_does_not_leave_the_process(check: Check) -> None:
    """W001; there is nobody to ask whether it answers."""
    assert check(deploy=True, STORE="memory://").keys() == {"leader_jobs.W001"}


@pytest.mark.parametrize(
    ("project", "named"),
    [
        ({"DATABASES": {"default": SILENT | {"HOST": "db.example.com"}}}, "db.example.com"),
        ({"CELERY_BROKER_URL": "redis://:secret@10.0.0.7:6379/0"}, "10.0.0.7"),
        ({"BROKER_URL": "amqp://one;amqp://u:secret@two//"}, "one, two"),
        ({"CELERY_BROKER_URL": ["amqp://three"]}, "three"),
    ],
)
def test_an_embedded_store_beside_services_on_other_hosts(
    check: Check, project: dict[str, Any], named: str
) -> None:
    """W002, before a deployment: each host would have a leader of its own."""
    assert check(project=project) == {}
    said = check(deploy=True)
    assert said.keys() == {"leader_jobs.W002"}
    assert named in said["leader_jobs.W002"]
    assert "secret" not in said["leader_jobs.W002"]


@pytest.mark.parametrize(
    "project",
    [
        {"DATABASES": {"default": SILENT | {"HOST": "/run/postgresql"}}},
        {"DATABASES": {"default": SILENT | {"HOST": "localhost"}}},
        {"DATABASES": {"default": SILENT | {"HOST": "::1"}}},
        {"CELERY_BROKER_URL": "redis://127.0.0.1"},
        {"CELERY_BROKER_URL": "filesystem://"},
        {"CELERY_BROKER_URL": "memory://"},
    ],
)
def test_services_on_this_host(check: Check, project: dict[str, Any]) -> None:
    """There is nothing to warn of."""
    assert check(deploy=True, project=project) == {}


def test_the_default_store_is_named_as_that(check: Check, settings: Any, tmp_path: Path) -> None:
    """Who chose nothing is told what was chosen for them."""
    settings.BASE_DIR = tmp_path
    project = {"DATABASES": {"default": SILENT | {"HOST": "db"}}}
    said = check(deploy=True, project=project, STORE=None)
    assert "names no store, so it is a file" in said["leader_jobs.W002"]


@pytest.mark.parametrize(
    ("store", "warned"),
    [
        ("etcd://etcd1:2379,127.0.0.1", True),
        ("etcds://etcd1:2379", False),
        ("etcd://127.0.0.1:2379,localhost:2379,[::1]:2379", False),
    ],
)
def test_a_password_as_plain_text(check: Check, store: str, warned: bool) -> None:
    """W003, unless it does not leave the host; it is not repeated."""
    said = check(STORE=store, USER="root", PASSWORD="hunter2")
    assert said.keys() == ({"leader_jobs.W003"} if warned else set())
    assert "hunter2" not in str(said)
    assert check(STORE=store) == {}


@pytest.mark.parametrize(
    ("host", "warned"), [("0.0.0.0", True), ("::", True), ("127.0.0.2", False), ("::1", False)]
)
def test_probes_that_anybody_can_ask(check: Check, host: str, warned: bool) -> None:
    """W004, before a deployment, if there is a port."""
    assert check(PROBE_PORT=8081, PROBE_HOST=host) == {}
    assert check(deploy=True, PROBE_HOST=host) == {}
    said = check(deploy=True, PROBE_PORT=8081, PROBE_HOST=host)
    assert said.keys() == ({"leader_jobs.W004"} if warned else set())


@pytest.fixture(name="slow")
def _slow() -> Iterator[OddGateway]:
    """Return a server that knows no candidates, and takes its time to say so."""

    def answer(question: Question) -> Answer:
        CLOCK.wait(threading.Event(), 0.3)
        return reply({"header": {"cluster_id": "1", "member_id": "1", "revision": "1"}})

    with OddGateway(answer) as gateway:
        yield gateway


def test_a_ttl_that_is_too_short_for_the_store(check: Check, slow: OddGateway) -> None:
    """W005, measured: a renewal that is late once would be the end of a term."""
    store = f"etcd://{slow.endpoint}"
    assert check(STORE=store, TTL=2) == {}
    said = check(deploy=True, STORE=store, TTL=2)
    assert said.keys() == {"leader_jobs.W005"}
    assert re.search(r"the store takes 0\.3\d s to answer", said["leader_jobs.W005"])
    assert check(deploy=True, STORE=store, TTL=15) == {}


def test_a_store_that_does_not_answer(check: Check) -> None:
    """W006, after two seconds at most."""
    assert check(STORE="etcd://127.0.0.1:1") == {}
    began = CLOCK.now()
    said = check(deploy=True, STORE="etcd://127.0.0.1:1")
    assert CLOCK.now() - began < 4.0
    assert said.keys() == {"leader_jobs.W006"}
    assert "127.0.0.1:1" in said["leader_jobs.W006"]


def test_a_place_where_no_file_can_be(check: Check) -> None:
    """W006 as well: nodes would not start."""
    said = check(deploy=True, STORE="sqlite:////nowhere/store.sqlite3")
    assert said.keys() == {"leader_jobs.W006"}
    assert "there is no folder /nowhere" in said["leader_jobs.W006"]


# -- documentation ----------------------------------------------------------------------------------


def test_every_id_is_documented_where_its_hint_says() -> None:
    """And nothing is documented that is not checked."""
    code = "".join(Path(module.__file__ or "").read_text() for module in (ours, deploy_checks))
    errors = {f"E{int(number):03d}" for number in re.findall(r"\berror\(\s*(\d+)", code)}
    errors |= {f"E{int(number):03d}" for number in re.findall(r"\(_\w+, (\d+), ", code)}
    warnings = {f"W{int(number):03d}" for number in re.findall(r"\bwarning\(\s*(\d+)", code)}
    assert len(errors) == 5
    assert len(warnings) == 6
    page = (_DOCS / "checks.md").read_text()
    documented = re.findall(
        r"^\(leader-jobs-([ew]\d{3})\)=\n#+ `?leader_jobs\.(\w+)", page, re.MULTILINE
    )
    assert {number.upper() for number, _ in documented} == errors | warnings
    assert all(number.upper() == title for number, title in documented)
    hint = ours.warning(2, "m", "Do it.").hint
    assert hint == "Do it. See docs/checks.md#leader-jobs-w002"
