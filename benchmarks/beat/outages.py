"""A broker or a store that is away for a while."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

from benchmarks.beat.fleet import wait_until
from benchmarks.beat.peers import Peer
from benchmarks.beat.rig import Rig, Rows, assembled
from benchmarks.beat.verdicts import copies, doubled, lost, spread

__all__ = ["outage"]

_ENTRIES: Final = 5
_PATIENCE: Final = 30.0
_AFTERMATH: Final = 6.0
_LONG: Final = 60.0
_SHORT: Final = 3.0


class _Found(NamedTuple):
    dead: int
    first: float | None
    lost: int
    doubled: int
    copies: int


def outage(peer: Peer, rounds: int) -> Rows:
    """Take the broker away, and then the store: for 3 s *rounds* times, and once for 60 s."""
    rows = []
    with assembled(peer, {"second": _ENTRIES}, nodes=3) as rig:
        for name, away in _parts(rig):
            for seconds, times in ((_SHORT, rounds), (_LONG, 1)):
                found = [_measure(rig, away, seconds) for _ in range(times)]
                rows.append([f"{name} {seconds:g} s", str(times), *_cells(found)])
    return rows


def _cells(found: list[_Found]) -> list[str]:
    firsts = [one.first for one in found if one.first is not None]
    silent = len(found) - len(firsts)
    first = spread(firsts) + (f", and {silent} x none" if silent and firsts else "")
    sums = [str(sum(getattr(one, name) for one in found)) for name in ("lost", "doubled", "copies")]
    if not firsts:
        sums[0] = "all since"
    return [f"{sum(one.dead for one in found)} of {3 * len(found)}", first, *sums]


def _measure(rig: Rig, away: Callable[[float], float], seconds: float) -> _Found:
    """Return what came of it; nodes that ended are replaced afterwards, for the next time."""
    time.sleep(3.5)
    began = time.time()
    back = away(seconds)
    first = rig.first(back, _PATIENCE)
    wait_until((first.at if first else back) + _AFTERMATH)
    messages = rig.recorder.since(began - 3)
    dead = [node for node in rig.fleet.nodes if not node.alive]
    for node in dead:
        rig.fleet.replace(node)
    return _Found(
        len(dead),
        first.at - back if first else None,
        lost(messages),
        doubled(messages),
        copies(messages),
    )


def _parts(rig: Rig) -> Iterator[tuple[str, Callable[[float], float]]]:
    """Return what can be taken away: each takes seconds, and returns when it was back."""

    def broker(seconds: float) -> float:
        rig.redis.kill()
        time.sleep(seconds)
        rig.redis.start()
        return time.time()

    def database(seconds: float) -> float:
        with closing(sqlite3.connect(rig.database, timeout=10, isolation_level=None)) as held:
            held.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            held.execute("ROLLBACK")
        return time.time()

    def cluster(seconds: float) -> float:
        assert rig.etcd is not None
        for member in rig.etcd.members:
            member.kill()
        time.sleep(seconds)
        for member in rig.etcd.members:
            member.start()
        rig.etcd.wait_healthy()
        return time.time()

    store = rig.fleet.peer.store
    yield ("broker" if store else "broker with locks"), broker
    if store:
        yield "store", cluster if store == "etcd" else database
