"""
The messages of etcd's gRPC, from the package ``etcd3``, and their way to and from our JSON.

protobuf's own mapping to JSON is what etcd's gateway speaks, so `_etcd_wire` stays the one builder
and reader. Here a misspelt field is an error, where the gateway ignores it. Of ``etcd3`` only the
messages are used: its client knows one endpoint, its calls have no deadline unless all have the same
one, and its watch takes a thread that outlives a fork badly. Messages of 2019 suffice: what servers
have added since, fields of a member's status mostly, is passed over.

Importing this module costs nothing; `load` imports ``etcd3``, ``grpc`` and ``google.protobuf``.
"""

import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, Final

from leader_jobs.exceptions import ConfigurationError, StoreRefused
from leader_jobs.stores import _etcd_wire as wire

__all__ = ["Messages", "Method", "load"]

#: What the gateway has under a path: service and method of gRPC.
_METHODS: Final = {
    wire.AUTHENTICATE: ("Auth", "Authenticate"),
    wire.GRANT: ("Lease", "LeaseGrant"),
    wire.KEEPALIVE: ("Lease", "LeaseKeepAlive"),
    wire.REVOKE: ("Lease", "LeaseRevoke"),
    wire.TIME_TO_LIVE: ("Lease", "LeaseTimeToLive"),
    wire.RANGE: ("KV", "Range"),
    wire.TXN: ("KV", "Txn"),
    wire.WATCH: ("Watch", "Watch"),
    "/v3/auth/role/get": ("Auth", "RoleGet"),
    "/v3/auth/user/get": ("Auth", "UserGet"),
    "/v3/cluster/member/list": ("Cluster", "MemberList"),
    "/v3/maintenance/alarm": ("Maintenance", "Alarm"),
    "/v3/maintenance/status": ("Maintenance", "Status"),
}
_EXTRA: Final = "pip install 'leader-jobs[etcd3]'"


@dataclass(frozen=True, slots=True)
class Method:
    """A method by its name in gRPC, and the types of its messages."""

    name: str
    request: Any
    reply: Any

    @property
    def codec(self) -> dict[str, Any]:
        """How gRPC is to make bytes of a request, and a reply of bytes."""
        return {
            "request_serializer": self.request.SerializeToString,
            "response_deserializer": self.reply.FromString,
        }


class Messages:
    """
    Turns paths and JSON into methods and messages, and messages into JSON.

    Args:
        rpc: the module that ``protoc`` made of etcd's ``rpc.proto``.
        json_format: the module of that name of ``google.protobuf``.
    """

    def __init__(self, rpc: ModuleType, json_format: ModuleType) -> None:
        self._rpc = rpc
        self._json_format = json_format

    def method(self, path: str) -> Method:
        """
        Return the method that the gateway has under *path*.

        Raises:
            StoreRefused: there is none that we know.
        """
        if path not in _METHODS:
            msg = f"{path} is not known over gRPC; reach the cluster by its JSON gateway, etcd://"
            raise StoreRefused(msg)
        service, name = _METHODS[path]
        package = self._rpc.DESCRIPTOR
        method = package.services_by_name[service].methods_by_name[name]
        return Method(
            f"/{package.package}.{service}/{name}",
            getattr(self._rpc, method.input_type.name),
            getattr(self._rpc, method.output_type.name),
        )

    def encode(self, body: wire.Json, method: Method) -> Any:
        """Return the request that *body* is."""
        return self._json_format.ParseDict(body, method.request())

    def decode(self, reply: Any) -> wire.Json:
        """Return *reply* as the gateway would: without what is zero or empty, numbers as text."""
        found: wire.Json = self._json_format.MessageToDict(reply, preserving_proto_field_name=True)
        return found


def load(store: str) -> tuple[ModuleType, Messages]:
    """
    Return ``grpc`` and the messages.

    Args:
        store: its URL, for messages.

    Raises:
        ConfigurationError: what the extra ``etcd3`` brings is not installed, or does not fit together.
    """
    try:
        with warnings.catch_warnings():
            # protoc's code of then uses what protobuf 3.20 has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            from etcd3.etcdrpc import rpc_pb2
            from google.protobuf import json_format

            import grpc
    except ModuleNotFoundError as error:
        msg = (
            f"store is {store!r}: what it needs is not installed ({error}); {_EXTRA}, in an "
            "environment that can do with protobuf 3.20, or reach the JSON gateway by etcd://"
        )
        raise ConfigurationError(msg) from error
    except (AttributeError, ImportError, TypeError) as error:
        msg = (
            f"store is {store!r}: etcd3 can not be imported beside protobuf {_version('protobuf')}; "
            "give this program an environment of its own with protobuf 3.20.x "
            f"({_EXTRA}), or reach the JSON gateway by etcd://"
        )
        raise ConfigurationError(msg) from error
    return grpc, Messages(rpc_pb2, json_format)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown)"
