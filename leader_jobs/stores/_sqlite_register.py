"""
The register of the embedded store, and the counter its versions come from.

One counter serves all elections of a database, so a record that was removed and made anew never has a
version it had before.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Final

from leader_jobs.exceptions import Conflict
from leader_jobs.names import is_election
from leader_jobs.stores.base import ABSENT, Record, Write

__all__ = ["advance", "apply", "elections", "is_newer", "records", "revision_of"]

# From one name to the next through the indexes, so that it costs what the elections are, not the rows.
_ELECTIONS: Final = """
    WITH RECURSIVE found(name) AS (
        VALUES ('')
        UNION ALL
        SELECT (
            SELECT min(next) FROM (
                SELECT min(election) AS next FROM register WHERE election > name
                UNION ALL
                SELECT min(election) FROM candidates WHERE election > name))
        FROM found WHERE name IS NOT NULL)
    SELECT name FROM found WHERE name IS NOT NULL"""
# Greater than whatever a key goes on with after its prefix.
_END: Final = "\U0010ffff"


def revision_of(connection: sqlite3.Connection) -> int:
    """Return the store's revision: the version of the last commit, or of a later enrolment."""
    (revision,) = connection.execute("SELECT revision FROM counter").fetchone()
    return int(revision)


def advance(connection: sqlite3.Connection) -> int:
    """Move the store's revision on by one and return it."""
    connection.execute("UPDATE counter SET revision = revision + 1")
    return revision_of(connection)


def records(
    connection: sqlite3.Connection, election: str, prefixes: Iterable[str]
) -> Mapping[str, Record]:
    """Return the election's records whose keys begin with one of *prefixes*, whatever those are."""
    return {
        key: Record(value, version)
        for prefix in prefixes
        for key, value, version in _under(connection, election, prefix)
    }


def _under(
    connection: sqlite3.Connection, election: str, prefix: str
) -> Iterator[tuple[str, bytes, int]]:
    found = connection.execute(
        "SELECT key, value, version FROM register WHERE election = ? AND key >= ? ORDER BY key",
        (election, prefix),
    )
    return takewhile(lambda row: row[0].startswith(prefix), found)


def is_newer(connection: sqlite3.Connection, election: str, prefix: str, after: int) -> bool:
    """Whether a record whose key begins with *prefix* has a version greater than *after*."""
    found = connection.execute(
        "SELECT 1 FROM register"
        " WHERE election = ? AND key >= ? AND key < ? AND version > ? LIMIT 1",
        (election, prefix, prefix + _END, after),
    )
    return found.fetchone() is not None


def elections(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of the elections with a candidate's row, dead or alive, or a record."""
    return tuple(filter(is_election, (name for (name,) in connection.execute(_ELECTIONS))))


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
