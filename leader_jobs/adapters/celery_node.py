"""
A node of beat: its candidacy, and the terms it leads, on a thread of their own.
"""

import logging
import os
import threading
from contextlib import suppress
from typing import Any, Final

from celery import Celery
from celery.beat import Scheduler

from leader_jobs.adapters.celery_publisher import Publisher
from leader_jobs.adapters.celery_ticking import BeatTerm
from leader_jobs.adapters.celery_timetable import Timetable
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.escort import Escort
from leader_jobs.exceptions import Fenced, LeaderJobsError, StoreError
from leader_jobs.standing import place_of
from leader_jobs.stores.factory import open_store
from leader_jobs.term import Term

__all__ = ["BeatNode"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.5
_LOOK_EVERY: Final = 5.0
#: A leader that can not send for so long, in seconds, lets another node try.
_HAND_OVER: Final = 30.0


class BeatNode:
    """
    This process's part in the election of the beats of an application.

    Args:
        app: the application.
        settings: its settings.
        scheduler: the class of the wrapped scheduler.
        arguments: what to make it with.
        escort: what goes along with it, to be closed with it; without probes if None.
    """

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        scheduler: type[Scheduler],
        arguments: dict[str, Any],
        escort: Escort | None = None,
    ) -> None:
        self.pid: Final = os.getpid()
        self._app = app
        self._settings = settings
        self._clock: Clock = SystemClock()
        self._store = open_store(settings, clock=self._clock)
        self._escort = escort or Escort(settings, serve=False, clock=self._clock)
        place = place_of(
            settings,
            settings.election,
            store=self._store,
            clock=self._clock,
            observers=self._escort.observers,
            guarded=True,
        )
        self._candidate, self._ledger, self._orders = place.candidate, place.ledger, place.orders
        place.orders.listen(self._ordered)
        place.steward.leave_by(self._leave, within=settings.grace)
        wrapped = scheduler(app=app, lazy=True, **arguments)
        self._look_every = min(wrapped.max_interval or _LOOK_EVERY, _LOOK_EVERY)
        self._timetable = Timetable(app, wrapped)
        self._publisher = Publisher(app, settings.election, self._timetable.send)
        self._beat: BeatTerm | None = None
        self._good_at = self._clock.now()
        self._troubled = False
        self._stopping = threading.Event()
        self._leaving = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader-jobs-beat", daemon=True)

    def start(self) -> None:
        """Stand in the election from now on."""
        self._thread.start()

    def look_after(self) -> None:
        """
        Let another node lead if this one's thread hangs; for the main thread to call now and then.

        Raises:
            SystemExit: the thread has died; whoever supervises this process should start another.
        """
        if self._stopping.is_set():
            return
        if not self._thread.is_alive():
            self._candidate.stop()
            msg = "celery beat: the thread that publishes has died; see the log for what ended it"
            raise SystemExit(msg)
        if self._candidate.term is None:
            self._good_at = self._clock.now()
        elif self._clock.now() - self._good_at >= 2 * _HAND_OVER and self._has_heir():
            _log.error("the thread that publishes hangs: another node shall lead")
            self._candidate.resign()

    def stop(self) -> None:
        """Bring the batch in hand to an end, and resign; waits for no longer than the grace time."""
        if self.pid != os.getpid():
            return  # a copy, made by a fork
        self._escort.leave()
        self._stopping.set()
        self._wake.set()
        self._candidate.release()
        with suppress(RuntimeError):  # a signal came before it was started
            self._thread.join(self._settings.grace)
        self._candidate.stop()
        self._escort.close()
        self._store.close()

    def _run(self) -> None:
        if self._stopping.is_set():
            return
        self._app.set_current()  # Celery asks for it, and knows it in the main thread alone
        self._candidate.start()
        self._timetable.preload()
        while not self._stopping.is_set():
            term = self._candidate.wait_for_term()
            if term is not None and not self._stopping.is_set():
                self._lead(term)
        self._publisher.close()
        self._timetable.close()

    # -- one term ---------------------------------------------------------------------------------

    def _lead(self, term: Term) -> None:
        """Publish until the term ends or the node is stopped; losing a term never ends beat."""
        self._good_at = self._clock.now()
        self._leaving = False
        self._ledger.tally.turn(self._clock.now(), None)
        try:
            while self._may_lead(term) and not self._is_hopeless():
                self._wake.clear()
                pause = self._turn(term)
                if self._may_lead(term):
                    self._clock.wait(self._wake, min(pause, term.remaining))
        finally:
            self._ledger.tally.rest()
            self._end(term)
        if term.active and not self._stopping.is_set():
            self._candidate.resign()

    def _may_lead(self, term: Term) -> bool:
        return term.active and not self._stopping.is_set() and not self._leaving

    def _ordered(self) -> None:
        """Go by what operators ordered just now."""
        self._wake.set()

    def _leave(self) -> None:
        """Bring the batch in hand to an end, and resign; returns at once."""
        self._leaving = True
        self._wake.set()

    def _turn(self, term: Term) -> float:
        """Do what is due; return the seconds until there is more to do."""
        try:
            if self._beat is None:
                self._beat = self._begin(term)
            pause = self._beat.tick()
            # Also while the broker is away, and nothing is claimed.
            self._ledger.tally.turn(self._clock.now(), self._ledger.tally.due)
            if not self._beat.stuck:
                self._good_at = self._clock.now()
        except Fenced:
            self._candidate.lose(term)
        except StoreError as error:
            self._complain(error)
        except Exception:  # noqa: BLE001  a schedule that can not be read now may be readable soon
            _log.exception("nothing is sent for the moment")
        else:
            self._troubled = False
            return pause
        return _RETRY

    def _complain(self, error: StoreError) -> None:
        """Say what is the matter when it begins, not at every try."""
        level = logging.DEBUG if self._troubled else logging.WARNING
        self._troubled = True
        _log.log(level, "nothing is sent until the store is back: %s", error)

    def _begin(self, term: Term) -> BeatTerm:
        self._timetable.set_up()
        return BeatTerm(
            term,
            candidate=self._candidate,
            ledger=self._ledger,
            timetable=self._timetable,
            publisher=self._publisher,
            clock=self._clock,
            look_every=self._look_every,
            orders=self._orders,
        )

    def _end(self, term: Term) -> None:
        beat, self._beat = self._beat, None
        if beat is None:
            return
        try:
            if term.active:
                beat.finish()
            else:
                self._timetable.forget_books()
        except LeaderJobsError as error:
            _log.warning("what was sent last is not marked, and may be sent again: %s", error)
        except Exception:  # noqa: BLE001  a node whose thread has died would go on standing for nothing
            _log.exception("the term did not end as it should")
        finally:
            beat.drop()
            self._timetable.rest()

    def _is_hopeless(self) -> bool:
        """Whether this node could not send for long, and another one waits to try."""
        if self._clock.now() - self._good_at < _HAND_OVER or not self._has_heir():
            return False
        _log.warning("nothing could be sent for %.0f s: another node shall try", _HAND_OVER)
        return True

    def _has_heir(self) -> bool:
        deadline = self._clock.now() + _RETRY
        try:
            return len(self._store.candidates(self._settings.election, deadline=deadline)) > 1
        except StoreError:
            return False
