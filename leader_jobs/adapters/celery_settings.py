"""
The settings of a Celery application, from its own configuration.

Every setting is a key that begins with ``leader_jobs_``: those of `leader_jobs.config.Settings`, and
those of `CeleryOptions`. What an application does not set of the former is what its process was
configured with otherwise, by Django's ``LEADER_JOBS`` say; the environment overrides both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final
from weakref import WeakKeyDictionary

from celery import Celery

from leader_jobs.config import Settings, application
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import check_election, nearest

__all__ = ["CeleryOptions", "configure", "options_of", "settings_of"]

PREFIX: Final = "leader_jobs_"
_SETTINGS: Final = frozenset(f.name for f in fields(Settings))
#: What loaded the settings of the process before an application was asked for its own.
_beneath: Final[WeakKeyDictionary[Celery, Callable[[], Settings]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryOptions:
    """
    What only Celery processes have to know.

    Attributes:
        beat_scheduler: the beat scheduler that keeps the schedule, as ``package.module:Class``; it
            is asked for its entries and told of what was sent, on the leader alone.
        worker_elections: the elections that workers stand in; the elected worker consumes
            the queue ``leader_jobs.<election>``.
        revoke_after: seconds after the loss of a term at which tasks that still run under it are
            terminated, where the worker's pool can; None for never.
    """

    beat_scheduler: str = "celery.beat:Scheduler"
    worker_elections: tuple[str, ...] = field(default=())
    revoke_after: float | None = None

    def __post_init__(self) -> None:
        for election in self.worker_elections:
            check_election(election)
        if self.revoke_after is not None and not 0 <= self.revoke_after <= 86_400:  # noqa: PLR2004  a day
            msg = (
                f"{PREFIX}revoke_after is {self.revoke_after!r}; "
                "it must be between 0 and 86400 seconds, or None"
            )
            raise ConfigurationError(msg)


def settings_of(app: Celery, **arguments: Any) -> Settings:
    """
    Return the settings of *app*.

    Args:
        app: the application.
        arguments: what the caller wants regardless of them; None: not given.

    Raises:
        ConfigurationError: naming the key, its value and the way out.
    """
    own = {name: value for name, value in _given(app).items() if name in _SETTINGS}
    beneath = _beneath.setdefault(app, application.load)
    wanted = {name: value for name, value in arguments.items() if value is not None}
    if not own and not wanted:
        return beneath()
    if "store" not in own:
        try:
            settings = beneath()
        except ConfigurationError:
            if "store" not in wanted:
                raise
        else:
            own = {name: getattr(settings, name) for name in _SETTINGS} | own
    return Settings.load(own, mapping_name="Celery's configuration", **wanted)


def options_of(app: Celery) -> CeleryOptions:
    """
    Return the options of *app* that go beyond its `Settings`.

    Raises:
        ConfigurationError: naming the key, its value and the way out.
    """
    given = {name: value for name, value in _given(app).items() if name not in _SETTINGS}
    elections = given.get("worker_elections", ())
    if isinstance(elections, str) or not all(isinstance(name, str) for name in elections):
        msg = f"{PREFIX}worker_elections is {elections!r}; write a list of elections' names"
        raise ConfigurationError(msg)
    return CeleryOptions(**given | {"worker_elections": tuple(elections)})


def configure(app: Celery) -> None:
    """Have everything in this process that names no settings of its own use those of *app*."""
    if any(name in _SETTINGS for name in _given(app)):
        _beneath.setdefault(app, application.load)
        application.configure(lambda: settings_of(app))


def _given(app: Celery) -> dict[str, Any]:
    """Return what the configuration says, by name without the prefix; nothing that is None."""
    known = [*_SETTINGS, *(f.name for f in fields(CeleryOptions))]
    for key in app.conf:
        # A configuration read with a namespace has it before our prefix, and in capitals.
        name = str(key).lower().rpartition(PREFIX)[2]
        if PREFIX in str(key).lower() and name not in known:
            near = nearest(name, known)
            hint = f"; did you mean {PREFIX}{near}?" if near else ""
            msg = f"Celery's configuration has {key!r}, which is not a setting{hint}"
            raise ConfigurationError(msg)
    values = {name: app.conf.get(f"{PREFIX}{name}") for name in known}
    return {name: value for name, value in values.items() if value is not None}
