"""
The settings of a scheduler, from APScheduler's own configuration.

They are what is in its section ``leader_jobs``: those of `leader_jobs.config.Settings`, and those of
`SchedulerOptions`. What is not there of the former is what the process was configured with otherwise,
by Django's ``LEADER_JOBS`` say; the environment overrides both. With no store named anywhere it is
a file in the working directory, which the processes of one server share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from leader_jobs.config import Settings, application
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import nearest

__all__ = [
    "SECTION",
    "SchedulerOptions",
    "check_beside",
    "embedded_store",
    "options_of",
    "settings_of",
]

#: The section of APScheduler's configuration, and the keyword of a scheduler's constructor.
SECTION: Final = "leader_jobs"
_FILE: Final = "leader-jobs.sqlite3"
_SETTINGS: Final = frozenset(f.name for f in fields(Settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """
    What only APScheduler processes have to know.

    Attributes:
        look_every: seconds between looks at a shared job store, for what others changed in it
            without telling; 1 to 3600.
        max_burst: how many missed run times of a job with ``coalesce=False`` are run at most.
    """

    look_every: float = 10.0
    max_burst: int = 100

    def __post_init__(self) -> None:
        _check("look_every", self.look_every, 1, 3600, "seconds")
        _check("max_burst", self.max_burst, 1, 100, "run times")


def settings_of(given: Mapping[str, Any], *, election: str | None = None) -> Settings:
    """
    Return the settings of a scheduler.

    Args:
        given: the section of its configuration.
        election: the election, whatever else says otherwise; None if nobody insists.

    Raises:
        ConfigurationError: naming the key, its value and the way out.
    """
    own = {key: value for key, value in _known(given).items() if key in _SETTINGS}
    if application.configured:
        beneath = application.load()
        own = {name: getattr(beneath, name) for name in _SETTINGS} | own
    else:
        own = {"store": embedded_store()} | own
    return Settings.load(own, mapping_name=SECTION, election=election)


def options_of(given: Mapping[str, Any]) -> SchedulerOptions:
    """
    Return the options of a scheduler that go beyond its `Settings`.

    Raises:
        ConfigurationError: naming the key, its value and the way out.
    """
    own = {key: value for key, value in _known(given).items() if key not in _SETTINGS}
    for key, kind in ("look_every", float), ("max_burst", int):
        if key in own:
            try:
                own[key] = kind(str(own[key]))
            except ValueError:
                msg = f"{SECTION}[{key!r}] is {own[key]!r}; it must be a number"
                raise ConfigurationError(msg) from None
    return SchedulerOptions(**own)


def check_beside(config: Mapping[str, Any]) -> None:
    """
    Refuse settings that are in APScheduler's *config* beside our section, where they mean nothing.

    Raises:
        ConfigurationError: naming the key and the way out.
    """
    for key in config:
        if key in _SETTINGS:
            msg = f"{key!r} is no option of APScheduler's; write {SECTION}={{{key!r}: …}}"
            raise ConfigurationError(msg)


def embedded_store() -> str:
    """Return the URL of the store where none is named: a file in the working directory."""
    return f"sqlite:///{quote(str(Path.cwd() / _FILE))}"


def _known(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        msg = (
            f"{SECTION} is {given!r}; it must be a mapping, such as {{'store': 'sqlite:////path'}}"
        )
        raise ConfigurationError(msg)
    known = [*_SETTINGS, *(f.name for f in fields(SchedulerOptions))]
    for key in given:
        if key not in known:
            near = nearest(str(key), known)
            hint = (
                f"; did you mean {near!r}?" if near else f"; known are {', '.join(sorted(known))}"
            )
            msg = f"{SECTION}[{key!r}] is not a setting of the scheduler{hint}"
            raise ConfigurationError(msg)
    return {key: value for key, value in given.items() if value is not None}


def _check(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:  # also refuses NaN
        msg = f"{SECTION}[{name!r}] is {value!r}; it must be between {low:g} and {high:g} {unit}"
        raise ConfigurationError(msg)
