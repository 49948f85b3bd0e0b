"""
Random histories of an election, each step compared with a model of a few lines.

The model says what the contract promises: the living candidate with the smallest token leads, tokens
and versions only grow, and records change by commits that hold the fence and every guard, as a whole
or not at all.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import CandidacyLost, Conflict, Fenced, StoreUnavailable
from leader_jobs.stores.base import ABSENT, Candidacy, Record, Store, Write
from leader_jobs.stores.factory import open_store
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.stores.sqlite import SqliteStore
from leader_jobs.testing import ManualClock
from testsupport.etcd import EtcdCluster
from testsupport.over_grpc import etcd_url
from testsupport.place import ELECTION

LONG = 60.0


@dataclass(frozen=True)
class Entry:
    """A candidacy and the store object, as if the process, that it belongs to."""

    candidacy: Candidacy
    store: Store


# -- what may happen --------------------------------------------------------------------------------

#: How a drawn write is guarded; "old" is a version the store once gave out.
GUARDS = ("none", "right", "absent", "old", "future")
DRAWN_WRITES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.one_of(st.none(), st.binary(max_size=3)),
        st.sampled_from(GUARDS),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda drawn: drawn[0],
)
DrawnWrites = list[tuple[str, bytes | None, str]]


class StoreMachine(RuleBasedStateMachine):
    """
    Everything a store can be asked to do while no time passes.

    Args:
        open_another: opens one more store object on the same data.
        clock: what those stores measure time on.
    """

    entries: Bundle[Entry] = Bundle("entries")

    def __init__(self, open_another: Callable[[], Store], clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self._open_another = open_another
        self._opened = ExitStack()
        self.stores: list[Store] = []
        self.open_store()
        # The model: living candidates in order with the end of their leases, and the records.
        self.seats: dict[str, tuple[Candidacy | None, float]] = {}
        self.records: dict[str, Record] = {}
        self.tokens = [0]
        self.versions = [ABSENT]

    def teardown(self) -> None:
        """Leave no lease and no open file behind."""
        for candidacy, _ in self.seats.values():
            if candidacy is not None:
                self.stores[0].withdraw(candidacy, deadline=self.deadline())
        self._opened.close()

    def deadline(self) -> float:
        """Return a deadline no call should need."""
        return self.clock.now() + 20.0

    def leader(self) -> str | None:
        """Return the id of the candidate that must lead."""
        return next(iter(self.seats), None)

    def writes(self, drawn: DrawnWrites) -> tuple[list[Write], set[str]]:
        """Return the drawn writes with their guards, and the keys whose guards do not hold."""
        writes = []
        for key, value, guard in drawn:
            current = self.records[key].version if key in self.records else ABSENT
            expected = {
                "none": None,
                "right": current,
                "absent": ABSENT,
                "old": self.versions[-2:][0],
                "future": self.versions[-1] + 1,
            }
            writes.append(Write(key, value, expect=expected[guard]))
        wrong = {
            w.key
            for w in writes
            if w.expect is not None
            and w.expect != (self.records[w.key].version if w.key in self.records else ABSENT)
        }
        return writes, wrong

    def apply(self, writes: list[Write], version: int) -> None:
        """Note in the model what a commit did."""
        # Removing what is not there may be no change of the store at all.
        changes = any(w.value is not None or w.key in self.records for w in writes)
        assert version > self.versions[-1] or not changes
        self.versions.append(max(version, self.versions[-1]))
        for write in writes:
            if write.value is None:
                self.records.pop(write.key, None)
            else:
                self.records[write.key] = Record(write.value, version)

    @precondition(lambda self: len(self.stores) < 3)
    @rule()
    def open_store(self) -> None:
        """Another process comes along."""
        self.stores.append(self._opened.enter_context(closing(self._open_another())))

    @precondition(lambda self: len(self.seats) < 6)
    @rule(target=entries, index=st.integers(0, 2), ttl=st.sampled_from([2.0, 5.0, 20.0]))
    def enrol(self, index: int, ttl: float) -> Entry:
        """A candidate enrols; its token is greater than any before."""
        store = self.stores[index % len(self.stores)]
        candidacy = store.enrol(ELECTION, b"proposal", self.lease(ttl), deadline=self.deadline())

        assert candidacy.token > self.tokens[-1]
        assert candidacy.id not in self.seats
        self.tokens.append(candidacy.token)
        self.seats[candidacy.id] = (candidacy, self.clock.now() + candidacy.ttl)
        return Entry(candidacy, store)

    def lease(self, ttl: float) -> float:
        """Return the ttl to ask for: one that no example outlives."""
        return max(ttl, LONG)

    @rule(entry=entries, leading=st.booleans())
    def renew(self, entry: Entry, leading: bool) -> None:
        """The living keep their lease, the others are told."""
        candidacy = entry.candidacy
        if candidacy.id in self.seats:
            ttl = entry.store.renew(candidacy, leading=leading, deadline=self.deadline())
            assert ttl == candidacy.ttl
            self.seats[candidacy.id] = (candidacy, self.clock.now() + ttl)
        else:
            with pytest.raises(CandidacyLost):
                entry.store.renew(candidacy, leading=leading, deadline=self.deadline())

    @rule(entry=entries)
    def withdraw(self, entry: Entry) -> None:
        """A candidate leaves, perhaps again."""
        entry.store.withdraw(entry.candidacy, deadline=self.deadline())
        self.seats.pop(entry.candidacy.id, None)

    @rule(entry=consumes(entries))
    def withdraw_for_good(self, entry: Entry) -> None:
        """A candidate leaves and is heard of no more."""
        self.withdraw(entry)

    @rule(entry=st.one_of(st.none(), entries), index=st.integers(0, 2), drawn=DRAWN_WRITES)
    def commit(self, entry: Entry | None, index: int, drawn: DrawnWrites) -> None:
        """Somebody writes: under the term that leads, under another, or under none."""
        store = entry.store if entry else self.stores[index % len(self.stores)]
        candidacy = entry.candidacy if entry else None
        writes, wrong = self.writes(drawn)

        def commit() -> int:
            return store.commit(ELECTION, writes, candidacy=candidacy, deadline=self.deadline())

        if candidacy is not None and candidacy.id != self.leader():
            with pytest.raises(Fenced):
                commit()
        elif wrong:
            with pytest.raises(Conflict) as caught:
                commit()
            assert set(caught.value.keys) == wrong
        else:
            self.apply(writes, commit())

    @rule(entry=entries)
    def standing(self, entry: Entry) -> None:
        """Each living candidate sees the one just ahead, and only the first leads."""
        candidacy = entry.candidacy
        if candidacy.id not in self.seats:
            with pytest.raises(CandidacyLost):
                entry.store.standing(candidacy, deadline=self.deadline())
            return
        standing = entry.store.standing(candidacy, deadline=self.deadline())
        ahead = [None, *self.seats]
        assert standing.predecessor == ahead[ahead.index(candidacy.id) - 1]
        assert standing.leads == (candidacy.id == self.leader())

    @invariant()
    def every_store_shows_the_model(self) -> None:
        """The living in order of their tokens, and the records, neither more nor less."""
        store = self.stores[-1]
        entrants = store.candidates(ELECTION, deadline=self.deadline())
        assert [entrant.id for entrant in entrants] == list(self.seats)
        tokens = [entrant.token for entrant in entrants]
        assert tokens == sorted(set(tokens))
        assert dict(store.read(ELECTION, "", deadline=self.deadline())) == self.records

    @invariant()
    def at_most_one_leads(self) -> None:
        """Of all who live, the one with the smallest token and nobody else."""
        living = [candidacy for candidacy, _ in self.seats.values() if candidacy is not None]
        leading = [c for c in living if self.stores[0].standing(c, deadline=self.deadline()).leads]
        assert [c.id for c in leading] == [c.id for c in living if c.id == self.leader()]
        assert len(leading) <= 1


class TimedMachine(StoreMachine):
    """As above, and leases run out."""

    def __init__(self, open_another: Callable[[], Store], clock: ManualClock) -> None:
        super().__init__(open_another, clock)
        self.manual = clock

    def lease(self, ttl: float) -> float:
        """Return the ttl to ask for: short ones are what this machine is about."""
        return ttl

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 6.0]))
    def advance(self, seconds: float) -> None:
        """Time passes, and whoever did not renew in time is out."""
        self.manual.advance(seconds)
        now = self.clock.now()
        self.seats = {name: seat for name, seat in self.seats.items() if seat[1] > now}

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def step_wall(self, seconds: float) -> None:
        """The wall clock steps, and no lease notices."""
        self.manual.step_wall(seconds)


class FaultyMachine(TimedMachine):
    """As above, on a store that loses replies and revokes leases when told to."""

    @property
    def memory(self) -> MemoryStore:
        """The store of this machine, which there is only one of."""
        store = self.stores[0]
        assert isinstance(store, MemoryStore)
        return store

    @rule(entry=StoreMachine.entries)
    def revoke(self, entry: Entry) -> None:
        """A lease ends early, as an etcd leader that was frozen may end it."""
        self.memory.expire(entry.candidacy)
        self.seats.pop(entry.candidacy.id, None)

    @precondition(lambda self: len(self.seats) < 6)
    @rule()
    def enrol_without_reply(self) -> None:
        """A candidate enrols and never learns of it; it stands until its lease is over."""
        self.memory.lose_reply("enrol")
        with pytest.raises(StoreUnavailable):
            self.memory.enrol(ELECTION, b"orphan", 5.0, deadline=self.deadline())
        orphan = self.memory.candidates(ELECTION, deadline=self.deadline())[-1]
        assert orphan.token > self.tokens[-1]
        self.tokens.append(orphan.token)
        self.seats[orphan.id] = (None, self.clock.now() + 5.0)

    @rule(entry=StoreMachine.entries, drawn=DRAWN_WRITES)
    def commit_without_reply(self, entry: Entry, drawn: DrawnWrites) -> None:
        """A commit whose reply is lost was either done as a whole or refused as any other."""
        writes, wrong = self.writes(drawn)
        if entry.candidacy.id != self.leader() or wrong:
            return
        self.memory.lose_reply("commit")
        with pytest.raises(StoreUnavailable):
            self.memory.commit(
                ELECTION, writes, candidacy=entry.candidacy, deadline=self.deadline()
            )
        # The writer finds out by reading, as the contract asks it to.
        found = self.memory.read(ELECTION, "", deadline=self.deadline())
        written = [found[w.key].version for w in writes if w.value is not None]
        self.apply(writes, max(written, default=self.versions[-1] + 1))

    @rule(entry=StoreMachine.entries)
    def call_during_a_cut(self, entry: Entry) -> None:
        """Nothing gets through, and nothing comes of it later."""
        self.memory.cut()
        with pytest.raises(StoreUnavailable):
            self.memory.withdraw(entry.candidacy, deadline=self.deadline())
        with pytest.raises(StoreUnavailable):
            self.enrol(0, 5.0)
        self.memory.restore()


# -- on each store ----------------------------------------------------------------------------------


def run(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> None:
    """Run that many random histories of that length."""
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
    )


def test_memory_follows_the_model() -> None:
    """Leases, lost replies, revoked leases and partitions on the store in memory."""

    class Machine(FaultyMachine):
        def __init__(self) -> None:
            clock = ManualClock()
            store = MemoryStore(clock)
            super().__init__(lambda: store, clock)

    run(Machine, examples=300, steps=50)


def test_sqlite_follows_the_model(tmp_path: Path) -> None:
    """Leases and several store objects on one database."""
    numbers = count()

    class Machine(TimedMachine):
        def __init__(self) -> None:
            clock, path = ManualClock(), tmp_path / f"{next(numbers)}.sqlite3"
            super().__init__(lambda: SqliteStore(path, clock=clock), clock)

    run(Machine, examples=100, steps=40)


@pytest.mark.etcd
def test_etcd_follows_the_model(etcd: EtcdCluster, namespace: str) -> None:
    """Several store objects on a real server, whose time nobody moves."""
    numbers, clock = count(), SystemClock()

    class Machine(StoreMachine):
        def __init__(self) -> None:
            where = Settings(store=etcd_url(etcd), namespace=f"{namespace}/{next(numbers)}")
            super().__init__(lambda: open_store(where, clock=clock), clock)

    run(Machine, examples=12, steps=20)
