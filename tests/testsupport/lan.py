"""
A network of namespaces: hosts on one Ethernet, that reach each other and nothing else.

It needs root and the kernel's bridges and pairs of virtual devices.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Self

__all__ = ["Lan", "why_not"]


def why_not() -> str | None:
    """Return why no such network can be had here, or None."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "there is no ip (iproute2)"
    try:
        with Lan({"probe": "192.0.2.1/24"}):
            return None
    except subprocess.CalledProcessError as error:
        return f"the kernel refuses: {' '.join(error.cmd)}: {error.stderr.strip()}"


class Lan:
    """
    Such a network, used as a context manager; whatever runs in it has to end before.

    Args:
        hosts: the address of each host's ``eth0``, with the length of its prefix.
    """

    def __init__(self, hosts: dict[str, str]) -> None:
        self._hosts = hosts
        self._prefix = f"lan-{uuid.uuid4().hex[:8]}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._make("switch", stack)
            self._in("switch", "link", "add", "bridge", "type", "bridge")
            self._in("switch", "link", "set", "bridge", "up")
            for name, address in self._hosts.items():
                self._make(name, stack)
                pair = ("type", "veth", "peer", "name", "eth0", "netns", self._space(name))
                self._in("switch", "link", "add", name, *pair)
                self._in("switch", "link", "set", name, "master", "bridge", "up")
                self._in(name, "address", "add", address, "dev", "eth0")
                self._in(name, "link", "set", "eth0", "up")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def launcher(self, host: str) -> tuple[str, ...]:
        """Return what a command line begins with for the command to run on *host*."""
        return ("ip", "netns", "exec", self._space(host))

    def run(self, host: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on *host* to its end."""
        return subprocess.run(
            [*self.launcher(host), *command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def holders(self, address: str) -> set[str]:
        """Return the hosts that have *address*, which has the length of its prefix."""
        return {host for host in self._hosts if f" {address} " in self._addresses(host)}

    def _addresses(self, host: str) -> str:
        return self._in(host, "-oneline", "address", "show", "dev", "eth0")

    def _space(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _make(self, name: str, stack: ExitStack) -> None:
        _ip(["netns", "add", self._space(name)])
        stack.callback(self._delete, name)
        self._in(name, "link", "set", "lo", "up")

    def _delete(self, name: str) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip(["netns", "delete", self._space(name)])

    def _in(self, name: str, *arguments: str) -> str:
        return _ip(["-n", self._space(name), *arguments])


def _ip(arguments: Sequence[str]) -> str:
    run = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return run.stdout
