"""From what a site writes to a client of its etcd cluster: the one place that picks the transport."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leader_jobs.clock import Clock
from leader_jobs.config import Settings
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_http import HttpTransport
from leader_jobs.stores._etcd_login import Credentials, parse_endpoints, split_url, tls_context
from leader_jobs.stores._etcd_socket import Endpoint
from leader_jobs.stores._etcd_transport import Transport

__all__ = ["Access"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """
    Where a cluster is, and how to be let in.

    Attributes:
        endpoints: its members, in the order to try them.
        tls: whether they are reached over TLS.
        grpc: whether over gRPC, not by the JSON gateway.
        ca_file: the authority of the servers' certificates; the system's if None.
        cert_file: our certificate.
        key_file: the key of that certificate.
        credentials: whom to log in as, or None.
    """

    endpoints: tuple[Endpoint, ...]
    tls: bool = False
    grpc: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    credentials: Credentials | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Access":
        """
        Return the access that *settings* name.

        Raises:
            ConfigurationError: the URL makes no sense.
        """
        address = split_url(settings.store)
        return cls(
            endpoints=parse_endpoints(address.endpoints),
            tls=address.tls,
            grpc=address.grpc,
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            credentials=Credentials(settings.user, settings.password, settings.password_file)
            if settings.user
            else None,
        )

    @property
    def files(self) -> tuple[Path | None, Path | None, Path | None] | None:
        """The files of the authority, our certificate and its key; None without TLS."""
        return (self.ca_file, self.cert_file, self.key_file) if self.tls else None

    def __str__(self) -> str:
        scheme = ("etcds" if self.tls else "etcd") + ("+grpc" if self.grpc else "")
        return f"{scheme}://{','.join(map(str, self.endpoints))}"

    def transport(self, clock: Clock) -> Transport:
        """
        Return a transport to the members.

        Raises:
            ConfigurationError: a file is missing or is not what it should be; for gRPC, the extra
                ``etcd3`` is, or the process is one of greenlets.
        """
        tls = tls_context(*self.files) if self.files else None
        if not self.grpc:
            return HttpTransport(clock=clock, tls=tls)
        from leader_jobs.stores._etcd_grpc import GrpcTransport
        from leader_jobs.stores._etcd_grpc_process import disarm_forks, refuse_greenlets
        from leader_jobs.stores._etcd_protobuf import load

        refuse_greenlets(str(self))
        disarm_forks()
        grpc, messages = load(str(self))
        if not self.files:
            return GrpcTransport(grpc, messages, grpc.insecure_channel, clock=clock)
        authority, certificate, key = (file and file.read_bytes() for file in self.files)
        credentials = grpc.ssl_channel_credentials(authority, key, certificate)
        dial = partial(grpc.secure_channel, credentials=credentials)
        return GrpcTransport(grpc, messages, dial, clock=clock)

    def client(
        self, *, clock: Clock, call_timeout: float, endpoints: Sequence[Endpoint] | None = None
    ) -> Client:
        """
        Return a client; nothing is sent before its first call.

        Args:
            clock: where moments come from.
            call_timeout: seconds one try of one call may take before the next endpoint is asked.
            endpoints: the members to ask, if not all.

        Raises:
            ConfigurationError: a file is missing or is not what it should be.
        """
        return Client(
            self.endpoints if endpoints is None else endpoints,
            self.transport(clock),
            clock=clock,
            call_timeout=call_timeout,
            credentials=self.credentials,
        )
