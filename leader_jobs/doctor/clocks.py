"""
How far the clocks of nodes are from this host's, as far as what they write down tells.

A node notes by its own clock when it claims or starts something. Seen for the first time at one moment
and not at the one before, such a note was written in between; so the two of our instants bound how far
its clock is from ours. Nothing is asked of anybody: where nothing is due, nothing is learned.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.doctor.findings import Finding, fine, problem, warning
from leader_jobs.durations import how_long
from leader_jobs.exceptions import StoreError
from leader_jobs.jsonrecords import UnreadableRecord
from leader_jobs.records import JOBS_PREFIX, JobRecord, OccurrenceRecord, State
from leader_jobs.stores.base import Record, Store
from leader_jobs.texts import printable

__all__ = ["Heard", "apart", "listening"]

#: Seconds between two looks at most, which is what the bounds are apart.
_LOOK: Final = 0.25
#: Seconds that a node may take from reading its clock until what it notes is in the store.
_SLACK: Final = 1.0
#: Seconds of difference that are worth a word, and that hurt.
_APART: Final = 1.0
_FAR_APART: Final = 10.0
_WITHIN: Final = 1.0


@dataclass(slots=True)
class Heard:
    """What was learned: by node, between what its clock is ahead of ours, in seconds."""

    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def note(self, node: str, instant: datetime, before: datetime, after: datetime) -> None:
        """Take in that *node* noted *instant* between two of our looks."""
        low = (instant - after).total_seconds()
        high = (instant - before).total_seconds() + _SLACK
        known = self.bounds.get(node, (low, high))
        self.bounds[node] = max(low, known[0]), min(high, known[1])

    def findings(self) -> Iterator[Finding]:
        """Yield what there is to say."""
        for node, bounds in sorted(self.bounds.items()):
            shown = printable(node)
            difference = apart(bounds)
            if abs(difference) < _APART:
                yield fine("clock", f"the clock of node {shown} agrees with this host's")
                continue
            way = "ahead of" if difference > 0 else "behind"
            yield (problem if abs(difference) >= _FAR_APART else warning)(
                "clock",
                f"the clock of node {shown} is {how_long(abs(difference))} {way} this host's, or more",
                "have all hosts keep time by NTP; jobs start by the leader's clock",
            )


def apart(bounds: tuple[float, float]) -> float:
    """Return the least difference, in seconds, that *bounds* leave possible."""
    low, high = bounds
    return low if low > 0 else high if high < 0 else 0.0


@contextmanager
def listening(store: Store, election: str, *, clock: Clock) -> Iterator[Heard]:
    """Listen to what the nodes of an election write while the block runs."""
    heard, over = Heard(), threading.Event()
    thread = threading.Thread(
        target=_listen, args=(store, election, clock, heard, over), daemon=True
    )
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join(_WITHIN + _LOOK)


def _listen(store: Store, election: str, clock: Clock, heard: Heard, over: threading.Event) -> None:
    watch, newest = store.watch(election, JOBS_PREFIX), 0
    before: datetime | None = None
    known: Mapping[str, frozenset[tuple[str, datetime]]] = {}
    while not over.is_set():
        try:
            rows = store.read(election, JOBS_PREFIX, deadline=clock.now() + _WITHIN)
        except StoreError:
            before = None
            clock.wait(over, _LOOK)
            continue
        after = clock.utcnow()
        noted = {key: _noted(row) for key, row in rows.items()}
        if before is not None:
            for key, marks in noted.items():
                for node, instant in marks - known.get(key, frozenset()):
                    heard.note(node, instant, before, after)
        known, before = noted, after
        newest = max((row.version for row in rows.values()), default=0)
        watch.wait(newest, timeout=_LOOK)


def _noted(row: Record) -> frozenset[tuple[str, datetime]]:
    """Return who noted when that something open was claimed, dispatched or started."""
    try:
        record = JobRecord.decode(row.value)
    except UnreadableRecord:
        return frozenset()
    marks = ((entry.node, _mark(entry)) for entry in record.open)
    return frozenset((node, instant) for node, instant in marks if instant is not None)


def _mark(entry: OccurrenceRecord) -> datetime | None:
    if entry.state is State.STARTED:
        return entry.started_at
    if entry.state is State.DISPATCHED:
        # One that waits to be retried notes when that is to be.
        return None if entry.retries else entry.dispatched_at
    return entry.claimed_at if entry.attempt == 1 else None
