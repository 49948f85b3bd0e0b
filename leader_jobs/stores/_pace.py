"""How often a watch looks while others write all the time."""

from typing import Final

from leader_jobs.clock import Clock

__all__ = ["Pace"]

_EVERY: Final = 0.05
_AT_ONCE: Final = 5


class Pace:
    """
    Lets five looks through at once, and twenty a second in the long run.

    Args:
        clock: where moments come from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paid = clock.now()

    def pause(self) -> float:
        """Return the seconds to wait before a look that is about to be made, if positive."""
        now = self._clock.now()
        # At most one ahead, should the caller not wait, or the clock be one that a test moves.
        self._paid = min(max(self._paid, now - _AT_ONCE * _EVERY), now) + _EVERY
        return self._paid - now
