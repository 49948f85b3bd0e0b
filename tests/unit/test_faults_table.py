"""The tables of faults are what scenarios wrote down, and what stands in the documentation is good."""

from pathlib import Path
from typing import Any

from testsupport.faults_table import BEGIN, END, rewrite

_PAGE = Path(__file__).parents[2] / "docs" / "etcd-faults.md"
_RESULT: dict[str, Any] = {
    "fault": "etcd's leader killed",
    "rounds": 10,
    "survived": 9,
    "leaderless": 1.25,
    "idle": 0.51,
    "overlap": 0.0,
    "planned": 180,
    "doubled": 0,
    "missed": 0,
    "said": ["INFO etcd endpoint ETCD: timed out"],
    "doctor": ["etcd 3.5.1 at ETCD: a bug", "no leader", "no leader"],
}


def _rows(page: str) -> list[list[str]]:
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]


def test_results_become_rows() -> None:
    """Each result is a row of figures and one of words; what stood there before is gone."""
    rows = _rows(rewrite(f"before\n{BEGIN}\n| old |\n{END}\nafter\n", [_RESULT]))

    assert rows[2] == [
        "etcd's leader killed", "10", "goes on in 9, ends in 1", "1.2 s", "0.5 s", "0", "180", "0", "0",
    ]  # fmt: skip
    assert rows[5] == [
        "etcd's leader killed",
        "`INFO etcd endpoint ETCD: timed out`",
        "`no leader`",
    ]
    assert len(rows) == 6


def test_results_of_other_scenarios_become_rows() -> None:
    """Who measures less says what holds, and has empty cells."""
    other = {"fault": "restored", "rounds": 3, "doubled": 0, "worst_gap": 2.0, "holds": "alarm"}
    rows = _rows(rewrite(f"{BEGIN}{END}", [other]))

    assert rows[2] == ["restored", "3", "alarm", "", "2.0 s", "", "", "0", ""]


def test_the_rest_of_the_page_is_left_alone() -> None:
    """What a person wrote stays, before and after."""
    page = rewrite(f"before\n{BEGIN}\nold\n{END}\nafter\n", [_RESULT])

    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"{END}\nafter\n")
    assert "old" not in page
    assert rewrite(page, [_RESULT]) == page


def test_documented_figures_are_good() -> None:
    """Every fault on the page was tried ten times, and no body ran twice and no occurrence was lost."""
    figures = [row for row in _rows(_PAGE.read_text()) if len(row) == 9 and row[1].isdigit()]

    assert len(figures) >= 18
    assert [row[0] for row in figures if int(row[1]) < 10] == []
    assert {row[7] for row in figures} == {"0"}
    assert {row[8] for row in figures} <= {"0", ""}
