"""
The contract suite: one set of tests, run unchanged against every kind of store.

Each test has a `Place` of its own; `Place.open` opens another store object on the same data, as
another process does.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from leader_jobs.config import Settings
from testsupport.over_grpc import OVER_GRPC, etcd_url
from testsupport.place import Place

#: The shortest lease in seconds that each kind of store grants.
SHORTEST_TTL = {"memory": 0.5, "sqlite": 0.5, "etcd": 1.0, "etcd-grpc": 1.0}
#: Whatever needs no etcd3 is tested without it.
KINDS = ["etcd-grpc"] if OVER_GRPC else ["memory", "sqlite", "etcd"]


@pytest.fixture(
    name="place",
    params=[
        pytest.param(kind, marks=pytest.mark.etcd) if kind.startswith("etcd") else kind
        for kind in KINDS
    ],
)
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind: str = request.param
    unique = uuid.uuid4().hex
    if kind.startswith("etcd"):
        url = etcd_url(request.getfixturevalue("newest_etcd"))
    else:
        url = {"memory": f"memory://{unique}", "sqlite": f"sqlite:///{tmp_path}/leader.sqlite3"}[
            kind
        ]
    settings = Settings(store=url, namespace=f"contract/{unique}")
    place = Place(settings, SHORTEST_TTL[kind], forks=kind != "etcd-grpc")
    yield place
    place.close()
