"""
What there is to see of an election as JSON objects, for programs; ``docs/reference/json.md`` describes them.

Within one format no field is removed, renamed or given another meaning; fields are added. Every field is
always there: null where there is nothing, or nothing is known. Instants are ISO 8601 in UTC, durations
seconds.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from leader_jobs.orders import Pause, Receipt, Request
from leader_jobs.overview import ElectionView, JobView, Member, Summary
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.terms import TermRecord

__all__ = [
    "FORMAT",
    "Json",
    "election_report",
    "elections_report",
    "history_report",
    "job_report",
    "member_report",
    "occurrence_report",
    "pause_report",
    "receipt_report",
    "request_report",
    "summary_report",
    "term_report",
    "took",
]

#: The format of every document.
FORMAT: Final = 1

Json = dict[str, Any]

#: Of these it is known when they began and when they ended.
_RAN: Final = (State.SUCCEEDED, State.FAILED)


# -- documents ----------------------------------------------------------------------------------------


def election_report(view: ElectionView) -> Json:
    """Return the document about one election."""
    return {
        "format": FORMAT,
        "election": view.election,
        "at": _instant(view.at),
        "leader": member_report(view.leader) if view.leader is not None else None,
        "candidates": [member_report(member) for member in view.candidates],
        "members": [member_report(member) for member in view.members],
        "paused": _pause(view.pause),
        "overdue": view.overdue,
        "jobs": [job_report(job) for job in view.jobs],
        "terms": [term_report(term) for term in view.terms],
        "requests": [request_report(request) for request in view.requests],
        "heard": receipt_report(view.receipt) if view.receipt is not None else None,
    }


def elections_report(summaries: Iterable[Summary]) -> Json:
    """Return the document about all elections of a store."""
    return {"format": FORMAT, "elections": [summary_report(summary) for summary in summaries]}


def history_report(election: str, job: str, entries: Iterable[OccurrenceRecord]) -> Json:
    """Return the document about all that is kept of the occurrences of one job."""
    return {
        "format": FORMAT,
        "election": election,
        "job": job,
        "occurrences": [occurrence_report(entry) for entry in entries],
    }


# -- their parts --------------------------------------------------------------------------------------


def summary_report(summary: Summary) -> Json:
    """Return the object of an election among others."""
    return {
        "election": summary.election,
        "leader": member_report(summary.leader) if summary.leader is not None else None,
        "candidates": summary.candidates,
        "members": summary.members,
        "paused": _pause(summary.pause),
        "overdue": summary.overdue,
        "jobs": summary.jobs,
    }


def member_report(member: Member) -> Json:
    """Return the object of a candidate, or of a process that never leads."""
    return {
        "place": member.place,
        "id": member.id,
        "token": member.token,
        "node": member.node,
        "host": member.host,
        "pid": member.pid,
        "version": member.version,
        "foreign": member.foreign,
        "ttl": member.ttl,
        "remaining": member.remaining,
        "suspended": member.suspended,
    }


def job_report(job: JobView) -> Json:
    """Return the object of a job, with its recent occurrences."""
    counts = {state.value: 0 for state in State}
    for entry in job.recent:
        counts[entry.state.value] += entry.count
    return {
        "job": job.name,
        "schedule": job.schedule or None,
        "task": job.task or None,
        "due": _instant(job.due),
        "accounted_until": _instant(job.accounted_until),
        "overdue": job.overdue,
        "paused": _pause(job.pause),
        "unreadable": job.unreadable or None,
        "last": occurrence_report(job.last) if job.last is not None else None,
        "counts": counts,
        "open": [occurrence_report(entry) for entry in job.open],
        "recent": [occurrence_report(entry) for entry in job.recent],
    }


def occurrence_report(entry: OccurrenceRecord) -> Json:
    """Return the object of an occurrence, or of a range of them that was passed over together."""
    return {
        "sequence": entry.sequence,
        "planned_at": _instant(entry.planned_at),
        "first": _instant(entry.first),
        "count": entry.count,
        "exact": entry.exact,
        "state": entry.state.value,
        "reason": entry.reason or None,
        "node": entry.node,
        "token": entry.token,
        "attempt": entry.attempt,
        "retries": entry.retries,
        "copies": entry.copies,
        "asked_by": entry.asked_by or None,
        "claimed_at": _instant(entry.claimed_at),
        "dispatched_at": _instant(entry.dispatched_at),
        "started_at": _instant(entry.started_at),
        "ended_at": _instant(entry.ended_at),
        "took": took(entry),
    }


def term_report(term: TermRecord) -> Json:
    """Return the object of a term."""
    return {
        "number": term.number,
        "token": term.token,
        "node": term.node,
        "host": term.host,
        "pid": term.pid,
        "version": term.version,
        "began_at": _instant(term.began_at),
        "ended_at": _instant(term.ended_at),
        "reason": term.reason or None,
        "succession": term.took,
        "succession_exact": term.exact,
    }


def pause_report(pause: Pause) -> Json:
    """Return the object of a pause that is in force."""
    return {
        "by": pause.by,
        "reason": pause.reason or None,
        "since": _instant(pause.since),
        "until": _instant(pause.until),
    }


def request_report(request: Request) -> Json:
    """Return the object of a request, answered or not."""
    return {
        "id": request.id,
        "kind": request.kind.value,
        "by": request.by,
        "at": _instant(request.at),
        "until": _instant(request.until),
        "job": request.job or None,
        "heir": request.heir or None,
        "token": request.token or None,
        "answer": request.answer.value if request.answer is not None else None,
        "why": request.why or None,
        "answered_by": request.answered_by or None,
        "answered_at": _instant(request.answered_at),
        "planned_at": _instant(request.planned_at),
    }


def receipt_report(receipt: Receipt) -> Json:
    """Return the object that says up to where the leader has heard orders."""
    return {
        "version": receipt.version,
        "token": receipt.token,
        "node": receipt.node,
        "at": _instant(receipt.at),
    }


def took(entry: OccurrenceRecord) -> float | None:
    """
    Return how many seconds the body of an occurrence ran; None if that is not known.

    Of one that was interrupted it is known when its end was noticed, not when that was.
    """
    if entry.state not in _RAN or entry.started_at is None or entry.ended_at is None:
        return None
    return max(0.0, (entry.ended_at - entry.started_at).total_seconds())


def _pause(pause: Pause | None) -> Json | None:
    return pause_report(pause) if pause is not None else None


def _instant(instant: datetime | None) -> str | None:
    if instant is None:
        return None
    return (instant if instant.tzinfo is UTC else instant.astimezone(UTC)).isoformat()
