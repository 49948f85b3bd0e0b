"""Instants for people, on the wall clock of the time zone that Django has at present."""

from datetime import datetime

from django.utils import timezone

__all__ = ["at", "full", "zone"]


def at(instant: datetime, now: datetime) -> str:
    """Return an instant on the wall clock, to the second; with its date unless it is today's."""
    local, today = timezone.localtime(instant), timezone.localtime(now)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return (
        f"{local:%b} {local.day}, {local:%H:%M:%S}" if local.year == today.year else full(instant)
    )


def full(instant: datetime) -> str:
    """Return an instant on the wall clock, with its date."""
    return f"{timezone.localtime(instant):%Y-%m-%d %H:%M:%S}"


def zone() -> str:
    """Return the name of the time zone in which all of this is said."""
    return timezone.get_current_timezone_name()
