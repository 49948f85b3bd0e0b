"""
Where this process stands in its elections, as values: what probes and metrics show.

Everything is taken from memory; the store is not asked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from leader_jobs.clock import Clock
from leader_jobs.overview import is_overdue
from leader_jobs.term import Term
from leader_jobs.vitals import Place

__all__ = ["UNHEALTHY_AFTER", "Position", "Role"]

#: How many seconds a leader's loop may be away, or what is due may wait, before it is unhealthy.
UNHEALTHY_AFTER: Final = 30.0


class Role(StrEnum):
    """What this process is in an election."""

    LEADER = "leader"
    #: It leads, and its renewals fail: nothing new starts.
    SUSPENDED = "suspended"
    STANDBY = "standby"
    #: It is not in the electorate, and tries to get into it.
    SEEKING = "seeking"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """
    Where this process stands in one election.

    Attributes:
        election: its name.
        node: this node's label.
        role: what it is there.
        alive: whether the thread that stands for it runs.
        token: the token of its candidacy, or None while it has none.
        ttl: the granted lease time in seconds, or None likewise.
        remaining: of a leader, seconds until its term ends unless it is renewed; else None.
        since: of a leader, since when; else None.
        turned: of a leader that does more than hold a term, seconds since its loop last came round;
            else None.
        due: of a leader, the next instant at which something is due; None if nothing is.
        late: of a leader, for how many seconds something has been due; 0.0 if nothing is.
        overdue: of a leader, how many jobs are later than they should be.
        paused: of a leader, whether the whole election is paused.
        doubt: of one that does not lead, why it could not lead, in words; None as far as it knows.
    """

    election: str
    node: str
    role: Role
    alive: bool
    token: int | None = None
    ttl: float | None = None
    remaining: float | None = None
    since: datetime | None = None
    turned: float | None = None
    due: datetime | None = None
    late: float = 0.0
    overdue: int = 0
    paused: bool = False
    doubt: str | None = None

    @property
    def leads(self) -> bool:
        """Whether this process leads, in doubt or not."""
        return self.role in (Role.LEADER, Role.SUSPENDED)

    @property
    def trouble(self) -> str | None:
        """Why a leader whose store answers is not healthy, in words, or None."""
        if self.role is not Role.LEADER:
            return None
        if self.turned is not None and self.turned > UNHEALTHY_AFTER:
            return f"its loop has not come round for {self.turned:.0f} s"
        if self.late > UNHEALTHY_AFTER and not self.paused:
            return f"what is due has not been claimed for {self.late:.0f} s"
        return None

    @classmethod
    def of(cls, place: Place, *, clock: Clock) -> Self:
        """Say where *place* is at this moment."""
        candidate = place.candidate
        term, candidacy = candidate.term, candidate.candidacy
        election, node, alive = candidate.election, candidate.node, candidate.alive
        if term is not None:
            return cls._leading(place, term, clock=clock)
        if candidacy is None:
            return cls(
                election=election,
                node=node,
                role=Role.SEEKING,
                alive=alive,
                doubt=candidate.doubt,
            )
        return cls(
            election=election,
            node=node,
            role=Role.STANDBY,
            alive=alive,
            token=candidacy.token,
            ttl=candidacy.ttl,
            doubt=candidate.doubt,
        )

    @classmethod
    def _leading(cls, place: Place, term: Term, *, clock: Clock) -> Self:
        tally, orders, now = place.ledger.tally, place.orders.known, clock.utcnow()
        turned, due = tally.turned_at, tally.due
        records = (r for r in place.ledger.remembered() if not orders.holds_back(r.job, now))
        late = (now - due) if due is not None else timedelta(0)
        return cls(
            election=term.election,
            node=place.candidate.node,
            role=Role.SUSPENDED if term.suspended else Role.LEADER,
            alive=place.candidate.alive,
            token=term.token,
            ttl=term.ttl,
            remaining=term.remaining,
            since=place.steward.began_at,
            turned=None if turned is None else max(0.0, clock.now() - turned),
            due=due,
            late=max(0.0, late.total_seconds()),
            overdue=sum(is_overdue(record, now) for record in records),
            paused=orders.pause_of(None, now) is not None,
        )
