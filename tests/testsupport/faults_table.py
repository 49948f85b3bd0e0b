"""
Makes the tables of ``docs/etcd-faults.md`` from what the scenarios wrote down.

Run as ``python -m testsupport.faults_table RESULTS PAGE``. A line of RESULTS is what one scenario did;
see `testsupport.faults`. Scenarios of other kinds give the same fields as far as they have them, besides
``worst_gap``, the longest time without a start in seconds, and ``holds`` in words. Between its two markers
everything in PAGE is replaced.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["BEGIN", "END", "rewrite", "tables"]

BEGIN: Final = "<!-- made by `make faults`: begin -->"
END: Final = "<!-- made by `make faults`: end -->"
_FIGURES: Final = (
    "Fault",
    "Rounds",
    "The term",
    "No leader for",
    "No start for",
    "Two leaders for",
    "Due",
    "Doubled",
    "Missed",
)
_WORDS: Final = ("Fault", "A node logs", "The doctor says")
#: What a doctor says of the version that was tested has nothing to do with the fault.
_ALWAYS: Final = "etcd 3."
_ID: Final = re.compile(r"memberID:\d+")

_Result = dict[str, Any]


def rewrite(page: str, results: Sequence[_Result]) -> str:
    """Return *page* with the tables of *results* between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}"


def tables(results: Sequence[_Result]) -> str:
    """Return a table of figures, and one of what is said."""
    figures = _table(_FIGURES, (_figures(result) for result in results))
    words = _table(_WORDS, (_words(result) for result in results if _is_said(result)))
    return f"{figures}\n\n{words}"


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines: list[Iterable[str]] = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figures(result: _Result) -> Iterator[str]:
    yield result["fault"]
    yield str(result["rounds"])
    yield _term(result)
    yield _seconds(result.get("leaderless"))
    yield _seconds(result.get("idle", result.get("worst_gap")))
    yield _seconds(result.get("overlap"))
    for name in ("planned", "doubled", "missed"):
        yield str(result.get(name, ""))


def _term(result: _Result) -> str:
    """Say in how many rounds it was the same one to the end, unless the result says what holds."""
    if "holds" in result:
        return str(result["holds"])
    survived, tried = result["survived"], result["rounds"]
    if survived in (0, tried):
        return "goes on" if survived else "ends, and another begins"
    return f"goes on in {survived}, ends in {tried - survived}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s" if value else "0"


def _is_said(result: _Result) -> bool:
    return bool(result.get("said") or _findings(result))


def _findings(result: _Result) -> list[str]:
    found = [_ID.sub("memberID:…", finding.strip()) for finding in result.get("doctor", ())]
    return [text for text in dict.fromkeys(found) if not text.startswith(_ALWAYS)]


def _words(result: _Result) -> Iterator[str]:
    yield result["fault"]
    yield "<br>".join(f"`{line}`" for line in result.get("said", ()))
    yield "<br>".join(f"`{line}`" for line in _findings(result))


def main() -> None:
    """Rewrite the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.results.read_text().splitlines()]
    # Of a fault that was tried again the last result counts.
    results = {result["fault"]: result for result in lines}
    options.page.write_text(rewrite(options.page.read_text(), list(results.values())))


if __name__ == "__main__":
    main()
