"""
The embedded store's database: one connection, its transactions, its schema and what a fork does to it.

One connection serves all threads of a process, one after the other: SQLite lets one writer in at a
time anyway, and every transaction here lasts milliseconds.

A fork is the delicate part. SQLite keeps per process what it knows of each open file and its locks;
a child inherits that knowledge but not the locks, so a connection it opens to the same file believes
itself protected and is not: the parent, closing its own, deletes the write-ahead log under the child
and the child's commits are lost. Therefore the connection is closed *before* every fork, and parent
and child each open one when they next need it.
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreUnavailable, StoreUnusable
from leader_jobs.stores._sqlite_files import check_location
from leader_jobs.stores._sqlite_troubles import explain, explain_system, is_busy

__all__ = ["Database"]

_APPLICATION: Final = 0x4C4A4F42  # "LJOB": which program's file this is (PRAGMA application_id)
_SCHEMA: Final = 1
# AUTOINCREMENT never hands out a token twice, even after the row is gone.
_CREATE: Final = (
    """CREATE TABLE candidates (
        token INTEGER PRIMARY KEY AUTOINCREMENT,
        election TEXT NOT NULL,
        id TEXT NOT NULL UNIQUE,
        proposal BLOB NOT NULL,
        ttl REAL NOT NULL,
        expires REAL NOT NULL,
        boot TEXT NOT NULL)""",
    "CREATE INDEX succession ON candidates (election, token)",
    """CREATE TABLE register (
        election TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (election, key))""",
    "CREATE TABLE counter (revision INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (0)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_SCHEMA}",
)

_LONGEST_WAIT: Final = 86400.0
_FORK_PATIENCE: Final = 5.0
_RETRY: Final = 0.01


class Database:
    """
    A database file and this process's connection to it, which opens itself when needed.

    Args:
        path: the file, absolute and without symbolic links.
        clock: where moments come from.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path: Final = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._openings = 0
        _databases.add(self)

    @contextmanager
    def transaction(self, deadline: float, *, write: bool) -> Iterator[sqlite3.Connection]:
        """
        Run the block as one transaction: all of it, or nothing if it raises.

        Args:
            deadline: when to stop waiting for others, on the clock.
            write: True to exclude every other writer from the first statement on; otherwise the
                block sees one state of the database and may not write.

        Raises:
            StoreUnavailable: the outcome is unknown or the turn did not come by *deadline*.
            StoreUnusable: naming what to change.
        """
        with self._turn(deadline) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def mark(self, deadline: float) -> tuple[int, int, int]:
        """Return a value that stays the same until something in the database may have changed."""
        with self._turn(deadline) as connection:
            # data_version tells of the commits of all other connections, total_changes of ours.
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            return self._openings, version, connection.total_changes

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        with self._lock:
            self._discard()

    @contextmanager
    def _turn(self, deadline: float) -> Iterator[sqlite3.Connection]:
        left = min(deadline - self._clock.now(), _LONGEST_WAIT)
        lock = self._lock
        if left <= 0 or not lock.acquire(timeout=left):
            msg = f"store {self.path}: the deadline passed before its turn came; try again"
            raise StoreUnavailable(msg)
        try:
            yield self._connected(deadline)
        except sqlite3.Error as error:
            if not is_busy(error):
                self._discard()
            raise explain(error, self.path) from error
        except OSError as error:
            raise explain_system(error, self.path) from error
        finally:
            lock.release()

    def _connected(self, deadline: float) -> sqlite3.Connection:
        # Somebody may have removed or replaced the file: two files would be two elections.
        if self._connection is not None and self._file != _identity(self.path):
            self._discard()
        if self._connection is None:
            self._connection = self._open(deadline)
            self._file = _identity(self.path)
            self._openings += 1
        self._connection.execute(f"PRAGMA busy_timeout = {self._patience(deadline)}")
        return self._connection

    def _patience(self, deadline: float) -> int:
        left = min(deadline - self._clock.now(), _LONGEST_WAIT)
        return max(1, int(left * 1000))

    def _open(self, deadline: float) -> sqlite3.Connection:
        check_location(self.path)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout = {self._patience(deadline)}")
            # In WAL mode less than FULL may lose the last commits when the power fails.
            connection.execute("PRAGMA synchronous = FULL")
            if not _is_ours(connection, self.path):
                self._create(connection, deadline)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, connection: sqlite3.Connection, deadline: float) -> None:
        # Where another process is about to write, SQLite fails here at once whatever its timeout.
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if not is_busy(error) or self._clock.now() >= deadline:
                    raise
                threading.Event().wait(_RETRY)
        connection.execute("BEGIN IMMEDIATE")
        if not _is_ours(connection, self.path):  # nobody was faster
            for statement in _CREATE:
                connection.execute(statement)
        connection.execute("COMMIT")

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def before_fork(self) -> bool:
        """
        Close the connection and keep every thread from opening it until the fork is done.

        Returns:
            False if the turn did not come in good time: a fork must not hang on a hanging disk, nor
            on a signal handler that forks in the middle of a transaction.
        """
        if not self._lock.acquire(timeout=_FORK_PATIENCE):
            return False
        self._discard()
        return True

    def after_fork_in_parent(self) -> None:
        """Let the threads in again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew; a connection that could not be closed in time is left alone for ever."""
        self._lock = threading.Lock()
        if self._connection is not None:
            _untouchable.append(self._connection)
            self._connection = None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the database has our schema; False if it is still empty; refuse any other."""
    application, schema, tables = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if application == _APPLICATION and schema == _SCHEMA:
        return True
    if application == _APPLICATION:
        msg = (
            f"store {path} has schema {schema} and this version of leader-jobs knows {_SCHEMA}; "
            "upgrade leader-jobs on this node"
        )
        raise StoreUnusable(msg)
    if application or schema or tables:
        msg = f"store {path} is the database of another program; give the store a file of its own"
        raise StoreUnusable(msg)
    return False


_databases: Final[weakref.WeakSet[Database]] = weakref.WeakSet()
_forking: Final = threading.local()
_untouchable: Final[list[sqlite3.Connection]] = []


def _before_fork() -> None:
    # In one order, so that two threads that fork at once do not wait for each other.
    _forking.ready = [d for d in sorted(_databases, key=id) if d.before_fork()]


def _after_fork_in_parent() -> None:
    for database in _forking.ready:
        database.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database.after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
