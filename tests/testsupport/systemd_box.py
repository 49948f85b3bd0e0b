"""
A real systemd that runs units of a test, as the first process of namespaces of its own.

It sees this machine's files and network, but has mounts, processes, control groups and a host name for
itself, and knows no units but those that it is given. It needs root and a kernel with control groups v2.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from leader_jobs.clock import SystemClock
from testsupport.parenthood import die_with_parent
from testsupport.processes import children_of

__all__ = ["SystemdBox", "why_not"]

_CLOCK: Final = SystemClock()
_SYSTEMD: Final = Path("/lib/systemd/systemd")
_TARGET: Final = "box.target"
# What is outside waits for what is inside, to take the control group away.
_OUTSIDE: Final = """
set -e
mount --make-rprivate /
mount -t cgroup2 cgroup2 "$BOX/cgroup"
mkdir "$BOX/cgroup/$NAME"
echo $$ >"$BOX/cgroup/$NAME/cgroup.procs"
setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --cgroup --fork --kill-child \
    sh -c "$INSIDE" || true
echo $$ >"$BOX/cgroup/cgroup.procs"
find "$BOX/cgroup/$NAME" -depth -type d -exec rmdir {} ';'
"""
_INSIDE: Final = """
set -e
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
mount --bind -o ro /proc/sys /proc/sys
mount --bind -o ro /etc /etc
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
exec env -i container=box PATH="$PATH" SYSTEMD_UNIT_PATH="$BOX/units" \
    "$SYSTEMD" --system --unit=box.target --show-status=no
"""


def why_not() -> str | None:
    """Return why no systemd can be had here, or None."""
    if os.geteuid() != 0:
        return "only root may start a systemd of its own"
    missing = [
        name for name in ("unshare", "nsenter", "setpriv", "systemctl") if not shutil.which(name)
    ]
    if missing or not _SYSTEMD.exists():
        return f"there is no {missing[0] if missing else _SYSTEMD}"
    if "cgroup2" not in Path("/proc/filesystems").read_text():
        return "the kernel has no control groups v2"
    return None


class SystemdBox:
    """
    Such a systemd, used as a context manager.

    Args:
        units: texts of unit files, by name; they are there from the start, and none of them is started.

    Attributes:
        folder: a folder of the box's own.
    """

    def __init__(self, units: dict[str, str]) -> None:
        self._units = units
        self._stack = ExitStack()
        self.folder = Path()
        self._outside: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="box-")))
            for name in ("units", "cgroup"):
                (self.folder / name).mkdir()
            target = {_TARGET: "[Unit]\nDescription=what the box begins with\n"}
            for name, text in (target | self._units).items():
                (self.folder / "units" / name).write_text(text)
            self._outside = self._start()
            stack.callback(self._end)
            self._await_answer()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def systemctl(self, *arguments: str) -> str:
        """Run ``systemctl`` inside; return what it prints, or fail with what it complains of."""
        run = self._try(*arguments)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def show(self, unit: str) -> dict[str, str]:
        """Return the properties of a unit."""
        lines = self.systemctl("show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def await_state(self, unit: str, within: float = 20.0, **wanted: str) -> dict[str, str]:
        """Wait until properties of a unit are as *wanted*, and return all."""
        limit = _CLOCK.now() + within
        while any((found := self.show(unit)).get(key) != value for key, value in wanted.items()):
            assert _CLOCK.now() < limit, {
                key: found.get(key) for key in (*wanted, "Result", "StatusText")
            }
            _CLOCK.wait(threading.Event(), 0.05)
        return found

    def main_pid(self, unit: str) -> int:
        """Return the process id of a unit's main process, as this side of the box knows it."""
        inner = self.show(unit)["MainPID"]
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                found = [
                    line.split() for line in status.read_text().splitlines() if "NSpid" in line
                ]
            except (FileNotFoundError, ProcessLookupError):
                continue
            outer = int(status.parent.name)
            if found[0][2:] == [inner] and self._is_inside(outer):
                return outer
        msg = f"{unit} has no main process"
        raise AssertionError(msg)

    def _is_inside(self, pid: int) -> bool:
        spaces = (Path(f"/proc/{each}/ns/pid") for each in (pid, self._pid))
        return len({str(space.readlink()) for space in spaces}) == 1

    def _start(self) -> "subprocess.Popen[bytes]":
        variables = {
            "BOX": str(self.folder),
            "NAME": self.folder.name,
            "INSIDE": _INSIDE,
            "SYSTEMD": str(_SYSTEMD),
        }
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _OUTSIDE],
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
            )

    def _await_answer(self) -> None:
        limit = _CLOCK.now() + 20.0
        while not (self._find() and self._try("is-active", _TARGET).returncode == 0):
            assert _CLOCK.now() < limit, (self.folder / "log").read_text()
            assert self._outside is not None
            assert self._outside.poll() is None, (self.folder / "log").read_text()
            _CLOCK.wait(threading.Event(), 0.05)

    def _find(self) -> bool:
        """Note the process id of the systemd, once there is one."""
        assert self._outside is not None
        for unshare in children_of(self._outside.pid):
            for first in children_of(unshare):
                if Path(f"/proc/{first}/comm").read_text().strip() == "systemd":
                    self._pid = first
        return self._pid != 0

    def _try(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        inside = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--cgroup"]
        return subprocess.run(
            [*inside, "systemctl", "--no-pager", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _end(self) -> None:
        """Kill all that is inside with its first process; the outside then clears up."""
        assert self._outside is not None
        if self._find():
            os.kill(self._pid, signal.SIGKILL)
        try:
            self._outside.wait(10.0)
        except subprocess.TimeoutExpired:
            self._outside.kill()
            self._outside.wait()
