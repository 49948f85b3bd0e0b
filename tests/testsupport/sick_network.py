"""
Networks that lose packets: each member of a cluster in a network namespace of its own.

Two bridges connect them, one for clients and one among members. A port that is switched off throws
every packet away, both ways, and tells nobody: no reset, no lost carrier. Needs root and iproute2.
"""

import random
import secrets
import subprocess
from contextlib import ExitStack
from typing import Final, Self

import pytest

from testsupport.etcd import Site

__all__ = ["Network"]

#: States of a bridge's port, as STP has them.
_DISABLED: Final = "0"
_FORWARDING: Final = "3"


class Network:
    """
    Namespaces for *size* members, used as a context manager; skips the test where root may not.

    Attributes:
        sites: where the members live, for `testsupport.etcd.EtcdCluster`.
    """

    def __init__(self, size: int) -> None:
        self._name = f"lj{secrets.token_hex(3)}"
        # 198.18.0.0/15 is set aside for measurements (RFC 2544).
        self._net = random.SystemRandom().randrange(256)
        self._size = size
        self._stack = ExitStack()
        self.sites: list[Site] = []

    def __enter__(self) -> Self:
        with self._stack:
            self._bridge("c", f"198.18.{self._net}.254/24")
            self._bridge("p", None)
            self.sites = [self._site(number) for number in range(self._size)]
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _bridge(self, side: str, address: str | None) -> None:
        name = self._name + side
        _run(f"ip link add {name} type bridge")
        self._stack.callback(_run, f"ip link delete {name}")
        if address is not None:
            _run(f"ip address add {address} dev {name}")
        _run(f"ip link set {name} up")

    def _site(self, number: int) -> Site:
        space = f"{self._name}n{number}"
        _run(f"ip netns add {space}")
        self._stack.callback(_run, f"ip netns delete {space}")
        _run(f"ip -n {space} link set lo up")
        hosts = {}
        for side, net in (("c", "198.18"), ("p", "198.19")):
            port = self._port(side, number)
            hosts[side] = f"{net}.{self._net}.{number + 1}"
            _run(f"ip link add {port} type veth peer name {side} netns {space}")
            _run(f"ip link set {port} master {self._name}{side} up")
            _run(f"ip -n {space} address add {hosts[side]}/24 dev {side}")
            _run(f"ip -n {space} link set {side} up")
        launcher = ("ip", "netns", "exec", space)
        return Site(host=hosts["c"], peer_host=hosts["p"], launcher=launcher)

    def _port(self, side: str, number: int) -> str:
        return f"{self._name}{side}{number}"

    def isolate(self, number: int) -> None:
        """Lose all packets between a member and the others; clients still reach it."""
        _run(f"bridge link set dev {self._port('p', number)} state {_DISABLED}")

    def hide(self, number: int) -> None:
        """Lose all packets between a member and clients; the others still reach it."""
        _run(f"bridge link set dev {self._port('c', number)} state {_DISABLED}")

    def restore(self) -> None:
        """Lose nothing any more."""
        for number in range(self._size):
            for side in "cp":
                _run(f"bridge link set dev {self._port(side, number)} state {_FORWARDING}")


def _run(command: str) -> None:
    try:
        result = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no packets can be dropped here: iproute2 is missing ({error})")
    if result.returncode:
        why = f"{command}: {result.stderr.strip()}"
        pytest.skip(f"no packets can be dropped here, it takes root: {why}")
