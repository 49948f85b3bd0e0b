"""The job of all recipes: a line in a file for each second, whichever process leads."""

import os
from pathlib import Path

from leader_jobs import current_run

__all__ = ["tick"]


def tick() -> None:
    """Append the planned instant and the process to the file that ``TICKS`` names."""
    run = current_run()
    assert run is not None  # noqa: S101  for mypy: a scheduler calls this
    line = f"{run.planned_at.isoformat()} {os.getpid()}\n"
    with Path(os.environ.get("TICKS", "ticks.log")).open("a") as ticks:
        ticks.write(line)
