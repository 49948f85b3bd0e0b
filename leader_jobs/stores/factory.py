"""
From a URL to a store: the only place that knows every kind there is.

Each kind is imported when it is first asked for, so that a site on SQLite never loads the etcd client
and the other way round. Opening does not connect: the first call does.
"""

import os
from typing import TYPE_CHECKING, Final

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings, redact
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores.base import Store

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["open_store", "sqlite_path"]

_EXAMPLE: Final = "sqlite:////var/lib/myapp/leader.sqlite3"


def open_store(settings: Settings, *, clock: Clock | None = None) -> Store:
    """
    Return the store that the settings name.

    Args:
        settings: its URL, and for etcd namespace, credentials and timing.
        clock: what leases and deadlines are measured on; the host's if None.

    Raises:
        ConfigurationError: the URL does not name a store of its kind.
        StoreUnusable: the kind of store finds at once that it can not work there.
    """
    clock = SystemClock() if clock is None else clock
    scheme, _, rest = settings.store.partition("://")
    path = sqlite_path(settings.store)
    if path is not None:
        from leader_jobs.stores.sqlite import SqliteStore

        return SqliteStore(path, clock=clock)
    if scheme == "memory":
        from leader_jobs.stores.memory import MemoryStore

        return MemoryStore.named(rest, clock)
    if scheme.partition("+")[0] in ("etcd", "etcds"):
        from leader_jobs.stores.etcd import EtcdStore

        return EtcdStore.from_settings(settings, clock=clock)
    msg = f"store is {redact(settings.store)!r}: there is no store of kind {scheme!r}"
    raise ConfigurationError(msg)


def sqlite_path(url: str) -> "Path | None":
    """
    Return the file that the URL of an embedded store names; None if it is the URL of another kind.

    Raises:
        ConfigurationError: it is one and names no file.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "sqlite":
        return None
    for mark, what in ("?", "options"), ("#", "a fragment"):
        if mark in rest:
            escaped = f"%{ord(mark):02X}"
            msg = (
                f"store is {url!r}: {what} after {mark!r} mean nothing here; "
                f"remove them, or write {escaped} if the file's name has that character"
            )
            raise ConfigurationError(msg)
    from pathlib import Path
    from urllib.parse import unquote_to_bytes

    path = os.fsdecode(unquote_to_bytes(rest))
    if path.endswith("/"):
        msg = f"store is {url!r}: that names no file; write for example {_EXAMPLE}"
        raise ConfigurationError(msg)
    if "\0" in path:
        msg = f"store is {url!r}: no file's name has a zero byte; remove %00"
        raise ConfigurationError(msg)
    return Path("/" + path.lstrip("/"))
