"""
Runs a job in a process of a `ProcessPoolExecutor`.

Such a process holds no term and hears of none. Its start was recorded before the job was sent to it,
and as long as its parent lives, so does the run; that the parent has lost its term it can not know.
"""

import asyncio
import inspect
import multiprocessing
import threading
from datetime import datetime
from typing import Any, Final

from apscheduler.util import ref_to_obj

from leader_jobs.exceptions import LeadershipLost
from leader_jobs.runs import Lost, Run, running

__all__ = ["REFERENCE", "Orphaned", "run"]

#: How `run` is named in a job that is sent to another process.
REFERENCE: Final = f"{__name__}:run"
_POLL: Final = 0.2


class Orphaned(Lost):
    """Like a `threading.Event` that is set once the process that sent the job is gone."""

    def is_set(self) -> bool:
        """Whether the process that sent the job is gone."""
        parent = multiprocessing.parent_process()
        return parent is not None and not parent.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is gone, or *timeout* seconds; return whether it is."""
        left = float("inf") if timeout is None else timeout
        while not self.is_set() and left > 0:
            threading.Event().wait(min(_POLL, left))
            left -= _POLL
        return self.is_set()


def run(reference: str, about: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """
    Call a function as the body of a run.

    Args:
        reference: where the function is, as ``module:name``.
        about: what the run's `Run` says, without its ``lost``.
        args: what to call it with.
        kwargs: likewise.

    Raises:
        LeadershipLost: the process that sent it is gone, and what it had started is closed as dead.
    """
    about = dict(about)
    lost = Orphaned()
    if lost.is_set():  # the pool fetches ahead, and outlives who sent the job
        msg = f"job {about['job']} is not begun: the process that sent it is gone"
        raise LeadershipLost(msg)
    planned_at = datetime.fromisoformat(about.pop("planned_at"))
    with running(Run(planned_at=planned_at, lost=lost, **about)):
        result = ref_to_obj(reference)(*args, **kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result
