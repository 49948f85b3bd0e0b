"""
System checks: what ``manage.py check`` says about settings and jobs.

Nothing is opened, started or connected to here; `django_leader_jobs.deploy_checks` has what only
``check --deploy`` looks at. Every id has a section on the page ``checks`` of the documentation.
"""

import ipaddress
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.core import checks

from django_leader_jobs.conf import SETTING, load_settings
from django_leader_jobs.discovery import discover_jobs
from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores.factory import sqlite_path

__all__ = [
    "Apps",
    "check_jobs",
    "check_settings",
    "endpoints_of",
    "error",
    "host_of",
    "is_local",
    "network_disk_of",
    "warning",
]

_PAGE: Final = "docs/checks.md"
Apps = Sequence[AppConfig] | None


def error(number: int, message: str, hint: str) -> checks.Error:
    """Return an error, with where to read on."""
    return checks.Error(
        message, hint=_hint(hint, f"E{number:03d}"), id=f"leader_jobs.E{number:03d}"
    )


def warning(number: int, message: str, hint: str) -> checks.Warning:
    """Return a warning, with where to read on."""
    id_ = f"W{number:03d}"
    return checks.Warning(message, hint=_hint(hint, id_), id=f"leader_jobs.{id_}")


def _hint(hint: str, number: str) -> str:
    return f"{hint} See {_PAGE}#leader-jobs-{number.lower()}"


def check_settings(app_configs: Apps, **_kwargs: Any) -> list[checks.CheckMessage]:
    """E001: the settings make no sense; E003 to E005, W001, W003: they ask for what can not be had."""
    try:
        settings = load_settings()
        path = sqlite_path(settings.store)
    except ConfigurationError as trouble:
        return [error(1, str(trouble), f"Change {SETTING} in the settings, or the environment.")]
    found = [*_check_extras(settings), *_check_kind(settings)]
    disk = network_disk_of(path)
    if disk is not None:
        message = f"{SETTING}['STORE'] is on a network file system ({disk}): hosts do not see each other's locks."
        found.append(error(5, message, "Put it on a local disk, or use etcd:// for several hosts."))
    return found


def check_jobs(app_configs: Apps, **_kwargs: Any) -> list[checks.CheckMessage]:
    """E002: a job is declared wrongly, or twice."""
    try:
        discover_jobs()
    except ConfigurationError as trouble:
        return [error(2, str(trouble), "Change the job's @leader_only.")]
    return []


def _check_extras(settings: Settings) -> Iterator[checks.CheckMessage]:
    """Look at what runs along with a node: hooks and metrics."""
    for make, number, hint in (
        (_hooks, 3, "Install the command, or write its full path."),
        (_metrics, 4, 'Run pip install "leader-jobs[metrics]", or set METRICS to False.'),
    ):
        try:
            make(settings)
        except ConfigurationError as trouble:
            yield error(number, str(trouble), hint)


def _hooks(settings: Settings) -> None:
    if settings.on_elected or settings.on_stepped_down:
        from leader_jobs.hooks import Hooks

        Hooks.of(settings)


def _metrics(settings: Settings) -> None:
    if settings.metrics:
        from leader_jobs.metrics import metrics_of_process

        metrics_of_process()


def _check_kind(settings: Settings) -> Iterator[checks.CheckMessage]:
    """Look at the kind of store that was chosen."""
    if settings.store.startswith("memory:"):
        yield warning(
            1,
            f"{SETTING}['STORE'] is {settings.store!r}: every process elects itself.",
            "Use sqlite:////… for processes of one host, etcd://… for more; keep memory for tests.",
        )
    far = [host for host in endpoints_of(settings.store) if not is_local(host)]
    if settings.plain and settings.user is not None and far:
        scheme = settings.store.partition("://")[0]
        yield warning(
            3,
            f"{SETTING} has a password, and STORE begins with {scheme}://: it goes to {', '.join(far)} "
            "as plain text.",
            f"Write {scheme.replace('etcd', 'etcds')}:// and have the servers use TLS.",
        )


def network_disk_of(path: Path | None) -> str | None:
    """Return the network file system that an embedded store would be on, or None."""
    if path is None:
        return None
    from leader_jobs.stores.sqlite_checkup import network_disk

    return network_disk(path)


def endpoints_of(store: str) -> list[str]:
    """Return the hosts that the URL of an etcd store names; none for another kind of store."""
    scheme, _, rest = store.partition("://")
    if not scheme.startswith("etcd"):
        return []
    return [host_of(f"//{endpoint}") for endpoint in rest.split(",")]


def host_of(url: str) -> str:
    """Return the host in *url*; empty if there is none to be found."""
    with suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


def is_local(host: str) -> bool:
    """Whether *host* is this one: a socket's path, a name of this host's, or a loopback address."""
    if not host or host.startswith("/") or host in ("localhost", os.uname().nodename.lower()):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    return False
