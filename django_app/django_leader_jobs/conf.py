"""
The project's settings, read when asked for.

One dict in the settings module, all of it optional::

    LEADER_JOBS = {"STORE": "etcd://etcd1:2379,etcd2:2379,etcd3:2379", "TTL": 15}

Environment variables (``LEADER_JOBS_STORE``, ``LEADER_JOBS_TTL``, …) override it. Without a store,
the election is held in ``BASE_DIR/leader-jobs.sqlite3``: right for one host, and for nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings as django_settings

from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError

__all__ = ["SETTING", "default_store", "load_settings"]

SETTING: Final = "LEADER_JOBS"
_FILE: Final = "leader-jobs.sqlite3"


def load_settings(**arguments: Any) -> Settings:
    """
    Return the settings of this project.

    Args:
        arguments: what the caller wants regardless of the project's settings; None: not given.

    Raises:
        ConfigurationError: naming the key, the value and the way out.
    """
    mapping = getattr(django_settings, SETTING, {})
    if not isinstance(mapping, Mapping):
        msg = f"{SETTING} must be a dict, not {type(mapping).__name__}"
        raise ConfigurationError(msg)
    given = {key: value for key, value in mapping.items() if value is not None}
    return Settings.load({"STORE": default_store()} | given, mapping_name=SETTING, **arguments)


def default_store() -> str | None:
    """Return the store of a project that names none; None if it has no ``BASE_DIR`` to keep it in."""
    base = getattr(django_settings, "BASE_DIR", None)
    return None if base is None else f"sqlite:///{quote(str(Path(base).absolute() / _FILE))}"
