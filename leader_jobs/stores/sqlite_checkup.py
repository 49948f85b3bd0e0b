"""
Facts about the files of an embedded store, for a doctor: where they lie, whose they are, what is left over.

The database itself is looked at but never opened here: see `check_location`.
"""

import fcntl
import os
import pwd
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from leader_jobs.stores._sqlite_files import (
    LOCK_SUFFIX,
    check_location,
    file_system,
    is_held,
    network_file_system_of,
)

__all__ = ["Files", "Owned", "check_place", "look_at_files", "network_disk", "user_name"]


@dataclass(frozen=True, slots=True)
class Owned:
    """A file of the store and the id of the user it belongs to."""

    path: Path
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """
    What there is to see.

    Attributes:
        kind: the type of the file system, as the kernel names it; empty if that is not known.
        free: bytes that are free on it.
        owned: the files of the store and their owners.
        log: bytes of the write-ahead log.
        left: how many lock files nobody holds: of processes that were killed.
        locks: whether a lock that one holds is seen by another who opens the file.
    """

    kind: str
    free: int
    owned: tuple[Owned, ...]
    log: int
    left: int
    locks: bool


def check_place(path: Path) -> None:
    """Raise `StoreUnusable` if the database can not work at *path*; see `check_location`."""
    check_location(path.resolve())


def network_disk(path: Path) -> str | None:
    """Say which network file system the database *path* would be on, if any; nothing is opened."""
    return network_file_system_of(path.resolve())


def look_at_files(path: Path) -> Files:
    """
    Look at the store in the database *path*.

    Raises:
        OSError: something can not be looked at.
    """
    path = path.resolve()
    log = path.with_name(f"{path.name}-wal")
    folder = path.with_name(f"{path.name}-candidates")
    return Files(
        kind=file_system(path),
        free=shutil.disk_usage(path.parent).free,
        owned=tuple(Owned(one, one.stat().st_uid) for one in _belonging(path) if one.exists()),
        log=log.stat().st_size if log.exists() else 0,
        left=sum(not is_held(lock) for lock in folder.glob(f"*{LOCK_SUFFIX}")),
        locks=_locks_hold(path.parent),
    )


def user_name(uid: int) -> str:
    """Return the name of a user, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _belonging(path: Path) -> Iterator[Path]:
    yield path
    for ending in ("-wal", "-shm", "-candidates"):
        yield path.with_name(path.name + ending)


def _locks_hold(folder: Path) -> bool:
    """Lock a file of our own in *folder*, and see whether that shows."""
    file = folder / f".leader-jobs-doctor-{secrets.token_hex(8)}"
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return is_held(file)
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(fd)
