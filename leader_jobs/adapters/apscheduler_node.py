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
from leader_jobs.adapters.apscheduler_runs import Runs
from leader_jobs.adapters.apscheduler_settings import SchedulerOptions
from leader_jobs.adapters.apscheduler_ticking import SchedulerTerm
from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.events import Event, TermEnded
from leader_jobs.exceptions import ConfigurationError, Fenced, StoreError
from leader_jobs.jobs import Job
from leader_jobs.ledger import Ledger
from leader_jobs.runlog import RunLog
from leader_jobs.stores.factory import open_store
from leader_jobs.term import Term
from leader_jobs.version import version

__all__ = ["SchedulerNode"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.5
_RECORD_WITHIN: Final = 3.0
_EXIT_WITHIN: Final = 5.0
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
        begin: called when a term begins, before anything is looked at.

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
        begin: Callable[[], None],
    ) -> None:
        self.pid: Final = os.getpid()
        self._scheduler = scheduler
        self._settings = settings
        self._options = options
        self._ours = ours
        self._begin = begin
        self._clock: Clock = SystemClock()
        self._store = open_store(settings, clock=self._clock)
        self._candidate = Candidate(
            settings.election,
            store=self._store,
            node=settings.node,
            ttl=settings.ttl,
            version=version(),
            observers=[self._on_event],
            clock=self._clock,
        )
        self._ledger = Ledger(
            self._store,
            settings.election,
            node=settings.node,
            owner=self._candidate.proposal.incarnation,
            clock=self._clock,
        )
        self._log = RunLog(self._ledger, clock=self._clock, fenced=self._candidate.lose)
        self._runs = Runs(
            scheduler, ledger=self._ledger, log=self._log, clock=self._clock, freed=self._freed
        )
        self._term: SchedulerTerm | None = None
        self._nudge_due = False
        self._troubled = False
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._exiting = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader-jobs-scheduler", daemon=True)
        self._place = (settings.store, settings.namespace, settings.election)
        other = _nodes.get(self._place)
        if other is not None and other.pid == self.pid:
            msg = (
                f"another scheduler of this process stands in election {settings.election!r}: each "
                "needs an election of its own, for only the elected one of them runs its jobs"
            )
            raise ConfigurationError(msg)
        _nodes[self._place] = self

    # -- what the scheduler tells ------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this process leads the election at this very moment."""
        return self._candidate.term is not None

    @property
    def election(self) -> str:
        """The election's name."""
        return self._settings.election

    def start(self) -> None:
        """Stand in the election from now on, as long as the scheduler is not paused."""
        self._thread.start()

    def submit(self) -> None:
        """Hand what was claimed to the executors; on the scheduler's own thread."""
        self._runs.submit()

    def heard(self, event: SchedulerEvent) -> SchedulerEvent:
        """Take note of *event*; return what listeners shall hear instead."""
        return self._runs.heard(event)

    def changed(self, *, shared: bool) -> None:
        """Take note that a job was added, changed or removed, perhaps in a store others see."""
        term = self._term
        if term is not None:
            term.look_soon()
        elif shared:
            self._nudge_due = True
            self._candidate.release()
        self._wake.set()

    def turned(self) -> None:
        """Take note that the scheduler was paused or resumed."""
        self._candidate.release()
        self._wake.set()

    def hold(self) -> None:
        """Have no more bodies begin."""
        self._runs.close()

    def discard(self) -> None:
        """Undo the making of a node that is not started."""
        _nodes.pop(self._place, None)
        self._store.close()

    def close(self) -> None:
        """Start nothing more; what runs is brought to an end, and the node resigns."""
        self._runs.close()
        self._stopping.set()
        self.turned()

    def join(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for the node to be gone."""
        if self.pid == os.getpid() and self._thread is not threading.current_thread():
            with suppress(RuntimeError):  # it was never started
                self._thread.join(timeout)

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self._scheduler.state != STATE_RUNNING:
                    self._rest()
                    continue
                self._candidate.start()
                self._exit_after_us()
                term = self._candidate.wait_for_term()
                self._nudge()
                if term is not None and not self._stopping.is_set():
                    self._lead(term)
            self._drain()
        except Exception:  # noqa: BLE001  a standby takes over, and the log says why
            _log.exception("the thread of the scheduler's election died; another node shall lead")
        finally:
            self._candidate.stop()
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
        self._candidate.stop()
        self._wake.clear()
        if self._scheduler.state != STATE_RUNNING and not self._stopping.is_set():
            self._wake.wait()

    def _exit_after_us(self) -> None:
        """Have the interpreter's exit wait for us before the candidate is withdrawn."""
        atexit.unregister(self._exit)
        atexit.register(self._exit)

    def _exit(self) -> None:
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
        if not self._runs.wait(self._settings.grace):
            self._candidate.resign()
            while not self._exiting.is_set() and not self._runs.wait(_RETRY):
                pass
        self._log.flush(_RECORD_WITHIN)
        self._runs.give_up()
        self._log.flush(_RECORD_WITHIN)

    # -- one term ---------------------------------------------------------------------------------

    def _lead(self, term: Term) -> None:
        try:
            while self._may_lead(term):
                self._wake.clear()
                pause = self._turn(term)
                if self._may_lead(term):
                    self._clock.wait(self._wake, min(pause, term.remaining))
        finally:
            self._term = None
            self._runs.drop()
        if term.active and not self._stopping.is_set():
            self._candidate.resign()

    def _may_lead(self, term: Term) -> bool:
        running = self._scheduler.state == STATE_RUNNING
        return term.active and running and not self._stopping.is_set()

    def _turn(self, term: Term) -> float:
        """Do what is due; return the seconds until there is more to do."""
        try:
            if self._term is None:
                self._term = self._begin_term(term)
            pause = self._term.tick()
        except Fenced:
            self._candidate.lose(term)
        except StoreError as error:
            level = logging.DEBUG if self._troubled else logging.WARNING
            self._troubled = True
            _log.log(level, "nothing is started until the ledger is back: %s", error)
        except Exception:  # noqa: BLE001  a job store that can not be read now may be readable soon
            _log.exception("nothing is started for the moment")
        else:
            self._troubled = False
            return pause
        return _RETRY

    def _begin_term(self, term: Term) -> SchedulerTerm:
        self._begin()
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
        )

    def _freed(self, job: str, again: bool) -> None:
        term = self._term
        if term is not None and again:
            term.look_again(job)
            self._wake.set()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TermEnded):
            self._wake.set()
