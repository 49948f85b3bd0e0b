"""
The run in progress: what a job's body can ask about itself.

A run is one execution of one occurrence. Its body can not be killed from outside when it runs in a
thread; it can be told. `Run.lost` is that telling, and like leadership itself it is arithmetic: a
body that wakes from a freeze sees it at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from leader_jobs.exceptions import LeadershipLost, NotLeader
from leader_jobs.term import Term, held_terms

__all__ = ["Lost", "Run", "assert_leader", "current_run", "running"]

_POLL: Final = 0.2


class Lost:
    """
    Like a `threading.Event` that is set once the run's leadership is over.

    Args:
        terms: the terms the run was started under; one of them that is over is enough.
    """

    def __init__(self, *terms: Term) -> None:
        self._terms = terms

    def also(self, term: Term) -> "Lost":
        """Return one that is set once this one is, or *term* is over."""
        return Lost(term, *self._terms)

    def is_set(self) -> bool:
        """Whether what this run does is no longer protected by leadership."""
        return not all(term.active for term in self._terms)

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until the leadership is lost, or *timeout* seconds; use it instead of sleeping.

        Returns:
            Whether it is lost.
        """
        left = float("inf") if timeout is None else timeout
        while not self.is_set() and left > 0:
            # The deadline can pass without anybody setting the event, so look again now and then.
            self._terms[0].ended.wait(min(_POLL, left))
            left -= _POLL
        return self.is_set()


@dataclass(frozen=True, slots=True)
class Run:
    """
    One execution of one occurrence.

    Attributes:
        election: the election the job belongs to.
        job: the job's name.
        occurrence: the occurrence's id, the same on every node and for ever.
        planned_at: the instant the occurrence was planned for, aware, in UTC.
        token: the fencing token to hand to anything outside that can check it.
        attempt: 1, or more if the job asked for ``on_crash="rerun"`` and a run of it crashed.
        lost: tells long loops that the leadership is over.
    """

    election: str
    job: str
    occurrence: str
    planned_at: datetime
    token: int
    attempt: int
    lost: Lost


_current: ContextVar[Run | None] = ContextVar("leader_jobs_run", default=None)


def current_run() -> Run | None:
    """Return the run this code is part of, or None outside of any."""
    return _current.get()


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make *run* the current run of this thread or task for the time of the block."""
    reset = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(reset)


def assert_leader(election: str | None = None) -> int:
    """
    Raise unless acting is allowed at this very moment.

    Args:
        election: the election to ask about; within a run, that of the run if None.

    Returns:
        The fencing token of the term that leads.

    Raises:
        LeadershipLost: this is a run, and its leadership is over.
        NotLeader: this process does not lead.

    The answer is true when given; whatever is done next should carry the token along.
    """
    run = current_run()
    if run is not None and election in (None, run.election):
        if run.lost.is_set():
            msg = f"the term {run.token} of election {run.election!r} is over; stop this run"
            raise LeadershipLost(msg)
        return run.token
    if election is None:
        msg = "outside of a run, name the election to ask about"
        raise NotLeader(msg)
    term = held_terms.find(election)
    if term is None:
        msg = f"this process does not lead election {election!r}"
        raise NotLeader(msg)
    return term.token
