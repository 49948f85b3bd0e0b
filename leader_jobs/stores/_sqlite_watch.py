"""A watch on a part of a register of the embedded store: the kernel's word, and a look at each."""

from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreError
from leader_jobs.stores._sqlite_changes import Changes
from leader_jobs.stores._sqlite_database import Database
from leader_jobs.stores._sqlite_register import is_newer

__all__ = ["RegisterWatch"]

# How long a look while waiting may itself wait for its turn.
_LOOK: Final = 1.0
# Between looks even though the kernel tells: a file system may keep from it what others do.
_TOLD: Final = 5.0
# Between looks while others commit all the time.
_BUSY: Final = 0.05
_TROUBLE: Final = 0.2


class RegisterWatch:
    """
    A `leader_jobs.stores.base.Watch` on the records under *prefix*.

    Args:
        database: where they are.
        election: whose register.
        prefix: what their keys begin with.
        clock: where moments come from.
        poll: seconds between two looks where the kernel can not tell of changes.
    """

    def __init__(
        self, database: Database, election: str, prefix: str, *, clock: Clock, poll: float
    ) -> None:
        self._database = database
        self._place = election, prefix
        self._clock = clock
        self._poll = poll
        self._looked = -_BUSY
        self._changes = Changes(database.path)

    def wait(self, after: int, *, timeout: float) -> None:
        """Wait until a record may be newer than *after*. See `leader_jobs.stores.base.Watch`."""
        end = self._clock.now() + timeout
        try:
            self._follow(after, end)
        except (StoreError, OSError):
            self._changes.rest(min(_TROUBLE, end - self._clock.now()))
        self._changes.settle()

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        self._changes.wake()

    def _follow(self, after: int, end: float) -> None:
        now = self._clock.now()
        while not self._changes.rest(min(self._looked + _BUSY, end) - now):
            told = self._changes.listen()
            self._looked = self._clock.now()
            if self._look(after):
                return
            now = self._clock.now()
            pause = min(_TOLD if told else self._poll, end - now)
            if pause <= 0 or self._changes.wait(pause):
                return
            now = self._clock.now()

    def _look(self, after: int) -> bool:
        deadline = self._clock.now() + _LOOK
        with self._database.transaction(deadline, write=False) as connection:
            return is_newer(connection, *self._place, after)
