"""
The files of the embedded store: where its database may lie, and the lock file of each candidate.

A candidate holds an exclusive ``flock`` on a file of its own for as long as it stands. The kernel
drops that lock when the process dies, whatever killed it, so anybody who can take the lock knows
that the candidate is dead; a clock could only say so after its lease.

An ``flock`` belongs to the open file, which a fork duplicates: a child that kept its copy would keep
its dead parent alive in everybody's eyes. So every child closes its copies as soon as it is born;
closing, unlike unlocking, leaves the parent's lock in place.
"""

import fcntl
import os
import re
import secrets
import weakref
from pathlib import Path
from typing import Final

from leader_jobs.exceptions import StoreUnusable

__all__ = [
    "LOCK_SUFFIX",
    "LockFile",
    "boot_id",
    "check_location",
    "file_system",
    "is_held",
    "network_file_system",
    "network_file_system_of",
]

LOCK_SUFFIX: Final = ".lock"

# WAL needs memory shared by all users of the file, and flock must be seen by all of them; neither
# holds between two hosts (sqlite.org/wal.html, "all processes must be on the same host").
_NETWORK: Final = re.compile(
    "9p|acfs|afs|beegfs|ceph|cifs|coda|davfs|fhgfs|gfs2?|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2"
    "|orangefs|pvfs2|smb[23]|smbfs"
    r"|fuse\.(beegfs|ceph(fs)?|curlftpfs|davfs2?|gcsfuse|glusterfs|goofys|jfs|juicefs|lustre|moosefs"
    "|nfs|rclone|s3fs|smbnetfs|sshfs)"
)


def network_file_system(mountinfo: str, path: str) -> str | None:
    """
    Say which network file system *path* is on, if any.

    Args:
        mountinfo: the text of ``/proc/self/mountinfo`` (see ``man 5 proc_pid_mountinfo``).
        path: an absolute path without symbolic links.

    Returns:
        The type of the file system as the kernel names it, or None for a local one.
    """
    kind = _kind(mountinfo, path)
    return kind if _NETWORK.fullmatch(kind) else None


def network_file_system_of(path: Path) -> str | None:
    """Say which network file system *path*, absolute and without symbolic links, is on, if any."""
    return network_file_system(_mountinfo(), str(path))


def file_system(path: Path) -> str:
    """Return the type of the file system that *path* is on, as the kernel names it; empty: unknown."""
    return _kind(_mountinfo(), str(path))


def _kind(mountinfo: str, path: str) -> str:
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        covers = path == mount or path.startswith(mount.rstrip("/") + "/")
        # The later of two mounts on one folder hides the earlier one.
        if covers and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


def check_location(path: Path) -> None:
    """
    Refuse a place where the database can not work.

    Args:
        path: the database, absolute and without symbolic links. It is looked at but never opened:
            closing any descriptor of it would drop the locks SQLite holds on it in this process
            (sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        StoreUnusable: naming the path, what is wrong with it and what to do.
    """
    folder = path.parent
    if not folder.is_dir():
        msg = f"store {path}: there is no folder {folder}; create it or change the store's path"
        raise StoreUnusable(msg)
    if path.is_dir():
        msg = f"store {path} is a folder; name a file in it, such as {path}/leader.sqlite3"
        raise StoreUnusable(msg)
    kind = network_file_system_of(path)
    if kind is not None:
        msg = (
            f"store {path} is on a network file system ({kind}), where hosts do not see each other's "
            "locks; put it on a local disk, or use an etcd:// store for several hosts"
        )
        raise StoreUnusable(msg)
    blocked = next((p for p in (folder, path) if p.exists() and not os.access(p, os.W_OK)), None)
    if blocked is not None:
        msg = (
            f"store {path}: user {os.getuid()} may not write to {blocked}; give that user write "
            "access to folder and file, or change the store's path"
        )
        raise StoreUnusable(msg)


def _mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", errors="surrogateescape")
    except OSError:
        return ""  # not Linux


def boot_id() -> str:
    """
    Return what tells this boot of the host from every other.

    Returns:
        The kernel's boot id, or an empty string where there is none. The latter is safe: no lock
        survives a reboot, so the candidates of an earlier boot are seen to be dead anyway.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


class LockFile:
    """
    A new lock file under a random name, locked from the moment others can know of it.

    Dropped without `release`, the object closes its file and with that gives up the lock.

    Args:
        folder: where to create it; made if it is missing, for this user alone.

    Attributes:
        name: what nobody can guess: the file's name without its suffix.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.name: Final = secrets.token_hex(16)
        self._path = folder / f"{self.name}{LOCK_SUFFIX}"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._close = weakref.finalize(self, os.close, self._fd)
        # At its exit the process drops the lock anyway, and not before its last thread is gone.
        self._close.atexit = False
        _held.add(self)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def held(self) -> bool:
        """Whether this object, in this process, still holds the lock."""
        return self._close.alive

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptor that holds the lock, for a process that is to hold it too; or none."""
        return (self._fd,) if self.held else ()

    def release(self) -> None:
        """Give up the lock, also for copies that other processes may have; leave the file."""
        if self.held:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._close()

    def remove(self) -> None:
        """Give up the lock and remove the file."""
        if self.held:
            self._path.unlink(missing_ok=True)
            self.release()

    def disown(self) -> None:
        """Forget the lock without giving it up: it is that of this process's parent."""
        self._close()


def is_held(path: Path) -> bool:
    """
    Say whether somebody holds the lock on *path*, in this process or another.

    A file that is gone tells nothing, so it counts as held and its owner's lease decides.

    Raises:
        OSError: the file can not be opened, which says nothing about its owner.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        # A shared lock: two who try at once must not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


_held: Final[weakref.WeakSet[LockFile]] = weakref.WeakSet()


def _disown_all() -> None:
    for lock in list(_held):
        lock.disown()
    _held.clear()


os.register_at_fork(after_in_child=_disown_all)
