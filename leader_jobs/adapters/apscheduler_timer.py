"""The timing of the built-in runner, by an APScheduler 3.x background scheduler."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from leader_jobs.exceptions import ConfigurationError

try:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.base import JobLookupError
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.interval import IntervalTrigger
except ImportError as _error:  # pragma: no cover
    _msg = 'APScheduler is not installed; pip install "leader-jobs[apscheduler]"'
    raise ConfigurationError(_msg) from _error

__all__ = ["APSchedulerTimer"]

_TICK: Final = "tick"


class APSchedulerTimer:
    """
    A `leader_jobs.runner.Timer`: one APScheduler job that is moved to when it is wanted next.

    The scheduler only wakes the runner up. What is due, and whether it may run, is the ledger's to
    say; the interval of a second is what is left if a tick ends without asking for the next one.
    """

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": ThreadPoolExecutor(2)}
        )

    def start(self, tick: Callable[[], None]) -> None:
        """Call *tick* now, on a thread of the scheduler's, and again as `wake_at` asks."""
        self._scheduler.add_job(
            tick,
            IntervalTrigger(seconds=1, timezone=UTC),
            id=_TICK,
            next_run_time=datetime.now(UTC),
            misfire_grace_time=None,
            coalesce=True,
            max_instances=2,
        )
        self._scheduler.start()

    def wake_at(self, instant: datetime) -> None:
        """Tick at *instant*; the last call counts."""
        try:
            self._scheduler.modify_job(_TICK, next_run_time=instant)
        except JobLookupError:  # stopped meanwhile
            return

    def stop(self) -> None:
        """Tick no more; returns without waiting for a tick that is under way."""
        self._scheduler.shutdown(wait=False)
