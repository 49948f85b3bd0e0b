"""
What there is to see of an election, as values: for pages, commands and programs alike.

All of it was true at one moment and is for showing, not for deciding. Everything that a candidate says
about itself is hostile input: here it is text without control characters, and bounded; whoever shows
it escapes it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from leader_jobs.orders import Pause, Receipt, Request
from leader_jobs.records import JobRecord, OccurrenceRecord, State
from leader_jobs.terms import TermRecord

__all__ = ["OVERDUE_AFTER", "ElectionView", "JobView", "Member", "Summary", "is_overdue"]

#: How late something may be before it is called overdue.
OVERDUE_AFTER: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """
    A process with a lease in an election.

    Attributes:
        place: 0 leads, 1 is next, …; None of one that never leads (a worker that runs jobs).
        id: the store's name for its candidacy.
        token: its token.
        node: its label; of a foreign candidate, what it says, as far as that is printable.
        host: its host, or None if it is foreign.
        pid: its process id there, likewise.
        version: its version of this library, likewise.
        foreign: whether it is a candidate of another program: it obeys no orders.
        ttl: its lease's granted time in seconds, or None if that is not known.
        remaining: seconds until the lease runs out unless it is renewed, or None likewise.
    """

    place: int | None
    id: str
    token: int
    node: str
    host: str | None
    pid: int | None
    version: str | None
    foreign: bool
    ttl: float | None
    remaining: float | None

    @property
    def suspended(self) -> bool:
        """Whether its renewals fail, as far as an outsider can tell: more than half the lease is gone."""
        return self.ttl is not None and self.remaining is not None and self.remaining < self.ttl / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """
    A job, as the ledger knows it.

    Attributes:
        name: its name.
        schedule: its schedule in words.
        task: the name of what it runs, where that has one of its own (a Celery task); else empty.
        due: the next planned instant; None if there is none, or none is known.
        accounted_until: every occurrence planned up to this instant is accounted for; None if the
            record can not be read.
        overdue: whether it is later than it should be, and nothing explains that.
        pause: the pause of this job that is in force, or None.
        open: the occurrences claimed and not closed, oldest first.
        recent: the newest closed occurrences and all open ones, oldest first.
        unreadable: why the job's record can not be read; empty if it can. Such a job is left alone.
    """

    name: str
    schedule: str = ""
    task: str = ""
    due: datetime | None = None
    accounted_until: datetime | None = None
    overdue: bool = False
    pause: Pause | None = None
    open: tuple[OccurrenceRecord, ...] = ()
    recent: tuple[OccurrenceRecord, ...] = ()
    unreadable: str = ""

    @property
    def last(self) -> OccurrenceRecord | None:
        """The newest occurrence that was run, or is; None if there is none among the recent ones."""
        runs = (entry for entry in reversed(self.recent) if entry.started_at or entry.dispatched_at)
        return next(runs, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionView:
    """
    An election in full.

    Attributes:
        election: its name.
        at: the instant of the look.
        candidates: in order of succession; the first one leads.
        members: those that never lead.
        pause: the pause of the whole election that is in force, or None.
        jobs: by name.
        terms: the last terms, oldest first; the newest may still go on.
        requests: requests of the last minutes, oldest first, answered or not.
        receipt: up to where the leader has heard orders, or None.
    """

    election: str
    at: datetime
    candidates: tuple[Member, ...]
    members: tuple[Member, ...]
    pause: Pause | None
    jobs: tuple[JobView, ...]
    terms: tuple[TermRecord, ...]
    requests: tuple[Request, ...]
    receipt: Receipt | None

    @property
    def leader(self) -> Member | None:
        """Who leads, or None."""
        return self.candidates[0] if self.candidates else None

    @property
    def overdue(self) -> int:
        """How many jobs are overdue."""
        return sum(job.overdue for job in self.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """
    An election in one line.

    Attributes:
        election: its name.
        leader: who leads, or None.
        candidates: how many candidates there are.
        members: how many processes never lead.
        jobs: how many jobs the ledger knows.
        overdue: how many of them are overdue.
        pause: the pause of the whole election that is in force, or None.
    """

    election: str
    leader: Member | None
    candidates: int
    members: int
    jobs: int
    overdue: int
    pause: Pause | None


def is_overdue(record: JobRecord, now: datetime) -> bool:
    """
    Whether a job is later than it should be, and nothing in its record explains that.

    An occurrence that was claimed and not started for `OVERDUE_AFTER` is overdue, and so is an
    instant that nobody claimed for as long; unless a run of the job is under way, which others may
    have to wait for. Pauses are the caller's to think of.
    """
    if any(entry.state is State.STARTED for entry in record.open):
        return False
    waiting = [entry.claimed_at for entry in record.open if entry.state is State.CLAIMED]
    late = now - OVERDUE_AFTER
    return any(since < late for since in waiting) or (record.due is not None and record.due < late)
