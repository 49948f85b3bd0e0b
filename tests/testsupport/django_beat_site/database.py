"""A database file of a test's own, in the place of the one that the settings name."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from django.db import connections

__all__ = ["contents", "database_at", "locked"]


@contextmanager
def database_at(path: Path, *, patience: float = 5.0) -> Iterator[Path]:
    """
    Have Django's default database be the file *path* during the block.

    Args:
        path: the file; it need not exist.
        patience: seconds to wait for others that hold the database.
    """
    former = connections["default"]
    settings = former.settings_dict  # all threads share it
    given = settings["NAME"], settings["OPTIONS"]
    del connections["default"]
    settings.update(NAME=str(path), OPTIONS={"timeout": patience})
    try:
        yield path
    finally:
        connections["default"].close()
        settings["NAME"], settings["OPTIONS"] = given
        connections["default"] = former


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let nobody else read or write the database during the block."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def contents(path: Path) -> str:
    """Return everything that is in the database, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump())
