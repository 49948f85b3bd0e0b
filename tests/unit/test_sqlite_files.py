"""Where the embedded store's files may lie, and whose locks are held."""

import fcntl
import os
import re
from pathlib import Path

import pytest

from leader_jobs.exceptions import StoreUnusable
from leader_jobs.stores._sqlite_files import (
    LOCK_SUFFIX,
    LockFile,
    boot_id,
    check_location,
    is_held,
    network_file_system,
)
from testsupport.forking import in_forked_child

MOUNTS = r"""
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:40 / /srv/share rw,relatime shared:7 master:1 - nfs4 files:/share rw,vers=4.2
41 40 254:1 / /srv/share/local rw,relatime - xfs /dev/vdb rw
42 27 0:42 / /mnt/two\040words rw - cifs //files/two rw
43 27 0:43 / /home rw - autofs systemd-1 rw
44 43 0:44 / /home rw - nfs files:/home rw
45 27 0:45 / /data rw - nfs files:/data rw
46 45 254:2 / /data rw - btrfs /dev/vdc rw
47 27 0:47 / /mnt/ssh rw - fuse.sshfs me@files: rw
48 27 0:48 / /mnt/ntfs rw - fuseblk /dev/vdd rw
49 27 0:49 / /mnt/merged rw - fuse.mergerfs a:b rw
50 27 0:50 / /mnt/c rw - 9p drvfs rw
""".strip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/leader.sqlite3", None),
        ("/srv/share/leader.sqlite3", "nfs4"),
        ("/srv/share", "nfs4"),
        ("/srv/shared/leader.sqlite3", None),
        ("/srv/share/local/leader.sqlite3", None),
        ("/mnt/two words/leader.sqlite3", "cifs"),
        ("/home/me/leader.sqlite3", "nfs"),
        ("/data/leader.sqlite3", None),
        ("/mnt/ssh/leader.sqlite3", "fuse.sshfs"),
        ("/mnt/ntfs/leader.sqlite3", None),
        ("/mnt/merged/leader.sqlite3", None),
        ("/mnt/c/leader.sqlite3", "9p"),
    ],
)
def test_the_mount_a_path_is_on_decides(path: str, kind: str | None) -> None:
    """The longest mount point above the path counts, and of two on one folder the later."""
    assert network_file_system(MOUNTS, path) == kind


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "cifs",
        "smb3",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "fuse.glusterfs",
        "fuse.s3fs",
    ],
)
def test_file_systems_shared_between_hosts_are_known(kind: str) -> None:
    """Every kind on which hosts do not see each other's locks is named."""
    assert network_file_system(f"1 0 0:1 / / rw - {kind} x rw", "/leader.sqlite3") == kind


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuse", "fuse.gvfsd", "nfsd"]
)
def test_local_file_systems_are_accepted(kind: str) -> None:
    """A local file system is none of the others, whatever its name looks like."""
    assert network_file_system(f"1 0 0:1 / / rw - {kind} x rw", "/leader.sqlite3") is None


def test_no_mounts_mean_no_objection() -> None:
    """Where the mounts are not known, as on macOS, no place is refused."""
    assert network_file_system("", "/leader.sqlite3") is None


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The message names the folder that has to be made."""
    with pytest.raises(StoreUnusable, match=re.escape(f"no folder {tmp_path}/missing; create it")):
        check_location(tmp_path / "missing" / "leader.sqlite3")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A path that leads through a file has no folder."""
    (tmp_path / "file").touch()

    with pytest.raises(StoreUnusable, match="there is no folder"):
        check_location(tmp_path / "file" / "leader.sqlite3")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """The message proposes a file in the folder."""
    with pytest.raises(StoreUnusable, match=re.escape(f"such as {tmp_path}/leader.sqlite3")):
        check_location(tmp_path)


def test_a_good_place_is_accepted(tmp_path: Path) -> None:
    """A writable local folder is good, with and without the file."""
    path = tmp_path / "leader.sqlite3"
    check_location(path)
    path.touch()
    check_location(path)


def test_a_lock_is_seen_until_it_is_released(tmp_path: Path) -> None:
    """Others see a lock of the same process too; the file stays until it is removed."""
    lock = LockFile(tmp_path / "locks")
    path = tmp_path / "locks" / f"{lock.name}{LOCK_SUFFIX}"
    assert (lock.held, is_held(path)) == (True, True)

    lock.release()

    assert (lock.held, is_held(path)) == (False, False)
    assert path.exists()


def test_two_who_look_at_once_do_not_take_each_other_for_the_owner(tmp_path: Path) -> None:
    """A look in progress, which is a shared lock, does not make a dead candidate look alive."""
    lock = LockFile(tmp_path / "locks")
    path = tmp_path / "locks" / f"{lock.name}{LOCK_SUFFIX}"
    lock.release()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)

        assert not is_held(path)


def test_a_removed_lock_leaves_no_file(tmp_path: Path) -> None:
    """Removing gives up the lock and the file, once."""
    lock = LockFile(tmp_path / "locks")
    lock.remove()
    lock.remove()

    assert not lock.held
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_missing_lock_file_says_nothing(tmp_path: Path) -> None:
    """Whoever tidied the files up has not killed anybody, so the lease goes on to decide."""
    assert is_held(tmp_path / "gone.lock")


def test_a_forgotten_lock_is_given_up(tmp_path: Path) -> None:
    """An object nobody refers to any more does not keep its lock or its descriptor."""
    name = LockFile(tmp_path / "locks").name

    assert not is_held(tmp_path / "locks" / f"{name}{LOCK_SUFFIX}")


def test_locks_belong_to_one_user(tmp_path: Path) -> None:
    """Nobody else may open them, for an open file is enough to look like the owner."""
    folder = tmp_path / "locks"
    lock = LockFile(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / f"{lock.name}{LOCK_SUFFIX}").stat().st_mode & 0o777 == 0o600


def test_lock_names_can_not_be_foreseen(tmp_path: Path) -> None:
    """Two names have nothing in common and enough of it."""
    first, second = (LockFile(tmp_path / "locks").name for _ in range(2))

    assert first != second
    assert len(first) == 32


def test_a_fork_does_not_hold_its_parents_lock(tmp_path: Path) -> None:
    """The child knows it holds nothing, and its end does not unlock the parent's file."""
    lock = LockFile(tmp_path / "locks")

    def child() -> bool:
        held = lock.held
        lock.remove()
        return held

    assert in_forked_child(child) == "False"
    assert lock.held
    assert is_held(tmp_path / "locks" / f"{lock.name}{LOCK_SUFFIX}")


def test_a_lock_is_not_handed_to_other_programs(tmp_path: Path) -> None:
    """The descriptor is closed when another program is executed."""
    lock = LockFile(tmp_path / "locks")

    assert not os.get_inheritable(lock._fd)


def test_the_boot_is_told_from_others() -> None:
    """The kernel's boot id stays the same from one look to the next."""
    assert boot_id() == boot_id() != ""
