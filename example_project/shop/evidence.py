"""The rows of `WorkLog`: how a job leaves a trace that can neither be missing nor be made up."""

import os

from django.utils import timezone

from leader_jobs import Run, assert_leader, current_run
from leader_jobs.config import application
from shop.models import WorkLog

__all__ = ["begin", "is_recorded", "record"]


def begin() -> Run:
    """
    Return the run in progress; call it first thing in the transaction that does the work.

    Whoever was frozen on the way here, long enough to be superseded, is refused now. From here to
    the commit this process holds the database's write lock, so its successor comes after it.

    Raises:
        LeadershipLost: the term this run was started under is over.
        NotLeader: this is no run.
    """
    assert_leader()
    run = current_run()
    assert run is not None  # noqa: S101  for mypy: without a run the line above raised
    return run


def record(run: Run) -> None:
    """Say that *run* did its work; call it in the same transaction."""
    WorkLog.objects.create(
        job=run.job,
        planned_at=run.planned_at,
        occurrence=run.occurrence,
        token=run.token,
        attempt=run.attempt,
        node=application.settings.node,
        pid=os.getpid(),
        written_at=timezone.now(),
    )


def is_recorded(run: Run) -> bool:
    """Whether an earlier attempt at *run*'s occurrence did its work."""
    return WorkLog.objects.filter(job=run.job, planned_at=run.planned_at).exists()
