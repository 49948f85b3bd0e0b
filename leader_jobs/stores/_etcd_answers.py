"""
What an answer of the gateway amounts to: fine, a refusal, a rejected token, or no answer at all.

Errors are told apart by the gRPC code in the body, never by the HTTP status, which differs between
versions for one and the same error. Some errors are not even JSON.
"""

from typing import Final

from leader_jobs.exceptions import StoreRefused
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_socket import Endpoint

__all__ = [
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "Refusal",
    "TokenRejected",
    "Unanswered",
    "check",
    "headers",
    "verdict",
]

#: gRPC codes: https://grpc.io/docs/guides/status-codes/
NOT_FOUND: Final = 5
PERMISSION_DENIED: Final = 7
FAILED_PRECONDITION: Final = 9
_UNAUTHENTICATED: Final = 16
#: Cancelled, unknown, deadline exceeded, resource exhausted, internal, unavailable.
_UNCERTAIN: Final = frozenset({1, 2, 4, 8, 13, 14})
_STALE_TOKEN: Final = ("user name is empty", "revision of auth store is old")

#: How a gateway says, by version, that its own server does not accept its certificate.
_GATEWAY_TLS: Final = ("remote error: tls: ", "failed to write client preface")
_GATEWAY_REMEDY: Final = (
    "give the servers certificates with the usage clientAuth beside serverAuth, or start etcd with "
    "--client-cert-file and --client-key-file: its JSON gateway is a client of its own server"
)

_OK: Final = 200


class Refusal(StoreRefused):
    """The server answered with an error that trying again does not cure; *code* is gRPC's."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Unanswered(Exception):
    """
    One try came to nothing.

    Args:
        why: in a few words.
        sent: whether the server may have acted on it all the same.
        tls: whether the two sides, or the gateway and its own server, disagree about TLS.
        remedy: what to do about it if no endpoint does better.
    """

    def __init__(self, why: str, *, sent: bool, tls: bool = False, remedy: str = "") -> None:
        super().__init__(why)
        self.sent = sent
        self.tls = tls
        self.remedy = remedy


class TokenRejected(Exception):
    """The member does not accept the token: expired there, or authentication was switched on."""


def headers(token: str | None) -> dict[str, str]:
    """Return the headers that carry *token*: etcd wants it bare, without "Bearer"."""
    return {"Authorization": token} if token else {}


def check(endpoint: Endpoint, status: int, text: bytes) -> wire.Json:
    """
    Return the message in an answer, unless it says that something is wrong.

    Raises:
        TokenRejected: log in again.
        Unanswered: the server may have acted on the request, or not.
        Refusal: the server said no.
        StoreRefused: this is not etcd's gateway, or it does not serve certificates like ours.
    """
    try:
        reply = wire.decode(text)
    except ValueError as error:
        raise _explain(endpoint, status, text.decode("utf-8", "replace")) from error
    problem = wire.fault(reply)
    if problem is None:
        if status != _OK:
            raise _explain(endpoint, status, text.decode("utf-8", "replace"))
        return reply
    if problem.code in _UNCERTAIN and any(s in problem.message for s in _GATEWAY_TLS):
        raise Unanswered(problem.message, sent=False, tls=True, remedy=_GATEWAY_REMEDY)
    raise verdict(problem.code, problem.message)


def verdict(code: int, message: str) -> Exception:
    """Return what to raise for an error of this gRPC code that a member answers with."""
    if code == _UNAUTHENTICATED or any(s in message for s in _STALE_TOKEN):
        return TokenRejected(message)
    if code in _UNCERTAIN:
        return Unanswered(message, sent=True)
    return Refusal(f"etcd refuses: {message}", code)


def _explain(endpoint: Endpoint, status: int, text: str) -> Exception:
    """Return what to raise for an answer that is not etcd's usual JSON."""
    if "CommonName" in text:
        return StoreRefused(
            f"etcd's JSON gateway at {endpoint} does not serve client certificates that carry a "
            "CommonName while authentication is on; use a certificate without one and a user, or "
            "etcds+grpc:// with leader-jobs[etcd3], which logs in as that name"
        )
    excerpt = " ".join(text.split())[:120]
    if "HTTPS" in text:
        return StoreRefused(
            f"{endpoint} speaks TLS ({excerpt!r}); write etcds:// in the store's URL"
        )
    if 400 <= status < 500:  # noqa: PLR2004  the client's fault, in HTTP
        return StoreRefused(
            f"{endpoint} answers {status} {excerpt!r}: not etcd's JSON gateway; check the address, "
            "start etcd with --enable-grpc-gateway=true, or use etcd+grpc:// with leader-jobs[etcd3]"
        )
    return Unanswered(f"an answer that makes no sense, {status} {excerpt!r}", sent=True)
