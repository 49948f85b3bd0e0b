"""
What the admin pages take to answer: 20 elections with 50 jobs each and 100 occurrences of each job.

Django's test client asks, so that what is measured is the site's own work, the look at the store
included. Cold is a web process that looks for the first time. Run as ``python -m benchmarks.admin_pages``
with ``tests`` on the path.
"""

import os
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path

import django
from django.core.management import call_command
from django.test import Client, override_settings
from django.test.utils import setup_test_environment

from benchmarks.figures import machine, row
from benchmarks.filled import change, fill
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings, application
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from testsupport.etcd import EtcdCluster

_CLOCK = SystemClock()
_TARGET = "≤ 200 ms"
_PLACE = "/admin/leader_jobs/election/"


def _client() -> Client:
    """Return the browser of somebody who may do everything, on a site in memory."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "testsupport.django_settings"
    django.setup()
    setup_test_environment()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    client = Client()
    client.force_login(User.objects.create_superuser("ada", password="enchantress"))  # noqa: S106
    return client


def _forget() -> None:
    """Have the next look be the first one."""
    application.configure(application.load)


def _measure(where: str, client: Client, store: Store, times: int) -> None:
    name = fill(store, clock=_CLOCK)[0]
    pages = {
        "list": "",
        "list, JSON": "report.json",
        "election": f"{name}/change/",
        "election, what is fetched each second": f"{name}/live/",
        "election, JSON": f"{name}/report.json",
        "job": f"{name}/jobs/job001/",
    }
    for cold in (True, False):
        for what, page in pages.items():
            took, size = [], 0
            for _ in range(times):
                if cold:
                    _forget()
                else:
                    change(store, name, 10, clock=_CLOCK)
                began = _CLOCK.now()
                response = client.get(_PLACE + page, headers={"Accept-Encoding": "gzip"})
                took.append((_CLOCK.now() - began) * 1000)
                assert response.status_code == 200, response
                size = len(response.content)
            label = f"{where}, {what} ({size / 1000:.0f} kB){', cold' if cold else ''}"
            print(row(label, took, "ms", _TARGET), flush=True)


def main() -> None:
    """Print the table."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    client = _client()
    print(machine())
    print("| pages, 20 elections × 50 jobs × 100 occurrences | n | p50 | p99 | max | target |")  # noqa: RUF001
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/store.sqlite3"
        store = open_store(Settings(store=url), clock=_CLOCK)
        with closing(store), override_settings(LEADER_JOBS={"STORE": url}):
            _measure("embedded store", client, store, times)
    with EtcdCluster(heartbeat=100, election=1000) as cluster:
        namespace = uuid.uuid4().hex
        store = open_store(Settings(store=cluster.url, namespace=namespace), clock=_CLOCK)
        given = {"STORE": cluster.url, "NAMESPACE": namespace}
        with closing(store), override_settings(LEADER_JOBS=given):
            _measure("etcd", client, store, times)


if __name__ == "__main__":
    main()
