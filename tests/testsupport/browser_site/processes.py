"""The processes of the site: a web server, and nodes that stand in its election."""

import http.client
import os
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from leader_jobs.clock import SystemClock
from leader_jobs.config import ENVIRONMENT_PREFIX
from leader_jobs.proposals import Proposal
from leader_jobs.stores.base import Store
from testsupport.servers import Server

__all__ = ["NAME", "PASSWORD", "Node", "Website"]

NAME: Final = "ada"
PASSWORD: Final = "enchantress"
_TESTS: Final = Path(__file__).parents[2]
_CLOCK: Final = SystemClock()
_TTL: Final = "3"
_PREPARE: Final = f"""
import django
django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
call_command("migrate", verbosity=0)
user = User.objects.create_user({NAME!r}, password={PASSWORD!r}, is_staff=True)
user.user_permissions.set(Permission.objects.filter(content_type__app_label="leader_jobs"))
"""


class Website(Server):
    """
    The pages, on a WSGI server; one account, `NAME`, may look at elections and operate them.

    Args:
        store: the URL of the store.
        namespace: the prefix in a shared one.
    """

    def __init__(self, store: str, namespace: str = "leader-jobs") -> None:
        super().__init__()
        self._store = store
        self._namespace = namespace

    @property
    def url(self) -> str:
        """Where its admin's elections are."""
        return f"http://127.0.0.1:{self.port}/admin/leader_jobs/election/"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes, and those of its nodes, find in their environment."""
        ours = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
        return ours | {
            "BROWSER_SITE_DATABASE": str(self.folder / "site.sqlite3"),
            "BROWSER_SITE_PORT": str(self.port),
            "DJANGO_SETTINGS_MODULE": "testsupport.browser_site.settings",
            "LEADER_JOBS_NAMESPACE": self._namespace,
            "LEADER_JOBS_STORE": self._store,
            "LEADER_JOBS_TTL": _TTL,
            "PYTHONPATH": str(_TESTS),
        }

    def _prepare(self) -> None:
        subprocess.run([sys.executable, "-c", _PREPARE], env=self.environment, check=True)

    def _command(self) -> tuple[list[str], dict[str, str]]:
        options = ["--bind", f"127.0.0.1:{self.port}", "--threads", "4", "--no-control-socket"]
        module = "testsupport.browser_site.wsgi:application"
        return [sys.executable, "-m", "gunicorn", *options, module], self.environment

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        with closing(connection), suppress(OSError):
            connection.request("GET", "/favicon.ico")
            return connection.getresponse().status == http.HTTPStatus.NO_CONTENT
        return False

    def kill(self) -> None:
        """End all its processes at once: workers would outlive their arbiter for a while."""
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        super().kill()


class Node(Server):
    """
    A ``manage.py runleader`` of the site.

    Args:
        name: its label.
        site: the site.
        store: the site's store, to see when it stands.
    """

    def __init__(self, name: str, site: Website, store: Store) -> None:
        super().__init__()
        self.name = name
        self._site = site
        self._store = store

    def _prepare(self) -> None:
        """Nothing is to be done."""

    def _command(self) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "django", "runleader", "--node", self.name]
        return command, self._site.environment

    def _answers(self) -> bool:
        entrants = self._store.candidates("default", deadline=_CLOCK.now() + 5.0)
        proposals = (Proposal.decode(entrant.proposal) for entrant in entrants)
        return any(p is not None and p.pid == self.process.pid for p in proposals)
