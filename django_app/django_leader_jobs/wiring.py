"""What a Django project adds to a node's part: its database connections."""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync
from django.db import close_old_connections

__all__ = ["fresh_connections", "run_async"]


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Give a job's thread database connections that are fit to use, and leave no stale one behind."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run *coroutine* to its end with its database work on this thread, where connections are fresh."""

    async def awaited() -> Any:
        return await coroutine

    return async_to_sync(awaited)()
