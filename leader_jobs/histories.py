"""
Jobs and their histories as read from a register, remembered for as long as they hold.

To decode a row takes longer than to read it, and to read it from a server longer than either. Every
commit that writes history of a job writes the job's record too, so as long as that row is as it was,
the job's history is. And of a history that did change, most rows are as they were.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from leader_jobs.jsonrecords import UnreadableRecord
from leader_jobs.records import (
    HISTORY,
    JOBS_PREFIX,
    JobRecord,
    OccurrenceRecord,
    history_key,
    history_prefix,
)
from leader_jobs.stores.base import ABSENT, Record, Store
from leader_jobs.texts import is_plain, printable, shown

__all__ = ["Histories", "Kept", "entries"]

#: How many decoded rows are remembered; each takes some 600 bytes.
_MOST: Final = 60_000
#: Of how many entries, at most, the keys differ in their last character alone.
_ALIKE: Final = 10


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What is kept of one job, as far as it was looked for; the texts in it can be printed.

    Attributes:
        job: the job's name.
        row: the row of its record, as read.
        record: what the row says; None if it can not be read.
        trouble: why not; else empty.
        depth: how many closed occurrences were looked for.
        closed: the newest closed occurrences, *depth* of them if there are as many, oldest first.
        rows: the decoded rows of the history by key, with their versions; None: it can not be read.
    """

    job: str
    row: Record
    record: JobRecord | None
    trouble: str = ""
    depth: int = 0
    closed: tuple[OccurrenceRecord, ...] = ()
    rows: Mapping[str, tuple[int, OccurrenceRecord | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, job: str, row: Record, before: "Kept | None") -> "Kept":
        """Return what *row*, the record of *job*, says; *before* is what was known before it."""
        if before is not None and before.row == row:
            return before
        rows = before.rows if before is not None else {}
        try:
            return cls(job, row, _decode_job(job, row.value), rows=rows)
        except UnreadableRecord as error:
            return cls(job, row, None, printable(str(error)), rows=rows)

    def with_history(self, found: Mapping[str, Record], depth: int) -> Self:
        """Return this with its newest *depth* closed occurrences, from the rows *found*."""
        rows: dict[str, tuple[int, OccurrenceRecord | None]] = {}
        closed: list[OccurrenceRecord] = []
        for key in self._newest_first():
            row = found.get(key)
            if row is None:
                continue
            version, entry = self.rows.get(key, (ABSENT, None))
            if version != row.version:
                entry = _decode(row.value)
            rows[key] = row.version, entry
            if entry is not None:
                closed.append(entry)
            if len(closed) == depth:
                break
        closed.sort(key=lambda entry: entry.sequence)
        return replace(self, depth=depth, closed=tuple(closed), rows=rows)

    def prefixes(self, depth: int) -> list[str]:
        """Return what the keys of the newest *depth* closed occurrences begin with."""
        assert self.record is not None  # noqa: S101  for mypy: else there is nothing to look for
        places = self._places(depth + len(self.record.open))
        some = sorted({history_key(self.job, sequence)[:-1] for sequence in places})
        return some if len(some) * _ALIKE < HISTORY else [history_prefix(self.job)]

    def _newest_first(self) -> Iterator[str]:
        """Yield the keys of the history."""
        assert self.record is not None  # noqa: S101  for mypy, as above
        places = self._places(HISTORY)
        still_open = {entry.sequence for entry in self.record.open}
        yield from (history_key(self.job, place) for place in places if place not in still_open)
        # What lies there is older than all the rest, by a whole ring.
        yield from (history_key(self.job, place) for place in places if place in still_open)

    def _places(self, many: int) -> range:
        newest = self.record.sequence - 1 if self.record is not None else 0
        return range(newest, newest - min(many, HISTORY), -1)


class Histories:
    """
    Reads jobs with their histories, and remembers them.

    Args:
        store: where from.
        most: how many decoded rows are remembered, of all elections together.

    Many threads may use it. The child of a fork begins with nothing remembered.
    """

    def __init__(self, store: Store, *, most: int = _MOST) -> None:
        self._store = store
        self._most = most
        self._memory = _Memory(most)

    def jobs(self, election: str, rows: Mapping[str, Record]) -> dict[str, Kept]:
        """Return what the *rows* under `JOBS_PREFIX` say, by the job's name, in order of names."""
        memory = self._remembered()
        found: dict[str, Kept] = {}
        for key in sorted(key for key in rows if key.startswith(JOBS_PREFIX)):
            job, row = key.removeprefix(JOBS_PREFIX), rows[key]
            before = memory.get((election, job))
            found[job] = kept = Kept.of(job, row, before)
            if kept is not before:
                memory.put((election, job), kept)
        return found

    def look(
        self, election: str, jobs: Mapping[str, Kept], *, depth: int, deadline: float
    ) -> dict[str, Kept]:
        """
        Return *jobs* with the newest *depth* closed occurrences of each, or more.

        Raises:
            StoreError: they had to be read and could not be.

        What was closed since the jobs' rows were read may be among them.
        """
        lacking = [kept for kept in jobs.values() if kept.record and kept.depth < depth]
        if not lacking:
            return dict(jobs)
        prefixes = [prefix for kept in lacking for prefix in kept.prefixes(depth)]
        rows = self._store.read(election, *prefixes, deadline=deadline)
        memory = self._remembered()
        found = dict(jobs)
        for kept in lacking:
            found[kept.job] = kept.with_history(rows, depth)
            memory.put((election, kept.job), found[kept.job])
        return found

    def _remembered(self) -> "_Memory":
        # The lock of a parent may be held for ever in its child.
        if self._memory.pid != os.getpid():
            self._memory = _Memory(self._most)
        return self._memory


class _Memory:
    """What is known of jobs, by election and name; what was not asked for longest goes first."""

    def __init__(self, most: int) -> None:
        self.pid: Final = os.getpid()
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._weight = 0

    def get(self, key: tuple[str, str]) -> Kept | None:
        """Return what is known of a job."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def put(self, key: tuple[str, str], kept: Kept) -> None:
        """Know this of a job, and forget others if there is no room for all."""
        with self._lock:
            before = self._known.pop(key, None)
            self._known[key] = kept
            self._weight += _weight(kept) - (0 if before is None else _weight(before))
            while self._weight > self._most:
                _, forgotten = self._known.popitem(last=False)
                self._weight -= _weight(forgotten)


def _weight(kept: Kept) -> int:
    return 1 + len(kept.rows)


def entries(rows: Mapping[str, Record]) -> list[OccurrenceRecord]:
    """Return what the *rows* of a history say; those that can not be read are left out."""
    return [entry for entry in map(_decode, (row.value for row in rows.values())) if entry]


def _decode_job(job: str, raw: bytes) -> JobRecord:
    record = JobRecord.decode(raw)
    if record.job != job:
        msg = f"it says that it is of job {record.job!r}"
        raise UnreadableRecord(msg)
    if is_plain(raw):
        return record
    return replace(shown(record), open=tuple(shown(entry) for entry in record.open))


def _decode(raw: bytes) -> OccurrenceRecord | None:
    try:
        entry = OccurrenceRecord.decode(raw)
    except UnreadableRecord:
        return None
    return entry if is_plain(raw) else shown(entry)
