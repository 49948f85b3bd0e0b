"""What has to be known of APScheduler's executors: who awaits, how bodies wait, how pools are renewed."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from apscheduler.executors.base import BaseExecutor

__all__ = ["awaits", "renew", "waiting_in"]

_AWAITING: Final = {"apscheduler.executors.asyncio", "apscheduler.executors.tornado"}
_GREENLETS: Final = {"apscheduler.executors.gevent", "apscheduler.schedulers.gevent"}
T = TypeVar("T")


def awaits(executor: BaseExecutor) -> bool:
    """Return whether *executor* runs coroutines itself; with others each gets a loop of its own."""
    return any(kind.__module__ in _AWAITING for kind in type(executor).__mro__)


def waiting_in(kind: type) -> Callable[[Callable[[], T]], T]:
    """
    Return how code in an executor or a scheduler of a *kind* makes a call that blocks.

    A greenlet that blocks would hold up all the others, unless gevent has patched what it waits for.
    """
    if any(base.__module__ in _GREENLETS for base in kind.__mro__):
        from gevent import get_hub, monkey

        if not monkey.is_module_patched("threading"):
            return get_hub().threadpool.apply  # type: ignore[no-any-return]  # gevent is not typed
    return lambda call: call()


def renew(executor: BaseExecutor) -> None:
    """
    Give *executor* a new pool, if the one it has was shut down.

    With stock APScheduler a scheduler that is started again submits to a pool that takes nothing.
    """
    pool: Any = getattr(executor, "_pool", None)
    if getattr(pool, "_shutdown", False) or getattr(pool, "_shutdown_thread", False):
        given = getattr(executor, "pool_kwargs", {})
        executor._pool = type(pool)(pool._max_workers, **given)
