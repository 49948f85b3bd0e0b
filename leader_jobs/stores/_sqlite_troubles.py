"""
What can go wrong with the embedded store's files, in words that say what to do about it.

`StoreUnavailable` is for what may pass by itself or by making room, `StoreUnusable` for what will not.
See sqlite.org/rescode.html for the codes.
"""

import errno
import sqlite3
from pathlib import Path
from typing import Final

from leader_jobs.exceptions import StoreError, StoreUnavailable, StoreUnusable

__all__ = ["explain", "explain_system", "is_busy"]


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process was in the way for too long, and nothing else is wrong."""
    return _primary(error) == sqlite3.SQLITE_BUSY


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


_BUSY: Final = (
    "another process kept it locked until the deadline; try again, and if a process of this store "
    "is stopped (SIGSTOP, a debugger) let it go on or kill it"
)
_NO_ACCESS: Final = (
    "it can not be opened or written; give this user write access to its folder and to every file "
    "that begins with its name"
)
_BROKEN: Final = (
    "it is not a sound database; stop every node, then restore it from a backup or move it away "
    "together with its -wal and -shm files"
)
_TROUBLES: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreUnavailable, _BUSY),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, _BUSY),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailable, _BUSY),
    sqlite3.SQLITE_FULL: (StoreUnavailable, "its disk is full; make room on it"),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "its disk could not be read or written; make room on it and look into the kernel's log",
    ),
    sqlite3.SQLITE_NOMEM: (StoreUnavailable, "there was no memory for it; free some"),
    sqlite3.SQLITE_PERM: (StoreUnusable, _NO_ACCESS),
    sqlite3.SQLITE_READONLY: (StoreUnusable, _NO_ACCESS),
    sqlite3.SQLITE_CANTOPEN: (StoreUnusable, _NO_ACCESS),
    sqlite3.SQLITE_CORRUPT: (StoreUnusable, _BROKEN),
    sqlite3.SQLITE_NOTADB: (StoreUnusable, _BROKEN),
}


_LASTING: Final = frozenset(
    {errno.EACCES, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """Return what to raise when SQLite, working on the database *path*, failed with *error*."""
    kind, remedy = _TROUBLES.get(_primary(error), (StoreUnusable, _BROKEN))
    return kind(f"store {path}: {remedy} ({error})")


def explain_system(error: OSError, path: Path) -> StoreError:
    """Return what to raise when the system refused a file of the store *path* with *error*."""
    if error.errno in _LASTING:
        msg = (
            f"store {path}: {error.filename} can not be used ({error.strerror}); run every process "
            "of this store as one user that may write there"
        )
        return StoreUnusable(msg)
    return StoreUnavailable(f"store {path}: {error.strerror}; make room for it and try again")
