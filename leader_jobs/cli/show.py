"""The commands that show an election: as pages for people, as reports for programs."""

from collections.abc import Callable

from leader_jobs.cli.front import DONE, REFUSED, Call
from leader_jobs.cli.pages import (
    candidates_page,
    elections_page,
    history_page,
    jobs_page,
    status_page,
)
from leader_jobs.names import nearest
from leader_jobs.observatory import Observatory
from leader_jobs.orders import Refusal
from leader_jobs.overview import ElectionView
from leader_jobs.report import Json, election_report, elections_report, history_report
from leader_jobs.tables import Page

__all__ = ["RECENT", "candidates", "history", "jobs", "status"]

#: How many closed occurrences of each job are looked through for the last run.
RECENT = 10


def status(call: Call) -> int:
    """Show who leads, and what there is to know besides."""
    if call.options.all:
        return _all(call)
    with call.observatory() as observatory:
        view = observatory.election(call.election, recent=RECENT)
    call.tell(election_report(view), lambda: status_page(view))
    return REFUSED if call.options.exit_code and view.leader is None else DONE


def _all(call: Call) -> int:
    with call.observatory() as observatory:
        found = observatory.elections(otherwise=(call.election,))
    call.tell(elections_report(found), lambda: elections_page(found))
    idle = not found or any(summary.leader is None for summary in found)
    return REFUSED if call.options.exit_code and idle else DONE


def candidates(call: Call) -> int:
    """List the candidates, and the processes that never lead."""
    return _part(call, ("candidates", "members"), candidates_page, recent=0)


def jobs(call: Call) -> int:
    """List the jobs."""
    return _part(call, ("jobs",), jobs_page, recent=RECENT)


def _part(
    call: Call, keys: tuple[str, ...], page: Callable[[ElectionView], Page], *, recent: int
) -> int:
    """Show a part of what there is to see of the election; as JSON, *keys* of the whole report."""
    with call.observatory() as observatory:
        view = observatory.election(call.election, recent=recent)
    whole = election_report(view)
    report: Json = {key: whole[key] for key in ("format", "election", "at", *keys)}
    call.tell(report, lambda: page(view))
    return DONE


def history(call: Call) -> int:
    """Show what became of a job's occurrences."""
    job, last = str(call.job), call.options.last
    with call.observatory() as observatory:
        found = observatory.history(call.election, job)
        if not found:
            _check_known(observatory, call.election, job)
    entries = found[-last:] if last else found
    call.tell(history_report(call.election, job, entries), lambda: history_page(entries))
    return DONE


def _check_known(observatory: Observatory, election: str, job: str) -> None:
    names = [view.name for view in observatory.election(election, recent=0).jobs]
    if job not in names:
        near = nearest(job, names)
        hint = f"; did you mean {near!r}?" if near else ""
        msg = f"election {election!r} has no job {job!r}{hint}"
        raise Refusal(msg)
