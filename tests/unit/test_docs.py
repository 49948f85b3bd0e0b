"""The documentation names what there is, and its code is code."""

import ast
import re
import subprocess
import sys
import textwrap
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import leader_jobs
from leader_jobs.config import Settings, Timing

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
_PAGES = sorted(page for page in _DOCS.rglob("*.md") if "_build" not in page.parts)
_FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def _blocks(page: Path) -> list[str]:
    """Return the Python code of a page, block by block."""
    return [textwrap.dedent(code) for _, code in _FENCE.findall(page.read_text())]


def _rows(page: Path) -> list[list[str]]:
    """Return the cells of every table row of a page."""
    lines = (line for line in page.read_text().splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # what it would lie in is no package
        return False


def _documented_modules() -> dict[str, ModuleType]:
    """Return the modules whose docstrings make up the reference."""
    text = "\n".join(page.read_text() for page in (_DOCS / "reference").glob("*.md"))
    names = re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)
    return {name: import_module(name) for name in names if name.startswith("leader_jobs")}


@pytest.mark.parametrize(
    "page", [_ROOT / "README.md", *_PAGES], ids=lambda p: str(p.relative_to(_ROOT))
)
def test_every_block_of_python_compiles(page: Path) -> None:
    """What a reader copies is at least syntax."""
    for code in _blocks(page):
        ast.parse(code)


def test_the_pages_have_python_to_compile() -> None:
    """The search for blocks finds those of the quickstart and the README."""
    assert len(_blocks(_DOCS / "quickstart.md")) >= 3
    assert len(_blocks(_ROOT / "README.md")) == 3


def test_everything_imported_in_an_example_exists() -> None:
    """No example imports a name from this project that is not there."""
    imports = [
        (node.module, alias.name)
        for page in [_ROOT / "README.md", *_PAGES]
        for code in _blocks(page)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module and "leader_jobs" in node.module
        for alias in node.names
    ]
    assert imports
    missing = [
        (module, name)
        for module, name in imports
        if not hasattr(import_module(module), name) and not _is_module(f"{module}.{name}")
    ]
    assert missing == []


def test_every_setting_is_on_the_settings_page() -> None:
    """Each field of Settings has a row with its key, its variable and its default."""
    rows = {row[0]: row for row in _rows(_DOCS / "reference" / "settings.md")}
    for field in fields(Settings):
        key = field.name.upper()
        row = rows.pop(f"`{key}`", None)
        assert row is not None, f"{key} has no row"
        assert row[1] == f"`LEADER_JOBS_{key}`"
        if field.default is not MISSING and field.default is not None:
            shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
            assert row[2] == f"`{shown}`"
    assert [key for key in rows if key.startswith("`")] == []


def test_every_public_name_is_in_the_reference() -> None:
    """Each name of the package is in the table, and in a module whose docstrings are shown."""
    names = set(leader_jobs.__all__)
    rows = {row[0].strip("`"): row for row in _rows(_DOCS / "reference" / "index.md")}
    assert names == rows.keys() - {"Name", "---"}
    modules = _documented_modules()
    for name in names - {"__version__"}:
        place = re.fullmatch(r"\{py:\w+\}`(.+)\.\w+`", rows[name][2])
        assert place is not None, name
        found = getattr(modules[place[1]], name)
        assert found is getattr(leader_jobs, name)
        assert found.__module__ == place[1], "automodule shows a module's own members only"


def test_the_table_of_times_is_what_timing_says() -> None:
    """The arithmetic on the page about the ttl is that of the library."""
    rows = {row[0]: row[2:] for row in _rows(_DOCS / "ttl.md")}
    timings = [Timing(ttl) for ttl in (3.0, 5.0, 15.0, 30.0, 60.0)]
    assert rows["What"] == [f"{timing.ttl:g} s" for timing in timings]
    expected = {
        "safety margin": [t.safety_margin for t in timings],
        "a term may act for, after the last good renewal was sent": [t.valid_for for t in timings],
        "a renewal is sent every": [t.renew_every for t in timings],
        "one try of one call may take": [t.call_timeout for t in timings],
        "one renewal may take, all endpoints together": [3 * t.call_timeout for t in timings],
        "a waiting candidate looks again after, though nobody told it to": [
            t.look_every for t in timings
        ],
    }
    for name, values in expected.items():
        assert [float(cell) for cell in rows[name]] == pytest.approx(values, abs=0.005)


def test_the_examples_of_the_page_on_testing_pass(tmp_path: Path) -> None:
    """A reader who copies the tests of that page has tests that pass."""
    for number, code in enumerate(_blocks(_DOCS / "testing.md")):
        (tmp_path / f"test_example_{number}.py").write_text(code)
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:django", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "6 passed" in pytest_run.stdout, pytest_run.stdout + pytest_run.stderr
