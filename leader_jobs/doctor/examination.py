"""The examination, from the settings to the jobs."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from leader_jobs.clock import Clock
from leader_jobs.config import Settings, redact
from leader_jobs.doctor.clocks import listening
from leader_jobs.doctor.elections import examine_election
from leader_jobs.doctor.findings import Finding, fine, problem, refused, warning
from leader_jobs.durations import how_long
from leader_jobs.exceptions import ConfigurationError, StoreError
from leader_jobs.observatory import Observatory
from leader_jobs.stores.base import Store, Write
from leader_jobs.stores.factory import open_store, sqlite_path

__all__ = ["examine"]

#: The record that is written and removed again.
_TRIAL = "doctor/trial"
_OTHERS = 0o077


def examine(settings: Settings, *, clock: Clock, timeout: float = 5.0) -> Iterator[Finding]:
    """
    Yield all findings, as they are made; the examination takes some seconds.

    Args:
        settings: what to examine.
        clock: where moments and instants come from.
        timeout: seconds each call of the store may take.

    Returns:
        The findings. After one that is fatal there are no others.
    """
    yield from _settings(settings)
    path = sqlite_path(settings.store)
    if settings.store.startswith("memory:"):
        yield problem(
            "store",
            "the store is the memory of each process: every process elects itself",
            "use sqlite:////… for processes of one host, etcd://… for more",
            fatal=True,
        )
        return
    findings = (
        _cluster(settings, clock, timeout)
        if path is None
        else _embedded(settings, path, clock, timeout)
    )
    try:
        yield from findings
    except ConfigurationError as error:  # a file, say, that can not be read
        yield refused("settings", error, fatal=True)


def _settings(settings: Settings) -> Iterator[Finding]:
    where = (
        f"store {redact(settings.store)}, election {settings.election!r}, ttl {settings.ttl:g} s"
    )
    yield fine("settings", where)
    if settings.user is not None and settings.plain:
        yield warning(
            "settings",
            "the password goes over the network in plain text",
            "use etcds://, and TLS on the servers",
        )
    file = settings.password_file
    if file is not None and file.exists() and file.stat().st_mode & _OTHERS:
        yield warning(
            "settings",
            f"others than its owner may read the password in {file}",
            f"chmod 600 {file}",
        )


def _cluster(settings: Settings, clock: Clock, timeout: float) -> Iterator[Finding]:
    from leader_jobs.doctor.cluster import examine_cluster  # loads the client of etcd

    with closing(open_store(settings, clock=clock)) as store:
        with listening(store, settings.election, clock=clock) as heard:
            for finding in examine_cluster(settings, clock=clock, timeout=timeout):
                yield finding
                if finding.fatal:
                    return
        yield from heard.findings()
        if not heard.bounds:
            yield fine(
                "clock",
                "nothing came due while this looked: the nodes' own clocks were not compared",
            )
        yield from _election(store, settings, clock, timeout)


def _embedded(settings: Settings, path: Path, clock: Clock, timeout: float) -> Iterator[Finding]:
    from leader_jobs.doctor.files import examine_files

    for finding in examine_files(path):
        yield finding
        if finding.fatal:
            return
    with closing(open_store(settings, clock=clock)) as store:
        trial = _trial(store, settings, clock, timeout)
        yield trial
        if not trial.fatal:
            yield from _election(store, settings, clock, timeout)


def _trial(store: Store, settings: Settings, clock: Clock, timeout: float) -> Finding:
    """Write a record and remove it again."""
    began = clock.now()
    try:
        for value in (b"{}", None):
            write = Write(_TRIAL, value)
            deadline = clock.now() + timeout
            store.commit(settings.election, [write], candidacy=None, deadline=deadline)
    except StoreError as error:
        return refused("store", error, fatal=True)
    return fine("store", f"a write takes {how_long((clock.now() - began) / 2)}")


def _election(store: Store, settings: Settings, clock: Clock, timeout: float) -> Iterator[Finding]:
    observatory = Observatory(store, clock=clock, timeout=timeout)
    try:
        view = observatory.election(settings.election, recent=0)
    except StoreError as error:
        yield problem("election", str(error), "see above")
        return
    yield from examine_election(view)
