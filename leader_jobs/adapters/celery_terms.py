"""
Terms lent to the children of a prefork pool.

The worker's main process stands in elections and holds the terms; the tasks run in children, which
hold nothing. What the children need to know is a token, a deadline and whether renewals are in
doubt. That lies in memory they share with their parent, made before the first of them is forked, one
place per election. The parent alone writes. A child decides for itself, at each look, by arithmetic
on the host's clock and on what it finds there: no message has to reach it for a term to be over.

What a child sees can only be *less* than the truth. A deadline is copied after it was reached, never
ahead, so an old copy ends sooner; a copy read while it was written fails its checksum and counts as
no term; and a term whose holder is no longer the child's parent is over. The one thing that comes
late is news of a term that ended before its deadline: by the time the parent's thread needs to wake,
some milliseconds. Whatever must not happen then has to carry the token.

On the children's boards the terms are found through `leader_jobs.term.TermBoard.borrow`, so
`leader_only`, `assert_leader` and runs work there as everywhere else.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from leader_jobs.clock import Clock
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import EndReason, Term

__all__ = ["LentTerm", "SharedTerms"]

_FIELDS: Final = struct.Struct("=Qdd?")
_CHECKSUM: Final = struct.Struct("=L")
_SIZE: Final = _FIELDS.size + _CHECKSUM.size
_TRIES: Final = 3
_NOTHING: Final = bytes(_SIZE)  # whose checksum is wrong


class Copy(NamedTuple):
    """What is known of a term: token, granted ttl and deadline in seconds, renewals in doubt or not."""

    token: int
    ttl: float
    deadline: float
    suspended: bool


class LentTerm(Term):
    """
    A term of the parent process, as a child of it sees it.

    Args:
        candidacy: whose place the term rests on.
        copy: what was known of it when it was found.
        holder: the process id of the parent.
        look: reads the present copy.
        clock: where moments come from; the same clock as the parent's.

    Once over, such an object is over for ever, as any `Term` is.
    """

    __slots__ = ("_holder", "_look")

    def __init__(
        self,
        *,
        candidacy: Candidacy,
        copy: Copy,
        holder: int,
        look: Callable[[], Copy | None],
        clock: Clock,
    ) -> None:
        super().__init__(candidacy=candidacy, deadline=copy.deadline, clock=clock)
        self.suspended = copy.suspended
        self._holder = holder
        self._look = look

    @property
    def active(self) -> bool:
        """Whether the parent leads at this very moment; once False, False for ever."""
        if not self.ended.is_set():
            copy = self._look() if os.getppid() == self._holder else None
            if copy is None or copy.token != self.token:
                self.end(EndReason.LOST)
            else:
                self._deadline = copy.deadline
                self.suspended = copy.suspended
        return super().active


class SharedTerms:
    """
    The places that hold the present term of each election.

    Args:
        elections: the elections that there can be terms of.
        clock: what deadlines are measured on.

    Made in the process that will hold the terms, before it forks its children.
    """

    def __init__(self, elections: Sequence[str], clock: Clock) -> None:
        self._places = {election: number * _SIZE for number, election in enumerate(elections)}
        self._memory = mmap.mmap(-1, max(1, len(self._places)) * _SIZE)  # shared, without a name
        self._holder = os.getpid()
        self._clock = clock
        self._found: dict[str, LentTerm] = {}

    @property
    def is_holder(self) -> bool:
        """Whether this is the process that writes, and needs no loan."""
        return os.getpid() == self._holder

    def show(self, term: Term, *, may_start: bool = True) -> None:
        """Let the children see *term* as it is now; nothing if it is over; no start if it *may* not."""
        suspended = term.suspended or not may_start
        copy = Copy(term.token, term.ttl, term.deadline, suspended)
        fields = _FIELDS.pack(*copy)
        self._write(term.election, fields + _CHECKSUM.pack(zlib.crc32(fields)))
        if not term.active:  # it may have ended after the copy was made
            self.clear(term.election)

    def clear(self, election: str) -> None:
        """Let the children see that there is no term of *election*."""
        self._write(election, _NOTHING)

    def find(self, election: str) -> Term | None:
        """Return the parent's active term of *election*, or None; for the children."""
        known = self._found.get(election)
        if known is not None and known.active:
            return known
        copy = self._read(election)
        if copy is None:
            return None
        # Also for a term that was over by an old copy: what began under it has been told to stop,
        # but if the parent leads on, what begins now is covered.
        term = LentTerm(
            candidacy=Candidacy(election, f"held by {self._holder}", copy.token, copy.ttl),
            copy=copy,
            holder=self._holder,
            look=lambda: self._read(election),
            clock=self._clock,
        )
        self._found[election] = term
        return term if term.active else None

    def _write(self, election: str, record: bytes) -> None:
        place = self._places[election]
        self._memory[place : place + _SIZE] = record

    def _read(self, election: str) -> Copy | None:
        place = self._places.get(election)
        if place is None:
            return None
        for _ in range(_TRIES):
            record = self._memory[place : place + _SIZE]
            fields = record[: _FIELDS.size]
            if _CHECKSUM.unpack_from(record, _FIELDS.size) == (zlib.crc32(fields),):
                return Copy(*_FIELDS.unpack(fields))
            if record == _NOTHING:
                return None
        return None
