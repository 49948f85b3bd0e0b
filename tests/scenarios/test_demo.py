"""``make demo``, in a shortened form: the play ends well, and its verdict can be a bad one."""

import os
import subprocess
import sys
from pathlib import Path

import django
import pytest

from testsupport.parenthood import die_with_parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(django.VERSION < (5, 1), reason="the example project needs Django 5.1"),
]

EXAMPLE = Path(__file__).parents[2] / "example_project"
SHORT = ("--calm", "1", "--ttl", "2")
#: With the first node comes another one that nobody knows of: it has an election of its own.
ROGUE = """
import sys
from pathlib import Path
from demo import processes
from demo.__main__ import main

start = processes.Node.start
rogues = []

def start_with_a_rogue(node):
    start(node)
    if not rogues:
        elsewhere = {"LEADER_JOBS_STORE": f"sqlite:///{node.log.parent}/elsewhere.sqlite3"}
        rogues.append(processes.Process("rogue", ["runleader"], node.log.parent, elsewhere))
        rogues[0].start()

processes.Node.start = start_with_a_rogue
sys.exit(main())
"""


def perform(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo, with its databases in *folder*, to its end."""
    return subprocess.run(
        [sys.executable, *command, *SHORT],
        cwd=EXAMPLE,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=die_with_parent,
    )


def table(output: str) -> dict[str, list[int]]:
    """Return planned, run, doubled and missed of each job, from the summary."""
    rows = [line.split() for line in output.splitlines()]
    jobs = ("place_orders", "ship_orders", "roll_up")
    return {row[0]: [int(n) for n in row[1:5]] for row in rows if row and row[0] in jobs}


def test_nothing_is_doubled_and_nothing_missed(tmp_path: Path) -> None:
    """A leader is killed, one is frozen, one is asked to go; every planned instant ran once."""
    result = perform(tmp_path, "-m", "demo")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("took over") == 3, result.stdout
    summary = table(result.stdout)
    assert len(summary) == 3, result.stdout
    for planned, run, doubled, missed in summary.values():
        assert planned >= run > 0
        assert (doubled, missed) == (0, 0)
    assert not list(tmp_path.iterdir()), "databases and logs are removed after success"


def test_a_second_leader_would_be_found_out(tmp_path: Path) -> None:
    """With a node that is in another election, every occurrence is run twice: the demo says so."""
    result = perform(tmp_path, "-c", ROGUE)
    assert result.returncode == 1, result.stdout
    assert all(doubled > 0 for _, _, doubled, _ in table(result.stdout).values()), result.stdout
    assert "NOT AS PROMISED: " in result.stdout
    assert "times too often" in result.stdout
