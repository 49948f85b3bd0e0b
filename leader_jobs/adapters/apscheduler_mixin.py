"""
What turns a scheduler of APScheduler 3.x into one of many, of which the elected one runs its jobs.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import TIMEOUT_MAX
from typing import Any, Final, TypeVar

from apscheduler.events import (
    EVENT_ALL_JOBS_REMOVED,
    EVENT_JOB_ADDED,
    EVENT_JOB_MODIFIED,
    EVENT_JOB_REMOVED,
    EVENT_JOBSTORE_ADDED,
    EVENT_JOBSTORE_REMOVED,
    EVENT_SCHEDULER_PAUSED,
    EVENT_SCHEDULER_RESUMED,
    EVENT_SCHEDULER_SHUTDOWN,
    EVENT_SCHEDULER_STARTED,
    SchedulerEvent,
)
from apscheduler.job import Job as SchedulerJob
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.schedulers.base import STATE_STOPPED, BaseScheduler
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.util import undefined

from leader_jobs.adapters.apscheduler_checks import (
    check_id_is_free,
    check_restriction,
    check_serialisable,
    check_stores,
)
from leader_jobs.adapters.apscheduler_executors import renew, waiting_in
from leader_jobs.adapters.apscheduler_heldback import Held, HeldBack, is_there
from leader_jobs.adapters.apscheduler_jobs import arguments_of, stable_id
from leader_jobs.adapters.apscheduler_node import SchedulerNode
from leader_jobs.adapters.apscheduler_settings import (
    SECTION,
    check_beside,
    options_of,
    settings_of,
)
from leader_jobs.adapters.apscheduler_stores import is_shared, keep_unrestorable
from leader_jobs.adapters.apscheduler_triggers import planned
from leader_jobs.config import Settings, redact
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.jobs import Job, JobRegistry, registry
from leader_jobs.names import check_job

__all__ = ["LeaderMixin"]

_log = logging.getLogger(__name__)
_JOIN: Final = 5.0
_CHANGES: Final = (
    EVENT_JOB_ADDED
    | EVENT_JOB_MODIFIED
    | EVENT_JOB_REMOVED
    | EVENT_ALL_JOBS_REMOVED
    | EVENT_JOBSTORE_ADDED
    | EVENT_JOBSTORE_REMOVED
)
F = TypeVar("F", bound=Callable[..., Any])


class LeaderMixin(BaseScheduler):  # type: ignore[misc]  # APScheduler is not typed
    """
    Makes a scheduler one of many, of which the elected one runs its jobs.

    To be put before a scheduler class of APScheduler 3.x. Constructor, methods, decorators and
    listeners are that class's own. There is one more option, the section ``leader_jobs`` of its
    configuration, whose keys are those of `leader_jobs.config.Settings` (``election``, ``store``, …)
    and of `leader_jobs.adapters.apscheduler_settings.SchedulerOptions`.

    What is different:

    - A job's ``id`` is its identity in the ledger. One that is not given is made of the function's
      name, trigger and arguments, or, if those are not the same in every process, refused.
    - ``misfire_grace_time`` is None unless given, not one second.
    - Jobs added before `start` to a job store that others share are written there by the leader.
    - A paused scheduler does not stand in the election.
    """

    _node: SchedulerNode | None = None
    _given: Mapping[str, Any] = {}
    _election: str | None = None
    _starting = False

    def _configure(self, config: dict[str, Any]) -> None:
        given = config.pop(SECTION, {})
        options_of(given)
        check_beside(config)
        graceful = "misfire_grace_time" not in config.get("job_defaults", {})
        super()._configure(config)
        self._adopt(given, None, graceful=graceful)

    def _adopt(self, given: Mapping[str, Any], election: str | None, *, graceful: bool) -> None:
        options_of(given)
        # Who configures an elected scheduler further, as Flask-APScheduler does, need not know of it.
        self._given = {**self._given, **given}
        self._election = election or self._election
        self._ours: dict[str, Job] = getattr(self, "_ours", {})
        self._held_back: HeldBack = getattr(self, "_held_back", None) or HeldBack()
        if graceful:
            self._job_defaults["misfire_grace_time"] = None

    @property
    def leads(self) -> bool:
        """Whether this process leads at this very moment."""
        return self._node is not None and self._node.leads

    # -- life -------------------------------------------------------------------------------------

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """
        Start the scheduler, and stand in the election.

        Raises:
            ConfigurationError: the settings make no sense, the process was forked from one whose
                scheduler was started, another scheduler of this process stands in the election, or
                a job can not be kept in the job store that others share.
        """
        self._refuse_in_child()
        if self.state == STATE_STOPPED:
            settings = self._settings()
            check_stores(self._jobstores, settings)
            for store in self._jobstores.values():
                keep_unrestorable(store)
            options = options_of(self._given)
            self._node = SchedulerNode(
                self,
                settings,
                options,
                ours=self._ours,
                begin=self._add_held_back,
                former=self._node,
            )
            self._starting = True
            for executor in self._executors.values():
                renew(executor)
            _log.info("standing in election %r at %s", settings.election, redact(settings.store))
        try:
            return super().start(*args, **kwargs)
        finally:
            if self._starting and self._node is not None:  # it failed on the way
                self._starting = False
                self._node.discard()

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Shut the scheduler down, and resign once what runs has ended, or the grace time is over."""
        node = self._node
        if node is not None and node.pid == os.getpid():
            node.close()  # before its executors wait for what runs: we lead until that has ended
        try:
            super().shutdown(*args, **kwargs)
        except RuntimeError:  # called in a job: its pool can not wait for itself
            super().wakeup()
            raise
        wait = kwargs.get("wait", args[0] if args else True)
        if node is not None and wait and self.state == STATE_STOPPED:
            waiting_in(type(self))(partial(node.join, _JOIN))

    def join(self, timeout: float | None = None) -> bool:
        """
        Wait, after `shutdown`, until what ran has ended and this process has resigned.

        `shutdown` itself waits where the scheduler has a thread. One that runs on an event loop needs
        that loop to shut down: ``await asyncio.to_thread(scheduler.join)``.

        Args:
            timeout: seconds to wait; None for the grace time, and what it takes to resign.

        Returns:
            Whether it has resigned.
        """
        return self._node is None or self._node.join(timeout)

    def wakeup(self) -> None:
        """Have the scheduler's own thread look for what was claimed; any thread may call it."""
        if self.state != STATE_STOPPED:
            try:
                super().wakeup()
            except AttributeError:  # it has let go of its event loop just now
                return
            except RuntimeError:  # its event loop is closed, and nothing will ever run here again
                if self._node is not None:
                    self._node.close()

    def _process_jobs(self) -> float | None:
        """Run what was claimed; what is due is not looked for here, nor on this thread."""
        if self._node is not None:
            self._node.submit()
        # To gevent, a wait without a timer is a deadlock, if nothing else goes on in the process.
        return TIMEOUT_MAX if isinstance(self, BlockingScheduler) else None

    def _dispatch_event(self, event: SchedulerEvent) -> None:
        node = self._node
        if node is not None and node.pid == os.getpid():
            event = self._tell(node, event)
        super()._dispatch_event(event)

    def _tell(self, node: SchedulerNode, event: SchedulerEvent) -> SchedulerEvent:
        if event.code == EVENT_SCHEDULER_STARTED:
            self._starting = False
            node.start()
        elif event.code in (EVENT_SCHEDULER_PAUSED, EVENT_SCHEDULER_RESUMED):
            node.turned()
        elif event.code == EVENT_SCHEDULER_SHUTDOWN:
            node.close()
        elif event.code & _CHANGES:
            if event.code == EVENT_JOBSTORE_ADDED:
                keep_unrestorable(self._jobstores[event.alias])
            alias = getattr(event, "jobstore", None) or event.alias
            stores = (
                [self._jobstores[alias]] if alias in self._jobstores else self._jobstores.values()
            )
            node.changed(shared=any(map(is_shared, stores)))
        else:
            return node.heard(event)
        return event

    # -- jobs -------------------------------------------------------------------------------------

    def add_job(  # noqa: PLR0917  APScheduler has this signature
        self,
        func: Callable[..., Any] | str,
        trigger: BaseTrigger | str | None = None,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002  APScheduler's own name for it
        name: str | None = None,
        misfire_grace_time: Any = undefined,
        coalesce: Any = undefined,
        max_instances: Any = undefined,
        next_run_time: Any = undefined,
        jobstore: str = "default",
        executor: str = "default",
        replace_existing: bool = False,
        **trigger_args: Any,
    ) -> SchedulerJob:
        """
        Add a job as APScheduler does; see `LeaderMixin` for what is different.

        Raises:
            ConfigurationError: it needs an id, or can not have this one; or this process was forked
                from the one whose scheduler was started.
        """
        self._refuse_in_child()
        made = self._create_trigger(trigger, trigger_args)
        shared = jobstore in self._jobstores and is_shared(self._jobstores[jobstore])
        if id is None:
            id = self._id_for(func, made, args, kwargs, shared=shared)  # noqa: A001
            replace_existing = replace_existing or (shared and id is not None)
        else:
            check_job(id)
            planned(made)  # it may have no times that can be planned
        if id is not None:
            stores = self._jobstores if self.state != STATE_STOPPED else {}
            check_id_is_free(id, jobstore, pending=self._pending_jobs, stores=stores)
        return super().add_job(
            func,
            made,
            args,
            kwargs,
            id,
            name,
            misfire_grace_time,
            coalesce,
            max_instances,
            next_run_time,
            jobstore,
            executor,
            replace_existing,
        )

    def scheduled_job(self, *args: Any, **kwargs: Any) -> Callable[[F], F]:
        """Return a decorator that adds a function as a job, as APScheduler does."""
        decorator: Callable[[F], F] = super().scheduled_job(*args, **kwargs)
        return decorator

    def add_leader_jobs(
        self, jobs: JobRegistry = registry, *, jobstore: str = "default", executor: str = "default"
    ) -> list[SchedulerJob]:
        """
        Add every ``@leader_only`` function that has a schedule and belongs to this election.

        Args:
            jobs: where they are registered.
            jobstore: alias of the job store to keep them in.
            executor: alias of the executor to run them with.

        Returns:
            The jobs. Their schedules and policies are the decorator's.
        """
        election = self._settings().election
        mine = jobs.of(election)
        if not mine and jobs.elections():
            others = ", ".join(jobs.elections())
            _log.warning(
                "no job is for leaders of election %r, there are some of %s", election, others
            )
        self._ours.update((job.name, job) for job in mine)
        return [
            self.add_job(**arguments_of(job), jobstore=jobstore, executor=executor) for job in mine
        ]

    def modify_job(self, *args: Any, **kwargs: Any) -> SchedulerJob:
        """Modify a job as APScheduler does; a trigger that has no plan is a `ConfigurationError`."""
        self._refuse_in_child()
        if "trigger" in kwargs:
            planned(kwargs["trigger"])
        return super().modify_job(*args, **kwargs)

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        """Remove a job as APScheduler does."""
        self._refuse_in_child()
        held = self._held_back.of(jobstore, job_id)
        for one in held:
            self._held_back.let_go(one)
        try:
            super().remove_job(job_id, jobstore)
        except JobLookupError:
            if not held:
                raise

    def get_jobs(
        self, jobstore: str | None = None, pending: bool | None = None
    ) -> list[SchedulerJob]:
        """Return the jobs as APScheduler does, with those that the leader is to write first."""
        jobs: list[SchedulerJob] = super().get_jobs(jobstore, pending)
        known = {job.id for job in jobs}
        held = self._held_back.of(jobstore)
        return jobs + [one.job for one in held if one.job.id not in known]

    def _lookup_job(self, job_id: str, alias: str | None) -> tuple[SchedulerJob, str | None]:
        try:
            found: tuple[SchedulerJob, str | None] = super()._lookup_job(job_id, alias)
        except JobLookupError:
            for held in self._held_back.of(alias, job_id):
                return held.job, None
            raise
        return found

    def _id_for(
        self,
        func: Callable[..., Any] | str,
        trigger: BaseTrigger,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        shared: bool,
    ) -> str | None:
        if shared and self.state != STATE_STOPPED and isinstance(trigger, DateTrigger):
            return None  # it is added once, by one process, and all read its id from the job store
        made = stable_id(func, trigger, args, kwargs)
        if not shared and any(job.id == made for job, _, _ in self._pending_jobs):
            msg = f"the same job is added twice ({made}); if both are meant, give each an id="
            raise ConfigurationError(msg)
        return made

    def _real_add_job(self, job: SchedulerJob, alias: str, replace: bool) -> None:
        check_restriction(job, self._node.election if self._node is not None else None)
        store = self._lookup_jobstore(alias)
        replace = replace or (self._node is not None and self._node.is_spent(job.id))
        if not is_shared(store):
            super()._real_add_job(job, alias, replace)
            return
        check_serialisable(job, alias)
        if self._starting:  # nobody may have been elected yet: the leader writes it
            self._held_back.keep(Held(job, alias, replace))
        elif not (replace and is_there(job, alias, store, defaults=self._job_defaults)):
            super()._real_add_job(job, alias, replace)

    def _add_held_back(self, alias: str) -> None:
        """Write to store *alias* what was added before the start, now that this process leads."""
        store, defaults = self._lookup_jobstore(alias), self._job_defaults
        for held in self._held_back.of(alias):
            if not self.leads:
                return
            job = held.job
            try:
                if not (
                    held.replace and is_there(job, alias, store, defaults=defaults, repeated=True)
                ):
                    super()._real_add_job(job, alias, held.replace)
            except ConflictingIdError:
                _log.info("job %s is in job store %r already, and stays as it is", job.id, alias)
            self._held_back.let_go(held)

    # -- what is refused --------------------------------------------------------------------------

    def _settings(self) -> Settings:
        return settings_of(self._given, election=self._election)

    def _refuse_in_child(self) -> None:
        if self._node is not None and self._node.pid != os.getpid():
            msg = (
                "this scheduler was started before a fork, and this process has a copy of it that "
                "runs nothing: start it after the fork (gunicorn: post_worker_init), once in each process"
            )
            raise ConfigurationError(msg)
