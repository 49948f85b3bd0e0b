"""A store full of elections, for whatever is measured on one: pages, commands, answers for programs."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.names import runners_of
from leader_jobs.orders import Pause, paused_key
from leader_jobs.proposals import Proposal
from leader_jobs.records import HISTORY, JobRecord, OccurrenceRecord, State, history_key, job_key
from leader_jobs.stores.base import Store, Write
from leader_jobs.terms import KEPT, TermRecord, term_key

__all__ = ["change", "fill"]

_TTL: Final = 3600.0
_PATIENCE: Final = 60.0
_EVERY: Final = timedelta(minutes=1)


def fill(
    store: Store,
    *,
    clock: Clock,
    elections: int = 20,
    jobs: int = 50,
    occurrences: int = HISTORY,
    candidates: int = 3,
) -> tuple[str, ...]:
    """
    Fill *store* with elections in which much has happened, and return their names.

    Args:
        store: an empty one.
        clock: where its moments and the records' instants come from.
        elections: how many.
        jobs: how many each has.
        occurrences: how many closed ones are kept of each job; one more is open.
        candidates: how many stand in each, and as many more that only run jobs.

    The candidates' leases outlast any measuring, on the embedded store as long as *store* is open.
    """
    names = tuple(f"election{number:03d}" for number in range(elections))
    now = clock.utcnow()
    for name in names:
        for number in range(candidates):
            for electorate in (name, runners_of(name)):
                deadline = clock.now() + _PATIENCE
                store.enrol(electorate, _proposal(number), _TTL, deadline=deadline)
        _write(store, name, _rows(jobs, occurrences, now), clock)
    return names


def change(store: Store, election: str, jobs: int, *, clock: Clock) -> None:
    """Have one more occurrence of the first *jobs* jobs come to its end."""
    rows = store.read(election, job_key(""), deadline=clock.now() + _PATIENCE)
    writes: list[Write] = []
    for key in sorted(rows)[:jobs]:
        record = JobRecord.decode(rows[key].value)
        closed = record.open[0].closed(State.SUCCEEDED, clock.utcnow())
        record = record.without(closed.sequence)
        planned = record.cursor + _EVERY
        record = record.claim(planned, token=1, node="node0", now=clock.utcnow())
        writes.append(Write(key, record.encode()))
        writes.append(Write(history_key(record.job, closed.sequence), closed.encode()))
    _write(store, election, iter(writes), clock)


def _proposal(number: int) -> bytes:
    proposal = Proposal.of_this_process(f"node{number}", "1.0")
    return proposal.encode()


def _rows(jobs: int, occurrences: int, now: datetime) -> Iterator[Write]:
    pause = Pause(by="somebody", reason="because", since=now)
    yield Write(paused_key("job000"), pause.encode())
    for number in range(KEPT):
        began = now - (KEPT - number) * timedelta(hours=1)
        term = TermRecord(
            number=number,
            token=number,
            node=f"node{number % 3}",
            host="host.example.org",
            pid=4711,
            version="1.0",
            began_at=began,
            took=0.25,
        )
        ended = term.ended("resigned", began + timedelta(minutes=59))
        yield Write(term_key(number), ended.encode())
    for number in range(jobs):
        job = f"job{number:03d}"
        entries = [
            _entry(sequence, now - (occurrences - sequence) * _EVERY)
            for sequence in range(occurrences)
        ]
        for entry in entries:
            yield Write(history_key(job, entry.sequence), entry.encode())
        record = JobRecord(
            job=job,
            schedule="0123456789abcdef",
            words="every minute",
            cursor=now,
            due=now + _EVERY,
            sequence=occurrences,
        ).claim(now, token=1, node="node0", now=now)
        yield Write(job_key(job), record.encode())


def _entry(sequence: int, planned: datetime) -> OccurrenceRecord:
    failed = sequence % 10 == 0
    return OccurrenceRecord(
        sequence=sequence,
        planned_at=planned,
        state=State.FAILED if failed else State.SUCCEEDED,
        token=1,
        node="node0",
        claimed_at=planned + timedelta(milliseconds=12),
        started_at=planned + timedelta(milliseconds=23),
        ended_at=planned + timedelta(milliseconds=3456),
        owner="0123456789abcdef0123456789abcdef",
        reason="ValueError: the service answered 503" if failed else "",
    )


def _write(store: Store, election: str, rows: Iterator[Write], clock: Clock) -> None:
    """Write everything, as many at once as the store likes."""
    most = store.limits.writes

    def commit(batch: list[Write]) -> None:
        store.commit(election, batch, candidacy=None, deadline=clock.now() + _PATIENCE)

    batches = iter(lambda: list(itertools.islice(rows, most)), [])
    with ThreadPoolExecutor(store.limits.at_once) as pool:
        for _ in pool.map(commit, batches):
            pass
