"""
One process's whole part: a candidate per election, and the work done while each leads.

The main thread only waits for signals. The first SIGTERM or SIGINT stops starting work, lets what
runs finish within the grace time, resigns and returns; the second one does not wait.
"""

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol

from leader_jobs.candidate import Candidate
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.mailbox import NOTE, Mailbox
from leader_jobs.term import Term

__all__ = ["Part", "Service", "Work"]

_log = logging.getLogger(__name__)
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Signals this close together, in seconds, are one: timeout(1) and some supervisors signal the
#: process and then its whole group.
_ONE_SIGNAL: Final = 0.5


class Work(Protocol):
    """What is done while a candidate leads."""

    @property
    def exit_status(self) -> int:
        """What a process that did this work should exit with."""
        ...

    def run(self, term: Term) -> bool:
        """Work until *term* ends or `stop` is called; False if there is nothing left to do."""
        ...

    def stop(self, *, now: bool = False) -> None:
        """Start nothing more; with *now*, wait for nothing. Any thread may call it, repeatedly."""
        ...

    def drain(self, grace: float) -> bool:
        """Bring to an end what is running, within *grace* seconds; whether that worked."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A candidate and its work."""

    candidate: Candidate
    work: Work


class Service:
    """
    Runs several parts until a signal, or until one of them has nothing left to do.

    Args:
        parts: what to run.
        grace: seconds that running work gets to finish.
        leaving: called when it is the first time to stop, by a signal or for want of work.
        clock: where moments come from.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        grace: float,
        leaving: Callable[[], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._parts = tuple(parts)
        self._grace = grace
        self._leaving = leaving
        self._clock: Clock = clock or SystemClock()
        self._mailbox = Mailbox()
        self._stopping = False
        self._drained = True
        self._failure: Exception | None = None

    def run(self) -> bool:
        """
        Stand in every election until told to stop; once, and in the main thread.

        Returns:
            Whether all work had ended. If not, threads of it are still alive, and a process that
            wants to end should not wait for them.

        Raises:
            Exception: what one of the parts failed with, after all of them were stopped.
        """
        threads = [
            threading.Thread(target=self._lead, args=(part,), name=part.candidate.election)
            for part in self._parts
        ]
        with closing(self._mailbox), self._mailbox.open(_SIGNALS):
            for thread in threads:
                thread.start()
            self._wait(len(threads))
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        return self._drained

    def stop(self) -> None:
        """Do what the first signal does."""
        self._mailbox.put(signal.SIGTERM)

    def _wait(self, left: int) -> None:
        """Wait until none of the parts, of which *left* are at work, is left."""
        first: float | None = None
        while left:
            number = self._mailbox.get()
            left -= number == NOTE
            if first is None:
                first = self._clock.now()
                if self._leaving is not None:
                    self._leaving()
                self._stop_parts(now=False, number=number)
            elif number != NOTE and self._clock.now() - first > _ONE_SIGNAL:
                self._stop_parts(now=True, number=number)

    def _stop_parts(self, *, now: bool, number: int) -> None:
        if number != NOTE:
            how = "stopping at once" if now else "finishing what runs, then resigning"
            _log.info("%s: %s", signal.Signals(number).name, how)
        self._stopping = True
        for part in self._parts:
            part.work.stop(now=now)
            part.candidate.release()

    def _lead(self, part: Part) -> None:
        try:
            part.candidate.start()
            while not self._stopping and (term := part.candidate.wait_for_term()) is not None:
                if not part.work.run(term):
                    break
            if not part.work.drain(self._grace):
                self._drained = False
        except Exception as error:  # noqa: BLE001  raised by `run`, when the other parts have ended
            part.work.stop(now=True)
            part.work.drain(0.0)
            if self._failure is not None:
                _log.error("election %r: %s", part.candidate.election, error)
            self._failure = self._failure or error
        finally:
            try:
                part.candidate.stop()
            finally:
                self._mailbox.put()
