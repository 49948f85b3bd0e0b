"""Finding the jobs of a project: those declared in the ``jobs.py`` of each installed app."""

from django.utils.module_loading import autodiscover_modules

__all__ = ["discover_jobs"]


def discover_jobs() -> None:
    """
    Import ``jobs`` of every installed app, so that what they decorate is registered.

    Raises:
        ConfigurationError: a job is declared wrongly.
    """
    autodiscover_modules("jobs")
