"""The installed version, looked up when asked for."""

from functools import cache

__all__ = ["version"]


@cache
def version() -> str:
    """Return the version of the installed distribution, or ``unknown`` in a bare checkout."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("leader-jobs")
    except PackageNotFoundError:
        return "unknown"
