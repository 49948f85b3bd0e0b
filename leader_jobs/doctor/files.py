"""How the embedded store is: its file system, its owner, its room, what is left over."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from leader_jobs.doctor.findings import Finding, fine, problem, warning
from leader_jobs.exceptions import StoreUnusable
from leader_jobs.stores.sqlite_checkup import Files, check_place, look_at_files, user_name

__all__ = ["examine_files", "judge"]

_MIB: Final = 2**20
#: Bytes free below which the store is in danger, and below which it is about to stop.
_LITTLE: Final = 100 * _MIB
_TOO_LITTLE: Final = 5 * _MIB
#: Bytes of a write-ahead log that somebody keeps from being folded in.
_LONG_LOG: Final = 64 * _MIB
#: File systems whose files are gone with the host's power, or with the container.
_VOLATILE: Final = {
    "tmpfs": "memory: at a reboot the ledger is lost",
    "ramfs": "memory: at a reboot the ledger is lost",
    "overlay": "a layer of a container: the ledger is lost with the container, and other containers do "
    "not see it",
}


def examine_files(path: Path) -> Iterator[Finding]:
    """Yield what there is to say of the files; the last one is fatal if there is no store."""
    try:
        check_place(path)
    except StoreUnusable as error:
        what, _, remedy = str(error).rpartition("; ")
        yield problem("place", what, remedy, fatal=True)
        return
    if not path.exists():
        yield problem(
            "place",
            f"there is no store {path} yet, or the nodes have another one",
            "compare with the store of the nodes; the first one to stand makes it",
            fatal=True,
        )
        return
    try:
        files = look_at_files(path)
    except OSError as error:
        yield problem("place", f"{error.filename}: {error.strerror}", "run this as the nodes' user")
        return
    yield from judge(path, files)


def judge(path: Path, files: Files) -> Iterator[Finding]:
    """Yield what there is to say of the *files* that were found of the store in *path*."""
    yield _place(path, files)
    yield _locks(path, files)
    yield _owner(files)
    yield _room(path, files)
    yield from _leftovers(files)


def _place(path: Path, files: Files) -> Finding:
    where = _VOLATILE.get(files.kind)
    if where is not None:
        return warning(
            "place",
            f"the store {path} is on {files.kind}, which is {where}",
            "put it on a disk of the host, or a volume of the containers",
        )
    return fine("place", f"the store {path} is on a local file system ({files.kind or 'unknown'})")


def _locks(path: Path, files: Files) -> Finding:
    if files.locks:
        return fine("locks", "the kernel shows who lives: locks are seen")
    return problem(
        "locks",
        f"locks in {path.parent} are not seen by others, so a dead candidate can not be told from a living",
        "put the store on another file system, such as ext4 or xfs",
    )


def _owner(files: Files) -> Finding:
    owners = {owned.uid for owned in files.owned}
    us = os.geteuid()
    if len(owners) > 1:
        whose = ", ".join(f"{owned.path.name}: {user_name(owned.uid)}" for owned in files.owned)
        return problem(
            "owner",
            f"the store's files belong to several users ({whose})",
            "chown all of them to the user of the nodes, and run every node as that user",
        )
    (owner,) = owners
    if us not in (0, owner):
        return warning(
            "owner",
            f"the store belongs to {user_name(owner)}, and this is {user_name(us)}",
            "run every process of the store as one user",
        )
    return fine("owner", f"all of the store's files belong to {user_name(owner)}")


def _room(path: Path, files: Files) -> Finding:
    free = f"{files.free / _MIB:,.0f} MiB are free on the disk of {path.parent}"
    if files.free < _TOO_LITTLE:
        return problem("room", free, "make room: without any, nobody leads")
    if files.free < _LITTLE:
        return warning("room", free, "make room: without any, nobody leads")
    return fine("room", free)


def _leftovers(files: Files) -> Iterator[Finding]:
    if files.log > _LONG_LOG:
        yield warning(
            "log",
            f"the store's write-ahead log has {files.log / _MIB:,.0f} MiB: somebody keeps a reading open",
            "look for a process that is stopped, or a tool that has the database open",
        )
    if files.left:
        yield fine(
            "leftovers",
            f"{files.left} lock files of killed processes; the next one to stand removes them",
        )
