"""
All that the store in memory keeps of one process: electorates, registers, and who waits for what.
"""

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from leader_jobs.clock import Clock
from leader_jobs.stores.base import Candidacy, Origin, Record, Write

__all__ = ["Electorate", "MemoryWatch", "Seat", "Snapshot", "State"]


@dataclass(slots=True, eq=False)
class Seat:
    """One living candidate, and the bell that ends its wait."""

    candidacy: Candidacy
    proposal: bytes
    expires: float
    bell: threading.Event = field(default_factory=threading.Event)
    woken: bool = False


@dataclass(slots=True)
class Electorate:
    """The candidates of one election in order of succession, and who looks on."""

    seats: dict[str, Seat] = field(default_factory=dict)
    observers: set[threading.Event] = field(default_factory=set)

    def add(self, seat: Seat) -> None:
        """Seat a candidate behind all others."""
        self.seats[seat.candidacy.id] = seat
        self.tell_observers()

    def remove(self, candidacy_id: str) -> None:
        """Unseat a candidate, ringing its own bell and that of the next in line, nobody else's."""
        order = list(self.seats)
        successor = order[order.index(candidacy_id) + 1 :][:1]
        for seat in (self.seats[i] for i in (candidacy_id, *successor)):
            seat.bell.set()
        del self.seats[candidacy_id]
        self.tell_observers()

    def tell_observers(self) -> None:
        """End every `MemoryStore.wait_for_change`."""
        for event in self.observers:
            event.set()

    def predecessor(self, candidacy_id: str) -> str | None:
        """Return the candidate just ahead of a seated one."""
        order = [None, *self.seats]
        return order[order.index(candidacy_id) - 1]


@dataclass(slots=True)
class State:
    """All that one process keeps; every field is used under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    revision: int = 0
    #: How many candidacies there ever were; not taken back.
    enrolled: int = 0
    electorates: dict[str, Electorate] = field(default_factory=dict)
    registers: dict[str, dict[str, Record]] = field(default_factory=dict)
    #: Who waits for records of which election, under which prefix.
    bells: dict[threading.Event, tuple[str, str]] = field(default_factory=dict)
    cut: set[str | None] = field(default_factory=set)
    losing: Collection[str] = ()
    origin: Origin = field(default_factory=lambda: Origin(""))
    #: Candidacies that stand although their history was taken back.
    former: set[Candidacy] = field(default_factory=set)

    def is_cut(self, candidacy: Candidacy | None) -> bool:
        """Whether calls on behalf of this candidacy do not get through."""
        return None in self.cut or (candidacy is not None and candidacy.id in self.cut)

    def under(self, election: str, *prefixes: str) -> dict[str, Record]:
        """Return the election's records whose keys start with one of *prefixes*."""
        register = self.registers.get(election, {})
        return {key: record for key, record in register.items() if key.startswith(prefixes)}

    def ring(self, election: str, writes: Sequence[Write]) -> None:
        """End the waits for records like those written."""
        for bell, (watched, prefix) in self.bells.items():
            if watched == election and any(write.key.startswith(prefix) for write in writes):
                bell.set()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store held at one moment."""

    revision: int
    seats: Mapping[str, Mapping[str, Seat]]
    registers: Mapping[str, Mapping[str, Record]]

    @classmethod
    def of(cls, state: State) -> Self:
        """Copy what *state* holds; its lock is the caller's."""
        return cls(
            state.revision,
            {name: dict(electorate.seats) for name, electorate in state.electorates.items()},
            {name: dict(register) for name, register in state.registers.items()},
        )

    @property
    def candidacies(self) -> set[Candidacy]:
        """Who stands in it."""
        return {seat.candidacy for seats in self.seats.values() for seat in seats.values()}

    def restore(self, state: State) -> None:
        """Put it in the place of what *state* holds; its lock is the caller's."""
        state.revision = self.revision
        for name, electorate in state.electorates.items():
            for seat in electorate.seats.values():
                seat.bell.set()
            electorate.seats = dict(self.seats.get(name, {}))
            electorate.tell_observers()
        state.registers = {name: dict(register) for name, register in self.registers.items()}
        for bell in state.bells:
            bell.set()


class MemoryWatch:
    """A `leader_jobs.stores.base.Watch` on the records under a prefix."""

    def __init__(
        self, state: Callable[[], State], clock: Clock, election: str, prefix: str
    ) -> None:
        self._state = state
        self._clock = clock
        self._place = election, prefix
        self._bells: dict[int, threading.Event] = {}

    @property
    def _bell(self) -> threading.Event:
        # One per process, as the state itself.
        return self._bells.setdefault(os.getpid(), threading.Event())

    def wait(self, after: int, *, timeout: float) -> None:
        """Wait until somebody writes, the store is cut off, or `wake`."""
        state, bell = self._state(), self._bell
        until = self._clock.now() + timeout
        with state.lock:
            state.bells[bell] = self._place
            found = state.under(*self._place).values()
            over = state.is_cut(None) or any(record.version > after for record in found)
        if not over:
            self._clock.wait(bell, until - self._clock.now())
        with state.lock:
            del state.bells[bell]
        bell.clear()

    def wake(self) -> None:
        """End the wait, or the next one if none is under way."""
        self._bell.set()
