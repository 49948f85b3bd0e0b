"""The guard of leases, as far as it needs no etcd: what it tells, and what becomes of it without a guardian."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.standing import place_of
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_connect import Access
from leader_jobs.stores._etcd_guard import Guard, introduce
from leader_jobs.stores._etcd_login import Credentials, parse_endpoints
from leader_jobs.stores.memory import MemoryStore
from testsupport.processes import is_alive, time_of_death

ACCESS = Access(
    endpoints=parse_endpoints(["127.0.0.1:1"]), credentials=Credentials("app", "hush-hush")
)
REQUEST = [wire.REVOKE, json.dumps(wire.lease(7))]


@pytest.fixture
def guard() -> Iterator[Guard]:
    """A guard of leases at a place where no etcd is."""
    guard = Guard(lambda: introduce(ACCESS, token="known"), clock=SystemClock())
    yield guard
    for lease in ("7", "8"):
        guard.release(lease)


def test_one_guardian_serves_all_leases_and_ends_with_the_last(guard: Guard) -> None:
    """It is there as long as there is something to guard."""
    pids = [guard.pid]
    for lease in ("7", "8"):
        guard.guard(lease, REQUEST, patience=1.0)
        pids.append(guard.pid)
    for lease in ("7", "8"):
        guard.release(lease)
        pids.append(guard.pid)
    first = pids[1]
    assert first is not None
    assert pids == [None, first, first, first, None]
    assert not is_alive(first)


def test_no_secret_is_on_its_command_line(guard: Guard) -> None:
    """Everybody on the host may read that."""
    guard.guard("7", REQUEST, patience=1.0)
    told = json.dumps(introduce(ACCESS, token="known"))
    assert "hush-hush" in told
    assert b"hush-hush" not in Path(f"/proc/{guard.pid}/cmdline").read_bytes()
    assert b"known" not in Path(f"/proc/{guard.pid}/cmdline").read_bytes()


@pytest.mark.parametrize("missing", ["pidfd", "python"])
def test_a_host_without_what_it_takes(
    guard: Guard,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning says what that costs; nothing else happens."""
    caplog.set_level(logging.DEBUG)
    if missing == "pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(sys, "executable", "")
    guard.guard("7", REQUEST, patience=1.0)
    guard.guard("8", REQUEST, patience=1.0)
    guard.tend()

    assert guard.pid is None
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert "a takeover takes the ttl" in warning


def test_who_dies_again_and_again_is_not_replaced_all_the_time(guard: Guard) -> None:
    """Once at once, and then once a minute."""
    guard.guard("7", REQUEST, patience=1.0)
    for replaced in (True, False):
        pid = guard.pid
        assert pid is not None
        os.kill(pid, 9)
        time_of_death(pid)
        guard.tend()
        assert (guard.pid is not None) == replaced


@pytest.mark.parametrize(
    ("setting", "default", "expected"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_who_has_one(
    setting: bool | None, default: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting, or else what the entry point thinks right."""
    guarded: list[object] = []
    monkeypatch.setattr(MemoryStore, "guard", lambda _, candidacy: guarded.append(candidacy))
    clock = SystemClock()
    settings = Settings(store="memory://guard", guardian=setting)
    with closing(MemoryStore.named(f"guard-{setting}-{default}", clock)) as store:
        place = place_of(settings, "mail", store=store, clock=clock, guarded=default)
        with place.candidate:
            assert place.candidate.wait_for_term(5.0) is not None
    assert bool(guarded) == expected
