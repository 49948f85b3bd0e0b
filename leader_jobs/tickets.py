"""
Tickets: what a message carries to say which occurrence it is for.

A ticket proves nothing by itself. It names an occurrence, and the ledger says whether that was
claimed and may be started; so a ticket that was made up, altered or kept from long ago starts
nothing that the ledger does not expect.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from leader_jobs.exceptions import ConfigurationError, LeaderJobsError
from leader_jobs.names import check_election, check_job
from leader_jobs.occurrences import Policy, occurrence_id

__all__ = ["BadTicket", "Ticket"]

_FORMAT: Final = 1


class BadTicket(LeaderJobsError):
    """What was found in the place of a ticket is none that this version can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """
    The name of a claimed occurrence, as it travels with a message.

    Attributes:
        election: the election whose leader claimed it.
        job: the job's name.
        planned_at: the instant it was planned for, in UTC.
        sequence: its number in the job's record.
        attempt: which attempt the message is for.
        token: the term it was dispatched under.
        policy: the job's policy where it was dispatched; None for what its runner knows of it.
        rerun_on_crash: whether a run whose process died is attempted again; None likewise.
    """

    election: str
    job: str
    planned_at: datetime
    sequence: int
    attempt: int
    token: int
    policy: Policy | None = None
    rerun_on_crash: bool | None = None

    @property
    def occurrence(self) -> str:
        """The occurrence's id, which its messages have as their task id."""
        return occurrence_id(self.election, self.job, self.planned_at)

    def encode(self) -> dict[str, Any]:
        """Return the ticket as plain values that any serialiser takes."""
        ticket: dict[str, Any] = {
            "v": _FORMAT,
            "election": self.election,
            "job": self.job,
            "planned_at": self.planned_at.astimezone(UTC).isoformat(),
            "sequence": self.sequence,
            "attempt": self.attempt,
            "token": self.token,
        }
        if self.policy is not None:
            ticket["policy"] = _plain(self.policy)
        if self.rerun_on_crash is not None:
            ticket["rerun_on_crash"] = self.rerun_on_crash
        return ticket

    @classmethod
    def decode(cls, found: object) -> Self:
        """
        Read a ticket back from what a message had in its place, which may be anything.

        Raises:
            BadTicket: it is no ticket of this format.
        """
        if not isinstance(found, dict) or found.get("v") != _FORMAT:
            msg = f"not a ticket of this library: {str(found)[:80]!r}"
            raise BadTicket(msg)
        policy, rerun = found.get("policy"), found.get("rerun_on_crash")
        try:
            planned_at = datetime.fromisoformat(found["planned_at"])
            if planned_at.tzinfo is None:
                msg = "planned_at has no time zone"
                raise BadTicket(msg)
            return cls(
                election=check_election(found["election"]),
                job=check_job(found["job"]),
                planned_at=planned_at.astimezone(UTC),
                sequence=_number(found["sequence"]),
                attempt=_number(found["attempt"]),
                token=_number(found["token"]),
                policy=None if policy is None else Policy(**policy),
                rerun_on_crash=None if rerun is None else rerun is True,
            )
        except (KeyError, TypeError, ValueError, OverflowError, ConfigurationError) as error:
            msg = f"a ticket that can not be read: {error}"
            raise BadTicket(msg) from None


def _plain(policy: Policy) -> dict[str, Any]:
    window = policy.window
    return {
        "catch_up": policy.catch_up.value,
        "window": None if window is None else window.total_seconds(),
        "max_burst": policy.max_burst,
        "overlap": policy.overlap,
    }


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        msg = f"{str(value)[:40]!r} is not a number"
        raise ValueError(msg)
    return value
