"""
``celery beat -S leader``: beat on every node, each tick exactly once.

Every node runs beat; the elected one publishes. Its messages have one task id per occurrence for
ever, so that a copy (a leader that died or froze between claiming and sending causes one at most)
is recognised by the guard in the workers (`leader_jobs.adapters.celery_worker`).

Beat's main thread only waits: it has to answer signals at any moment, and a signal may not cut a
batch in two. Candidacy, schedule and broker belong to a thread that begins with the first tick, in
the process that ticks; a scheduler that is made for the banner alone starts nothing, another one
answers probes, if it is to, as soon as it is made.
"""

import contextlib
import logging
import os
import queue
import threading
from typing import Any, Final

from billiard.process import current_process
from celery import Celery
from celery.beat import Scheduler

from leader_jobs.adapters.celery_node import BeatNode
from leader_jobs.adapters.celery_settings import configure, options_of, settings_of
from leader_jobs.adapters.celery_timetable import scheduler_class
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings, redact
from leader_jobs.escort import Escort
from leader_jobs.exceptions import ConfigurationError, StoreError, StoreUnavailable
from leader_jobs.stores.factory import open_store, sqlite_path

__all__ = ["LeaderDatabaseScheduler", "LeaderScheduler"]

_log = logging.getLogger(__name__)
_SLICE: Final = 1.0
_FIRST_ANSWER: Final = 2.0


class LeaderScheduler(Scheduler):
    """
    A beat scheduler that publishes while its node leads, around one of any other class.

    Args:
        app: the application; its configuration says where the election is held
            (``leader_jobs_store``, …) and which scheduler keeps the schedule
            (``leader_jobs_beat_scheduler``).
        lazy: True to start nothing, as beat asks for its banner.
        kwargs: for the wrapped scheduler, as beat gives them.

    Raises:
        SystemExit: the configuration makes no sense, or the store refuses it; the message says what to change.
        StoreError, ConfigurationError: the same, where beat is embedded on a thread, which can not end a program.
    """

    #: The wrapped scheduler's class; None for what the configuration says.
    wrapped: str | None = None

    def __init__(self, app: Celery, *, lazy: bool = False, **kwargs: Any) -> None:
        super().__init__(app, lazy=True, max_interval=kwargs.get("max_interval"))
        try:
            self._settings = settings_of(app)
            self._class = scheduler_class(self.wrapped or options_of(app).beat_scheduler)
            if not lazy:
                _check(self._settings)
            # Here, because beat would not say why it ends if its first tick found the port taken.
            self._escort = None if lazy else _escort_of(self._settings)
            if self._escort is not None:
                self._escort.start()
        except (ConfigurationError, StoreError) as error:
            if threading.current_thread() is not threading.main_thread():
                raise
            # Beat makes it where nothing else is to be ended: with the message and no traceback.
            msg = f"celery beat: {error}"
            raise SystemExit(msg) from None
        configure(app)
        self._arguments = kwargs
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._node: BeatNode | None = None
        self._closed = False

    @property
    def info(self) -> str:
        """What beat's banner says of the scheduler."""
        where = f"election {self._settings.election!r} on {redact(self._settings.store)}"
        return f"    . {where}\n    . around -> {self._class.__module__}:{self._class.__name__}"

    def tick(self, *_: Any, **__: Any) -> float:
        """
        Wait a moment, while the node's own thread does what there is to do.

        Returns:
            0.0, as the wait is over when it returns: nothing can wake beat from its own sleep.

        Raises:
            SystemExit: beat is embedded in a worker that is dead, or cannot go on.
        """
        if self._closed:
            return 0.0
        if _is_orphan():
            _log.warning("beat ends: the worker it was embedded in is gone")
            raise SystemExit
        if self._node is None or self._node.pid != os.getpid():
            self._node = self._begin()
            self._node.start()
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=_SLICE)
        if not self._closed:
            self._node.look_after()
        return 0.0

    def _begin(self) -> BeatNode:
        escort = self._escort
        if escort is None or escort.pid != os.getpid():  # we were forked since we were made
            escort = _escort_of(self._settings)
            escort.start()
        return BeatNode(self.app, self._settings, self._class, self._arguments, escort)

    def should_sync(self) -> bool:
        """Say no: the node's own thread keeps the wrapped scheduler's books."""
        return False

    def sync(self) -> None:
        """Do nothing, likewise."""

    def close(self) -> None:
        """
        Finish the batch in hand, mark it and resign; beat calls it in a signal handler, and again.

        It takes no lock that the interrupted code may hold, and waits a limited time only.
        """
        self._closed = True
        node, self._node = self._node, None
        self._bell.put(None)
        if node is not None:
            node.stop()
        elif self._escort is not None:
            self._escort.close()


def _check(settings: Settings) -> None:
    """Say now, in a line, what the store refuses; for one that is away, the node waits."""
    if sqlite_path(settings.store) is not None:
        return  # a file is made by whoever stands, and a scheduler that never ticks does not
    clock = SystemClock()
    opened = contextlib.closing(open_store(settings, clock=clock))
    with opened as store, contextlib.suppress(StoreUnavailable):
        store.check(settings.election, deadline=clock.now() + _FIRST_ANSWER)


def _escort_of(settings: Settings) -> Escort:
    """Return what goes along with beat; embedded in a worker, it is not the service that systemd knows."""
    return Escort(settings, notify=_worker() is None)


def _worker() -> int | None:
    """Return the process id of the worker whose child this process is, or None."""
    parent: int | None = getattr(current_process(), "_parent_pid", None)
    return parent


def _is_orphan() -> bool:
    """Whether this is a worker's child that outlived it; the next worker has a beat of its own."""
    worker = _worker()
    return worker is not None and os.getppid() != worker


class LeaderDatabaseScheduler(LeaderScheduler):
    """`LeaderScheduler` around django-celery-beat's scheduler: ``celery beat -S leader-django``."""

    wrapped = "django_celery_beat.schedulers:DatabaseScheduler"
