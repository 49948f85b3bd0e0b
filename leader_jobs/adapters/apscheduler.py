"""
APScheduler 3.x in every process, of which one fires.

Import a scheduler from here instead of from APScheduler, or `elect` one that somebody else made.
Every process starts its scheduler; the processes elect one, which alone runs jobs. Run times are
claimed in the ledger, so that none is run twice, and none is lost when another process takes over.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeVar

from leader_jobs.exceptions import ConfigurationError

try:
    from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
except ImportError as _error:  # pragma: no cover
    _msg = 'APScheduler is not installed; pip install "leader-jobs[apscheduler]"'
    raise ConfigurationError(_msg) from _error

from leader_jobs.adapters.apscheduler_jobs import named
from leader_jobs.adapters.apscheduler_mixin import LeaderMixin
from leader_jobs.adapters.apscheduler_settings import options_of

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.schedulers.blocking import BlockingScheduler
    from apscheduler.schedulers.gevent import GeventScheduler
    from apscheduler.schedulers.qt import QtScheduler
    from apscheduler.schedulers.tornado import TornadoScheduler
    from apscheduler.schedulers.twisted import TwistedScheduler

__all__ = [
    "LeaderAsyncIOScheduler",
    "LeaderBackgroundScheduler",
    "LeaderBlockingScheduler",
    "LeaderGeventScheduler",
    "LeaderMixin",
    "LeaderQtScheduler",
    "LeaderTornadoScheduler",
    "LeaderTwistedScheduler",
    "elect",
]

S = TypeVar("S")


def elect(scheduler: S, *, election: str | None = None, **given: Any) -> S:
    """
    Make a scheduler that somebody else made one of many, of which the elected one runs its jobs.

    Args:
        scheduler: a scheduler of APScheduler 3.x that is not started yet, or something that has one
            as its ``scheduler``, as Flask-APScheduler's ``APScheduler``.
        election: the election; None for the one that is configured.
        given: what would be in the section ``leader_jobs`` of its configuration.

    Returns:
        The same object, changed in place; its class is now one with `LeaderMixin`.

    Raises:
        ConfigurationError: it is no scheduler, or was started; a setting makes no sense; or a job
            it has needs an id. It is then as it was.

    Its default ``misfire_grace_time`` becomes None if it was APScheduler's one second. Its jobs that
    were given no id, and so have a random one, get one that is the same in every process.
    """
    inner = (
        scheduler if isinstance(scheduler, BaseScheduler) else getattr(scheduler, "scheduler", None)
    )
    if not isinstance(inner, BaseScheduler):
        msg = f"elect() wants a scheduler of APScheduler 3, not {scheduler!r}"
        raise ConfigurationError(msg)
    if inner.state != STATE_STOPPED:
        msg = "this scheduler is started already: elect() it before its start()"
        raise ConfigurationError(msg)
    options_of(given)
    pending = named(inner._pending_jobs)
    inner.__class__ = _leader_class(type(inner))
    inner._pending_jobs = pending
    graceful = inner._job_defaults["misfire_grace_time"] == 1
    inner._adopt(given, election, graceful=graceful)
    return scheduler


#: The classes of APScheduler by the names of ours; each needs its own framework to be imported.
_CLASSES: Final = {
    "LeaderAsyncIOScheduler": "apscheduler.schedulers.asyncio:AsyncIOScheduler",
    "LeaderBackgroundScheduler": "apscheduler.schedulers.background:BackgroundScheduler",
    "LeaderBlockingScheduler": "apscheduler.schedulers.blocking:BlockingScheduler",
    "LeaderGeventScheduler": "apscheduler.schedulers.gevent:GeventScheduler",
    "LeaderQtScheduler": "apscheduler.schedulers.qt:QtScheduler",
    "LeaderTornadoScheduler": "apscheduler.schedulers.tornado:TornadoScheduler",
    "LeaderTwistedScheduler": "apscheduler.schedulers.twisted:TwistedScheduler",
}
_made: Final[dict[type[BaseScheduler], type[LeaderMixin]]] = {}

if TYPE_CHECKING:

    class LeaderAsyncIOScheduler(LeaderMixin, AsyncIOScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`AsyncIOScheduler`, elected."""

    class LeaderBackgroundScheduler(LeaderMixin, BackgroundScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`BackgroundScheduler`, elected."""

    class LeaderBlockingScheduler(LeaderMixin, BlockingScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`BlockingScheduler`, elected."""

    class LeaderGeventScheduler(LeaderMixin, GeventScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`GeventScheduler`, elected."""

    class LeaderQtScheduler(LeaderMixin, QtScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`QtScheduler`, elected."""

    class LeaderTornadoScheduler(LeaderMixin, TornadoScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`TornadoScheduler`, elected."""

    class LeaderTwistedScheduler(LeaderMixin, TwistedScheduler):  # type: ignore[misc]  # APScheduler is not typed
        """`TwistedScheduler`, elected."""


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module, _, base = _CLASSES[name].partition(":")
    made = _leader_class(getattr(import_module(module), base))
    globals()[name] = made
    return made


def _leader_class(base: type[BaseScheduler]) -> type[LeaderMixin]:
    """Return *base* with `LeaderMixin` before it; the same class each time."""
    if issubclass(base, LeaderMixin):
        return base
    if base not in _made:
        name = f"Leader{base.__name__}"
        about = {"__module__": __name__, "__doc__": f"`{base.__name__}`, elected."}
        _made[base] = type(name, (_mixin(base), base), about)
    return _made[base]


def _mixin(base: type[BaseScheduler]) -> type[LeaderMixin]:
    if any(kind.__module__ == "apscheduler.schedulers.qt" for kind in base.__mro__):
        from leader_jobs.adapters.apscheduler_qt import LeaderQtMixin

        return LeaderQtMixin
    return LeaderMixin
