"""
The ledger's records: what is kept of a job and of its occurrences, and how it is written down.

One *job record* per job holds the cursor (every occurrence up to it is accounted for) and the
occurrences that are still open. A closed occurrence moves to the job's *history*, a ring of the
last `HISTORY` entries, so that nothing grows without bound. All are JSON, for people with a store's
own tools; what can not be read back is never guessed at.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from leader_jobs.jsonrecords import UnreadableRecord, checked, dump, instant, load, plain
from leader_jobs.occurrences import Passed, Reason

__all__ = [
    "HISTORY",
    "JOBS_PREFIX",
    "MOST_ATTEMPTS",
    "JobRecord",
    "OccurrenceRecord",
    "State",
    "UnreadableRecord",
    "history_key",
    "history_prefix",
    "job_key",
]

#: How many closed occurrences are kept of each job.
HISTORY: Final = 100
#: A body that kills its process would otherwise take down one process after the other, for ever.
MOST_ATTEMPTS: Final = 5
JOBS_PREFIX: Final = "jobs/"


_INSTANTS: Final = (
    "planned_at",
    "claimed_at",
    "started_at",
    "ended_at",
    "dispatched_at",
    "first",
)


class State(StrEnum):
    """What became of an occurrence."""

    CLAIMED = "claimed"
    #: A message that starts it was handed to a broker.
    DISPATCHED = "dispatched"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SKIPPED = "skipped"
    COALESCED = "coalesced"


def job_key(job: str) -> str:
    """Return the key of the job record of *job*."""
    return f"{JOBS_PREFIX}{job}"


def history_prefix(job: str) -> str:
    """Return what the keys of the history of *job* begin with."""
    return f"history/{job}/"


def history_key(job: str, sequence: int) -> str:
    """Return the key of the history entry number *sequence*; entries a full ring apart share it."""
    return f"{history_prefix(job)}{sequence % HISTORY:03d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OccurrenceRecord:
    """
    One occurrence of a job, or a range of occurrences that were passed over together.

    Attributes:
        sequence: its number in the job's own count.
        planned_at: the planned instant; of a range, the last one.
        state: what became of it.
        token: the term it was claimed, started or passed over under, whichever came last.
        node: label of the node that did so.
        claimed_at: when.
        started_at: when its body was started, or None.
        ended_at: when it was closed, or None while it is open.
        dispatched_at: when a message for it was last handed to a broker, or is next to be taken
            from it, or None.
        copies: how many times a message for it was handed to a broker.
        retries: how many times its body asked to be retried; the message with that number counts.
        owner: the incarnation of the process that runs it; empty before.
        attempt: 1, or more after a crash of a job that asked to be rerun.
        reason: why it was skipped, interrupted or failed; one line.
        asked_by: who asked for it, where it was not planned by a schedule; else empty.
        first: of a range, its first planned instant.
        count: how many occurrences it stands for.
        exact: whether *count* is exact, or only a lower bound.
    """

    sequence: int
    planned_at: datetime
    state: State
    token: int
    node: str
    claimed_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    dispatched_at: datetime | None = None
    copies: int = 0
    retries: int = 0
    owner: str = ""
    attempt: int = 1
    reason: str = ""
    asked_by: str = ""
    first: datetime | None = None
    count: int = 1
    exact: bool = True

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a record back; raise `UnreadableRecord` if that is not certain."""
        return cls.read(load(raw))

    @classmethod
    def read(cls, found: Any) -> Self:
        """Read a record back from its JSON value; raise `UnreadableRecord` likewise."""
        try:
            values = {key: value for key, value in found.items() if key != "v"}
            for key in _INSTANTS:
                if values.get(key) is not None:
                    values[key] = instant(values[key])
            values["state"] = State(values["state"])
            return checked(cls(**values))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            msg = f"not an occurrence record this version can read ({error})"
            raise UnreadableRecord(msg) from None

    def dispatched(self, now: datetime, *, token: int) -> Self:
        """Return the record of this occurrence with one more message, sent under *token*."""
        return replace(
            self, state=State.DISPATCHED, token=token, dispatched_at=now, copies=self.copies + 1
        )

    def starting(self, *, token: int, node: str, owner: str, now: datetime) -> Self:
        """Return the record of this occurrence as its body is about to start."""
        return replace(
            self, state=State.STARTED, token=token, node=node, owner=owner, started_at=now
        )

    def closed(self, state: State, now: datetime, reason: str = "") -> Self:
        """Return the record of this occurrence as it ends in *state*; the reason on one line."""
        return replace(self, state=state, ended_at=now, reason=" ".join(reason.split())[:500])

    def back(self) -> Self:
        """Return the record of this occurrence as it was before its body was to start."""
        state = State.CLAIMED if self.dispatched_at is None else State.DISPATCHED
        return replace(self, state=state, owner="", started_at=None)

    def retried(self, retries: int, due: datetime) -> Self:
        """Return the record as its body, which was started, waits to be retried at *due*."""
        return replace(self.back(), state=State.DISPATCHED, retries=retries, dispatched_at=due)

    def why_not_again(self, *, rerun: bool, late: bool) -> str | None:
        """
        Say why this occurrence, whose process died running it, is not attempted again.

        Args:
            rerun: whether its job asked for that.
            late: whether it is too late for another attempt.

        Returns:
            The reason, or None if it is.
        """
        gone = f"the process that ran it on node {self.node} is gone"
        if not rerun:
            return gone
        if self.attempt >= MOST_ATTEMPTS:
            return f"{gone}, at attempt {self.attempt}"
        return f"{gone}, and it is too late" if late else None

    def again(self) -> Self:
        """Return the record of this occurrence as it waits for another attempt."""
        return replace(
            self,
            state=State.CLAIMED,
            owner="",
            started_at=None,
            dispatched_at=None,
            attempt=self.attempt + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """
    What the ledger knows of one job.

    Attributes:
        job: the job's name.
        schedule: the fingerprint of the schedule the cursor belongs to.
        words: the schedule in words, for people.
        cursor: every occurrence planned up to this instant is accounted for.
        sequence: how many occurrence records there have been.
        task: the name of what it runs, where that has one of its own (a Celery task); else empty.
        due: the next planned instant, as the leader last wrote it; None if there is none.
        open: the occurrences claimed and not closed, oldest first.
    """

    job: str
    schedule: str
    words: str
    cursor: datetime
    task: str = ""
    due: datetime | None = None
    sequence: int = 0
    open: tuple[OccurrenceRecord, ...] = ()

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self) | {"open": [plain(entry) for entry in self.open]})

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a record back; raise `UnreadableRecord` if that is not certain."""
        values = load(raw)
        try:
            for key in ("cursor", "due"):
                if values.get(key) is not None:
                    values[key] = instant(values[key])
            values["open"] = tuple(OccurrenceRecord.read(entry) for entry in values["open"])
            return checked(cls(**values))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            msg = f"not a job record this version can read ({error})"
            raise UnreadableRecord(msg) from None

    def find(self, sequence: int) -> OccurrenceRecord | None:
        """Return the open occurrence number *sequence*, or None."""
        return next((entry for entry in self.open if entry.sequence == sequence), None)

    def with_open(self, entry: OccurrenceRecord) -> Self:
        """Return the record with *entry* in the place of the open one of its number."""
        kept = tuple(entry if e.sequence == entry.sequence else e for e in self.open)
        return replace(self, open=kept)

    def without(self, sequence: int) -> Self:
        """Return the record without the open occurrence number *sequence*."""
        return replace(self, open=tuple(e for e in self.open if e.sequence != sequence))

    def claim(self, planned_at: datetime, *, token: int, node: str, now: datetime) -> Self:
        """Return the record with one more open occurrence, claimed, up to which it now accounts."""
        entry = OccurrenceRecord(
            sequence=self.sequence,
            planned_at=planned_at,
            state=State.CLAIMED,
            token=token,
            node=node,
            claimed_at=now,
        )
        return replace(
            self, cursor=planned_at, sequence=self.sequence + 1, open=(*self.open, entry)
        )

    def claim_beside(
        self, planned_at: datetime, *, token: int, node: str, now: datetime, asked_by: str
    ) -> Self:
        """Return the record with one more open occurrence, which its schedule knows nothing of."""
        claimed = self.claim(planned_at, token=token, node=node, now=now)
        entry = replace(claimed.open[-1], asked_by=asked_by)
        return replace(claimed, cursor=self.cursor, open=(*self.open, entry))

    def pass_over(
        self, passed: Passed, *, token: int, node: str, now: datetime
    ) -> tuple[Self, OccurrenceRecord]:
        """Return the record after passing a range over, and the history entry that says so."""
        coalesced = passed.reason is Reason.COALESCED
        entry = OccurrenceRecord(
            sequence=self.sequence,
            planned_at=passed.last,
            first=passed.first,
            count=passed.count,
            exact=passed.exact,
            state=State.COALESCED if coalesced else State.SKIPPED,
            reason=passed.reason.value,
            token=token,
            node=node,
            claimed_at=now,
            ended_at=now,
        )
        return replace(self, cursor=passed.last, sequence=self.sequence + 1), entry
