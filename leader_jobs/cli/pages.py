"""What the commands show, as pages of text."""

from collections.abc import Sequence
from datetime import datetime

from leader_jobs.durations import at, how_long, when
from leader_jobs.orders import Pause
from leader_jobs.overview import ElectionView, JobView, Member, Summary
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.report import took
from leader_jobs.tables import Cell, Line, Page, Table, Tone

__all__ = [
    "candidates_page",
    "election_page",
    "elections_page",
    "history_page",
    "jobs_page",
    "status_page",
]

_TONES = {
    State.SUCCEEDED: Tone.GOOD,
    State.FAILED: Tone.BAD,
    State.INTERRUPTED: Tone.BAD,
    State.SKIPPED: Tone.FAINT,
    State.COALESCED: Tone.FAINT,
}
_Facts = list[tuple[Cell | str, Cell | str]]


# -- one election ---------------------------------------------------------------------------------


def election_page(view: ElectionView) -> Page:
    """Return everything at a glance: state, candidates, jobs."""
    parts = [status_page(view)]
    if view.candidates or view.members:
        parts.append(candidates_page(view))
    if view.jobs:
        parts.append(jobs_page(view))
    page: list[Line | Table] = []
    for part in parts:
        page += [Line("")] if page else []
        page += part
    return page


def status_page(view: ElectionView) -> Page:
    """Return who leads, and what there is to know besides."""
    facts: _Facts = [("election", Cell(view.election, Tone.STRONG)), *_leadership(view)]
    if view.pause is not None:
        facts.append(("paused", Cell(_pause(view.pause, view.at), Tone.WARN)))
    facts.append(("jobs", _jobs_in_short(view)))
    if view.members:
        facts.append(("never lead", ", ".join(member.node for member in view.members)))
    return [Table((), tuple(facts))]


def _leadership(view: ElectionView) -> _Facts:
    leader = view.leader
    if leader is None:
        return [("leader", Cell("nobody leads", Tone.BAD))]
    term = next((term for term in view.terms if term.token == leader.token), None)
    since = f", since {_ago(term.began_at, view.at)}" if term is not None else ""
    standbys = [member.node for member in view.candidates[1:]]
    facts: _Facts = [
        ("leader", Cell(_described(leader), Tone.WARN if leader.foreign else Tone.GOOD)),
        ("term", f"{leader.token}{since}"),
        ("lease", _lease(leader)),
        ("next", ", ".join(standbys) if standbys else Cell("nobody", Tone.WARN)),
    ]
    return facts


def _jobs_in_short(view: ElectionView) -> Cell:
    late = [job.name for job in view.jobs if job.overdue]
    if late:
        return Cell(f"{len(view.jobs)}, overdue: {', '.join(late)}", Tone.BAD)
    return Cell(str(len(view.jobs)))


def candidates_page(view: ElectionView) -> Page:
    """Return the candidates in order of succession, then those that never lead."""
    columns = ("", "node", "host", "pid", "version", "token", "lease", "id")
    rows = tuple(_candidate(member) for member in (*view.candidates, *view.members))
    return [Table(columns, rows)] if rows else [Line(f"nobody stands in {view.election!r}")]


def _candidate(member: Member) -> tuple[Cell | str, ...]:
    place = (
        "never leads" if member.place is None else f"{member.place}." if member.place else "leads"
    )
    return (
        Cell(place, Tone.GOOD if member.place == 0 else Tone.PLAIN),
        Cell(member.node, Tone.WARN if member.foreign else Tone.STRONG),
        "(another program)" if member.foreign else member.host or "",
        str(member.pid or ""),
        member.version or "",
        str(member.token),
        _lease(member),
        Cell(member.id, Tone.FAINT),
    )


def _described(member: Member) -> str:
    if member.foreign:
        return f"{member.node} (another program, obeys no orders)"
    return f"{member.node} (pid {member.pid} on {member.host}, version {member.version})"


def _lease(member: Member) -> Cell:
    if member.ttl is None or member.remaining is None:
        return Cell("not known", Tone.FAINT)
    text = f"{max(0.0, member.remaining):.1f} of {member.ttl:g} s"
    return Cell(f"{text}, not renewed", Tone.BAD) if member.suspended else Cell(text)


def elections_page(summaries: Sequence[Summary]) -> Page:
    """Return all elections, a line each."""
    if not summaries:
        return [Line("no elections")]
    columns = ("election", "leader", "lease", "candidates", "never lead", "jobs", "overdue", "")
    return [Table(columns, tuple(_summary(summary) for summary in summaries))]


def _summary(summary: Summary) -> tuple[Cell | str, ...]:
    leader = summary.leader
    return (
        Cell(summary.election, Tone.STRONG),
        Cell("nobody", Tone.BAD) if leader is None else Cell(leader.node, Tone.GOOD),
        "" if leader is None else _lease(leader),
        str(summary.candidates),
        str(summary.members),
        str(summary.jobs),
        Cell(str(summary.overdue), Tone.BAD if summary.overdue else Tone.PLAIN),
        Cell("paused" if summary.pause is not None else "", Tone.WARN),
    )


# -- jobs -----------------------------------------------------------------------------------------


def jobs_page(view: ElectionView) -> Page:
    """Return the jobs, with what comes next and what was last."""
    if not view.jobs:
        return [Line(f"the ledger of {view.election!r} knows no jobs")]
    columns = ("job", "schedule", "next", "last run (UTC)", "state", "took", "node", "")
    return [Table(columns, tuple(_job(job, view.at) for job in view.jobs))]


def _job(job: JobView, now: datetime) -> tuple[Cell | str, ...]:
    last = job.last
    due = "" if job.due is None else when(job.due, now)
    return (
        Cell(job.name, Tone.STRONG),
        job.schedule,
        Cell(due, Tone.BAD if job.overdue else Tone.PLAIN),
        "" if last is None else at(last.planned_at),
        "" if last is None else _state(last),
        "" if last is None else _took(last),
        "" if last is None else last.node,
        _notes(job, now),
    )


def _notes(job: JobView, now: datetime) -> Cell:
    if job.unreadable:
        return Cell(f"can not be read: {job.unreadable}", Tone.BAD)
    if job.overdue:
        return Cell("overdue", Tone.BAD)
    if job.pause is not None:
        return Cell(f"paused {_pause(job.pause, now)}", Tone.WARN)
    return Cell(f"{len(job.open)} open" if len(job.open) > 1 else "")


def history_page(entries: Sequence[OccurrenceRecord]) -> Page:
    """Return what became of a job's occurrences, the newest last."""
    if not entries:
        return [Line("nothing has been recorded of it yet")]
    columns = ("planned (UTC)", "state", "node", "token", "started", "took", "ended", "reason")
    return [Table(columns, tuple(_occurrence(entry) for entry in entries))]


def _occurrence(entry: OccurrenceRecord) -> tuple[Cell | str, ...]:
    planned = at(entry.planned_at)
    if entry.first is not None:
        number = f"{entry.count}" if entry.exact else f"≥ {entry.count}"
        planned = f"{at(entry.first)} … {planned} ({number})"
    asked = f"asked for by {entry.asked_by}" if entry.asked_by else ""
    attempt = f"attempt {entry.attempt}" if entry.attempt > 1 else ""
    return (
        planned,
        _state(entry),
        entry.node,
        str(entry.token),
        "" if entry.started_at is None else at(entry.started_at),
        _took(entry),
        "" if entry.ended_at is None else at(entry.ended_at),
        "; ".join(text for text in (entry.reason, attempt, asked) if text),
    )


def _state(entry: OccurrenceRecord) -> Cell:
    return Cell(entry.state.value, _TONES.get(entry.state, Tone.PLAIN))


def _took(entry: OccurrenceRecord) -> str:
    seconds = took(entry)
    return "" if seconds is None else how_long(seconds)


# -- words ----------------------------------------------------------------------------------------


def _ago(instant: datetime, now: datetime) -> str:
    return f"{at(instant)} UTC ({when(instant, now)})"


def _pause(pause: Pause, now: datetime) -> str:
    reason = f": {pause.reason}" if pause.reason else ""
    end = f", until {at(pause.until)} UTC" if pause.until is not None else ""
    return f"by {pause.by}, {when(pause.since, now)}{end}{reason}"
