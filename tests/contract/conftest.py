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
from testsupport.place import Place

#: The shortest lease in seconds that each kind of store grants.
SHORTEST_TTL = {"memory": 0.5, "sqlite": 0.5, "etcd": 1.0}


@pytest.fixture(
    name="place", params=["memory", "sqlite", pytest.param("etcd", marks=pytest.mark.etcd)]
)
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind: str = request.param
    unique = uuid.uuid4().hex
    if kind == "etcd":
        url = request.getfixturevalue("etcd").url
    else:
        url = {"memory": f"memory://{unique}", "sqlite": f"sqlite:///{tmp_path}/leader.sqlite3"}[
            kind
        ]
    place = Place(Settings(store=url, namespace=f"contract/{unique}"), SHORTEST_TTL[kind])
    yield place
    place.close()
