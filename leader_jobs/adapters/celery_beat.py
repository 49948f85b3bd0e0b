"""
``celery beat -S leader``: beat on every node, each tick exactly once.

Every node runs beat; the elected one publishes. Its messages have one task id per occurrence for
ever, so that a copy (a leader that died or froze between claiming and sending causes one at most)
is recognised by the guard in the workers (`leader_jobs.adapters.celery_worker`).

Beat's main thread only waits: it has to answer signals at any moment, and a signal may not cut a
batch in two. Candidacy, schedule and broker belong to a thread that begins with the first tick, in
the process that ticks; a scheduler that is made for the banner alone starts nothing.
"""

import contextlib
import logging
import os
import queue
import threading
from typing import Any, Final

from celery import Celery
from celery.beat import Scheduler

from leader_jobs.adapters.celery_publisher import Publisher
from leader_jobs.adapters.celery_settings import configure, options_of, settings_of
from leader_jobs.adapters.celery_ticking import BeatTerm
from leader_jobs.adapters.celery_timetable import Timetable, scheduler_class
from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings, redact
from leader_jobs.exceptions import ConfigurationError, Fenced, LeaderJobsError, StoreError
from leader_jobs.ledger import Ledger
from leader_jobs.stores.factory import open_store
from leader_jobs.term import Term
from leader_jobs.version import version

__all__ = ["LeaderDatabaseScheduler", "LeaderScheduler"]

_log = logging.getLogger(__name__)
_SLICE: Final = 1.0
_RETRY: Final = 1.0
_LOOK_EVERY: Final = 5.0


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
        ConfigurationError: the configuration makes no sense.
    """

    #: The wrapped scheduler's class; None for what the configuration says.
    wrapped: str | None = None

    def __init__(self, app: Celery, *, lazy: bool = False, **kwargs: Any) -> None:
        super().__init__(app, lazy=True, max_interval=kwargs.get("max_interval"))
        try:
            self._settings = settings_of(app)
            self._class = scheduler_class(self.wrapped or options_of(app).beat_scheduler)
        except ConfigurationError as error:
            if not lazy:
                raise
            # Beat makes one for its banner first: end there, with the message and no traceback.
            msg = f"celery beat: {error}"
            raise SystemExit(msg) from None
        configure(app)
        self._arguments = kwargs
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._node: _Node | None = None

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
        """
        if self._node is None or self._node.pid != os.getpid():
            self._node = _Node(self.app, self._settings, self._class, self._arguments)
            self._node.start()
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=_SLICE)
        return 0.0

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
        node, self._node = self._node, None
        self._bell.put(None)
        if node is not None:
            node.stop()


class LeaderDatabaseScheduler(LeaderScheduler):
    """`LeaderScheduler` around django-celery-beat's scheduler: ``celery beat -S leader-django``."""

    wrapped = "django_celery_beat.schedulers:DatabaseScheduler"


class _Node:
    """
    This process's part in the election, on a thread of its own.

    Args:
        app: the application.
        settings: its settings.
        scheduler: the class of the wrapped scheduler.
        arguments: what to make it with.
    """

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        scheduler: type[Scheduler],
        arguments: dict[str, Any],
    ) -> None:
        self.pid: Final = os.getpid()
        self._app = app
        self._settings = settings
        self._clock: Clock = SystemClock()
        self._scheduler = scheduler(app=app, lazy=True, **arguments)
        self._store = open_store(settings, clock=self._clock)
        self._candidate = Candidate(
            settings.election,
            store=self._store,
            node=settings.node,
            ttl=settings.ttl,
            version=version(),
            clock=self._clock,
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader-jobs-beat", daemon=True)

    def start(self) -> None:
        """Stand in the election from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Bring the batch in hand to an end, and resign."""
        if self.pid != os.getpid():
            return  # a copy, made by a fork
        self._stopping.set()
        self._candidate.release()
        self._thread.join(self._settings.grace)
        self._candidate.stop()
        self._store.close()

    def _run(self) -> None:
        ledger = Ledger(
            self._store,
            self._settings.election,
            node=self._settings.node,
            owner=self._candidate.proposal.incarnation,
            clock=self._clock,
        )
        timetable = Timetable(self._app, self._scheduler)
        publisher = Publisher(self._app, self._settings.election, timetable.send)
        self._candidate.start()
        while not self._stopping.is_set():
            term = self._candidate.wait_for_term()
            if term is not None and not self._stopping.is_set():
                self._lead(term, ledger, timetable, publisher)
        publisher.close()
        timetable.close()

    def _lead(self, term: Term, ledger: Ledger, timetable: Timetable, publisher: Publisher) -> None:
        """Publish until the term ends or the node is stopped; losing a term never ends beat."""
        beat: BeatTerm | None = None
        while term.active and not self._stopping.is_set():
            pause = _RETRY
            try:
                if beat is None:
                    beat = self._begin(term, ledger, timetable, publisher)
                pause = beat.tick()
            except Fenced:
                self._candidate.lose(term)
            except StoreError as error:
                _log.warning("nothing is sent for %.1f s: %s", pause, error)
            except Exception:  # noqa: BLE001  a schedule that can not be read now may be readable soon
                _log.exception("nothing is sent for %.1f s", pause)
            self._clock.wait(self._stopping, min(pause, term.remaining))
        if beat is not None:
            self._end(term, beat, timetable)

    def _begin(
        self, term: Term, ledger: Ledger, timetable: Timetable, publisher: Publisher
    ) -> BeatTerm:
        timetable.set_up()
        return BeatTerm(
            term,
            candidate=self._candidate,
            ledger=ledger,
            timetable=timetable,
            publisher=publisher,
            clock=self._clock,
            look_every=min(self._scheduler.max_interval or _LOOK_EVERY, _LOOK_EVERY),
        )

    def _end(self, term: Term, beat: BeatTerm, timetable: Timetable) -> None:
        try:
            if term.active:
                beat.finish()
            else:
                timetable.forget_books()
        except LeaderJobsError as error:
            _log.warning("what was sent last is not marked, and may be sent again: %s", error)
        finally:
            beat.drop()
