"""A fleet with all it needs around it: broker, record and store."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.beat.broker import Message, QuickRedis, Recorder
from benchmarks.beat.fleet import Fleet, awaited
from benchmarks.beat.peers import Peer
from testsupport.etcd import EtcdCluster

__all__ = ["Rig", "Rows", "assembled"]

#: What a scenario returns: the cells of each row of its table.
Rows = list[list[str]]
_QUIET_WITHIN: Final = 60.0


@dataclass(frozen=True)
class Rig:
    """
    What a scenario works with.

    Attributes:
        fleet: the nodes.
        recorder: the record of their messages.
        redis: the broker.
        etcd: the cluster, if the peer's store is one.
        database: the path of the embedded store, whether it is used or not.
    """

    fleet: Fleet
    recorder: Recorder
    redis: QuickRedis
    etcd: EtcdCluster | None
    database: Path

    def first(
        self, since: float, within: float, *, of: Callable[[Message], bool] = lambda _: True
    ) -> Message | None:
        """Wait for the first message after *since* that is one *of* those; None if none comes."""

        def look() -> Message | None:
            return next(filter(of, self.recorder.since(since)), None)

        return awaited(look, within)


def _wait_quiet() -> None:
    """Wait until other fleets have started too: half of the machine has nothing to do."""
    limit = time.monotonic() + _QUIET_WITHIN
    before = _processor_times()
    while time.monotonic() < limit:
        time.sleep(1.0)
        now = _processor_times()
        spent = [b - a for a, b in zip(before, now, strict=True)]
        if spent[3] > sum(spent) / 2:
            return
        before = now


def _processor_times() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]


@contextmanager
def assembled(peer: Peer, entries: Mapping[str, int], *, nodes: int) -> Iterator[Rig]:
    """Start everything that *nodes* of *peer* need, and them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beat-")))
        redis = stack.enter_context(QuickRedis())
        recorder = stack.enter_context(Recorder(redis))
        database = folder / "store.sqlite3"
        etcd = None
        if peer.store == "etcd":
            etcd = stack.enter_context(EtcdCluster(3, heartbeat=100, election=1000))
        places = {
            "redis": redis.url,
            "store": etcd.url if etcd else f"sqlite:///{database}",
            "folder": str(folder),
        }
        fleet = Fleet(peer, entries, recorder=recorder, places=places)
        stack.enter_context(fleet)
        fleet.start(nodes)
        _wait_quiet()
        yield Rig(fleet, recorder, redis, etcd, database)
