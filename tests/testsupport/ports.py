"""Ports for the servers that tests start."""

import os
import random
import socket
from contextlib import suppress
from typing import Final

__all__ = ["free_port"]

#: Test runs side by side, each with ports of its own: what one has picked is free until a server binds it.
_RUNS: Final = 8
_given: Final[set[int]] = set()


def free_port() -> int:
    """Return a port below the range that the kernel gives to outgoing connections, never one twice."""
    run = int(os.environ.get("PYTEST_XDIST_WORKER", f"gw{_RUNS - 1}").removeprefix("gw")) % _RUNS
    while True:
        port = random.SystemRandom().randrange(15000 + run, 30000, _RUNS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
