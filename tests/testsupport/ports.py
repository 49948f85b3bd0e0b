"""Ports for the servers that tests start."""

import random
import socket
from contextlib import suppress

__all__ = ["free_port"]


def free_port() -> int:
    """Return a port below the range that the kernel gives to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(15000, 30000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
