"""
What this process answers to whoever asks how it is: supervisors, load balancers, people.

- ``/livez``: the loops turn. A healthy standby is live, and so is a process whose store is away, for
  starting it anew would not help. A leader whose loop hangs, or whose jobs are overdue, is not.
- ``/readyz``: the store answers, and a standby could lead as far as it knows. It does not need
  leadership: a rollout would wait for it for ever.
- ``/leader``: 200 on the leader, 503 elsewhere.
- ``/status``: all that this process knows of itself, as JSON.
- ``/metrics``: where they are asked for.

The same answers are given by the server in `leader_jobs.probe_server` and by Django's views. They are
put together from memory; the store is asked once in two seconds at most, however many ask here.
"""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import LeaderJobsError
from leader_jobs.positions import Position
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from leader_jobs.version import version
from leader_jobs.vitals import Place, vitals

__all__ = ["Answer", "Probes", "StoreCheck"]

_OK: Final = 200
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_FORMAT: Final = 1
_ASK_EVERY: Final = 2.0
_WITHIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """
    An answer to a probe.

    Attributes:
        status: the HTTP status.
        body: what to send.
        content_type: what that is.
    """

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def saying(cls, status: int, sentence: str) -> "Answer":
        """Return an answer of one line."""
        return cls(status, f"{' '.join(sentence.split())}\n".encode())


class StoreCheck:
    """
    Whether the store answers; asks it once in two seconds at most, for a second at most.

    Args:
        settings: what says where the store is, if this process stands in no election.
        places: this process's places in elections, whose store is asked if there are any.
        clock: where moments come from.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        places: Callable[[], tuple[Place, ...]],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._places = places
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._asking = threading.Lock()
        self._asked_at: float | None = None
        self._trouble: str | None = None
        self._opened: tuple[Settings, Store] | None = None

    def trouble(self) -> str | None:
        """Return why the store does not answer, in words; None if it does."""
        if self._pid != os.getpid():
            self._begin()
        # Who comes while another one asks takes that one's answer.
        if not self._asking.acquire(timeout=2 * _WITHIN):
            return f"it has not answered for {2 * _WITHIN:g} s"  # nor kept to its deadline
        try:
            if self._asked_at is None or self._clock.now() - self._asked_at >= _ASK_EVERY:
                self._trouble = self._ask()
                self._asked_at = self._clock.now()
            return self._trouble
        finally:
            self._asking.release()

    def close(self) -> None:
        """Close the store, if one was opened for this."""
        opened, self._opened = self._opened, None
        if opened is not None and self._pid == os.getpid():
            opened[1].close()

    def _ask(self) -> str | None:
        try:
            store, election = self._which()
            store.candidates(election, deadline=self._clock.now() + _WITHIN)
        except LeaderJobsError as error:
            return str(error)
        return None

    def _which(self) -> tuple[Store, str]:
        places = self._places()
        if places:
            return places[0].ledger.store, places[0].candidate.election
        settings = self._settings()
        if self._opened is None or self._opened[0] != settings:
            self.close()
            self._opened = settings, open_store(settings, clock=self._clock)
        return self._opened[1], settings.election


class Probes:
    """
    Answers probes.

    Args:
        settings: what says where the store is, where this process stands in no election; called when
            that is first asked for.
        metrics: returns the text of the metrics and what kind of text it is; None: there are none.
        places: this process's places in elections.
        clock: where moments and instants come from.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        *,
        metrics: Callable[[], tuple[bytes, str]] | None = None,
        places: Callable[[], tuple[Place, ...]] = vitals.places,
        clock: Clock | None = None,
    ) -> None:
        self._clock: Clock = clock or SystemClock()
        self._places = places
        self._store = StoreCheck(settings, places=places, clock=self._clock)
        self._answers: dict[str, Callable[[str | None], Answer]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/leader": self._leader,
            "/status": self._status,
        }
        if metrics is not None:
            self._answers["/metrics"] = lambda _election: Answer(_OK, *metrics())

    def answer(self, path: str, *, election: str | None = None) -> Answer:
        """
        Answer a request for *path*; within three seconds, also where the store is away.

        Args:
            path: what is asked for, such as ``/livez``.
            election: of ``/leader``, which election is meant; None if the process stands in one only.
        """
        found = self._answers.get(path)
        if found is None:
            return Answer.saying(_NOT_FOUND, f"there is {', '.join(self._answers)}")
        return found(election)

    def close(self) -> None:
        """Let go of the store, if one was opened for probes."""
        self._store.close()

    def _positions(self) -> list[Position]:
        return [Position.of(place, clock=self._clock) for place in self._places()]

    # -- the answers ------------------------------------------------------------------------------

    def _livez(self, _election: str | None) -> Answer:
        positions = self._positions()
        trouble = self._trouble(positions)
        if trouble is not None:
            return Answer.saying(_UNAVAILABLE, trouble)
        roles = ", ".join(f"{p.role} in election {p.election!r}" for p in positions)
        return Answer.saying(_OK, f"alive: {roles or 'stands in no election'}")

    def _readyz(self, _election: str | None) -> Answer:
        trouble = self._store.trouble()
        if trouble is not None:
            return Answer.saying(_UNAVAILABLE, f"the store does not answer: {trouble}")
        for position in self._positions():
            if position.doubt is not None:
                said = f"node {position.node} could not lead election {position.election!r}"
                return Answer.saying(_UNAVAILABLE, f"{said}: {position.doubt}")
        return Answer.saying(_OK, "ready: the store answers")

    def _leader(self, election: str | None) -> Answer:
        positions = {position.election: position for position in self._positions()}
        if election is None and len(positions) > 1:
            names = ", ".join(sorted(positions))
            msg = f"this process stands in {len(positions)} elections ({names}): add ?election=…"
            return Answer.saying(_BAD_REQUEST, msg)
        found = positions.get(election) if election else next(iter(positions.values()), None)
        if found is None:
            which = f"election {election!r}" if election else "any election"
            return Answer.saying(_UNAVAILABLE, f"this process does not stand in {which}")
        if not found.leads:
            said = f"node {found.node} is {found.role} in election {found.election!r}"
            return Answer.saying(_UNAVAILABLE, said)
        said = f"node {found.node} leads election {found.election!r}, term {found.token}"
        return Answer.saying(_OK, said)

    def _status(self, _election: str | None) -> Answer:
        positions = self._positions()
        trouble = self._trouble(positions)
        status = {
            "format": _FORMAT,
            "at": _iso(self._clock.utcnow()),
            "version": version(),
            "pid": os.getpid(),
            "healthy": trouble is None,
            "why": trouble or "",
            "elections": [_shown(position) for position in positions],
        }
        return Answer(_OK, f"{json.dumps(status, indent=2)}\n".encode(), "application/json")

    def _trouble(self, positions: list[Position]) -> str | None:
        """Say what is wrong with this process, and would be better if it were started anew."""
        for position in positions:
            if not position.alive:
                return f"election {position.election!r}: the thread that stands in it has died"
        # The store is asked only where something is wrong, and excuses it if it is away.
        for position in positions:
            if position.trouble is not None and self._store.trouble() is None:
                said = (
                    f"election {position.election!r}: node {position.node} leads, the store answers"
                )
                return f"{said}, and {position.trouble}"
        return None


def _shown(position: Position) -> dict[str, Any]:
    return {
        "election": position.election,
        "node": position.node,
        "role": position.role.value,
        "token": position.token,
        "ttl": position.ttl,
        "remaining": position.remaining,
        "since": _iso(position.since),
        "turned": position.turned,
        "due": _iso(position.due),
        "late": position.late,
        "overdue": position.overdue,
        "paused": position.paused,
        "doubt": position.doubt,
    }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
