"""The command that examines what an election rests on."""

from collections.abc import Iterable
from typing import Final

from leader_jobs.cli.front import DONE, REFUSED, TROUBLE, Call
from leader_jobs.doctor import Finding, Level, examine
from leader_jobs.tables import Cell, Line, Page, Table, Tone

__all__ = ["doctor"]

#: How wide the widest mark is.
_WIDTH: Final = max(len(level) for level in Level)
_TONES: Final = {Level.OK: Tone.GOOD, Level.WARNING: Tone.WARN, Level.PROBLEM: Tone.BAD}


def doctor(call: Call) -> int:
    """Examine; 0 if nothing is seriously wrong, 1 if something is, 2 if the store is out of reach."""
    settings = call.settings
    found: list[Finding] = []
    for finding in examine(settings, clock=call.clock, timeout=call.timeout):
        found.append(finding)
        if not call.options.json:
            # Each as it is made: some take seconds.
            call.screen.show(_page(finding))
    if call.options.json:
        call.dump(
            {
                "format": 1,
                "election": call.election,
                "ok": not _problems(found),
                "findings": [_report(finding) for finding in found],
            }
        )
    else:
        call.screen.show([Line(""), _sum(found)])
    if any(finding.fatal for finding in found):
        return TROUBLE
    return REFUSED if _problems(found) else DONE


def _problems(found: Iterable[Finding]) -> int:
    return sum(finding.level is Level.PROBLEM for finding in found)


def _report(finding: Finding) -> dict[str, str | None]:
    return {
        "check": finding.check,
        "level": finding.level.value,
        "message": finding.message,
        "remedy": finding.remedy or None,
    }


def _page(finding: Finding) -> Page:
    mark = Cell(finding.level.value.ljust(_WIDTH), _TONES[finding.level])
    rows: list[tuple[Cell | str, ...]] = [(mark, finding.message)]
    if finding.remedy:
        rows.append(("", f"→ {finding.remedy}"))
    return [Table((), tuple(rows))]


def _sum(found: list[Finding]) -> Line:
    problems = _problems(found)
    warnings = sum(finding.level is Level.WARNING for finding in found)
    if not problems and not warnings:
        return Line("all is well", Tone.GOOD)
    text = f"{_number(problems, 'problem')}, {_number(warnings, 'warning')}"
    return Line(text, Tone.BAD if problems else Tone.WARN)


def _number(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
