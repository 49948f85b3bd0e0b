"""
What may happen to an etcd cluster, what then holds, and how often it was tried.

A scenario hurts a cluster again and again: ``for turn in rounds(fault, fleet)``. Each round ends by
counting what the jobs really did. ``FAULT_ROUNDS`` says how many there are (1), ``FAULT_RESULTS`` names
a file that gets a line of JSON from each scenario; `testsupport.faults_table` makes a table of them.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from testsupport.sick_fleet import Figures, Mark, SickFleet

__all__ = ["BRIEF", "ROUNDS", "TTL", "Fault", "Turn", "rounds"]

#: How many rounds each fault gets.
ROUNDS: Final = int(os.environ.get("FAULT_ROUNDS", "1"))
#: The lease, in seconds: fifteen election timeouts of the cluster, as with etcd's and our own defaults.
TTL: Final = 3.0
#: Milliseconds between heartbeats, and the election timeout: a fifth of etcd's defaults.
BRIEF: Final[dict[str, Any]] = {"heartbeat": 20, "election": 200}
_RESULTS: Final = os.environ.get("FAULT_RESULTS")
_PAGE: Final = Path(__file__).parents[2] / "docs" / "etcd-faults.md"
_STAMP: Final = re.compile(r"^\S+ \S+ (?=[A-Z]+ )")
_ADDRESS: Final = re.compile(r"\d+\.\d+\.\d+\.\d+:\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    A fault, and what is promised of it.

    Attributes:
        name: as it stands in the table.
        term: what becomes of the term: it ``stays``, it ``ends``, or it ``may end``.
        says: what the log of a node says then, a regular expression; None if nothing need be said.
        doctor: what a doctor finds while it lasts, likewise.
        overlap: for how many seconds at most two nodes may believe to lead; see the page on guarantees.
    """

    name: str
    term: Literal["stays", "ends", "may end"]
    says: str | None = None
    doctor: str | None = None
    overlap: float = 0.0


@dataclass(slots=True)
class Turn:
    """
    One round of a scenario.

    Attributes:
        number: from 0 on.
        mark: where it began.
        fault: what is done.
        fleet: to whom.
        findings: what a doctor found.
    """

    number: int
    mark: Mark
    fault: Fault
    fleet: SickFleet
    findings: list[str] = field(default_factory=list)

    def await_said(self) -> None:
        """Wait until a node has logged what it should."""
        assert self.fault.says is not None
        self.fleet.await_said(self.mark, re.compile(self.fault.says))

    def examine(self) -> None:
        """Have a doctor look at the fault, once, when figures are wanted."""
        if self.number == 0 and _RESULTS is not None:
            self.findings = self.fleet.doctor()


def rounds(fault: Fault, fleet: SickFleet) -> Iterator[Turn]:
    """
    Yield each round of a scenario; at the end write down what happened, and fail if it should not have.

    What the caller does with a `Turn` is to hurt the cluster and to make it good again.
    """
    course: list[Figures] = []
    broken: list[str] = []
    said: list[str] = []
    findings: list[str] = []
    for number in range(ROUNDS):
        turn = Turn(number, fleet.mark(), fault, fleet)
        yield turn
        figures = fleet.measure(turn.mark)
        course.append(figures)
        line = fleet.said(turn.mark, re.compile(fault.says)) if fault.says else None
        said += [line] if line is not None else []
        findings += turn.findings
        broken += [f"round {number}: {what}" for what in _broken(fault, figures, line)]
    _note(fault, course, said, findings, broken)
    if _RESULTS is None and f"| {fault.name} |" not in _PAGE.read_text():
        broken.append(f"{_PAGE.name} has no row of it: run `make faults`")
    missing = fault.doctor and findings and not any(re.search(fault.doctor, f) for f in findings)
    broken += [f"the doctor finds only {findings}"] if missing else []
    assert not broken, f"{fault.name}: {broken}\n{fleet.logs()}"


def _broken(fault: Fault, figures: Figures, line: str | None) -> Iterator[str]:
    """Yield what was promised and not kept."""
    if figures.doubled or figures.missed:
        yield f"{figures.doubled} doubled, {figures.missed} missed"
    if figures.overlap > fault.overlap:
        yield f"two believed to lead for {figures.overlap:.3f} s"
    if (fault.term, figures.survived) in {("stays", False), ("ends", True)}:
        yield f"the term {fault.term}, but {figures}"
    if fault.says is not None and line is None:
        yield f"nobody said {fault.says!r}"


def _note(
    fault: Fault,
    course: list[Figures],
    said: list[str],
    findings: list[str],
    broken: list[str],
) -> None:
    if _RESULTS is None:
        return
    total = {
        "fault": fault.name,
        "rounds": len(course),
        "survived": sum(figures.survived for figures in course),
        "terms": sum(figures.terms for figures in course),
        "leaderless": max(figures.leaderless for figures in course),
        "idle": max(figures.idle for figures in course),
        "overlap": max(figures.overlap for figures in course),
        "planned": sum(figures.planned for figures in course),
        "doubled": sum(figures.doubled for figures in course),
        "missed": sum(figures.missed for figures in course),
        "interrupted": sum(figures.interrupted for figures in course),
        "said": [_ADDRESS.sub("ETCD", _STAMP.sub("", line)) for line in said[:1]],
        "doctor": [_ADDRESS.sub("ETCD", finding) for finding in findings],
        "broken": broken,
        "course": [asdict(figures) for figures in course],
    }
    with Path(_RESULTS).open("a") as results:
        results.write(json.dumps(total) + "\n")
