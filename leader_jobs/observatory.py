"""
Looking at elections from outside: who leads, who is next, what became of the jobs.

An observer takes part in nothing and writes nothing, so any process may look, as often as it likes;
what it has read of the jobs' histories it remembers for as long as it holds. A look takes several
reads, so that it may show a run as open and, in the next moment, as closed; never as neither.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreRefused
from leader_jobs.histories import Histories, Kept, entries
from leader_jobs.jsonrecords import UnreadableRecord
from leader_jobs.leaders import Leader
from leader_jobs.names import check_election, runners_of
from leader_jobs.orders import CONTROL_PREFIX, RECEIPT_KEY, Orders, Pause, Receipt, Request
from leader_jobs.overview import ElectionView, JobView, Member, Summary, is_overdue
from leader_jobs.records import (
    JOBS_PREFIX,
    JobRecord,
    OccurrenceRecord,
    State,
    history_prefix,
    job_key,
)
from leader_jobs.stores.base import Entrant, Record, Store, Survey
from leader_jobs.terms import GONE, TERMS_PREFIX, TermRecord, read_terms
from leader_jobs.texts import printable, shown

__all__ = ["Observatory"]

#: For how long requests are shown.
_REQUESTS: Final = timedelta(minutes=10)
#: No process id of any system is greater.
_MOST_PID: Final = 2**32
#: Those of this library's candidates are shorter by far.
_LONGEST_ID: Final = 200


class Observatory:
    """
    Answers questions about the elections of one store.

    Args:
        store: where they are held.
        clock: where moments and instants come from.
        timeout: seconds that one question may take.

    Every method raises `StoreError` if the store does not answer by then. Many threads may ask; the
    child of a fork may too, and remembers nothing of its parent's.
    """

    def __init__(self, store: Store, *, clock: Clock, timeout: float = 5.0) -> None:
        self._store = store
        self._clock = clock
        self._timeout = timeout
        self._histories = Histories(store)

    def elections(self, *, otherwise: Collection[str] = ()) -> tuple[Summary, ...]:
        """
        Return all elections, by name.

        Args:
            otherwise: those to show where this process may not list the store's, for its role is
                confined to some; with none, that raises `StoreRefused`.
        """
        deadline = self._limit()
        try:
            names = self._store.elections(deadline=deadline)
        except StoreRefused:
            if not otherwise:
                raise
            names = tuple(sorted(otherwise))
        survey = self._store.survey(names, JOBS_PREFIX, CONTROL_PREFIX, deadline=deadline)
        now = self._clock.utcnow()
        return tuple(self._summary(name, found, now) for name, found in survey.items())

    def election(
        self, name: str, *, recent: int = 30, of: Collection[str] | None = None
    ) -> ElectionView:
        """
        Return an election in full; an empty view if nobody uses the name.

        Args:
            name: the election's name.
            recent: how many closed occurrences to look for, of each job; 0 for none.
            of: look for those of these jobs alone; None: of all. Where there are thousands of jobs,
                ask for what is shown: the first look reads a row for each occurrence.

        Raises:
            ConfigurationError: no election can have that name.
        """
        check_election(name)
        deadline = self._limit()
        now = self._clock.utcnow()
        candidates = self._entrants(name, deadline)
        members = self._entrants(runners_of(name), deadline)
        rows = self._store.read(
            name, JOBS_PREFIX, TERMS_PREFIX, CONTROL_PREFIX, RECEIPT_KEY, deadline=deadline
        )
        orders = Orders.read(_under(CONTROL_PREFIX, rows), now=now)
        jobs = self._histories.jobs(name, rows)
        asked = {job: kept for job, kept in jobs.items() if of is None or job in of}
        jobs |= self._histories.look(name, asked, depth=recent, deadline=deadline)
        return ElectionView(
            election=name,
            at=now,
            candidates=tuple(_member(name, e, place) for place, e in enumerate(candidates)),
            members=tuple(_member(name, e, None) for e in members),
            pause=_pause(orders, None, now),
            jobs=tuple(
                _job(kept, orders, now, recent if kept.job in asked else 0)
                for kept in jobs.values()
            ),
            terms=_terms(rows, jobs.values()),
            requests=_requests(orders, now),
            receipt=_receipt(rows),
        )

    def history(self, name: str, job: str) -> tuple[OccurrenceRecord, ...]:
        """
        Return all that is kept of the occurrences of a job, oldest first; the open ones too.

        Raises:
            ConfigurationError: no election can have that name.
        """
        check_election(name)
        deadline = self._limit()
        rows = self._store.read(name, job_key(job), history_prefix(job), deadline=deadline)
        kept = self._histories.jobs(name, rows).get(job)
        closed = entries(_under(history_prefix(job), rows))
        return _in_order(closed, kept.record.open if kept and kept.record else ())

    # -- parts of the answers -----------------------------------------------------------------------

    def _summary(self, name: str, found: Survey, now: datetime) -> Summary:
        orders = Orders.read(_under(CONTROL_PREFIX, found.records), now=now)
        jobs = self._histories.jobs(name, found.records)
        leader = next(iter(found.candidates), None)
        return Summary(
            election=name,
            leader=_member(name, leader, 0) if leader is not None else None,
            candidates=len(found.candidates),
            members=len(found.runners),
            jobs=len(jobs),
            overdue=sum(_is_late(kept.job, kept.record, orders, now) for kept in jobs.values()),
            pause=_pause(orders, None, now),
        )

    def _entrants(self, electorate: str, deadline: float) -> tuple[Entrant, ...]:
        return self._store.candidates(electorate, deadline=deadline, leases=True)

    def _limit(self) -> float:
        return self._clock.now() + self._timeout


def _under(prefix: str, rows: Mapping[str, Record]) -> dict[str, Record]:
    return {key: row for key, row in rows.items() if key.startswith(prefix)}


def _member(election: str, entrant: Entrant, place: int | None) -> Member:
    """Describe a candidate, taking nothing it says at its word."""
    leader = Leader.of(election, entrant)
    proposal = leader.proposal
    pid = proposal.pid if proposal is not None else 0
    return Member(
        place=place,
        id=entrant.id[:_LONGEST_ID],
        token=entrant.token,
        node=leader.node,
        host=printable(proposal.host) if proposal is not None else None,
        pid=pid if 0 < pid < _MOST_PID else None,
        version=printable(proposal.version) if proposal is not None else None,
        foreign=leader.foreign,
        ttl=entrant.ttl,
        remaining=entrant.remaining,
    )


def _job(kept: Kept, orders: Orders, now: datetime, recent: int) -> JobView:
    pause = _pause(orders, kept.job, now)
    if kept.record is None:
        return JobView(name=kept.job, pause=pause, unreadable=kept.trouble)
    closed = kept.closed[-recent:] if recent else ()
    over = {entry.sequence for entry in closed}
    # The history was read after the record, so that what was closed meanwhile is in both.
    record = replace(kept.record, open=tuple(e for e in kept.record.open if e.sequence not in over))
    return JobView(
        name=kept.job,
        schedule=record.words,
        task=record.task,
        due=record.due,
        accounted_until=record.cursor,
        overdue=_is_late(kept.job, record, orders, now),
        pause=pause,
        open=record.open,
        recent=_in_order(closed, record.open),
    )


def _is_late(job: str, record: JobRecord | None, orders: Orders, now: datetime) -> bool:
    """Whether a job is overdue, and no pause explains that."""
    return record is not None and not orders.holds_back(job, now) and is_overdue(record, now)


def _in_order(*some: Iterable[OccurrenceRecord]) -> tuple[OccurrenceRecord, ...]:
    return tuple(sorted(chain(*some), key=lambda entry: entry.sequence))


def _pause(orders: Orders, job: str | None, now: datetime) -> Pause | None:
    pause = orders.pause_of(job, now)
    return shown(pause) if pause is not None else None


def _requests(orders: Orders, now: datetime) -> tuple[Request, ...]:
    # Asked by the clock of whoever asked, answered by that of a leader.
    return tuple(shown(r) for r in orders.requests if (r.answered_at or r.at) > now - _REQUESTS)


def _terms(rows: Mapping[str, Record], jobs: Collection[Kept]) -> tuple[TermRecord, ...]:
    terms = [shown(term) for term, _ in read_terms(_under(TERMS_PREFIX, rows))]
    for place in range(1, len(terms)):
        former, term = terms[place - 1], terms[place]
        seen = _last_seen(former, jobs) if former.reason == GONE else None
        if seen is not None:
            most = max(0.0, (term.began_at - seen).total_seconds())
            terms[place] = replace(term, took=most, exact=False)
    return tuple(terms)


def _last_seen(term: TermRecord, jobs: Collection[Kept]) -> datetime | None:
    """Return the last sign of life of a leader that was killed, as far as its jobs show one."""
    entries = chain.from_iterable(
        (*kept.closed, *(kept.record.open if kept.record is not None else ())) for kept in jobs
    )
    signs = (
        instant
        for entry in entries
        if entry.token == term.token and entry.node == term.node
        for instant in (entry.claimed_at, entry.started_at, entry.ended_at)
        if instant is not None and entry.state is not State.INTERRUPTED
    )
    return max(signs, default=None)


def _receipt(rows: Mapping[str, Record]) -> Receipt | None:
    row = rows.get(RECEIPT_KEY)
    with suppress(UnreadableRecord):
        return shown(Receipt.decode(row.value)) if row is not None else None
    return None
