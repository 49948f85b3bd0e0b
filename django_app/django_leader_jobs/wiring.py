"""What a Django project adds to a node's part: its database connections."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import close_old_connections

__all__ = ["fresh_connections"]


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Give a job's thread database connections that are fit to use, and leave no stale one behind."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
