"""
A term: one stretch of leadership, numbered by its fencing token.

Leadership is a deadline, not a flag. `Term.active` answers by arithmetic on process id, clock and
deadline at each call, so a thread frozen for an hour, a process that held the interpreter lock, and
the child of a fork are not leaders when they look, although nobody told them.
"""

import os
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.stores.base import Candidacy

__all__ = ["EndReason", "Term", "TermBoard", "held_terms"]


class EndReason(StrEnum):
    """Why a term ended."""

    RESIGNED = "resigned"
    LOST = "lost"
    DEADLINE = "deadline"


class Term:
    """
    One stretch of leadership of one process in one election.

    Args:
        candidacy: the place in the electorate this term rests on; its token is the fencing token,
            which grows with each term of the election.
        deadline: the last moment this process may act, on *clock*.
        clock: where moments come from.

    At any moment at most one process has an active term of an election, as long as clock *rates*
    differ by less than the safety margin. Two exceptions are outside a lease's reach and are what
    fencing is for: a store that revokes a living lease, and work already under way when a term ends.
    """

    __slots__ = (
        "_clock",
        "_deadline",
        "_ending",
        "_lapsed",
        "_pid",
        "candidacy",
        "election",
        "ended",
        "reason",
        "suspended",
        "token",
        "ttl",
    )

    def __init__(self, *, candidacy: Candidacy, deadline: float, clock: Clock) -> None:
        self.candidacy: Final = candidacy
        self.election: Final = candidacy.election
        self.token: Final = candidacy.token
        self.ttl: Final = candidacy.ttl
        #: Set once the term is over *and* somebody noticed; `active` needs nobody to notice.
        self.ended: Final = threading.Event()
        self.reason: EndReason | None = None
        #: True while renewals fail and the deadline is not reached: nothing new may start.
        self.suspended = False
        self._ending = threading.Lock()
        self._clock = clock
        self._pid = os.getpid()
        self._deadline = deadline
        self._lapsed = False

    def __repr__(self) -> str:
        state = "active" if self.active else f"over ({self.reason or 'deadline'})"
        return f"<Term {self.token} of {self.election}: {state}>"

    @property
    def active(self) -> bool:
        """Whether this process leads at this very moment; once False, False for ever."""
        if self._lapsed or self._pid != os.getpid():
            return False
        if self._clock.now() < self._deadline:
            return True
        self._lapsed = True
        return False

    @property
    def may_start(self) -> bool:
        """Whether new work may start: the term is active and its renewals are not in doubt."""
        return self.active and not self.suspended

    @property
    def deadline(self) -> float:
        """The last moment this process may act, on the boot-time clock."""
        return self._deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; 0.0 if the term is over."""
        return max(0.0, self._deadline - self._clock.now()) if self.active else 0.0

    def extend(self, deadline: float) -> bool:
        """
        Move the deadline later, as a good renewal allows; a passed deadline is never extended.

        Returns:
            Whether the term is still active.
        """
        if not self.active:
            return False
        self._deadline = max(self._deadline, deadline)
        # A reader that saw the old deadline pass meanwhile has latched the end; it stands.
        return not self._lapsed

    def end(self, reason: EndReason) -> bool:
        """
        End the term; only the first call counts, and only in the process that holds the term.

        Returns:
            Whether this call ended it.
        """
        if self._pid != os.getpid():
            return False
        with self._ending:
            if self.ended.is_set():
                return False
            self._lapsed = True
            self.reason = reason
            self.ended.set()
            return True


class TermBoard:
    """The terms held in this process, so that a decorated function can find the one it needs."""

    def __init__(self) -> None:
        self._terms: tuple[Term, ...] = ()
        self._borrow: Callable[[str], Term | None] | None = None
        self._lock = threading.Lock()

    def post(self, term: Term) -> None:
        """Add *term*."""
        with self._lock:
            self._terms = (*(t for t in self._terms if not t.ended.is_set()), term)

    def remove(self, term: Term) -> None:
        """Forget *term*."""
        with self._lock:
            self._terms = tuple(t for t in self._terms if t is not term)

    def borrow(self, find: Callable[[str], Term | None]) -> None:
        """
        Have *find* look for the terms that this process does not hold itself.

        For the children of a pool, which hold none and work for a parent that does.
        """
        self._borrow = find

    def find(self, election: str) -> Term | None:
        """Return the active term of *election* held by this process, or lent to it, or None."""
        for term in self._terms:
            if term.election == election and term.active:
                return term
        return None if self._borrow is None else self._borrow(election)

    def forget_all(self) -> None:
        """Drop everything: the child of a fork holds no term."""
        self._terms = ()
        self._borrow = None
        self._lock = threading.Lock()


#: The board every candidate of this process posts its terms on.
held_terms: Final = TermBoard()
os.register_at_fork(after_in_child=held_terms.forget_all)
