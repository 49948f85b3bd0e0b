"""Fixtures of tests of the adapters: a shop with a guarded Celery task, schedulers on a store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import signals

from leader_jobs import leader_only
from leader_jobs.config import application
from testsupport.apscheduler_rig import Rig
from testsupport.guarded_shop import Shop


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    """Have no test go by the settings of another one's application."""
    application.configure(None)
    yield
    application.configure(None)


@pytest.fixture(name="shop")
def _shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.store.restore()
    signals.worker_process_shutdown.send(sender=None, pid=0, exitcode=0)
    application.configure(None)
    shop.app.close()


@pytest.fixture(name="report")
def _report(shop: Shop) -> Any:
    """Return a guarded task."""

    @shop.task(name="report")
    @leader_only
    def report(copies: int = 1) -> int:
        shop.see()
        return 2 * copies

    return report


@pytest.fixture(name="rig")
def _rig(tmp_path: Path) -> Iterator[Rig]:
    """Return schedulers on a file."""
    with Rig.on(f"sqlite:///{tmp_path}/ledger.sqlite3") as rig:
        yield rig


@pytest.fixture(name="memory")
def _memory(tmp_path: Path) -> Iterator[Rig]:
    """Return schedulers on a store that fails on demand."""
    with Rig.on(f"memory://{tmp_path.name}") as rig:
        yield rig
        rig.memory.restore()
