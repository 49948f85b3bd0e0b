"""
The register of the embedded store, and the counter its versions come from.

One counter serves all elections of a database, so a record that was removed and made anew never has a
version it had before.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import takewhile

from leader_jobs.exceptions import Conflict
from leader_jobs.stores.base import ABSENT, Record, Write

__all__ = ["advance", "apply", "records", "revision_of"]


def revision_of(connection: sqlite3.Connection) -> int:
    """Return the store's revision: the version of the last commit, or of a later enrolment."""
    (revision,) = connection.execute("SELECT revision FROM counter").fetchone()
    return int(revision)


def advance(connection: sqlite3.Connection) -> int:
    """Move the store's revision on by one and return it."""
    connection.execute("UPDATE counter SET revision = revision + 1")
    return revision_of(connection)


def records(connection: sqlite3.Connection, election: str, prefix: str) -> Mapping[str, Record]:
    """Return the election's records whose keys begin with *prefix*, whatever characters it has."""
    found = connection.execute(
        "SELECT key, value, version FROM register WHERE election = ? AND key >= ? ORDER BY key",
        (election, prefix),
    )
    alike = takewhile(lambda row: row[0].startswith(prefix), found)
    return {key: Record(value, version) for key, value, version in alike}


def apply(connection: sqlite3.Connection, election: str, writes: Sequence[Write]) -> int:
    """
    Check the expected versions and write the batch, within the write transaction of the caller.

    Returns:
        The version that every written record now has.

    Raises:
        Conflict: naming every record that is not at its expected version.
    """

    def version(key: str) -> int:
        found = connection.execute(
            "SELECT version FROM register WHERE election = ? AND key = ?", (election, key)
        ).fetchone()
        return ABSENT if found is None else int(found[0])

    changed = tuple(w.key for w in writes if w.expect is not None and version(w.key) != w.expect)
    if changed:
        raise Conflict(changed)
    revision = advance(connection)
    connection.executemany(
        "DELETE FROM register WHERE election = ? AND key = ?",
        [(election, w.key) for w in writes if w.value is None],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO register (election, key, value, version) VALUES (?, ?, ?, ?)",
        [(election, w.key, w.value, revision) for w in writes if w.value is not None],
    )
    return revision
