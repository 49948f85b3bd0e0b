"""
Fixtures that run real PostgreSQL.

Where there is none, tests that ask for it are skipped; with ``REQUIRE_POSTGRES=1`` in the environment
they fail instead.
"""

import os
from collections.abc import Iterator

import pytest

from testsupport.postgres import Database, PostgresServer

__all__: list[str] = []


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """The PostgreSQL server that all tests share; use `postgres`, and leave it healthy."""
    _demand()
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres(shared_postgres: PostgresServer) -> Iterator[Database]:
    """An empty database of the test's own, in the shared server."""
    with shared_postgres.own_database() as database:
        yield database


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, which may be hurt."""
    _demand()
    with PostgresServer() as server:
        yield server


def _demand() -> None:
    if PostgresServer.binary() is None:
        reason = "no PostgreSQL: run scripts/fetch-postgres"
        (pytest.fail if os.environ.get("REQUIRE_POSTGRES") == "1" else pytest.skip)(reason)
