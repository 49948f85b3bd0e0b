"""
django-apscheduler's rows of runs: those that would say "Started execution" for ever get their end.

It writes them when its listeners hear how a run went. They hear nothing in a process that is killed
at that moment, and can not write it down while the database is away.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from apscheduler.jobstores.base import BaseJobStore

from leader_jobs.clock import Clock
from leader_jobs.ledger import Ledger
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.schedules import as_utc

__all__ = ["Executions"]

#: What ended just now, its own process may be about to write down.
_SETTLED: Final = timedelta(seconds=2)
_DAY: Final = timedelta(days=1)
_LONGEST: Final = 1000
_MOST: Final = 1000


class Executions:
    """
    The rows of runs, as the leader finds them.

    Args:
        ledger: knows how each run ended.
        clock: where instants come from.
    """

    def __init__(self, ledger: Ledger, *, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._looked = False

    def settle(self, store: BaseJobStore) -> None:
        """
        End the rows of runs that the ledger knows the end of; for a `DjangoJobStore`, else nothing.

        The first call looks at the newest thousand, later ones at those of the last day. Rows of runs that
        the ledger does not know are left alone, such as those of the admin's own "run now".

        Raises:
            StoreError: the ledger could not be read.
            django.db.Error: likewise the database.
        """
        if not type(store).__module__.startswith("django_apscheduler"):
            return
        from django_apscheduler.models import DjangoJobExecution
        from django_apscheduler.util import get_django_internal_datetime

        now = self._clock.utcnow()
        left_open = DjangoJobExecution.objects.filter(
            status=DjangoJobExecution.SENT,
            run_time__lt=get_django_internal_datetime(now - _SETTLED),
        )
        if self._looked:
            left_open = left_open.filter(run_time__gte=get_django_internal_datetime(now - _DAY))
        ends: dict[str, dict[datetime, OccurrenceRecord]] = {}
        for row in left_open.order_by("-run_time")[:_MOST]:
            if row.job_id not in ends:
                ends[row.job_id] = self._ends(row.job_id, now)
            entry = ends[row.job_id].get(_instant(row.run_time))
            if entry is not None:  # unless its own process was faster
                left_open.filter(pk=row.pk).update(**_columns(entry, DjangoJobExecution))
        self._looked = True

    def _ends(self, job: str, now: datetime) -> dict[datetime, OccurrenceRecord]:
        """Return what has ended of *job*, by its run time."""
        return {
            entry.planned_at: entry
            for entry in self._ledger.history(job)
            if entry.ended_at is not None and entry.ended_at < now - _SETTLED
        }


def _instant(run_time: datetime) -> datetime:
    if run_time.tzinfo is None:  # USE_TZ is off
        from django.utils.timezone import make_aware

        run_time = make_aware(run_time)
    return as_utc(run_time)


def _columns(entry: OccurrenceRecord, model: Any) -> dict[str, Any]:
    """Return what a row of *model* says once *entry* has ended."""
    status = {State.SUCCEEDED: model.SUCCESS, State.SKIPPED: model.MISSED}
    ended = entry.ended_at or entry.planned_at
    return {
        "status": status.get(entry.state, model.ERROR),
        "finished": round(ended.timestamp(), 2),
        "duration": round((ended - entry.planned_at).total_seconds(), 2),
        "exception": entry.reason[:_LONGEST] or None,
    }
