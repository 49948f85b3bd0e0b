"""The bodies of jobs in shared job stores: all they do is write down that they ran."""

import os
import threading
from collections.abc import Callable
from typing import Any, Final

from leader_jobs.clock import SystemClock
from leader_jobs.jobs import JobRegistry, leader_only
from leader_jobs.runs import current_run

__all__ = ["EVIDENCE", "again", "fail", "note", "reference", "slow"]

#: Names, in the environment, the file to write to.
EVIDENCE: Final = "TEST_EVIDENCE"
_CLOCK: Final = SystemClock()


def note(word: str = "-") -> None:
    """Write down what runs, when, and *word*."""
    run = current_run()
    assert run is not None
    fields = (
        "begin",
        run.job,
        run.planned_at.isoformat(),
        run.token,
        run.attempt,
        os.getpid(),
        _CLOCK.utcnow().isoformat(),
        word,
    )
    file = os.open(os.environ[EVIDENCE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{' '.join(map(str, fields))}\n".encode())
    os.close(file)


@leader_only(on_crash="rerun", jobs=JobRegistry())
def again() -> None:
    """Write it down, once more if the process died meanwhile."""
    note()


def slow(seconds: float) -> None:
    """Write it down, take so many seconds, and write down that it is through."""
    note("begin")
    threading.Event().wait(seconds)
    note("end")


def fail() -> None:
    """Write it down and fail."""
    note()
    msg = "as it shall"
    raise ValueError(msg)


def reference(function: Callable[..., Any]) -> str:
    """Return how a job store names *function*, one of these."""
    return f"{__name__}:{function.__name__}"
