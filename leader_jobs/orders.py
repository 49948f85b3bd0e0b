"""
What operators order of an election: the records they leave in its register, for the leader to obey.

Two kinds. *Pauses* are a state: they stand until somebody resumes, through any number of terms.
*Requests* (resign, transfer, run a job now) are obeyed once, by the leader, who writes the answer into
the request itself, fenced. A record that can not be read is never guessed at: a pause that can not be
read holds, a request that can not be read is left alone.

Nothing here is removed by whoever asks; to resume is to write a pause that is over. So a watch that
begins at the newest version seen misses nothing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from leader_jobs.exceptions import LeaderJobsError
from leader_jobs.jsonrecords import UnreadableRecord, dump, plain, restore
from leader_jobs.lineage import LINEAGE_KEY
from leader_jobs.stores.base import Record

__all__ = [
    "CONTROL_PREFIX",
    "HEIR_KEY",
    "PATIENCE",
    "RECEIPT_KEY",
    "Answer",
    "Heir",
    "Kind",
    "Orders",
    "Pause",
    "Receipt",
    "Refusal",
    "Request",
    "paused_key",
    "request_key",
]

#: What the keys of all orders begin with; the leader watches them.
CONTROL_PREFIX: Final = "control/"
#: Where the leader notes what it has heard; not among the orders, so that it does not wake itself.
RECEIPT_KEY: Final = "heard"
HEIR_KEY: Final = f"{CONTROL_PREFIX}heir"
#: For how long, in seconds, a request waits for somebody to obey.
PATIENCE: Final = 60.0
_PAUSED: Final = f"{CONTROL_PREFIX}paused"
_REQUESTS: Final = f"{CONTROL_PREFIX}requests/"
_TEXT: Final = 500


class Refusal(LeaderJobsError):
    """An order was not carried out; the message says why, and what to do."""


class Kind(StrEnum):
    """What is requested."""

    RESIGN = "resign"
    TRANSFER = "transfer"
    RUN_NOW = "run-now"


class Answer(StrEnum):
    """What became of a request."""

    OBEYED = "obeyed"
    REFUSED = "refused"
    LAPSED = "lapsed"


def paused_key(job: str | None = None) -> str:
    """Return the key of the pause of *job*, or of the whole election."""
    return _PAUSED if job is None else f"{_PAUSED}/{job}"


def request_key(id: str) -> str:  # noqa: A002  it is one
    """Return the key of the request with *id*."""
    return f"{_REQUESTS}{id}"


def one_line(text: str) -> str:
    """Return *text* on one line, of bounded length, as reasons and names are kept."""
    return " ".join(text.split())[:_TEXT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """
    Nothing new starts: in the whole election, or of one job.

    Attributes:
        by: who paused.
        reason: why, in one line.
        since: since when.
        until: when it ends by itself; None: when somebody resumes.
        over: who resumed, or empty: a pause that is over is kept to say so.
    """

    by: str
    reason: str
    since: datetime
    until: datetime | None = None
    over: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it holds at *now*."""
        return not self.over and (self.until is None or now < self.until)

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a pause back; raise `UnreadableRecord` if that is not certain."""
        return restore(cls, raw, instants=("since", "until"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    Something to be done once, by whoever leads.

    Attributes:
        id: a random id.
        kind: what.
        by: who asks.
        at: when that was, on the clock of whoever asks.
        until: from when on it is not to be obeyed any more.
        job: of a run-now, the job.
        heir: of a transfer, the candidate that is to lead (its id in the store).
        token: of a transfer, the heir's token; of a resignation, that of the term that is to end.
        answer: what became of it; None as long as nobody has answered.
        why: of an answer, the details, in one line.
        answered_by: the node that answered.
        answered_at: when.
        planned_at: of a run-now that was obeyed, the instant of the occurrence that was claimed.
    """

    id: str
    kind: Kind
    by: str
    at: datetime
    until: datetime
    job: str = ""
    heir: str = ""
    token: int = 0
    answer: Answer | None = None
    why: str = ""
    answered_by: str = ""
    answered_at: datetime | None = None
    planned_at: datetime | None = None

    @classmethod
    def new(cls, kind: Kind, *, by: str, at: datetime, until: datetime, **details: Any) -> Self:
        """Return a request under an id of its own."""
        id_ = os.urandom(8).hex()
        return cls(id=id_, kind=kind, by=one_line(by), at=at, until=until, **details)

    def answered(
        self,
        answer: Answer,
        why: str,
        *,
        node: str,
        now: datetime,
        planned_at: datetime | None = None,
    ) -> Self:
        """Return the request with its answer."""
        return replace(
            self,
            answer=answer,
            why=one_line(why),
            answered_by=node,
            answered_at=now,
            planned_at=planned_at,
        )

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a request back; raise `UnreadableRecord` if that is not certain."""
        return restore(
            cls,
            raw,
            instants=("at", "until", "answered_at", "planned_at"),
            enums={"kind": Kind, "answer": Answer},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heir:
    """
    Who is to lead next: candidates ahead of it step back when their turn comes.

    Attributes:
        candidate: its id in the store.
        token: its token; the two together are one candidacy, so an heir that is gone binds nobody.
        by: who asked for the transfer.
    """

    candidate: str
    token: int
    by: str = ""

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read it back; raise `UnreadableRecord` if that is not certain."""
        return restore(cls, raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """
    The leader's note that it has heard, and goes by, all orders up to *version*.

    Attributes:
        version: the newest version among the orders it has read.
        token: its term.
        node: its label.
        at: when.
    """

    version: int
    token: int
    node: str
    at: datetime

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read it back; raise `UnreadableRecord` if that is not certain."""
        return restore(cls, raw, instants=("at",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """
    All orders of an election, as of one look.

    Attributes:
        version: the newest version among them; 0 if there are none.
        election: the pause of the whole election, in force or over, or None.
        jobs: the pauses of jobs, in force or over, by the job's name.
        requests: every request, answered or not, the oldest first.
        versions: the version each request was read at, by its id.
        heir: who is to lead next, if that was ordered and is not done.
        lineage: the record beside the orders that says where the ledger comes from, unread.
    """

    version: int
    election: Pause | None
    jobs: Mapping[str, Pause]
    requests: tuple[Request, ...]
    versions: Mapping[str, int]
    heir: Heir | None
    lineage: Record | None = None

    def pause_of(self, job: str | None, now: datetime) -> Pause | None:
        """Return the pause of *job* itself (None: of the election) if one is in force at *now*."""
        pause = self.election if job is None else self.jobs.get(job)
        return pause if pause is not None and pause.holds(now) else None

    def holds_back(self, job: str, now: datetime) -> bool:
        """Whether nothing of *job* is to be started by its schedule."""
        return self.pause_of(None, now) is not None or self.pause_of(job, now) is not None

    def next_end(self, now: datetime) -> datetime | None:
        """Return when the next pause that is in force ends by itself."""
        pauses = [p for p in (self.election, *self.jobs.values()) if p is not None and p.holds(now)]
        return min((p.until for p in pauses if p.until is not None), default=None)

    @classmethod
    def none(cls) -> Self:
        """Return what there is where nobody ordered anything."""
        return cls(version=0, election=None, jobs={}, requests=(), versions={}, heir=None)

    @classmethod
    def read(cls, rows: Mapping[str, Record], *, now: datetime) -> Self:
        """Read all orders from the records under `CONTROL_PREFIX`; *now* is for what can not be read."""
        jobs: dict[str, Pause] = {}
        requests: dict[Request, int] = {}
        election, heir = None, None
        for key, row in rows.items():
            if key == _PAUSED:
                election = _pause(row.value, now)
            elif key.startswith(f"{_PAUSED}/"):
                jobs[key.removeprefix(f"{_PAUSED}/")] = _pause(row.value, now)
            elif key.startswith(_REQUESTS):
                request = _or_none(Request, row.value)
                if request is not None and key == request_key(request.id):
                    requests[request] = row.version
            elif key == HEIR_KEY:
                heir = _or_none(Heir, row.value)
        return cls(
            version=max((row.version for row in rows.values()), default=0),
            election=election,
            jobs=jobs,
            requests=tuple(sorted(requests, key=lambda request: requests[request])),
            versions={request.id: version for request, version in requests.items()},
            heir=heir,
            lineage=rows.get(LINEAGE_KEY),
        )


def _pause(raw: bytes, now: datetime) -> Pause:
    try:
        return Pause.decode(raw)
    except UnreadableRecord as error:
        return Pause(by="?", reason=f"the record of the pause can not be read: {error}", since=now)


def _or_none(kind: Any, raw: bytes) -> Any:
    try:
        return kind.decode(raw)
    except UnreadableRecord:
        return None
