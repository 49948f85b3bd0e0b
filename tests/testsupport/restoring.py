"""Snapshots of an etcd cluster, and their restore in the place of what it holds, as an operator does it."""

import subprocess
from pathlib import Path

from testsupport.etcd import EtcdCluster, etcdctl_environment

__all__ = ["Backup", "can_bump"]

_WITHIN = 20


def can_bump(cluster: EtcdCluster) -> bool:
    """Whether this version can have revisions go on growing through a restore."""
    command = [str(cluster.binaries.etcdctl), "snapshot", "restore", "--help"]
    shown = subprocess.run(
        command, env=etcdctl_environment(), capture_output=True, text=True, check=True
    )
    return "--bump-revision" in shown.stdout


class Backup:
    """
    A snapshot of what *cluster* holds now.

    Args:
        cluster: whose.
        folder: where to keep it.
    """

    def __init__(self, cluster: EtcdCluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._file = folder / "snapshot"
        cluster.etcdctl("snapshot", "save", str(self._file), via=cluster.members[0])

    def restore(self, *options: str) -> None:
        """Kill every member, restore the snapshot as the data of each, and start them again."""
        for member in self._cluster.members:
            member.kill()
        for member in self._cluster.members:
            member.folder.rename(self._folder / f"{member.name}.former")
            self._restore(member.name, member.folder, member.peer_url, options)
        for member in self._cluster.members:
            member.start()
        self._cluster.wait_healthy()

    def _restore(self, name: str, folder: Path, peer_url: str, options: tuple[str, ...]) -> None:
        peers = ",".join(f"{m.name}={m.peer_url}" for m in self._cluster.members)
        command = [
            str(self._cluster.binaries.etcdctl),
            *("snapshot", "restore", str(self._file)),
            f"--name={name}",
            f"--data-dir={folder}",
            f"--initial-cluster={peers}",
            f"--initial-advertise-peer-urls={peer_url}",
            *options,
        ]
        result = subprocess.run(
            command,
            env=etcdctl_environment(),
            capture_output=True,
            text=True,
            timeout=_WITHIN,
            check=False,
        )
        assert result.returncode == 0, f"{command}: {result.stderr}"
