"""
The store in memory: one process, any clock, failures on demand. Made for tests.

It keeps the whole contract of `leader_jobs.stores.base`, so what passes here passes elsewhere as far
as that contract goes. Leases run out by the given clock and are looked at lazily, at each call.

What a real store does once in a year can be had at will: `MemoryStore.cut` and `MemoryStore.restore`
(nothing gets through), `MemoryStore.lose_reply` (done, but the caller never learns),
`MemoryStore.expire` (a living lease is revoked), and `MemoryStore.take_back` (a snapshot is restored).
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, Final

from leader_jobs.clock import Clock
from leader_jobs.exceptions import (
    CandidacyLost,
    Conflict,
    Fenced,
    StoreUnavailable,
)
from leader_jobs.names import check_election, is_election, runners_of
from leader_jobs.stores._memory_state import Electorate, MemoryWatch, Seat, Snapshot, State
from leader_jobs.stores.base import (
    ABSENT,
    Candidacy,
    Entrant,
    Limits,
    Origin,
    Record,
    Standing,
    Survey,
    Watch,
    Write,
)

__all__ = ["MemoryStore"]

# Those of an etcd server as it comes, so that a batch that fits here fits there.
_LIMITS: Final = Limits(guards=128, writes=128, size=1_000_000)


class MemoryStore:
    """
    A store that lives and dies with the process; in the child of a fork it is empty.

    Args:
        clock: what leases and deadlines are measured on; usually a `leader_jobs.testing.ManualClock`.
        limits: what one commit may carry; small ones put a caller's packing to the test.
        cluster: what its `origin` is called; with a name it is a store whose history can be taken back.
    """

    _named: ClassVar[dict[str, "MemoryStore"]] = {}

    def __init__(self, clock: Clock, *, limits: Limits = _LIMITS, cluster: str = "") -> None:
        self._clock = clock
        self._limits = limits
        self._cluster = cluster
        self._states: dict[int, State] = {}

    @classmethod
    def named(cls, name: str, clock: Clock) -> "MemoryStore":
        """
        Return the one store of this process that goes by *name*; the first call's clock counts.

        Args:
            name: what follows ``memory://`` in a store's URL.
            clock: the clock of the store if there is none of that name yet.
        """
        return cls._named.setdefault(name, cls(clock))

    @property
    def limits(self) -> Limits:
        """What one commit may carry."""
        return self._limits

    @property
    def description(self) -> str:
        """The store in a few words."""
        return "memory of this process"

    @property
    def origin(self) -> Origin:
        """What `take_back` makes of it; see `Store.origin`."""
        with self._state.lock:
            return self._state.origin

    def enrol(self, election: str, proposal: bytes, ttl: float, *, deadline: float) -> Candidacy:
        """Stand in *election*; exactly *ttl* seconds are granted."""
        with self._call("enrol", deadline) as state:
            electorate = self._electorate(state, election)
            state.revision += 1
            state.enrolled += 1
            # The process id keeps a parent's candidacies unknown to the child of a fork.
            name = f"{os.getpid()}-{state.enrolled}"
            candidacy = Candidacy(election, name, state.revision, ttl)
            electorate.add(Seat(candidacy, proposal, self._clock.now() + ttl))
            return candidacy

    def renew(self, candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        """Keep the candidacy's lease for its ttl from now."""
        with self._call("renew", deadline, candidacy) as state:
            self._seat(state, candidacy).expires = self._clock.now() + candidacy.ttl
            return candidacy.ttl

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """Say who is just ahead."""
        with self._call("standing", deadline, candidacy) as state:
            self._seat(state, candidacy)
            electorate = self._electorate(state, candidacy.election)
            return Standing(electorate.predecessor(candidacy.id), state.revision)

    def wait(self, candidacy: Candidacy, standing: Standing, *, timeout: float) -> None:
        """Wait until the predecessor or the candidate itself is gone, or the store is cut off."""
        state = self._state
        until = self._clock.now() + timeout
        watched = {candidacy.id, standing.predecessor or candidacy.id}
        while True:
            with state.lock:
                seats = self._electorate(state, candidacy.election).seats
                if state.is_cut(candidacy) or not watched <= seats.keys():
                    return
                seat = seats[candidacy.id]
                if seat.woken:
                    seat.woken = False
                    return
                # Nothing watched is gone, so whatever rang the bell before is old news.
                seat.bell.clear()
                until_look = min([until, *(seats[i].expires for i in watched)])
            if self._clock.wait(seat.bell, until_look - self._clock.now()):
                continue
            if self._clock.now() >= until:
                return

    def wake(self, candidacy: Candidacy) -> None:
        """End the wait of this candidacy, or its next one if none is under way."""
        state = self._state
        with state.lock:
            seat = self._electorate(state, candidacy.election).seats.get(candidacy.id)
            if seat is not None:
                seat.woken = True
                seat.bell.set()

    def guard(self, candidacy: Candidacy) -> None:
        """Do nothing: everything dies with the process."""

    def lifeline(self, candidacy: Candidacy) -> tuple[int, ...]:
        """Return nothing: this store sees leases, not processes."""
        return ()

    def withdraw(self, candidacy: Candidacy, *, deadline: float) -> None:
        """Give the candidacy up; harmless if it is gone."""
        with self._call("withdraw", deadline, candidacy) as state:
            electorate = self._electorate(state, candidacy.election)
            if candidacy.id in electorate.seats:
                state.revision += 1
                electorate.remove(candidacy.id)

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """List the living candidates in order of succession."""
        with self._call("candidates", deadline) as state:
            seats = self._electorate(state, election).seats
            return self._entrants(state, election, leases=len(seats) if leases else 0)

    def _entrants(self, state: State, election: str, *, leases: int) -> tuple[Entrant, ...]:
        now = self._clock.now()
        return tuple(
            Entrant(
                seat.candidacy.id,
                seat.candidacy.token,
                seat.proposal,
                ttl=seat.candidacy.ttl if place < leases else None,
                remaining=seat.expires - now if place < leases else None,
            )
            for place, seat in enumerate(self._electorate(state, election).seats.values())
        )

    def wait_for_change(self, election: str, *, timeout: float) -> None:
        """Wait until somebody enrols, withdraws or expires in *election*."""
        state = self._state
        until = self._clock.now() + timeout
        changed = threading.Event()
        with state.lock:
            self._electorate(state, election).observers.add(changed)
        try:
            while not changed.is_set() and self._clock.now() < until:
                with state.lock:
                    seats = self._electorate(state, election).seats.values()
                    until_look = min([until, *(seat.expires for seat in seats)])
                self._clock.wait(changed, until_look - self._clock.now())
        finally:
            with state.lock:
                self._electorate(state, election).observers.discard(changed)

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return the records whose keys start with one of *prefixes*."""
        with self._call("read", deadline) as state:
            return state.under(election, *prefixes)

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Write a batch; beyond the limits or with a key twice it is a `StoreRefused`."""
        with self._call("commit", deadline, candidacy) as state:
            self._limits.check(writes)
            if candidacy is not None:
                self._check_leads(state, candidacy)
            register = state.registers.setdefault(election, {})
            changed = tuple(w.key for w in writes if w.expect not in (None, _version(register, w)))
            if changed:
                raise Conflict(changed)
            state.revision += 1
            for write in writes:
                if write.value is None:
                    register.pop(write.key, None)
                else:
                    register[write.key] = Record(write.value, state.revision)
            state.ring(election, writes)
            return state.revision

    def elections(self, *, deadline: float) -> tuple[str, ...]:
        """Return the names of the elections with a living candidate or a record."""
        with self._call("elections", deadline) as state:
            named = [name for name in state.electorates if self._electorate(state, name).seats]
            named += [name for name, register in state.registers.items() if register]
            return tuple(sorted(filter(is_election, set(named))))

    def check(self, election: str, *, deadline: float) -> None:
        """Answer, unless it is cut off. See `Store.check`."""
        check_election(election)
        with self._call("check", deadline):
            pass

    def survey(
        self, elections: Sequence[str], *prefixes: str, deadline: float
    ) -> Mapping[str, Survey]:
        """Look at several elections at once."""
        with self._call("survey", deadline) as state:
            return {
                name: Survey(
                    candidates=self._entrants(state, name, leases=1),
                    runners=self._entrants(state, runners_of(name), leases=0),
                    records=state.under(name, *prefixes),
                )
                for name in elections
            }

    def watch(self, election: str, prefix: str) -> Watch:
        """Return a watch on the records whose keys start with *prefix*."""
        return MemoryWatch(lambda: self._state, self._clock, election, prefix)

    def close(self) -> None:
        """Do nothing: others may share the store, and candidacies stand until they expire."""

    def cut(self, candidacy_id: str | None = None) -> None:
        """
        Let calls fail with `StoreUnavailable`, without effect, until `restore`; waits return.

        Args:
            candidacy_id: whose calls; None for everybody's.
        """
        state = self._state
        with state.lock:
            state.cut.add(candidacy_id)
            for bell in state.bells if candidacy_id is None else ():
                bell.set()
            for electorate in state.electorates.values():
                for seat in electorate.seats.values():
                    if state.is_cut(seat.candidacy):
                        seat.bell.set()

    def restore(self) -> None:
        """Let everything through again."""
        state = self._state
        with state.lock:
            state.cut.clear()

    def lose_reply(self, *calls: str) -> None:
        """
        Let the next call that succeeds take effect and yet raise `StoreUnavailable`.

        Args:
            calls: the methods meant; ``enrol``, ``withdraw`` and ``commit`` if none is named, so
                that renewals in the background do not use it up.
        """
        state = self._state
        with state.lock:
            state.losing = calls or ("enrol", "withdraw", "commit")

    def expire(self, candidacy: Candidacy) -> None:
        """Revoke the lease of a living candidacy now, as an etcd leader may that was frozen."""
        state = self._state
        with state.lock:
            electorate = self._electorate(state, candidacy.election)
            if candidacy.id in electorate.seats:
                electorate.remove(candidacy.id)

    def snapshot(self) -> Snapshot:
        """Return a copy of all there is, for `take_back`."""
        state = self._state
        with state.lock:
            return Snapshot.of(state)

    def take_back(self, snapshot: Snapshot, *, cluster: str = "", unseen: bool = False) -> None:
        """
        Restore *snapshot* in the place of what there is, as an operator of etcd may.

        Args:
            snapshot: what to restore; living candidacies in it go on living.
            cluster: the name of the history that begins; the former one's if empty.
            unseen: whether this process does not notice, as one that was started afterwards would not.
        """
        state = self._state
        with state.lock:
            snapshot.restore(state)
            seen_until = state.origin.seen_until if unseen else self._clock.utcnow()
            state.origin = Origin(cluster or state.origin.cluster, seen_until)
            state.former |= set() if unseen else snapshot.candidacies

    @property
    def _state(self) -> State:
        # One per process: the child of a fork must not touch its parent's lock, which may be held.
        pid = os.getpid()
        found = self._states.get(pid)
        return found or self._states.setdefault(pid, State(origin=Origin(self._cluster)))

    @contextmanager
    def _call(
        self, name: str, deadline: float, candidacy: Candidacy | None = None
    ) -> Iterator[State]:
        """Run one call alone, unless it is late or cut off, and lose its reply if asked to."""
        state = self._state
        with state.lock:
            if self._clock.now() >= deadline:
                msg = f"{name}: the deadline had passed before the call; allow it more time"
                raise StoreUnavailable(msg)
            if state.is_cut(candidacy):
                msg = f"{name}: the store is cut off; call restore() to reach it again"
                raise StoreUnavailable(msg)
            yield state
            if name in state.losing:
                state.losing = ()
                msg = f"{name}: the reply was lost; the call took effect"
                raise StoreUnavailable(msg)

    def _electorate(self, state: State, election: str) -> Electorate:
        """Return the electorate without those whose lease has run out."""
        electorate = state.electorates.setdefault(election, Electorate())
        now = self._clock.now()
        for name in [name for name, seat in electorate.seats.items() if seat.expires <= now]:
            electorate.remove(name)
        return electorate

    def _seat(self, state: State, candidacy: Candidacy) -> Seat:
        seat = self._electorate(state, candidacy.election).seats.get(candidacy.id)
        if seat is None or candidacy in state.former:
            msg = f"candidacy {candidacy.id} of {candidacy.election!r} is gone; enrol again"
            raise CandidacyLost(msg)
        return seat

    def _check_leads(self, state: State, candidacy: Candidacy) -> None:
        first = next(iter(self._electorate(state, candidacy.election).seats), None)
        if first != candidacy.id or candidacy in state.former:
            msg = f"the term {candidacy.token} of {candidacy.election!r} does not lead"
            raise Fenced(msg)


def _version(register: Mapping[str, Record], write: Write) -> int:
    record = register.get(write.key)
    return ABSENT if record is None else record.version
