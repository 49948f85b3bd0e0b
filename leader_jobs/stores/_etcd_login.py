"""How to reach an etcd cluster: endpoints, TLS and credentials, checked before anything is sent."""

import os
import pwd
import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores._etcd_socket import Endpoint

__all__ = [
    "DEFAULT_PORT",
    "Address",
    "Credentials",
    "parse_endpoints",
    "split_url",
    "tls_context",
]

DEFAULT_PORT: Final = 2379
_MAX_PORT: Final = 65535


class Address(NamedTuple):
    """
    What the URL of an etcd store says.

    Attributes:
        endpoints: as written.
        tls: whether they are reached over TLS.
        grpc: whether over gRPC, not by the JSON gateway.
    """

    endpoints: list[str]
    tls: bool
    grpc: bool


def split_url(url: str) -> Address:
    """
    Split ``etcd://h1:2379,h2``, or ``etcds://…``, ``etcd+grpc://…``, ``etcds+grpc://…``.

    Raises:
        ConfigurationError: it is the URL of something else.
    """
    scheme, _, rest = url.partition("://")
    kind, _, transport = scheme.partition("+")
    if kind not in ("etcd", "etcds") or scheme not in (kind, f"{kind}+grpc"):
        msg = (
            f"store is {url!r}: an etcd store begins with etcd:// or etcds://, or with "
            "etcd+grpc:// or etcds+grpc://"
        )
        raise ConfigurationError(msg)
    return Address(rest.removesuffix("/").split(","), kind == "etcds", bool(transport))


def parse_endpoints(texts: Iterable[str]) -> tuple[Endpoint, ...]:
    """
    Parse ``host``, ``host:port``, ``[v6]`` and ``[v6]:port``; the port is 2379 if none is given.

    Raises:
        ConfigurationError: naming the endpoint that makes no sense, or that there is none.
    """
    endpoints = tuple(dict.fromkeys(_parse_endpoint(text.strip()) for text in texts))
    if not endpoints:
        msg = "no etcd endpoint is given; write host:port of each member"
        raise ConfigurationError(msg)
    return endpoints


def _parse_endpoint(text: str) -> Endpoint:
    if "@" in text:
        msg = (
            f"etcd endpoint {text.rpartition('@')[2]!r} carries credentials; set user and password"
        )
        raise ConfigurationError(msg)
    problem = _problem(text)
    if problem:
        msg = f"etcd endpoint {text!r} {problem}"
        raise ConfigurationError(msg)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    return Endpoint(host, int(port) if port else DEFAULT_PORT)


def _problem(text: str) -> str | None:
    """Say what is wrong with an endpoint, if anything."""
    if "/" in text or "?" in text:
        return "must be host:port alone; keys go under the setting namespace"
    host, colon, port = (
        text.rpartition(":") if text.rfind(":") > text.rfind("]") else (text, "", "")
    )
    if not host or any(character.isspace() for character in text):
        return "has no host; write host:port"
    if host.startswith("[") != host.endswith("]") or host == "[]":
        return "has a bracket too few or nothing between them; write [::1]:2379"
    if ":" in host and not host.startswith("["):
        return "looks like IPv6; put the address in brackets, [::1]:2379"
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        return f"has the port {port!r}; use a number from 1 to {_MAX_PORT}"
    return None


def tls_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None
) -> ssl.SSLContext:
    """
    Return how to secure connections: always verifying the server, with our certificate if given.

    Raises:
        ConfigurationError: a file is missing or is not what it should be.
    """
    for name, file in (("ca_file", ca_file), ("cert_file", cert_file), ("key_file", key_file)):
        if file is not None:
            _check_readable(name, file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        msg = f"ca_file {str(ca_file)!r} can not be used: {error}; give a PEM file of authorities"
        raise ConfigurationError(msg) from error
    context.set_alpn_protocols(["http/1.1"])
    if cert_file is not None:
        try:
            # The empty password keeps OpenSSL from asking for one at a terminal.
            context.load_cert_chain(cert_file, key_file, password="")
        except (OSError, ssl.SSLError) as error:
            msg = (
                f"cert_file {str(cert_file)!r} with key_file {str(key_file)!r} can not be used: "
                f"{error}; give a PEM certificate and its unencrypted key"
            )
            raise ConfigurationError(msg) from error
    return context


def _check_readable(name: str, file: Path) -> None:
    """Refuse a file that this process may not read; OpenSSL would not say which it was."""
    try:
        with file.open("rb"):
            return
    except OSError as error:
        raise ConfigurationError(_unreadable(name, file, error)) from error


def _unreadable(name: str, file: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else "it is no text"
    if not isinstance(error, PermissionError):
        return f"{name} {str(file)!r} can not be read: {reason}; check the path, and what is there"
    try:
        status = file.stat()
        rights = f" (mode {stat.S_IMODE(status.st_mode):04o}, owned by user {status.st_uid})"
    except OSError:  # its folder may not be entered either
        rights = ""
    return (
        f"{name} {str(file)!r}{rights} can not be read by user {_who()}: {reason}; "
        "make it, and the folders above, readable to that user"
    )


def _who() -> str:
    try:
        return f"{pwd.getpwuid(os.geteuid()).pw_name!r} ({os.geteuid()})"
    except KeyError:  # nobody in the user database, as in many containers
        return str(os.geteuid())


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and where its password comes from; the password shows in no repr."""

    user: str
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None

    def read_password(self) -> str:
        """
        Return the password; a file is read anew each time, so that it may be rotated.

        Raises:
            ConfigurationError: there is none, or its file can not be read.
        """
        if self.password_file is None:
            if self.password is None:
                msg = (
                    f"user is {self.user!r} but there is no password; set password or password_file"
                )
                raise ConfigurationError(msg)
            return self.password
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                _unreadable("password_file", self.password_file, error)
            ) from error
