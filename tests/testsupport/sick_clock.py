"""
Members whose clocks are off, while everybody else's on the machine are right.

A wall clock is put wrong in one running process. There is no namespace for wall clocks, and preloaded
libraries do not reach a Go program, which reads the time from the page of code that the kernel maps
into each process (vdso(7)). So this replaces the first bytes of that code, in this process alone.

The clocks that count from boot are put wrong with a time namespace (time_namespaces(7)): as on a host
that was booted at another time. That takes root.
"""

import platform
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

from leader_jobs.clock import SystemClock
from testsupport.etcd import Member, Site

__all__ = ["booted_apart", "put_wall_clock_off"]

_SYMBOL: Final = b"__vdso_clock_gettime"
_DYNAMIC_SYMBOLS: Final = 11
# clock_gettime(which, *result), for x86-64: the system call, and for CLOCK_REALTIME some seconds more.
_CODE: Final = bytes.fromhex("b8e4000000 0f05 85ff 7507 488106")
_RETURN: Final = b"\xc3"


def put_wall_clock_off(member: Member, seconds: int) -> None:
    """
    Have the wall clock of a running member be wrong by *seconds* from now on; 0 sets it right.

    Skips the test where that can not be done.
    """
    if platform.machine() != "x86_64":
        pytest.skip(f"no wall clock can be put wrong here: {platform.machine()} is not x86_64")
    process = Path(f"/proc/{member.process.pid}")
    start, end = _code_of_kernel(process)
    code = _CODE + struct.pack("<i", seconds) + _RETURN
    _freeze_outside(member, process, range(start, end))
    try:
        with (process / "mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            offset = _offset_of(_SYMBOL, memory.read(end - start))
            memory.seek(start + offset)
            memory.write(code)
    except OSError as error:
        pytest.skip(f"no wall clock can be put wrong here: {error}")
    finally:
        member.thaw()


def _code_of_kernel(process: Path) -> tuple[int, int]:
    for line in (process / "maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = line.split()[0].split("-")
            return int(start, 16), int(end, 16)
    pytest.skip("no wall clock can be put wrong here: the kernel maps no vdso")


def _freeze_outside(member: Member, process: Path, code: range) -> None:
    """Freeze the member at a moment when none of its threads is within *code*."""
    for _ in range(100):
        member.freeze()
        places = [
            (task / "syscall").read_text().split()[-1] for task in (process / "task").iterdir()
        ]
        if not any(int(place, 16) in code for place in places if place != "running"):
            return
        member.thaw()
    pytest.fail(f"{member.name} never does anything but look at the time")


def _offset_of(symbol: bytes, image: bytes) -> int:
    """Find a function in the image of a shared object; see elf(5)."""
    (table,) = struct.unpack_from("<Q", image, 0x28)
    size, count = struct.unpack_from("<HH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + n * size) for n in range(count)]
    symbols = next(section for section in sections if section[1] == _DYNAMIC_SYMBOLS)
    names = sections[symbols[6]][4]
    for place in range(symbols[4], symbols[4] + symbols[5], 24):
        name, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", image, place)
        if image[names + name :].startswith(symbol + b"\0"):
            return int(value)
    pytest.skip("no wall clock can be put wrong here: the vdso has no clock")


def booted_apart() -> list[Site]:
    """Return three sites: one that was booted an hour before this host, one after it, and this one."""
    unshare = shutil.which("unshare")
    uptime = SystemClock().now()
    # A clock that counts from boot can not be negative.
    offsets = (3600, -min(3600, int(uptime / 2)))
    if unshare is None:
        pytest.skip("no clock can be put wrong here: unshare is missing")
    launchers = [
        (unshare, "--time", f"--boottime={seconds}", f"--monotonic={seconds}")
        for seconds in offsets
    ]
    for launcher in launchers:
        trial = subprocess.run([*launcher, "true"], capture_output=True, text=True, check=False)
        if trial.returncode:
            pytest.skip(f"no clock can be put wrong here, it takes root: {trial.stderr.strip()}")
    return [*(Site(launcher=launcher) for launcher in launchers), Site()]
