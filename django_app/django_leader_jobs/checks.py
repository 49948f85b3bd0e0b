"""System checks: what ``manage.py check`` says about the settings and the jobs."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks

from django_leader_jobs.conf import SETTING, load_settings
from django_leader_jobs.discovery import discover_jobs
from leader_jobs.exceptions import ConfigurationError

__all__ = ["check_jobs", "check_settings"]


def check_settings(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[checks.CheckMessage]:
    """E001: the settings make no sense. W001: the store does not leave the process."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return [
            checks.Error(str(error), hint=f"See {SETTING} in the settings.", id="leader_jobs.E001")
        ]
    if settings.store.startswith("memory:"):
        message = f"{SETTING}['STORE'] is {settings.store!r}: every process elects itself."
        hint = (
            "Use sqlite:////… for processes of one host, etcd://… for more; keep memory for tests."
        )
        return [checks.Warning(message, hint=hint, id="leader_jobs.W001")]
    return []


def check_jobs(
    app_configs: Sequence[AppConfig] | None, **_kwargs: Any
) -> list[checks.CheckMessage]:
    """E002: a job is declared wrongly, or twice."""
    try:
        discover_jobs()
    except ConfigurationError as error:
        return [checks.Error(str(error), id="leader_jobs.E002")]
    return []
