"""The units of docs/deploy, read and run by a real systemd: readiness, kill -9, watchdog, stop."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from testsupport.deploying import FILES, adapted, give_up
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.processes import time_of_death
from testsupport.site import JOB, Site
from testsupport.systemd_box import SystemdBox, why_not

CLOCK = SystemClock()
RUNLEADER, BEAT = "leader-jobs-runleader.service", "leader-jobs-beat.service"
TTL = 60.0
#: What the units want to be there.
TARGETS = ("basic", "network-online", "shutdown", "sysinit")
#: What differs on this machine: where things are, who runs them, and that everything may lie in /tmp.
HERE = {"User=myapp": "User=root", "PrivateTmp=yes": "", "ProtectHome=yes": ""}
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
BEAT_APP = """
from celery import Celery

app = Celery("proj", broker="memory://")
app.conf.beat_schedule = {"tidy": {"task": "tidy", "schedule": 3600.0}}
"""
#: Half a minute is half a second here.
HANGS = """
import threading
from leader_jobs import leader_only, positions
from leader_jobs.claims import Claims

positions.UNHEALTHY_AFTER = 0.5
Claims.tick = lambda self, now, **more: threading.Event().wait()

@leader_only(every=3600, name="tidy")
def tidy():
    pass
"""


def unit(name: str, folder: Path, **changes: str) -> str:
    """Return a unit as it can be run here, in a folder that has all it needs."""
    python = sys.executable
    there = {
        "/srv/myapp/.venv/bin/python" if name == RUNLEADER else "/srv/myapp/.venv/bin/celery": (
            python if name == RUNLEADER else f"{python} -m celery"
        ),
        "[Service]": f"[Service]\nStandardOutput=append:{folder}/log\nStandardError=inherit",
        "WorkingDirectory=/srv/myapp": f"WorkingDirectory={folder}",
        "EnvironmentFile=/etc/leader-jobs/": f"EnvironmentFile={folder}/",
        "etcd-password:/etc/leader-jobs/": f"etcd-password:{folder}/",
    }
    set_here = {f"{key}=60": f"{key}={value}" for key, value in changes.items()}
    return adapted(name, HERE | there | set_here)


@contextmanager
def box_with(name: str, text: str) -> Iterator[SystemdBox]:
    """Have a systemd that knows a unit."""
    if reason := why_not():
        give_up(reason)
    targets = {f"{target}.target": "[Unit]\nDefaultDependencies=no\n" for target in TARGETS}
    with SystemdBox({name: text, **targets}) as box:
        yield box


@pytest.fixture(name="cluster")
def _cluster(make_cluster: MakeCluster, namespace: str) -> EtcdCluster:
    """A cluster that wants a password."""
    cluster = make_cluster()
    cluster.enable_auth(f"{namespace}/", user="leader-jobs", password="hush-hush")
    return cluster


def prepare(folder: Path, cluster: EtcdCluster, namespace: str, jobs: str = JOB) -> None:
    """Put into *folder* what /srv/myapp and /etc/leader-jobs have on a node."""
    Site(folder, jobs, settings={})
    (folder / "manage.py").write_text(MANAGE)
    (folder / "proj.py").write_text(BEAT_APP)
    (folder / "etcd-password").write_text("hush-hush\n")
    lines = {
        "LEADER_JOBS_STORE=etcd://etcd1:2379,etcd2:2379,etcd3:2379": (
            f"LEADER_JOBS_STORE={cluster.url}\nLEADER_JOBS_NAMESPACE={namespace}\n"
            f"LEADER_JOBS_NODE=a\nLEADER_JOBS_TTL={TTL:g}"
        ),
        "LEADER_JOBS_PROBE_PORT=8081": "LEADER_JOBS_PROBE_PORT=0",
    }
    (folder / "environment").write_text(adapted("environment", lines))


def await_status(box: SystemdBox, name: str, beginning: str) -> None:
    """Wait until a service says that of itself; the test's own time limit ends it."""
    while not box.show(name)["StatusText"].startswith(beginning):
        CLOCK.wait(threading.Event(), 0.05)


@pytest.mark.parametrize("name", [RUNLEADER, BEAT])
def test_systemd_has_no_complaint(name: str, tmp_path: Path) -> None:
    """Every line of a unit is one that systemd knows, and one that it takes for safe."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        give_up("there is no systemd-analyze")
    (tmp_path / name).write_text(unit(name, tmp_path))
    for arguments in (["verify"], ["security", "--offline=true", "--threshold=30"]):
        run = subprocess.run(
            [str(analyze), *arguments, str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, ""), run.stdout


def test_the_addition_for_an_address_is_one(tmp_path: Path) -> None:
    """The hooks it names are settings, and systemd knows its lines."""
    if why_not():
        give_up("there is no systemd here that could read it")
    script = FILES / "leader-address"
    addition = adapted("leader-address.conf", {"/usr/local/bin/leader-address": str(script)})
    (tmp_path / RUNLEADER).write_text(unit(RUNLEADER, tmp_path))
    (tmp_path / f"{RUNLEADER}.d").mkdir()
    (tmp_path / f"{RUNLEADER}.d" / "leader-address.conf").write_text(addition)
    run = subprocess.run(
        ["systemd-analyze", "verify", RUNLEADER],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    (tmp_path / f"{RUNLEADER}.d" / "leader-address.conf").write_text(f"{addition}Misspelt=yes\n")
    again = subprocess.run(
        ["systemd-analyze", "verify", RUNLEADER],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Misspelt" in again.stderr  # so it was read
    named = dict(re.findall(r'^Environment="(LEADER_JOBS_\w+)=(.*)"$', addition, re.MULTILINE))
    settings = Settings.load(environ=named, store="memory://")
    assert settings.on_elected == f"{script} take 10.0.0.100/24 eth0"
    assert settings.on_stepped_down == f"{script} drop 10.0.0.100/24 eth0"


def test_every_variable_is_a_setting() -> None:
    """And no file of the recipes names one that is not."""
    given = dict(
        line.split("=", 1)
        for line in (FILES / "environment").read_text().splitlines()
        if not line.startswith("#")
    )
    settings = Settings.load(environ=given, password="hush-hush")
    assert settings.grace + settings.hook_timeout < 60  # TimeoutStopSec


@pytest.mark.alone
@pytest.mark.etcd
def test_runleader_is_killed_and_stopped(
    tmp_path: Path, cluster: EtcdCluster, namespace: str, make_store: MakeStore
) -> None:
    """
    After kill -9 its lease of a minute is revoked long before it runs out, and systemd starts it again; its
    stop is a clean one. The password is a credential, and the hardening is that of the unit.
    """
    prepare(tmp_path, cluster, namespace)
    store = make_store(cluster.endpoints, user="leader-jobs", password="hush-hush")
    with box_with(RUNLEADER, unit(RUNLEADER, tmp_path)) as box:
        box.systemctl("start", RUNLEADER)
        led = box.await_state(RUNLEADER, ActiveState="active")
        assert led["Result"] == "success"
        heir = store.enrol("default", b"", TTL, deadline=CLOCK.now() + 5.0)
        await_status(box, RUNLEADER, "leads election 'default', term")
        standing = store.standing(heir, deadline=CLOCK.now() + 5.0)
        assert not standing.leads

        pid = box.main_pid(RUNLEADER)
        os.kill(pid, signal.SIGKILL)
        time_of_death(pid)
        store.wait(heir, standing, timeout=10.0)
        assert store.standing(heir, deadline=CLOCK.now() + 5.0).leads

        box.await_state(RUNLEADER, NRestarts="1", ActiveState="active")
        await_status(box, RUNLEADER, "stands by in election 'default'")
        box.systemctl("stop", RUNLEADER)
        ended = box.await_state(RUNLEADER, ActiveState="inactive")
        assert ended["Result"] == "success"
        assert [c.id for c in store.candidates("default", deadline=CLOCK.now() + 5)] == [heir.id]


@pytest.mark.alone
@pytest.mark.etcd
def test_a_leader_that_hangs_is_replaced(
    tmp_path: Path, cluster: EtcdCluster, namespace: str
) -> None:
    """A process that is not live is ended by systemd's watchdog, and started again."""
    prepare(tmp_path, cluster, namespace, HANGS)
    with box_with(RUNLEADER, unit(RUNLEADER, tmp_path, WatchdogSec="2")) as box:
        box.systemctl("start", RUNLEADER)
        first = box.show(RUNLEADER)["MainPID"]
        after = box.await_state(RUNLEADER, NRestarts="1", ActiveState="active", within=40.0)
        assert after["MainPID"] != first
        assert after["NRestarts"] == "1"
        box.systemctl("kill", "--signal=SIGKILL", RUNLEADER)


@pytest.mark.alone
@pytest.mark.etcd
def test_beat_is_ready_and_stopped(tmp_path: Path, cluster: EtcdCluster, namespace: str) -> None:
    """Beat tells systemd the same things."""
    prepare(tmp_path, cluster, namespace)
    with box_with(BEAT, unit(BEAT, tmp_path)) as box:
        box.systemctl("start", BEAT)
        assert box.show(BEAT)["ActiveState"] == "active"
        await_status(box, BEAT, "leads election 'default', term")
        box.systemctl("stop", BEAT)
        assert box.show(BEAT)["Result"] == "success"
