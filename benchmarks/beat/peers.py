"""
Who is compared, each set up as its own documentation says.

In configuration, environment and arguments, ``{redis}`` is the URL of the broker, ``{store}`` that
of our store, ``{folder}`` a directory of the fleet's and ``{node}`` the node's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

__all__ = ["PEERS", "Peer"]

_SHELVE: Final = ("--schedule", "{folder}/schedule-{node}")


@dataclass(frozen=True)
class Peer:
    """
    A way to run a beat on every node.

    Attributes:
        name: what to call it.
        settings: what was set, for readers.
        lease: how long after its death a leader's place may stay taken, in seconds; 0 for none.
        arguments: what follows ``celery beat``.
        conf: Celery's configuration.
        wrapper: the program that runs ``celery beat``; none if empty.
        environment: more environment variables of a node.
        options: options of each entry.
        store: ``sqlite``, ``etcd``, or nothing if its locks are in the broker.
        django: whether its schedule is kept in Django.
    """

    name: str
    settings: str
    lease: float
    arguments: tuple[str, ...]
    conf: Mapping[str, Any] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    store: str = ""
    django: bool = False

    @property
    def elects(self) -> bool:
        """Whether only one of its nodes is meant to tick."""
        return self.lease > 0


def _redbeat(name: str, settings: str, lease: float, **conf: float) -> Peer:
    return Peer(
        name=name,
        settings=settings,
        lease=lease,
        arguments=("--scheduler", "redbeat.RedBeatScheduler"),
        conf={"redbeat_redis_url": "{redis}"} | conf,
    )


def _single_beat(name: str, settings: str, lease: float, **environment: str) -> Peer:
    return Peer(
        name=name,
        settings=settings,
        lease=lease,
        arguments=_SHELVE,
        wrapper=("single-beat",),
        environment={"SINGLE_BEAT_REDIS_SERVER": "{redis}", "SINGLE_BEAT_IDENTIFIER": "beat"}
        | {f"SINGLE_BEAT_{key}": value for key, value in environment.items()},
    )


def _ours(name: str, settings: str, store: str, ttl: float) -> Peer:
    return Peer(
        name=name,
        settings=settings,
        lease=ttl,
        arguments=("--scheduler", "leader"),
        conf={
            "leader_jobs_store": "{store}",
            "leader_jobs_ttl": ttl,
            "leader_jobs_node": "{node}",
        },
        options={"leader_jobs": {"catch_up": "all", "max_burst": 100}},
        store=store,
    )


_ALL: Final = (
    Peer("stock", "PersistentScheduler, a file each", 0, _SHELVE),
    _redbeat("redbeat", "defaults", 1800),
    _redbeat(
        "redbeat-2s", "lock 2 s, loop 1 s", 2, redbeat_lock_timeout=2, beat_max_loop_interval=1
    ),
    _single_beat("single-beat", "defaults", 5),
    _single_beat("single-beat-3s", "lock 3 s", 3, LOCK_TIME="3", INITIAL_LOCK_TIME="4"),
    Peer(
        name="multibeat-2s",
        settings="Django, lock 2 s, loop 1 s",
        lease=2,
        arguments=("--scheduler", "multibeat.django:MultiBeatDatabaseScheduler"),
        conf={
            "multibeat_url": "{redis}",
            "multibeat_lock_timeout": 2,
            "multibeat_refresh_ratio": 0.5,
            "multibeat_min_refresh_seconds": 0.5,
            "multibeat_min_standby_seconds": 0.5,
            "beat_max_loop_interval": 1,
        },
        django=True,
    ),
    Peer(
        name="leased-3s",
        settings="lease 3 s, loop 1 s",
        lease=3,
        arguments=("-S", "celery_leased_beat.scheduler.LeasedPersistentScheduler", *_SHELVE),
        conf={
            "CELERY_LEASE_URL": "{redis}",
            "CELERY_LEASE_LOCK_TTL": 3,
            "CELERY_LEASE_INTERVAL": 1,
        },
    ),
    _ours("ours-sqlite", "embedded store, ttl 5 s", "sqlite", 5),
    _ours("ours-etcd-2s", "etcd (3 members), ttl 2 s", "etcd", 2),
    _ours("ours-etcd-5s", "etcd (3 members), ttl 5 s", "etcd", 5),
)

#: Every peer by its name, in the order of the tables.
PEERS: Final[Mapping[str, Peer]] = MappingProxyType({peer.name: peer for peer in _ALL})
