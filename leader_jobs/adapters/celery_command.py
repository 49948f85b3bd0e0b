"""
``celery -A proj leader …``: what the election and the ledger of an application say.

Celery imports this file whenever any of its commands starts, so it imports next to nothing itself.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from leader_jobs.leaders import Leader
    from leader_jobs.ledger import Ledger
    from leader_jobs.records import OccurrenceRecord
    from leader_jobs.stores.base import Store

__all__ = ["leader"]

_TIMEOUT: Final = 5.0
_NOBODY: Final = 1
_UNREACHABLE: Final = 2


class _Trouble(click.ClickException):
    """Ends the command with one line, and a status that tells it from "nobody leads"."""

    exit_code = _UNREACHABLE


@click.group()
@click.option("--election", help="The election; the application's own if not given.")
@click.pass_context
def leader(context: click.Context, election: str | None) -> None:
    """Show who leads, who waits, and what became of the jobs."""
    context.ensure_object(object)
    context.meta["election"] = election


@leader.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if nobody leads.")
@click.pass_context
def status(context: click.Context, *, as_json: bool, exit_code: bool) -> None:
    """Show who leads, and for how long its lease still lasts."""
    election, found = _ask(context, _candidates)
    if as_json:
        _dump({"election": election, "leader": _plain(found[0]) if found else None})
    elif found:
        _table(("election", "leader", "token", "lease"), [(election, *_row(found[0])[1:])])
    else:
        click.echo(f"nobody leads election {election!r}")
    if exit_code and not found:
        context.exit(_NOBODY)


@leader.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def candidates(context: click.Context, *, as_json: bool) -> None:
    """List the candidates in order of succession; the first one leads."""
    election, found = _ask(context, _candidates)
    if as_json:
        _dump({"election": election, "candidates": [_plain(entrant) for entrant in found]})
    else:
        rows = [_row(entrant, place) for place, entrant in enumerate(found)]
        _table(("", "node", "token", "lease"), rows)


@leader.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def jobs(context: click.Context, *, as_json: bool) -> None:
    """List the jobs the ledger knows, up to when they are accounted for, and what is open."""
    election, records = _ask(context, lambda ledger: ledger.jobs())
    if as_json:
        found = [
            {
                "job": record.job,
                "task": record.task,
                "schedule": record.words,
                "accounted_until": record.cursor.isoformat(),
                "open": [_occurrence(entry) for entry in record.open],
            }
            for _, record in sorted(records.items())
        ]
        _dump({"election": election, "jobs": found})
        return
    _table(
        ("job", "schedule", "accounted until", "open"),
        [
            (record.job, record.words, _short(record.cursor), _states(record.open))
            for _, record in sorted(records.items())
        ],
    )


@leader.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def history(context: click.Context, job: str, *, as_json: bool) -> None:
    """Show what became of the last occurrences of JOB (an entry's name, or a job's)."""
    from leader_jobs.adapters.celery_entries import job_name

    election, entries = _ask(context, lambda ledger: ledger.history(job_name(job)))
    if as_json:
        found = [_occurrence(entry) for entry in entries]
        _dump({"election": election, "job": job_name(job), "occurrences": found})
    else:
        columns = ("planned", "state", "node", "token", "started", "ended", "reason")
        _table(columns, [_line(entry) for entry in entries])


# -- asking ---------------------------------------------------------------------------------------


def _ask(context: click.Context, question: Callable[["Ledger"], Any]) -> tuple[str, Any]:
    """Return the election asked about, and the answer; end the command if there is none."""
    from leader_jobs.adapters.celery_settings import settings_of
    from leader_jobs.clock import SystemClock
    from leader_jobs.exceptions import LeaderJobsError
    from leader_jobs.ledger import Ledger
    from leader_jobs.names import check_election
    from leader_jobs.stores.factory import open_store

    store: Store | None = None
    try:
        settings = settings_of(context.obj.app)
        election = check_election(context.meta["election"] or settings.election)
        clock = SystemClock()
        store = open_store(settings, clock=clock)
        ledger = Ledger(store, election, node="", owner="", clock=clock, timeout=_TIMEOUT)
        return election, question(ledger)
    except LeaderJobsError as error:
        raise _Trouble(str(error)) from None
    finally:
        if store is not None:
            store.close()


def _candidates(ledger: "Ledger") -> "list[Leader]":
    from leader_jobs.clock import SystemClock
    from leader_jobs.leaders import Leader

    deadline = SystemClock().now() + _TIMEOUT
    entrants = ledger.store.candidates(ledger.election, deadline=deadline, leases=True)
    return [Leader.of(ledger.election, entrant) for entrant in entrants]


# -- showing --------------------------------------------------------------------------------------


def _plain(entrant: "Leader") -> dict[str, Any]:
    proposal = entrant.proposal
    return {
        "node": entrant.node,
        "token": entrant.token,
        "ttl": entrant.ttl,
        "remaining": entrant.remaining,
        "foreign": entrant.foreign,
        "host": None if proposal is None else proposal.host,
        "pid": None if proposal is None else proposal.pid,
        "version": None if proposal is None else proposal.version,
    }


def _row(entrant: "Leader", place: int = 0) -> tuple[str, str, str, str]:
    node = entrant.node if entrant.proposal is None else _described(entrant)
    lease = "?"
    if entrant.remaining is not None and entrant.ttl is not None:
        lease = f"{entrant.remaining:.1f} of {entrant.ttl:g} s"
    return ("leads" if place == 0 else f"{place}.", node, str(entrant.token), lease)


def _described(entrant: "Leader") -> str:
    assert entrant.proposal is not None  # noqa: S101  for mypy: the caller looked
    return f"{entrant.node} (pid {entrant.proposal.pid} on {entrant.proposal.host})"


def _occurrence(entry: "OccurrenceRecord") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(entry.encode())
    found.pop("v")
    return {"reason": "", "attempt": 1, "count": 1, **found}


def _line(entry: "OccurrenceRecord") -> tuple[str, ...]:
    planned = _short(entry.planned_at)
    if entry.first is not None:
        planned = f"{_short(entry.first)} … {planned} ({'' if entry.exact else '≥ '}{entry.count})"
    return (
        planned,
        entry.state.value,
        entry.node,
        str(entry.token),
        _short(entry.started_at),
        _short(entry.ended_at),
        entry.reason,
    )


def _states(entries: "Iterable[OccurrenceRecord]") -> str:
    return ", ".join(f"{_short(entry.planned_at)} {entry.state.value}" for entry in entries)


def _short(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant:%Y-%m-%d %H:%M:%S}"


def _dump(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # What candidates say about themselves is printed to somebody's terminal.
    shown = [[_printable(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
