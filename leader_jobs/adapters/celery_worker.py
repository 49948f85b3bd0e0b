"""
Celery workers that run each claimed occurrence once.

Say so where the application is made::

    app = Celery("proj")
    app.config_from_object("proj.celeryconfig")
    leader_jobs.adapters.celery_worker.install(app)

or add the bootstep, ``app.steps["worker"].add(LeaderJobs)``, which does the same when a worker starts
(but not for children that are spawned rather than forked, which never see the step).

A message that beat published under `leader_jobs.adapters.celery_beat` carries a *ticket*, which names
the occurrence it is for. For a `@leader_only` task the guard asks the ledger before the body starts,
and records how it ends; see `leader_jobs.adapters.celery_guard`. A body starts at most once per
occurrence, whatever the broker delivers again and whoever publishes again; once more for each
``task.retry()`` of its own, and after a crash if the job asked for ``on_crash="rerun"``. A message
without a ticket runs where this process leads the job's election, and nowhere else.

Other tasks run as ever. `leader_jobs.current_run` tells those whose message carries a ticket what they
were planned for; no store is needed for that.

``leader_jobs_worker_elections`` names elections that workers stand in themselves, the elected one of
which consumes the queue ``leader_jobs.<election>``: see `leader_jobs.adapters.celery_consuming`.
"""

import functools
import logging
import math
import os
from contextlib import ExitStack
from typing import Any, Final
from weakref import WeakSet

from celery import Celery, bootsteps, signals
from celery._state import connect_on_app_finalize

from leader_jobs.adapters import celery_consuming
from leader_jobs.adapters.celery_desks import Desks
from leader_jobs.adapters.celery_guard import Guard, ticket_of
from leader_jobs.adapters.celery_settings import configure, options_of, settings_of
from leader_jobs.clock import SystemClock
from leader_jobs.escort import Escort
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Restriction
from leader_jobs.runs import Lost, Run, current_run, running
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import Term
from leader_jobs.tickets import BadTicket, Ticket

__all__ = ["LeaderJobs", "install"]

_log = logging.getLogger(__name__)
_RUNNING: Final = "leader_jobs_running"
_clock: Final = SystemClock()


class _Installation:
    """What is installed in one application."""

    def __init__(self, app: Any) -> None:
        self.desks = Desks(lambda: settings_of(app), clock=_clock)
        self.guard: Final = Guard(self.desks, clock=_clock)
        app.steps["worker"].add(LeaderJobs)
        app.on_after_finalize.connect(self._finalized, weak=False)
        if app.finalized:
            self._finalized(app)
        # There is no signal for tasks that are registered later, and no other place where a task has
        # got the wrapper of `autoretry_for` already, which has to be inside the guard.
        for name in ("_task_from_fun", "register_task"):
            setattr(app, name, self._guarding(getattr(app, name)))

    def _finalized(self, sender: Celery, **_: Any) -> None:
        for task in tuple(sender.tasks.values()):
            self.guard.wrap(task)
        configure(sender)

    def _guarding(self, register: Any) -> Any:
        @functools.wraps(register)
        def register_and_guard(*args: Any, **options: Any) -> Any:
            task = register(*args, **options)
            self.guard.wrap(task)
            return task

        return register_and_guard


_ATTRIBUTE: Final = "_leader_jobs"
_installed: Final[WeakSet[_Installation]] = WeakSet()


def install(app: Celery) -> None:
    """
    Guard the `@leader_only` tasks of *app*, those defined already and those defined later.

    A second call changes nothing. Nothing is opened before a message with a ticket is run.

    Raises:
        ConfigurationError: the application is configured already, in a way that makes no sense;
            otherwise its workers say so when they start.
    """
    if hasattr(app, _ATTRIBUTE):
        return
    installation = _Installation(app)
    setattr(app, _ATTRIBUTE, installation)
    _installed.add(installation)
    if os.environ.get("FORKED_BY_MULTIPROCESSING"):
        # A spawned child of a pool runs the tasks with a copy of the application that it was sent.
        connect_on_app_finalize(install)
    signals.task_prerun.connect(_enter_run, weak=False, dispatch_uid=__name__)
    signals.task_postrun.connect(_leave_run, weak=False, dispatch_uid=__name__)
    signals.task_revoked.connect(_note_discarded, weak=False, dispatch_uid=__name__)
    signals.worker_process_shutdown.connect(_close, weak=False, dispatch_uid=__name__)
    signals.worker_shutdown.connect(_close, weak=False, dispatch_uid=__name__)


class LeaderJobs(bootsteps.StartStopStep):
    """
    The step of a worker that installs all this, checks the configuration, and answers probes.

    Raises:
        ConfigurationError: the settings make no sense, or are missing and there are tasks to guard;
            or the pool's children would not be guarded.

    Probes are answered by the worker's main process, after the pool has forked; if a beat is embedded
    in the worker, by that one, which is what can lead.
    """

    name = "leader-jobs"
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        app: Celery = worker.app
        spawns = getattr(worker, "pool_start_method", "fork") == "spawn"  # not before Celery 5.7
        if spawns and not hasattr(app, _ATTRIBUTE):
            msg = (
                "worker_pool_start_method is 'spawn', and children would not see this step: call "
                f"{__name__}.install(app) where the application is made"
            )
            raise ConfigurationError(msg)
        install(app)
        configure(app)
        self._escort: Escort | None = None
        elections = options_of(app).worker_elections
        if elections or any(Restriction.of(task.run) for task in app.tasks.values()):
            settings = settings_of(app)
            if not options.get("beat"):
                # It stands in no election: it can not tell when it is ready.
                self._escort = Escort(settings, notify=False, clock=_clock)
        if elections:
            celery_consuming.install(app)

    def start(self, worker: Any) -> None:
        """Answer probes from now on; end the worker, with one line, if that can not be."""
        if self._escort is not None:
            try:
                self._escort.start()
            except ConfigurationError as error:
                msg = f"celery worker: {error}"
                raise SystemExit(msg) from None

    def stop(self, worker: Any) -> None:
        """Answer no more."""
        if self._escort is not None:
            self._escort.close()

    def terminate(self, worker: Any) -> None:
        """Answer no more."""
        self.stop(worker)


def _note_discarded(
    sender: Any, request: Any, *, terminated: bool, expired: bool = False, **_: Any
) -> None:
    """Have the ledger know of a message that was revoked or has expired, so that nobody waits for it."""
    installation = getattr(sender.app, _ATTRIBUTE, None)
    if installation is not None and not terminated and Restriction.of(sender.run) is not None:
        installation.guard.discarded(request, "expired" if expired else "revoked")


def _close(**_: Any) -> None:
    for installation in tuple(_installed):
        installation.desks.close()


# -- tasks that are not guarded -------------------------------------------------------------------


def _enter_run(task: Any, **_: Any) -> None:
    """Have `current_run` tell the body of an unrestricted task what its ticket says."""
    if not hasattr(task.app, _ATTRIBUTE) or Restriction.of(task.run) is not None:
        return
    request = task.request
    try:
        ticket = ticket_of(request)
    except BadTicket as error:
        _log.warning("message %s of task %s: %s", request.id, task.name, error)
        return
    if ticket is not None and ticket.occurrence == request.id:
        block = ExitStack()
        block.enter_context(running(_planned_run(ticket)))
        setattr(request, _RUNNING, block)


def _leave_run(task: Any, **_: Any) -> None:
    block = task.request.get(_RUNNING)
    if block is not None:
        block.close()


def _planned_run(ticket: Ticket) -> Run:
    outer = current_run()
    return Run(
        election=ticket.election,
        job=ticket.job,
        occurrence=ticket.occurrence,
        planned_at=ticket.planned_at,
        token=ticket.token,
        attempt=ticket.attempt,
        # On a worker that consumes for an election, the leadership that it runs under can be lost.
        lost=_never_lost(ticket) if outer is None else outer.lost,
    )


def _never_lost(ticket: Ticket) -> Lost:
    candidacy = Candidacy(ticket.election, "", ticket.token, math.inf)
    return Lost(Term(candidacy=candidacy, deadline=math.inf, clock=_clock))
