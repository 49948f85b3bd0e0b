"""
What the web processes see of the elections, with a memory for when the store does not answer.

One store object per process, made when a page first needs one and kept. A look takes a short time
at most, whatever has become of the store; where it fails, the last thing seen is shown as that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar, cast

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings, application
from leader_jobs.control import Control
from leader_jobs.exceptions import ConfigurationError, StoreError
from leader_jobs.observatory import Observatory
from leader_jobs.overview import ElectionView, Summary
from leader_jobs.records import HISTORY
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store

__all__ = ["RECENT", "Lookout", "Sight", "lookout"]

#: How many recent occurrences of each job the page of an election shows.
RECENT: Final = 30
#: Seconds that one look, or one call of an order, may take; a page answers within two.
_PATIENCE: Final = 1.5
_CALL: Final = 1.0
#: How many things seen are kept for bad times.
_MOST: Final = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sight(Generic[T]):
    """
    What a look found.

    Attributes:
        found: what there is to see; with *trouble*, what was last seen, or None.
        seen_at: when that was seen, or None.
        trouble: why the store could not say, in one sentence; empty if it could.
        now: the instant of the look.
        since: the first failure after the last success, in this process; None without trouble.
        store: the store in a few words; empty if not even that is known.
    """

    found: T | None
    now: datetime
    seen_at: datetime | None
    trouble: str
    since: datetime | None
    store: str


class Lookout:
    """
    Looks at elections for the pages of one process; may be used by many threads.

    Args:
        settings: what returns the settings of the process; asked at each look.
        clock: where moments and instants come from.
    """

    def __init__(self, settings: Callable[[], Settings], *, clock: Clock) -> None:
        self.clock: Final = clock
        self._settings = settings
        # Replaced as one, so that no lock is needed, which a fork could copy while it is held.
        self._opened: _Opened | None = None
        self._since: datetime | None = None
        self._seen: dict[tuple[str, ...], tuple[object, datetime]] = {}

    def elections(self) -> Sight[tuple[Summary, ...]]:
        """Look at all elections, the site's own among them."""
        return self._look(
            (), lambda observatory: observatory.elections(otherwise=(self._settings().election,))
        )

    def election(self, name: str) -> Sight[ElectionView]:
        """Look at one election, with `RECENT` occurrences of each job."""
        return self._look((name,), lambda observatory: observatory.election(name, recent=RECENT))

    def job(self, name: str, job: str) -> Sight[ElectionView]:
        """Look at one election, with all that is kept of one job and no occurrences of the others."""
        return self._look(
            (name, job), lambda observatory: observatory.election(name, recent=HISTORY, of=(job,))
        )

    def control(self, name: str, *, by: str) -> Control:
        """
        Return where election *name* is steered from, in the name of *by*.

        Raises:
            ConfigurationError: the settings make no sense.
            StoreError: the store can not be used.
        """
        return Control(self._open().store, name, by=by, clock=self.clock, timeout=_CALL)

    def _look(self, what: tuple[str, ...], look: Callable[[Observatory], T]) -> Sight[T]:
        store = ""
        try:
            opened = self._open()
            store = opened.store.description
            found = look(opened.observatory)
        except (StoreError, ConfigurationError) as error:
            return self._last(what, str(error), store)
        now = self.clock.utcnow()
        self._since = None
        if len(self._seen) >= _MOST and what not in self._seen:
            self._seen.clear()
        self._seen[what] = (found, now)
        return Sight(found, now, now, "", None, store)

    def _last(self, what: tuple[str, ...], trouble: str, store: str) -> Sight[T]:
        """Return what was last seen, and since when there is trouble."""
        now = self.clock.utcnow()
        since = self._since = self._since or now
        found, seen_at = self._seen.get(what, (None, None))
        return Sight(cast("T | None", found), now, seen_at, trouble, since, store)

    def _open(self) -> "_Opened":
        """Return the store that the settings name at present; opening it connects to nothing."""
        settings, opened = self._settings(), self._opened
        if opened is not None and opened.settings is settings:
            return opened
        store = open_store(settings, clock=self.clock)
        observatory = Observatory(store, clock=self.clock, timeout=_PATIENCE)
        if opened is not None:
            self._seen.clear()
            self._since = None
            opened.store.close()
        self._opened = _Opened(settings, store, observatory)
        return self._opened


@dataclass(frozen=True, slots=True)
class _Opened:
    """What was made of the settings."""

    settings: Settings
    store: Store
    observatory: Observatory


#: The lookout of this process.
lookout: Final = Lookout(lambda: application.settings, clock=SystemClock())
