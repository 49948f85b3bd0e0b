"""
A disk that stalls: a file system of its own, which can be frozen so that nothing gets written to it.

Needs root, a loop device and ``fsfreeze``. What freezes it is a process that waits for its standard
input to end: should the tests die, the disk thaws all the same.
"""

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

__all__ = ["Disk"]

_FREEZE = 'fsfreeze --freeze "$0" && echo frozen && { read _; fsfreeze --unfreeze "$0"; }'


class Disk:
    """
    A file system on a loop device, used as a context manager; skips the test where root may not.

    Args:
        folder: for its image; it appears in there.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self.path = folder / "disk"
        self._stack = ExitStack()
        self._keeper: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(256 * 2**20)
        _run("mkfs.ext4", "-q", "-F", self._image)
        _run("mount", "-o", "loop", self._image, self.path)
        self._stack.callback(_run, "umount", self.path)
        self._stack.callback(self.thaw)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def freeze(self) -> None:
        """Have every write and every fsync wait from now on."""
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _FREEZE, self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == "frozen\n"

    def thaw(self) -> None:
        """Let them go on."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.communicate()


def _run(*command: str | Path) -> None:
    name = shutil.which(command[0])
    if name is None:
        pytest.skip(f"no disk can be stalled here: {command[0]} is missing")
    result = subprocess.run([name, *command[1:]], capture_output=True, text=True, check=False)
    if result.returncode:
        why = f"{' '.join(map(str, command))}: {result.stderr.strip()}"
        pytest.skip(f"no disk can be stalled here, it takes root: {why}")
