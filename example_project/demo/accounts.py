"""What was planned for a job, and what became of it: the schedule and the ledger against the evidence."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from demo.observer import Observer
from leader_jobs.jobs import Job
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.schedules import Schedule

__all__ = ["Account", "account"]

_MICRO = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Account:
    """
    One job's occurrences, from the first one claimed to the ledger's cursor.

    Attributes:
        job: its name.
        planned: how many instants the schedule has in that time.
        run: how many of them left a row in the `WorkLog`.
        doubled: how many rows there are beyond one for each instant.
        missed: the instants that left no row and of which the ledger has nothing to say.
        unplanned: the instants that left a row although the schedule does not have them, and nobody
            asked for a run there.
        settled: how many left no row, by what the ledger says of them: interrupted, coalesced,
            skipped, failed; or claimed, if the last node stopped before it came to them.
    """

    job: str
    planned: int
    run: int
    doubled: int
    missed: tuple[datetime, ...]
    unplanned: tuple[datetime, ...]
    settled: Counter[State]


def account(job: Job, observer: Observer) -> Account:
    """Return the account of *job* as of the observer's last look."""
    entries = observer.entries[job.name].values()
    rows = Counter(row.planned_at for row in observer.work if row.job == job.name)
    record = observer.jobs.get(job.name)
    planned: set[datetime] = set()
    if record is not None and entries:
        first = min(entry.first or entry.planned_at for entry in entries)
        planned = set(_instants(job.schedule, first, record.cursor))
    said = dict(_said(job.schedule, entries))
    without = planned - rows.keys()
    asked = {entry.planned_at for entry in entries if entry.asked_by}
    silent = [i for i in without if said.get(i, State.SUCCEEDED) is State.SUCCEEDED]
    return Account(
        job=job.name,
        planned=len(planned),
        run=len(planned & rows.keys()),
        doubled=rows.total() - len(rows),
        missed=tuple(sorted(silent)),
        unplanned=tuple(sorted(rows.keys() - planned - asked)),
        settled=Counter(said[instant] for instant in without.difference(silent)),
    )


def _said(
    schedule: Schedule, entries: Iterable[OccurrenceRecord]
) -> Iterator[tuple[datetime, State]]:
    """Yield what the ledger says of each instant; a record may stand for a range of them."""
    for entry in entries:
        for instant in _instants(schedule, entry.first or entry.planned_at, entry.planned_at):
            yield instant, entry.state


def _instants(schedule: Schedule, first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield the planned instants from *first* to *last*, both included."""
    instant = schedule.next_after(first - _MICRO)
    while instant is not None and instant <= last:
        yield instant
        instant = schedule.next_after(instant)
