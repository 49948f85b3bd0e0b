"""Whether these tests speak gRPC to etcd, which they do where the extra ``etcd3`` is installed."""

from importlib.util import find_spec
from typing import Final

from testsupport.etcd import EtcdCluster

__all__ = ["OVER_GRPC", "etcd_url"]

#: True in the environment of ``make test-grpc`` and in no other.
OVER_GRPC: Final = find_spec("etcd3") is not None


def etcd_url(cluster: EtcdCluster) -> str:
    """Return the URL of a store on *cluster* by the transport that is under test."""
    return cluster.url.replace("://", "+grpc://", 1) if OVER_GRPC else cluster.url
