"""Asks probes over real sockets."""

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Asked", "ask"]


@dataclass(frozen=True)
class Asked:
    """
    What came back.

    Attributes:
        status: the HTTP status.
        text: the body.
        headers: by name.
    """

    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.text)


def ask(url: str, path: str, *, method: str = "GET", body: bytes | None = None) -> Asked:
    """Send one request to the server at *url*, and return what it answers within ten seconds."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10.0)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        return Asked(response.status, response.read().decode(), dict(response.getheaders()))
    finally:
        connection.close()
