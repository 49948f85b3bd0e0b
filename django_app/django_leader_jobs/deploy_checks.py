"""
System checks of a deployment: what ``manage.py check --deploy`` says besides.

It asks the store, which takes two seconds at most. The files of an embedded store are looked at, not
opened: whoever deploys may be another user than the nodes.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from django.conf import settings as django_settings
from django.core import checks

from django_leader_jobs.checks import Apps, host_of, is_local, network_disk_of, warning
from django_leader_jobs.conf import SETTING, default_store, load_settings
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError, StoreError
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store, sqlite_path

__all__ = ["check_deployment", "pace_of"]

_WITHIN: Final = 2.0
#: The first call connects and logs in, which is not what a renewal costs.
_CALLS: Final = 3
#: A renewal is tried up to three times.
_ROUND_TRIPS: Final = 3
#: With a ttl from here on, single calls get all the time they ever get.
_PATIENT_TTL: Final = 6.0


def check_deployment(app_configs: Apps, **_kwargs: Any) -> list[checks.CheckMessage]:
    """W002, W004 to W006: what is risky where this is run for real."""
    try:
        settings = load_settings()
        path = sqlite_path(settings.store)
    except ConfigurationError:
        return []  # E001 says it
    found = [*_check_probes(settings)]
    if path is None:
        return [*found, *_check_contact(settings)]
    found.extend(_check_hosts(by_default=settings.store == default_store()))
    if network_disk_of(path) is None:  # else E005 says it
        found.extend(_check_place(path))
    return found


def _check_probes(settings: Settings) -> Iterator[checks.CheckMessage]:
    if settings.probe_port is not None and not is_local(settings.probe_host):
        yield warning(
            4,
            f"{SETTING}['PROBE_HOST'] is {settings.probe_host!r}: whoever reaches port "
            f"{settings.probe_port} reads the names of nodes and elections there.",
            "Keep 127.0.0.1, or see to it that only your network reaches the port.",
        )


def _check_hosts(*, by_default: bool) -> Iterator[checks.CheckMessage]:
    """Warn of an embedded store where other services of the project are on other hosts."""
    elsewhere = sorted({host for host in _hosts() if not is_local(host)})
    if elsewhere:
        which = (
            f"{SETTING} names no store, so it is a file"
            if by_default
            else f"{SETTING}['STORE'] is a file"
        )
        yield warning(
            2,
            f"{which}, which elects a leader on each host by itself; this project also uses "
            f"{', '.join(elsewhere)}.",
            "Use etcd://… if nodes run on several hosts; silence this if all of them run on one.",
        )


def _hosts() -> Iterator[str]:
    """Yield the hosts of the project's databases and of Celery's broker."""
    for database in getattr(django_settings, "DATABASES", {}).values():
        yield str(database.get("HOST") or "")
    for name in ("CELERY_BROKER_URL", "BROKER_URL"):
        given = getattr(django_settings, name, None) or ()
        urls = given.split(";") if isinstance(given, str) else given
        for url in urls:
            yield host_of(str(url))


def _check_place(path: Path) -> Iterator[checks.CheckMessage]:
    from leader_jobs.stores.sqlite_checkup import check_place

    try:
        check_place(path)
    except StoreError as trouble:
        yield _unusable(trouble)


def _check_contact(settings: Settings) -> Iterator[checks.CheckMessage]:
    """Ask the store a few times, for two seconds at most."""
    if settings.store.startswith("memory:"):
        return
    clock = SystemClock()
    try:
        with closing(open_store(replace(settings, ttl=max(settings.ttl, _PATIENT_TTL)))) as store:
            took = pace_of(store, settings.election, clock=clock)
    except (ConfigurationError, StoreError) as trouble:
        yield _unusable(trouble)
        return
    if _ROUND_TRIPS * took > settings.timing.renew_every:
        least = _ROUND_TRIPS * took * settings.ttl / settings.timing.renew_every
        yield warning(
            5,
            f"{SETTING}['TTL'] is {settings.ttl:g}, and the store takes {took:.2f} s to answer: three "
            f"answers do not fit between two renewals, {settings.timing.renew_every:.2g} s apart.",
            f"Raise TTL to {least:.0f} or more, or bring nodes and store nearer to each other.",
        )


def pace_of(store: Store, election: str, *, clock: Clock) -> float:
    """
    Return how many seconds the store takes to answer, at its best of a few times.

    Raises:
        StoreError: it does not answer within two seconds.
    """
    limit = clock.now() + _WITHIN
    times = []
    for _ in range(_CALLS):
        began = clock.now()
        store.candidates(election, deadline=limit)
        times.append(clock.now() - began)
        if limit - clock.now() < max(times):  # one more might not come in time
            break
    return min(times)


def _unusable(trouble: Exception) -> checks.CheckMessage:
    return warning(6, f"The store can not be used: {trouble}.", "See to it before nodes start.")
