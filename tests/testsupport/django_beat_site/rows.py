"""Rows of django-celery-beat, as people make and edit them."""

from datetime import datetime
from typing import Any

from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
)

__all__ = ["clocked", "crontab", "edit", "every", "make", "switch"]


def every(seconds: int) -> Any:
    """Return an interval that no other row shares."""
    return IntervalSchedule.objects.create(every=seconds, period=IntervalSchedule.SECONDS)


def crontab(minute: str = "*", hour: str = "*", timezone: str = "UTC", **fields: str) -> Any:
    """Return a crontab that no other row shares."""
    return CrontabSchedule.objects.create(minute=minute, hour=hour, timezone=timezone, **fields)


def clocked(instant: datetime) -> Any:
    """Return the schedule of one instant."""
    return ClockedSchedule.objects.create(clocked_time=instant)


def make(name: str, schedule: Any, **fields: Any) -> Any:
    """Save a row, as the admin does; a schedule of any kind finds its field."""
    kind = type(schedule).__name__.removesuffix("Schedule").lower()
    return PeriodicTask.objects.create(name=name, task="add", **{kind: schedule}, **fields)


def edit(row_name: str, **fields: Any) -> Any:
    """Change a row and save it, as the admin's form does."""
    row = PeriodicTask.objects.get(name=row_name)
    for field, value in fields.items():
        setattr(row, field, value)
    row.save()
    return row


def switch(name: str, *, on: bool) -> None:
    """Switch a row on or off, as the admin's actions "enable" and "disable selected tasks" do."""
    fields: dict[str, Any] = {"enabled": True} if on else {"enabled": False, "last_run_at": None}
    PeriodicTask.objects.filter(name=name).update(**fields)
    PeriodicTasks.update_changed()
