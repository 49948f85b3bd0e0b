"""A watch on a part of a register of the embedded store: the kernel's word, and a look at each."""

from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import StoreError, StoreUnavailable
from leader_jobs.stores._pace import Pace
from leader_jobs.stores._sqlite_changes import Changes
from leader_jobs.stores._sqlite_database import Database
from leader_jobs.stores._sqlite_register import is_newer

__all__ = ["RegisterWatch"]

# How long a look may itself wait for its turn, and how long for somebody who writes just now.
_LOOK: Final = 1.0
_TRY: Final = 0.002
# Between a change that the kernel tells of and the look: the commit has yet to reach the disk. While
# it does, looks come slower and slower, down to one in so many seconds.
_SETTLE: Final = 0.005
_SLOWEST: Final = 0.1
# Between looks though the kernel tells: some file systems keep from it what others do.
_TOLD: Final = 5.0
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
        self._pace = Pace(clock)
        self._changes = Changes(database.path)

    def wait(self, after: int, *, timeout: float) -> None:
        """Wait until a record may be newer than *after*. See `leader_jobs.stores.base.Watch`."""
        end = self._clock.now() + timeout
        try:
            self._follow(after, end)
        except (StoreError, OSError):
            self._rest(_TROUBLE, end)
        self._changes.settle()

    def wake(self) -> None:
        """End the wait under way, or else the next one."""
        self._changes.wake()

    def _follow(self, after: int, end: float) -> None:
        pause = 0.0
        while not self._rest(max(pause, self._pace.pause()), end):
            told = self._changes.listen()
            newer = self._look(after)
            left = end - self._clock.now()
            if newer or left <= 0:
                return
            if newer is None:
                pause = min(2 * pause or _SETTLE, _SLOWEST)
                continue
            if self._changes.wait(min(left, _TOLD if told else self._poll)):
                return
            pause = _SETTLE

    def _rest(self, seconds: float, end: float) -> bool:
        """Wait so long, not beyond *end*; True if woken."""
        return self._changes.rest(min(seconds, end - self._clock.now()))

    def _look(self, after: int) -> bool | None:
        """Whether a record is newer; None if none is yet, but somebody is writing."""
        now = self._clock.now()
        if self._is_newer(after, now + _LOOK, write=False):
            return True
        # The kernel tells of a commit before others can see it. But until they can, whoever commits
        # has the lock that lets one write.
        try:
            return self._is_newer(after, now + _TRY, write=True)
        except StoreUnavailable:
            return None

    def _is_newer(self, after: int, deadline: float, *, write: bool) -> bool:
        with self._database.transaction(deadline, write=write) as connection:
            return is_newer(connection, *self._place, after)
