"""Fixtures: a database file with django-celery-beat's tables, in the place of Django's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from pytest_django import DjangoDbBlocker

from testsupport.django_beat_site.database import database_at

__all__: list[str] = []


@pytest.fixture(scope="session", name="tables")
def _tables(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> bytes:
    """Return a database that has all tables, and nothing in them."""
    path = tmp_path_factory.mktemp("tables") / "rows.sqlite3"
    with django_db_blocker.unblock(), database_at(path):
        call_command("migrate", verbosity=0)
    return path.read_bytes()


@pytest.fixture(name="patience")
def _patience() -> float:
    """Return for how long Django waits for a database that others hold, in seconds."""
    return 5.0


@pytest.fixture(name="database")
def _database(
    tmp_path: Path, tables: bytes, patience: float, django_db_blocker: DjangoDbBlocker
) -> Iterator[Path]:
    """Give the test a database file of its own, and return where it is."""
    path = tmp_path / "rows.sqlite3"
    path.write_bytes(tables)
    with django_db_blocker.unblock(), database_at(path, patience=patience):
        yield path
