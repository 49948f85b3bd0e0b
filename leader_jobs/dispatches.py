"""
What the leader records of claims whose messages it has handed to a broker, or could not.

A claim stays in this process's hands until its outcome stands in the ledger. If the process dies in
between, the next leader finds the claim unconfirmed and dispatches it again, under the same id.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from leader_jobs.batches import Batches, Change
from leader_jobs.clock import Clock
from leader_jobs.ledger import Claim, Ledger, Versioned, find_claimed
from leader_jobs.records import OccurrenceRecord, State, UnreadableRecord
from leader_jobs.term import Term

__all__ = ["Dispatches"]

#: A worker that was quicker than us changes the record we are about to change, most often once.
_TRIES: Final = 3


class _Outcome(NamedTuple):
    at: datetime
    refused: str | None


class Dispatches:
    """
    Records outcomes of claims, during one term.

    Args:
        ledger: which has the claims in hand.
        term: ours.
        clock: where moments and instants come from.
    """

    def __init__(self, ledger: Ledger, term: Term, *, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._batches = Batches[Change](ledger, term, clock=clock)
        self._outcomes: dict[Claim, _Outcome] = {}

    def sent(self, claim: Claim) -> None:
        """Note that a message for *claim* is with the broker."""
        self._outcomes[claim] = _Outcome(self._clock.utcnow(), None)

    def refused(self, claim: Claim, reason: str) -> None:
        """Note that there can be no message for *claim*, whoever tries."""
        self._outcomes[claim] = _Outcome(self._clock.utcnow(), reason)

    def record(self) -> bool:
        """
        Write down what was noted.

        Returns:
            Whether all of it stands. If not, what is left is kept for the next call.

        Raises:
            Fenced: the term does not lead.
            StoreError: the records could not be read.
        """
        for _ in range(_TRIES):
            if not self._outcomes:
                break
            self._record()
        return not self._outcomes

    def drop(self) -> None:
        """Let go of what was not recorded; the next leader dispatches it again."""
        self._settle(tuple(self._outcomes))

    def _record(self) -> None:
        claims = defaultdict(list)
        for claim in self._outcomes:
            claims[claim.job].append(claim)
        changes = []
        for job, found in self._ledger.load(claims).items():
            change = self._change(found, claims[job])
            if change is None:
                self._settle(claims[job])
            else:
                changes.append(change)
        for committed in self._batches.commit(changes):
            for change in committed:
                self._settle(claims[change.record.job])

    def _change(
        self, found: Versioned | UnreadableRecord, claims: Iterable[Claim]
    ) -> Change | None:
        """Return what to write, or None if there is nothing to: a worker has moved them on."""
        if isinstance(found, UnreadableRecord) or found.record is None:
            return None
        change = Change(found.record, found.version)
        for claim in claims:
            entry = find_claimed(change.record, claim)
            at, refused = self._outcomes[claim]
            if entry is None or _is_known(entry, claim, at):
                continue
            if refused is None:
                change.record = change.record.with_open(entry.dispatched(at, token=claim.token))
            else:
                change.record = change.record.without(entry.sequence)
                change.closed.append(entry.closed(State.FAILED, at, refused))
        return None if change.record is found.record else change

    def _settle(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._outcomes.pop(claim, None)
            self._ledger.let_go(claim)


def _is_known(entry: OccurrenceRecord, claim: Claim, at: datetime) -> bool:
    """Whether the ledger knows of what happened to *claim* at *at*, or of something later."""
    if entry.state not in (State.CLAIMED, State.DISPATCHED) or entry.retries != claim.retries:
        return True  # a worker was quicker
    return entry.dispatched_at == at  # the reply to an earlier try was lost
