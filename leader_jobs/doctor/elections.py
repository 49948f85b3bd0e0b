"""How an election is: who stands in it, and whether its jobs keep time."""

from collections.abc import Iterator
from datetime import timedelta
from shlex import quote
from typing import Final

from leader_jobs.doctor.findings import Finding, fine, problem, warning
from leader_jobs.durations import at, when
from leader_jobs.orders import Pause
from leader_jobs.overview import ElectionView, Member

__all__ = ["examine_election"]

#: Since when a pause that nobody said an end of may have been forgotten.
_LONG: Final = timedelta(days=1)
_MOST: Final = 10


def examine_election(view: ElectionView) -> Iterator[Finding]:
    """Yield what there is to say of an election."""
    yield _leader(view)
    yield from _candidates(view)
    yield from _pauses(view)
    yield from _jobs(view)


def _leader(view: ElectionView) -> Finding:
    leader = view.leader
    if leader is None:
        return warning(
            "leader",
            f"nobody leads election {view.election!r}: no jobs are run",
            "start a candidate; if some are running, compare their store, namespace and election with these",
        )
    if leader.foreign:
        return warning(
            "leader",
            f"candidate {leader.node!r} of another program leads: no jobs are run, no orders are obeyed",
            "if it is not meant to, end that program",
        )
    if leader.suspended:
        return warning(
            "leader",
            f"{leader.node} leads, and has not renewed its lease for more than half of it",
            "see its log, and how its host reaches the store",
        )
    return fine("leader", f"{leader.node} leads (term {leader.token})")


def _candidates(view: ElectionView) -> Iterator[Finding]:
    standbys = view.candidates[1:]
    if view.leader is not None and not standbys:
        yield warning(
            "standby", "nobody is next: if the leader dies, no jobs are run", "start another node"
        )
    elif standbys:
        yield fine("standby", f"next: {_names(standbys)}")
    foreign = [member for member in standbys if member.foreign]
    if foreign:
        yield warning(
            "foreign",
            f"candidates of another program stand in line: {_names(foreign)}",
            "while one of them leads no jobs are run; if it is not meant to stand, end that program",
        )
    versions = {member.version for member in (*view.candidates, *view.members) if member.version}
    if len(versions) > 1:
        yield warning(
            "nodes",
            f"nodes run different versions of leader-jobs: {', '.join(sorted(versions))}",
            "finish the deployment",
        )


def _pauses(view: ElectionView) -> Iterator[Finding]:
    paused = [(f"election {view.election!r}", "", view.pause)]
    paused += [(f"job {job.name!r}", f" {quote(job.name)}", job.pause) for job in view.jobs]
    for what, argument, pause in paused:
        if pause is not None:
            yield _pause(view, what, argument, pause)


def _pause(view: ElectionView, what: str, argument: str, pause: Pause) -> Finding:
    reason = f" ({pause.reason})" if pause.reason else ""
    said = f"{what} is paused by {pause.by}{reason}, since {when(pause.since, view.at)}"
    if pause.until is not None:
        return fine("paused", f"{said}, until {at(pause.until)} UTC")
    if view.at - pause.since < _LONG:
        return fine("paused", said)
    return warning("paused", said, f"if that was forgotten: leader-jobs resume{argument}")


def _jobs(view: ElectionView) -> Iterator[Finding]:
    for job in view.jobs:
        if job.unreadable:
            yield problem(
                "job",
                f"the record of job {job.name!r} can not be read: {job.unreadable}",
                "it is left alone; run the version that wrote it, or delete the record to begin anew",
            )
    late = [job for job in view.jobs if job.overdue]
    if late:
        names = ", ".join(repr(job.name) for job in late[:_MOST])
        more = f" and {len(late) - _MOST} more" if len(late) > _MOST else ""
        yield problem(
            "jobs",
            f"{len(late)} of {len(view.jobs)} jobs are overdue: {names}{more}",
            "see the leader's log; a job that nobody declares any more stays in the ledger until it is "
            "removed there"
            if view.leader is not None
            else "start a candidate",
        )
    elif view.jobs:
        yield fine("jobs", f"none of {len(view.jobs)} jobs is overdue")


def _names(members: tuple[Member, ...] | list[Member]) -> str:
    return ", ".join(member.node for member in members)
