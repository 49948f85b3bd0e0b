"""What there is to see of an election as JSON: nothing in it is renamed or removed."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.orders import Answer, Kind, Pause, Receipt, Request
from leader_jobs.overview import ElectionView, JobView, Member, Summary
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.report import (
    FORMAT,
    Json,
    election_report,
    elections_report,
    history_report,
    job_report,
    member_report,
    occurrence_report,
    pause_report,
    receipt_report,
    request_report,
    summary_report,
    term_report,
    took,
)
from leader_jobs.terms import TermRecord

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
_NOW = datetime(2026, 3, 1, 3, 0, 0, 250_000, tzinfo=UTC)
_LATER = _NOW + timedelta(seconds=2.5)

# -- values: one of each kind with all there can be, and one with as little as there can be -----------

_MEMBER = Member(
    place=0,
    id="1f",
    token=7,
    node="one",
    host="h",
    pid=1,
    version="1.0",
    foreign=False,
    ttl=15.0,
    remaining=5.0,
)
_STRANGER = replace(
    _MEMBER, place=None, host=None, pid=None, version=None, foreign=True, ttl=None, remaining=None
)
_ENTRY = OccurrenceRecord(
    sequence=4,
    planned_at=_NOW,
    first=_NOW - timedelta(minutes=5),
    count=6,
    exact=False,
    state=State.FAILED,
    token=7,
    node="one",
    claimed_at=_NOW,
    dispatched_at=_NOW,
    started_at=_NOW,
    ended_at=_LATER,
    copies=2,
    retries=1,
    attempt=3,
    owner="secret",
    reason="ValueError: no",
    asked_by="me",
)
_CLAIMED = OccurrenceRecord(
    sequence=5, planned_at=_NOW, state=State.CLAIMED, token=7, node="one", claimed_at=_NOW
)
_PAUSE = Pause(by="me", reason="why not", since=_NOW, until=_LATER)
_ENDLESS = Pause(by="me", reason="", since=_NOW)
_JOB = JobView(
    name="job",
    schedule="every minute",
    task="app.add",
    due=_LATER,
    accounted_until=_NOW,
    overdue=True,
    pause=_PAUSE,
    open=(_CLAIMED,),
    recent=(_ENTRY, _CLAIMED),
    unreadable="it is not",
)
_BARE = JobView(name="broken")
_TERM = TermRecord(
    number=3, token=7, node="one", host="h", pid=1, version="1.0", began_at=_NOW, took=0.5
).ended("resigned", _LATER)
_PRESENT = replace(_TERM, ended_at=None, reason="", took=None)
_REQUEST = Request(
    id="ab",
    kind=Kind.RUN_NOW,
    by="me",
    at=_NOW,
    until=_LATER,
    job="job",
    heir="1f",
    token=7,
    answer=Answer.OBEYED,
    why="done",
    answered_by="one",
    answered_at=_NOW,
    planned_at=_NOW,
)
_OPEN = Request(id="cd", kind=Kind.RESIGN, by="me", at=_NOW, until=_LATER)
_RECEIPT = Receipt(version=12, token=7, node="one", at=_NOW)
_VIEW = ElectionView(
    election="mail",
    at=_NOW,
    candidates=(_MEMBER, _STRANGER),
    members=(_STRANGER,),
    pause=_PAUSE,
    jobs=(_JOB, _BARE),
    terms=(_TERM, _PRESENT),
    requests=(_REQUEST, _OPEN),
    receipt=_RECEIPT,
)
_EMPTY = ElectionView(
    election="mail",
    at=_NOW,
    candidates=(),
    members=(),
    pause=None,
    jobs=(),
    terms=(),
    requests=(),
    receipt=None,
)
_SUMMARY = Summary(
    election="mail", leader=_MEMBER, candidates=2, members=1, jobs=2, overdue=1, pause=_PAUSE
)
_LEADERLESS = replace(_SUMMARY, leader=None, pause=None)

#: Every object by its heading in the documentation: with all there can be, and with the least.
REPORTS: Mapping[str, tuple[Json, Json]] = {
    "An election": (election_report(_VIEW), election_report(_EMPTY)),
    "All elections": (elections_report([_SUMMARY]), elections_report([])),
    "The history of a job": (
        history_report("mail", "job", [_ENTRY]),
        history_report("mail", "job", []),
    ),
    "summary": (summary_report(_SUMMARY), summary_report(_LEADERLESS)),
    "member": (member_report(_MEMBER), member_report(_STRANGER)),
    "job": (job_report(_JOB), job_report(_BARE)),
    "occurrence": (occurrence_report(_ENTRY), occurrence_report(_CLAIMED)),
    "counts": (job_report(_JOB)["counts"], job_report(_BARE)["counts"]),
    "term": (term_report(_TERM), term_report(_PRESENT)),
    "pause": (pause_report(_PAUSE), pause_report(_ENDLESS)),
    "request": (request_report(_REQUEST), request_report(_OPEN)),
    "receipt": (receipt_report(_RECEIPT), receipt_report(_RECEIPT)),
}

# -- the contract: to this list fields may be added, nothing else --------------------------------------

FIELDS: Mapping[str, str] = {
    "An election": "format election at leader candidates members paused overdue jobs terms requests heard",
    "All elections": "format elections",
    "The history of a job": "format election job occurrences",
    "summary": "election leader candidates members paused overdue jobs",
    "member": "place id token node host pid version foreign ttl remaining suspended",
    "job": "job schedule task due accounted_until overdue paused unreadable last counts open recent",
    "occurrence": "sequence planned_at first count exact state reason node token attempt retries copies"
    " asked_by claimed_at dispatched_at started_at ended_at took",
    "counts": "claimed dispatched started succeeded failed interrupted skipped coalesced",
    "term": "number token node host pid version began_at ended_at reason succession succession_exact",
    "pause": "by reason since until",
    "request": "id kind by at until job heir token answer why answered_by answered_at planned_at",
    "receipt": "version token node at",
}


@pytest.mark.parametrize("name", REPORTS)
def test_no_field_is_renamed_or_removed(name: str) -> None:
    """Programs rely on every one of them, and on its being there whatever there is to say."""
    for report in REPORTS[name]:
        assert list(report) == FIELDS[name].split()


def test_the_format_is_the_first() -> None:
    """A document says which one it has; its parts do not."""
    assert FORMAT == 1
    for name, (report, _) in REPORTS.items():
        assert report.get("format") == (1 if name[0].isupper() else None)


# -- the documentation --------------------------------------------------------------------------------


def _tables() -> dict[str, list[list[str]]]:
    """Return the rows of each table of the page, by its heading."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in _PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(heading, []).append(cells)
    return found


def test_the_documentation_describes_each_object() -> None:
    """Every field has its row, in the order in which it comes, and no row is of a field that is not."""
    fields = {name: [row[0].strip("`") for row in rows] for name, rows in _tables().items()}

    assert fields == {name: text.split() for name, text in FIELDS.items()}


def _is(kind: str, value: Any) -> bool:
    """Whether *value* is what the documentation says."""
    if listed := re.fullmatch(r"list of (.+)", kind):
        return isinstance(value, list) and all(_is(listed[1], one) for one in value)
    if link := re.fullmatch(r"\[(\w+)\]\(#\1\)", kind):
        return isinstance(value, dict) and list(value) == FIELDS[link[1]].split()
    if kind == "instant":
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    if kind == "seconds":
        return isinstance(value, float)
    types = {"string": str, "number": int, "boolean": bool}
    return type(value) is types[kind]


@pytest.mark.parametrize("name", REPORTS)
def test_the_documentation_is_right_about_types(name: str) -> None:
    """A field is of the type it says, and null if and only if it says so."""
    full, least = REPORTS[name]
    for field, kind, meaning in _tables()[name]:
        key = field.strip("`")
        sure, _, null = kind.partition(" or ")
        assert null in ("", "null")
        assert _is(sure, full[key]), f"{name}: {key} is no {sure}"
        if null:
            assert least[key] is None, f"{name}: {key} is never null"
        else:
            assert _is(sure, least[key]), f"{name}: {key} can be other than {sure}"
        assert meaning


# -- what the values become ---------------------------------------------------------------------------


def test_reports_are_json_without_secrets() -> None:
    """They go through an encoder as they are; whose runs are whose is nobody's business."""
    text = json.dumps([full for full, _ in REPORTS.values()], allow_nan=False)

    assert "secret" not in text
    assert "owner" not in text
    assert "incarnation" not in text


def test_instants_are_in_utc() -> None:
    """Whoever made them; with microseconds if they have any."""
    paris = _NOW.astimezone(timezone(timedelta(hours=1)))

    assert pause_report(replace(_PAUSE, since=paris))["since"] == "2026-03-01T03:00:00.250000+00:00"
    whole = _NOW.replace(microsecond=0)
    assert pause_report(replace(_PAUSE, since=whole))["since"] == "2026-03-01T03:00:00+00:00"


def test_the_last_run_is_one_that_began() -> None:
    """Not one that still waits for its start, nor a range that was passed over."""
    passed = replace(_CLAIMED, sequence=6, state=State.SKIPPED)
    report = job_report(replace(_JOB, recent=(_ENTRY, _CLAIMED, passed)))
    last = report["last"]

    assert (last["sequence"], last["state"], last["took"], last["node"]) == (
        4,
        "failed",
        2.5,
        "one",
    )
    assert report["open"] == [occurrence_report(_CLAIMED)]
    assert report["recent"][2] == occurrence_report(passed)


def test_ranges_are_counted_as_what_they_stand_for() -> None:
    """Six that failed as one entry, and one that is claimed."""
    counts = job_report(_JOB)["counts"]

    assert counts == dict.fromkeys(State, 0) | {"failed": 6, "claimed": 1}


@pytest.mark.parametrize(
    ("state", "ended", "expected"),
    [
        (State.SUCCEEDED, _LATER, 2.5),
        (State.FAILED, _NOW - timedelta(seconds=1), 0.0),
        (State.INTERRUPTED, _LATER, None),
        (State.STARTED, None, None),
        (State.SKIPPED, _LATER, None),
    ],
)
def test_how_long_it_took_is_not_guessed(
    state: State, ended: datetime | None, expected: float | None
) -> None:
    """When a run was interrupted nobody knows; and no clock makes a run shorter than nothing."""
    assert took(replace(_ENTRY, state=state, ended_at=ended)) == expected
    assert took(replace(_ENTRY, state=state, ended_at=ended, started_at=None)) is None
