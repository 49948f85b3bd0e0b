"""
What the leader has claimed and not yet published.

A broker that is away is told from one that answers and does not take a message (its queue can not be
declared, say): in the former case everything waits, in the latter that job alone.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from leader_jobs.adapters.celery_publisher import BrokerTrouble, NoMessage, NotTaken
from leader_jobs.clock import Clock
from leader_jobs.dispatches import Dispatches
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.term import Term

__all__ = ["Outbox"]

_log = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.1
#: A broker that is back is not kept waiting.
_LONGEST_PAUSE: Final = 0.3
#: Seconds between tries of what a broker that is there does not take.
_TRY_AGAIN: Final = 5.0


class Outbox:
    """
    Publishes claims in the order they came, and has it noted.

    Args:
        term: under which they were claimed.
        ledger: which has them in hand.
        dispatches: where it is noted what became of them.
        publish: publishes a claim, as `leader_jobs.adapters.celery_publisher.Publisher.publish`.
        clock: where moments come from.

    Attributes:
        pause: seconds to wait before the next try after `send` returned False.
    """

    def __init__(
        self,
        term: Term,
        *,
        ledger: Ledger,
        dispatches: Dispatches,
        publish: Callable[[Claim], None],
        clock: Clock,
    ) -> None:
        self._term = term
        self._ledger = ledger
        self._dispatches = dispatches
        self._publish = publish
        self._clock = clock
        self._waiting: deque[Claim] = deque()
        self._not_taken: list[Claim] = []
        self._try_again_at = 0.0
        self._complaints: set[str] = set()
        self.pause = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def stuck(self) -> frozenset[str]:
        """The jobs of which the broker does not take a message: claim no more of these."""
        return frozenset(claim.job for claim in self._not_taken)

    def put(self, claims: Iterable[Claim]) -> None:
        """Add claims behind all others."""
        self._waiting.extend(claims)

    def send(self) -> bool:
        """
        Publish what is in here, and record it.

        Returns:
            False if the broker is away, or the term in doubt: the rest is kept for the next call.

        Raises:
            Fenced: the term does not lead.
            StoreError: it can not be recorded now what was published.
        """
        if self._not_taken and self._clock.now() >= self._try_again_at:
            self._waiting.extend(self._not_taken)
            self._not_taken.clear()
        while self._waiting and self._term.may_start and self._send_next():
            pass
        self._dispatches.record()
        if not self._waiting:
            self.pause = 0.0
            return True
        self.pause = min(2 * self.pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        return False

    def drop(self) -> None:
        """Let go of everything: the next leader publishes it."""
        for claim in (*self._waiting, *self._not_taken):
            self._ledger.let_go(claim)
        self._waiting.clear()
        self._not_taken.clear()

    def _send_next(self) -> bool:
        """Publish one message; False if the broker is away."""
        # Before every single message: a freeze may have cost us the term since the last one.
        claim = self._waiting[0]
        try:
            self._publish(claim)
        except NotTaken as trouble:
            self._complain(
                claim.job, f"the broker does not take messages of job {claim.job}: {trouble}"
            )
            self._not_taken.append(claim)
            self._try_again_at = self._clock.now() + _TRY_AGAIN
        except BrokerTrouble as trouble:
            self._complain("", f"nothing is sent, the broker is away: {trouble}")
            return False
        except NoMessage as why:
            self._dispatches.refused(claim, str(why))
        except Exception as error:  # noqa: BLE001  one bad entry may not hold up the others
            _log.exception("job %s (%s) can not be sent", claim.job, claim.planned_at)
            self._dispatches.refused(claim, f"no message could be made: {error!r}")
        else:
            self._complaints -= {"", claim.job}
            self._dispatches.sent(claim)
        self._waiting.popleft()
        return True

    def _complain(self, about: str, complaint: str) -> None:
        """Say what is the matter when it begins, not at every try."""
        level = logging.DEBUG if about in self._complaints else logging.WARNING
        self._complaints.add(about)
        _log.log(level, complaint)
