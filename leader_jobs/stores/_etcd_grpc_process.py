"""
What kind of process gRPC can live in: no fork of one that used it, none of greenlets.

gRPC has threads and locks of its own. A fork copies the locks in whatever state they are and the
threads not at all; what becomes of the child then is a matter of luck. Where greenlets take the place
of threads, a call that blocks in gRPC stops them all, signal handlers included.
"""

import os
import sys
from typing import Final

from leader_jobs.exceptions import ConfigurationError, StoreRefused

__all__ = ["disarm_forks", "note_use", "refuse_forks", "refuse_greenlets"]

_FORK_SUPPORT: Final = "GRPC_ENABLE_FORK_SUPPORT"
_GATEWAY: Final = "or reach etcd's JSON gateway by etcd://, which can do that"
#: The processes that made a channel, and their forks.
_users: Final[set[int]] = set()


def disarm_forks() -> None:
    """
    Switch gRPC's own handlers of forks off, unless the site has its say; before gRPC is imported.

    They are to make children usable, which ours are not; and of children that did nothing at all some
    died of a segmentation fault within those handlers.
    """
    os.environ.setdefault(_FORK_SUPPORT, "0")


def note_use() -> None:
    """Remember that this process uses gRPC."""
    _users.add(os.getpid())


def refuse_forks() -> None:
    """
    Raise `StoreRefused` in a fork of a process that has used gRPC.

    A process that uses it for the first time after it was forked is as good as any.
    """
    if _users - {os.getpid()}:
        msg = (
            "gRPC does not survive a fork, and this process is the child of one that used it: open "
            f"the store only after the fork, {_GATEWAY}"
        )
        raise StoreRefused(msg)


def refuse_greenlets(store: str) -> None:
    """
    Raise `ConfigurationError` where sockets or threads are those of gevent or eventlet.

    Args:
        store: its URL, for the message.
    """
    for library, module, question, parts in (
        ("gevent", "gevent.monkey", "is_module_patched", ("socket", "threading")),
        ("eventlet", "eventlet.patcher", "is_monkey_patched", ("socket", "thread")),
    ):
        patcher = sys.modules.get(module)
        if patcher is not None and any(getattr(patcher, question)(part) for part in parts):
            msg = (
                f"store is {store!r}: gRPC would stop every greenlet of this process, which "
                f"{library} has patched; use threads, {_GATEWAY}"
            )
            raise ConfigurationError(msg)
