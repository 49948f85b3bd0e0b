"""
`@leader_only` and the registry of jobs.

A decorated function runs its body only under leadership: this process holds the term of the job's
election, or the call is part of a run the ledger has recorded. Otherwise it does nothing and says
so, or raises. A function that also has a schedule is a job: it is registered for the leader to run.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from enum import StrEnum
from types import CodeType
from typing import Any, Final, ParamSpec, Protocol, TypeVar, overload

from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError, NotLeader
from leader_jobs.names import check_election, check_job
from leader_jobs.occurrences import CatchUp, Policy
from leader_jobs.planned import PlannedJob
from leader_jobs.runs import current_run
from leader_jobs.schedules import Cron, Every, Schedule
from leader_jobs.term import held_terms

__all__ = [
    "Job",
    "JobRegistry",
    "OnCrash",
    "OnStandby",
    "Restriction",
    "admitted",
    "leader_only",
    "registry",
    "why_not",
]

_log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
#: The attribute by which a decorated function, and whatever wraps it, is known.
_MARK: Final = "__leader_only__"


class OnCrash(StrEnum):
    """What becomes of a run whose process died."""

    INTERRUPT = "interrupt"
    RERUN = "rerun"


class OnStandby(StrEnum):
    """What a decorated function does where leadership is missing."""

    SKIP = "skip"
    RAISE = "raise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(PlannedJob):
    """
    A periodic job that is run where it is claimed.

    Attributes:
        function: the body, without its guard: whoever runs a job has the ledger's word.
        election: the election it belongs to; None for the application's default.
        place: file and line of the function, for messages.
    """

    function: Callable[..., Any]
    election: str | None
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """
    What `leader_only` was told, for whoever runs the function by other means than a call.

    Attributes:
        name: the job's name.
        election: the election it named; None for the application's default.
        schedule: when it is due; None if it is run when called only.
        policy: what happens to occurrences that are late, missed or overlapping.
        rerun_on_crash: whether a run whose process died is attempted again.
        on_standby: what a call does where leadership is missing.
    """

    name: str
    election: str | None
    schedule: Schedule | None
    policy: Policy
    rerun_on_crash: bool
    on_standby: OnStandby

    @classmethod
    def of(cls, function: object) -> "Restriction | None":
        """Return the restriction of a decorated function (or a wrapper of one); None if it has none."""
        found = getattr(function, _MARK, None)
        return found if isinstance(found, cls) else None


class JobRegistry:
    """The jobs of a process, by name."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        """
        Register *job*.

        Raises:
            ConfigurationError: the name is taken, also if by the same lines run in a loop. The same
                lines loaded anew, as by `importlib.reload`, replace the former job.
        """
        other = self._jobs.get(job.name)
        if other is not None and (
            other.place != job.place or _code(other.function) is _code(job.function)
        ):
            msg = (
                f"two jobs are called {job.name!r}: {other.place} and {job.place}; "
                "give one of them another name="
            )
            raise ConfigurationError(msg)
        self._jobs[job.name] = job

    def of(self, election: str) -> tuple[Job, ...]:
        """Return the jobs of *election*, by name."""
        default = application.election
        return tuple(
            job for _, job in sorted(self._jobs.items()) if (job.election or default) == election
        )

    def elections(self) -> tuple[str, ...]:
        """Return the elections that have jobs, by name."""
        default = application.election
        return tuple(sorted({job.election or default for job in self._jobs.values()}))

    def clear(self) -> None:
        """Forget every job; for tests."""
        self._jobs.clear()


#: Where `leader_only` registers jobs unless told otherwise.
registry: Final = JobRegistry()


class _Decorator(Protocol):
    """What `leader_only` with arguments returns: a skipped call returns None, awaited or not."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R | None]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | None]: ...


@overload
def leader_only(
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> Callable[P, Coroutine[Any, Any, R | None]]: ...
@overload
def leader_only(function: Callable[P, R], /) -> Callable[P, R | None]: ...
@overload
def leader_only(
    *,
    every: float | timedelta | None = ...,
    cron: str | None = ...,
    timezone: str | tzinfo | None = ...,
    name: str | None = ...,
    election: str | None = ...,
    catch_up: CatchUp | str = ...,
    window: timedelta | float | None = ...,
    max_burst: int = ...,
    overlap: bool = ...,
    on_crash: OnCrash | str = ...,
    on_standby: OnStandby | str = ...,
    jobs: JobRegistry = ...,
) -> _Decorator: ...
def leader_only(
    function: Callable[..., Any] | None = None,
    /,
    *,
    every: float | timedelta | None = None,
    cron: str | None = None,
    timezone: str | tzinfo | None = None,
    name: str | None = None,
    election: str | None = None,
    catch_up: CatchUp | str = CatchUp.LATEST,
    window: timedelta | float | None = None,
    max_burst: int = 20,
    overlap: bool = False,
    on_crash: OnCrash | str = OnCrash.INTERRUPT,
    on_standby: OnStandby | str = OnStandby.SKIP,
    jobs: JobRegistry = registry,
) -> Any:
    """
    Run the body of a function only under leadership; with a schedule, make it a job.

    Args:
        function: the function, when used without parentheses.
        every: the period in seconds (or a timedelta). Instants are multiples of it since 1970 in
            UTC, so ``every=30`` is due at :00 and :30 on every node.
        cron: five fields as in crontab(5), or ``@daily`` and its like.
        timezone: the time zone of *cron*; UTC if None.
        name: the job's name; the function's module and qualified name if None. It is part of every
            occurrence's identity: a renamed job is a new one.
        election: the election; the application's default if None.
        catch_up: what to do about occurrences missed in a gap: ``latest`` runs the newest one,
            ``all`` runs each in order, ``skip`` none.
        window: how late (seconds or a timedelta) a run is still useful; None for ever.
        max_burst: how many missed occurrences ``all`` runs at most, 1 to 100.
        overlap: whether a run may start while another one of this job is alive anywhere.
        on_crash: ``rerun`` to have a run whose process died attempted again, up to five times; the
            body must then be safe to repeat. ``interrupt`` records it and leaves it.
        on_standby: ``skip`` to do nothing and return None where leadership is missing, ``raise`` to
            raise `NotLeader` there.
        jobs: the registry to put the job in.

    Raises:
        ConfigurationError: an argument makes no sense, or the name is taken.

    The body starts at most once per occurrence (more only with ``on_crash="rerun"``). That what it
    does outside of the store happens once is up to the body: pass `current_run`'s token on, or make
    the effect idempotent by its ``planned_at``.
    """
    policy = Policy(catch_up=catch_up, window=window, max_burst=max_burst, overlap=overlap)
    crash = _choice(OnCrash, "on_crash", on_crash)
    standby = _choice(OnStandby, "on_standby", on_standby)
    schedule = _schedule(every, cron, timezone)
    if election is not None:
        check_election(election)

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        if hasattr(body, "apply_async"):
            msg = f"{body!r} is a Celery task; write @app.task above @leader_only, not below"
            raise ConfigurationError(msg)
        label = name or f"{body.__module__}.{body.__qualname__}"
        if schedule is not None:
            _check_name(label, given=name is not None)
        restriction = Restriction(
            name=label,
            election=election,
            schedule=schedule,
            policy=policy,
            rerun_on_crash=crash is OnCrash.RERUN,
            on_standby=standby,
        )
        guarded = _guard(body, restriction)
        setattr(guarded, _MARK, restriction)
        if schedule is not None:
            code = _code(body)
            job = Job(
                name=label,
                function=body,
                schedule=schedule,
                policy=policy,
                rerun_on_crash=restriction.rerun_on_crash,
                election=election,
                place=f"{code.co_filename}:{code.co_firstlineno}",
            )
            jobs.add(job)
        return guarded

    return decorate if function is None else decorate(function)


def _guard(body: Callable[..., Any], restriction: Restriction) -> Callable[..., Any]:
    """Wrap *body* so that it runs under leadership only."""

    def refused() -> bool:
        if _admitted.get() is restriction:
            _admitted.set(None)  # what the body calls has to ask for itself
            return False
        why = why_not(restriction.election or application.election)
        if why is None:
            return False
        msg = f"{restriction.name} not run: {why}"
        if restriction.on_standby is OnStandby.RAISE:
            raise NotLeader(msg)
        _log.info(msg)
        return True

    if inspect.iscoroutinefunction(body):

        @functools.wraps(body)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            return None if refused() else await body(*args, **kwargs)

        return guarded_coroutine

    @functools.wraps(body)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return None if refused() else body(*args, **kwargs)

    return guarded


_admitted: ContextVar[Restriction | None] = ContextVar("leader_jobs_admitted", default=None)


@contextmanager
def admitted(restriction: Restriction) -> Iterator[None]:
    """
    Have the first call, within the block, of the function with *restriction* run its body.

    For whoever has asked before, and could not tell a body that returns None from one not run.
    """
    reset = _admitted.set(restriction)
    try:
        yield
    finally:
        _admitted.reset(reset)


def why_not(election: str) -> str | None:
    """Say why this code may not act for *election* now; None if it may."""
    run = current_run()
    if run is not None and run.election == election:
        if run.lost.is_set():
            return f"the term {run.token} of election {election!r} it runs under is over"
        return None
    term = held_terms.find(election)
    if term is None:
        return f"this node does not lead election {election!r}"
    return None if term.may_start else f"the term of election {election!r} is in doubt"


def _code(function: Callable[..., Any]) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code


def _check_name(label: str, *, given: bool) -> None:
    try:
        check_job(label)
    except ConfigurationError as error:
        if given:
            raise
        msg = f"{error}; a function that is not at the top of its module needs name="
        raise ConfigurationError(msg) from None


def _schedule(
    every: float | timedelta | None, cron: str | None, timezone: str | tzinfo | None
) -> Schedule | None:
    if every is not None and cron is not None:
        msg = f"every={every!r} and cron={cron!r} are both given; keep one of them"
        raise ConfigurationError(msg)
    if timezone is not None and cron is None:
        msg = f"timezone={timezone!r} goes with cron=; every= counts in UTC"
        raise ConfigurationError(msg)
    if every is not None:
        return Every(every)
    if cron is not None:
        return Cron(cron, timezone=timezone or "UTC")
    return None


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice], key: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        msg = f"{key} is {value!r}; it must be {' or '.join(repr(c.value) for c in kind)}"
        raise ConfigurationError(msg) from None
