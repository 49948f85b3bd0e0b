"""
A scheduler's part in its election: its candidacy, and the terms it leads, on a thread of their own.
"""

import atexit
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from apscheduler.events import SchedulerEvent
from apscheduler.schedulers.base import STATE_RUNNING, BaseScheduler

from leader_jobs.adapters.apscheduler_nudges import Nudges
from leader_jobs.adapters.apscheduler_onlooker import Onlooker
from leader_jobs.adapters.apscheduler_runs import Runs
from leader_jobs.adapters.apscheduler_settings import SchedulerOptions
from leader_jobs.adapters.apscheduler_ticking import SchedulerTerm
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.escort import Escort
from leader_jobs.events import Event, TermEnded
from leader_jobs.exceptions import ConfigurationError, Fenced, StoreError
from leader_jobs.jobs import Job
from leader_jobs.runlog import RunLog
from leader_jobs.standing import place_of
from leader_jobs.stores.factory import open_store
from leader_jobs.term import Term

__all__ = ["SchedulerNode"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.5
_LOOK: Final = 0.2
_RECORD_WITHIN: Final = 3.0
#: Seconds that runs under way get before the term is given up because an operator asked for it.
_FINISH_WITHIN: Final = 1.0
_EXIT_WITHIN: Final = 5.0
#: A leader that can run nothing for so long, in seconds, lets another one try.
_HAND_OVER: Final = 10.0
#: The nodes that stand in this process, by store and election.
_nodes: Final[dict[tuple[str, str, str], "SchedulerNode"]] = {}


class SchedulerNode:
    """
    This process's part in the election of a scheduler.

    Args:
        scheduler: the scheduler; it is asked for its job stores, executors and state.
        settings: where the election is held, and how.
        options: what else there is to know.
        ours: the jobs made of ``@leader_only`` functions, by id.
        begin: called, in a term, with the alias of a job store before it is read.
        former: the node of an earlier start of the scheduler, which may still be on its way out.

    Raises:
        ConfigurationError: another scheduler of this process stands in that election.
    """

    def __init__(
        self,
        scheduler: BaseScheduler,
        settings: Settings,
        options: SchedulerOptions,
        *,
        ours: Mapping[str, Job],
        begin: Callable[[str], None],
        former: "SchedulerNode | None" = None,
    ) -> None:
        self._former = former
        self.pid: Final = os.getpid()
        self._scheduler = scheduler
        self._settings = settings
        self._options = options
        self._ours = ours
        self._begin = begin
        self._clock: Clock = SystemClock()
        self._store = open_store(settings, clock=self._clock)
        # No port for probes: there may be a process like this for each worker of a web server.
        self._escort = Escort(settings, serve=False, clock=self._clock)
        place = place_of(
            settings,
            settings.election,
            store=self._store,
            clock=self._clock,
            observers=[self._on_event, *self._escort.observers],
        )
        self._candidate, self._ledger, self._orders = place.candidate, place.ledger, place.orders
        self._log = RunLog(self._ledger, clock=self._clock, fenced=self._candidate.lose)
        self._runs = Runs(
            scheduler, ledger=self._ledger, log=self._log, clock=self._clock, freed=self._freed
        )
        self._term: SchedulerTerm | None = None
        self._nudge_due = False
        self._touched = False
        self._troubled = False
        self._good_at = self._clock.now()
        self._onlooker = Onlooker(scheduler, self._ledger, node=settings.node, clock=self._clock)
        self._wake = threading.Event()
        self._leaving = False
        place.orders.listen(self._wake.set)
        place.steward.leave_by(self._leave, within=2 * _FINISH_WITHIN)
        self._stopping = threading.Event()
        self._exiting = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader-jobs-scheduler", daemon=True)
        self._place = (settings.store, settings.namespace, settings.election)
        self._take_place()

    def _take_place(self) -> None:
        """Be the one that stands in this election in this process."""
        other = _nodes.get(self._place)
        if other is not None and other.pid == self.pid and not other.stopping:
            msg = (
                f"another scheduler of this process stands in election {self.election!r}, and only "
                "one of them would run its jobs: shut it down first, or give this one an election of "
                "its own, leader_jobs={'election': …}"
            )
            raise ConfigurationError(msg)
        _nodes[self._place] = self

    # -- what the scheduler tells ------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this process leads the election at this very moment."""
        return self._candidate.term is not None

    @property
    def stopping(self) -> bool:
        """Whether it is on its way out."""
        return self._stopping.is_set()

    @property
    def election(self) -> str:
        """The election's name."""
        return self._settings.election

    def is_spent(self, job: str) -> bool:
        """Whether *job* has nothing left but a run that began, so that its id may be used again."""
        term = self._term
        return term is not None and term.has_ended(job) and not self._runs.waits(job)

    def start(self) -> None:
        """Stand in the election from now on, as long as the scheduler is not paused."""
        atexit.register(self._exit)  # here, for the process may exit before the thread gets to run
        self._thread.start()

    def submit(self) -> None:
        """Hand what was claimed to the executors; on the scheduler's own thread."""
        self._runs.submit()
        if self._runs.closed and not self._stopping.is_set():
            self.close()  # the interpreter exits, and its pools are closed already

    def heard(self, event: SchedulerEvent) -> SchedulerEvent:
        """Take note of *event*; return what listeners shall hear instead."""
        if self._former is not None:  # what it started still ends
            event = self._former.heard(event)
            self._former = None if self._former.join(0.0) else self._former
        return self._runs.heard(event)

    def changed(self, *, shared: bool) -> None:
        """Take note that a job was added, changed or removed, perhaps in a store others see."""
        self._touched = True
        term = self._term
        if term is not None:
            term.look_soon()
        else:
            self._nudge_due = self._nudge_due or shared
            self._onlooker.look_soon()
            self._candidate.release()
        self._wake.set()

    def turned(self) -> None:
        """Take note that the scheduler was paused or resumed."""
        self._candidate.release()
        self._wake.set()

    def discard(self) -> None:
        """Undo the making of a node that is not started."""
        _nodes.pop(self._place, None)
        self._store.close()

    def close(self) -> None:
        """Start nothing more; what runs is brought to an end, and the node resigns."""
        self._runs.close()
        self._stopping.set()
        self.turned()

    def join(self, timeout: float | None) -> bool:
        """Wait up to *timeout* seconds for the node to be gone, or as long as that should take."""
        if timeout is None:
            timeout = self._settings.grace + _EXIT_WITHIN
        if self.pid == os.getpid() and self._thread is not threading.current_thread():
            with suppress(RuntimeError):  # it was never started
                self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._scheduler.state != STATE_RUNNING:
                    self._rest()
                    continue
                self._candidate.start()
                self._exit_after_us()
                term = self._candidate.wait_for_term(self._onlooker.look_in())
                self._nudge()
                if term is not None and not self._stopping.is_set():
                    self._lead(term)
                    self._onlooker.look_soon()
                elif term is None:
                    self._onlooker.look()
            self._drain()
        except Exception:  # noqa: BLE001  a standby takes over, and the log says why
            _log.exception("the thread of the scheduler's election died; another node shall lead")
        finally:
            self._candidate.stop()
            self._escort.close()
            self._log.close()
            self._store.close()
            atexit.unregister(self._exit)
            if _nodes.get(self._place) is self:
                del _nodes[self._place]

    def _rest(self) -> None:
        """Stand in no election while the scheduler is paused in this process."""
        while not self._runs.wait(_RETRY) and not self._stopping.is_set():
            if self._scheduler.state == STATE_RUNNING:
                return
            self._step_aside()
        self._log.flush(_RECORD_WITHIN)
        self._candidate.stop()
        self._wake.clear()
        if self._scheduler.state != STATE_RUNNING and not self._stopping.is_set():
            self._wake.wait()

    def _exit_after_us(self) -> None:
        """Have the interpreter's exit wait for us before the candidate is withdrawn."""
        atexit.unregister(self._exit)
        atexit.register(self._exit)

    def _exit(self) -> None:
        if self.pid != os.getpid():  # the locks of a copy may be held by threads that are not there
            return
        self._exiting.set()
        self.close()
        self.join(_EXIT_WITHIN)

    def _nudge(self) -> None:
        """Tell the leader that a shared job store was changed here."""
        if not self._nudge_due:
            return
        self._nudge_due = False
        try:
            Nudges(self._ledger, clock=self._clock).give()
        except StoreError as error:
            _log.warning("the leader sees a changed job at its next look, not at once: %s", error)

    def _drain(self) -> None:
        """Bring to an end what runs: for the grace time as the leader, after that as a standby."""
        # At the interpreter's exit all threads of pools have ended: what is left never will.
        if not self._let_finish(self._settings.grace, self._exiting.is_set):
            self._candidate.resign()
            self._let_finish(float("inf"), self._step_aside)
        self._log.flush(_RECORD_WITHIN)
        self._runs.give_up()
        self._log.flush(_RECORD_WITHIN)

    def _step_aside(self) -> bool:
        """Not lead while others could; whether what runs is to be waited for no more."""
        if self.leads and self._has_heir():  # nobody else was there when we were elected
            self._candidate.resign()
        return self._exiting.is_set()

    def _let_finish(self, within: float, is_vain: Callable[[], bool]) -> bool:
        """Wait up to *within* seconds, or until it *is_vain*, for the end of what runs; whether it came."""
        limit = self._clock.now() + within
        while not self._runs.wait(_LOOK):
            if is_vain() or self._clock.now() >= limit:
                return False
        return True

    # -- one term ---------------------------------------------------------------------------------

    def _lead(self, term: Term) -> None:
        self._good_at = self._clock.now()
        self._leaving = False
        while self._lead_on(term):
            if self._leaving:
                self._let_finish(_FINISH_WITHIN, lambda: not term.active)
                break
            # It was paused: it stays the leader while what runs comes to its end, for the grace time.
            self._let_finish(self._settings.grace, lambda: self._lead_no_more(term))
            if not self._may_lead(term):
                break
        if term.active and not self._stopping.is_set():
            self._candidate.resign()

    def _lead_no_more(self, term: Term) -> bool:
        """Whether there is nothing to wait for: the term is over, or the scheduler was resumed."""
        return not term.active or self._stopping.is_set() or self._may_lead(term)

    def _lead_on(self, term: Term) -> bool:
        """Lead until the term is over, or the scheduler is paused; False if it is better given up."""
        hopeless = False
        self._ledger.tally.turn(self._clock.now(), None)
        try:
            while self._may_lead(term) and not hopeless:
                self._wake.clear()
                pause = self._turn(term)
                hopeless = self._is_hopeless(term)
                if self._may_lead(term) and not hopeless:
                    self._clock.wait(self._wake, min(pause, term.remaining))
        finally:
            self._ledger.tally.rest()
            former, self._term = self._term, None
            if former is not None:
                former.close()
            self._runs.drop()
        return not hopeless

    def _is_hopeless(self, term: Term) -> bool:
        """Whether this process could not run anything for long, and another one waits to try."""
        now = self._clock.now()
        good_at = min(self._good_at, self._runs.ignored_since() or now)
        if now - good_at < max(term.ttl, _HAND_OVER) or not self._has_heir():
            return False
        _log.error(
            "this process leads election %r, and could run nothing for %.0f s (does its scheduler's "
            "thread, or event loop, hang?): another one shall try",
            self.election,
            now - good_at,
        )
        return True

    def _has_heir(self) -> bool:
        deadline = self._clock.now() + _RETRY
        try:
            return len(self._store.candidates(self.election, deadline=deadline)) > 1
        except StoreError:
            return False

    def _may_lead(self, term: Term) -> bool:
        running = self._scheduler.state == STATE_RUNNING and not self._leaving
        return term.active and running and not self._stopping.is_set()

    def _leave(self) -> None:
        """Start nothing more in this term, and resign; returns at once."""
        self._leaving = True
        self._wake.set()

    def _turn(self, term: Term) -> float:
        """Do what is due; return the seconds until there is more to do."""
        try:
            if self._term is None:
                self._touched = False
                self._term = self._begin_term(term)
                if self._touched:  # perhaps after it was looked at
                    self._term.look_soon()
            pause = self._term.tick()
        except Fenced:
            self._candidate.lose(term)
        except StoreError as error:
            level = logging.DEBUG if self._troubled else logging.WARNING
            self._troubled = True
            _log.log(level, "nothing is started until the ledger is back: %s", error)
        except Exception:  # noqa: BLE001  a job store that can not be read now may be readable soon
            level = logging.DEBUG if self._troubled else logging.ERROR
            self._troubled = True
            _log.log(level, "nothing is started for the moment", exc_info=True)
        else:
            self._troubled = False
            self._good_at = self._clock.now()
            return pause
        return _RETRY

    def _begin_term(self, term: Term) -> SchedulerTerm:
        return SchedulerTerm(
            term,
            scheduler=self._scheduler,
            candidate=self._candidate,
            ledger=self._ledger,
            runs=self._runs,
            ours=self._ours,
            clock=self._clock,
            look_every=self._options.look_every,
            max_burst=self._options.max_burst,
            begin=self._begin,
            orders=self._orders,
        )

    def _freed(self, job: str, again: bool) -> None:
        term = self._term
        if term is None:
            return
        if again:
            term.look_again(job)
        if again or term.has_ended(job):  # then it is to be removed
            self._wake.set()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TermEnded):
            self._wake.set()
