"""
Jumps of the wall clock, against the clock that never jumps.

A host that was suspended, or whose clock was set, shall not act on what it remembers: whoever leads
asks the store first.
"""

import logging
from typing import Final

from leader_jobs.candidate import Candidate
from leader_jobs.claims import Claims
from leader_jobs.clock import Clock

__all__ = ["WallClock"]

_log = logging.getLogger(__name__)
_JUMP: Final = 1.0
_ASK: Final = 2.0


class WallClock:
    """
    Notices jumps of the wall clock during one term.

    Args:
        candidate: who is asked to verify the term after a jump.
        clock: both clocks.
    """

    def __init__(self, candidate: Candidate, clock: Clock) -> None:
        self._candidate = candidate
        self._clock = clock
        self._offset = self._present()

    @property
    def jumped(self) -> bool:
        """Whether it has jumped since `settle` last returned."""
        return abs(self._present() - self._offset) >= _JUMP

    def settle(self) -> float | None:
        """
        Make sure, after a jump, that we still lead.

        Returns:
            How far it has jumped since the last call, in seconds; 0.0 if by less than a second. None
            if it has jumped and the store did not say that we lead: do nothing, and ask again.
        """
        offset = self._present()
        jump = offset - self._offset
        if abs(jump) < _JUMP:
            self._offset = offset  # drifts a little all the time
            return 0.0
        _log.warning("the wall clock jumped by %+.1f s; asking the store before going on", jump)
        if not self._candidate.verify(_ASK):
            return None
        self._offset = offset
        return jump

    def is_steady(self, claims: Claims) -> bool:
        """
        Make sure, after a jump, that we still lead, and that what is due is seen anew.

        Args:
            claims: has to look at every job again if the clock was set back.

        Returns:
            Whether to go on; if not, the store did not say that we lead: do nothing, and ask again.
        """
        jump = self.settle()
        if jump is not None and jump < 0:
            claims.look_at_all()
        return jump is not None

    def _present(self) -> float:
        return self._clock.utcnow().timestamp() - self._clock.now()
