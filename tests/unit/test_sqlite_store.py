"""What is the embedded store's alone: its file, its leases across boots, and what it says in trouble."""

import gc
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.exceptions import (
    CandidacyLost,
    Fenced,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
)
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.sqlite import SqliteStore
from leader_jobs.testing import ManualClock
from testsupport.background import Background

CLOCK = SystemClock()
Open = Callable[[], SqliteStore]


def within(seconds: float = 5.0, clock: Clock = CLOCK) -> float:
    """Return a deadline."""
    return clock.now() + seconds


def enrol(store: SqliteStore, ttl: float = 30.0) -> Candidacy:
    """Stand in the election all these tests are about."""
    return store.enrol("mail", b"", ttl, deadline=within())


def leads(store: SqliteStore, candidacy: Candidacy) -> bool:
    """Ask whether a candidacy leads."""
    return store.standing(candidacy, deadline=within()).leads


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "leader.sqlite3"


@pytest.fixture(name="open_store")
def _open_store(path: Path) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(SqliteStore(path, clock=CLOCK)))


@pytest.fixture(name="store")
def _store(open_store: Open) -> SqliteStore:
    return open_store()


@pytest.fixture(name="database")
def _database(path: Path, store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """Look into the database of *store* past the store."""
    store.read("mail", "", deadline=within())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def locks(path: Path) -> list[Path]:
    """Return the lock files beside the database."""
    return list(path.with_name(f"{path.name}-candidates").glob("*"))


def test_nothing_is_made_before_the_first_call(path: Path, open_store: Open) -> None:
    """A store object may be built anywhere, in a process that never uses it too."""
    assert str(path) in open_store().description
    assert not path.exists()


def test_the_database_is_in_wal_mode_with_our_mark(database: sqlite3.Connection) -> None:
    """Readers do not block writers, and tools can tell whose file it is and of which schema."""
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA application_id").fetchone() == (0x4C4A4F42,)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)


def test_commits_survive_a_power_failure(store: SqliteStore) -> None:
    """The store waits for the disk at every commit."""
    with store._database.transaction(within(), write=False) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_an_empty_file_is_as_good_as_none(path: Path, store: SqliteStore) -> None:
    """An operator may make the file beforehand, to give it an owner."""
    path.touch()

    assert leads(store, enrol(store))


def test_making_the_database_waits_for_others(path: Path, store: SqliteStore) -> None:
    """SQLite itself does not wait when another process is about to write to the new file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        enrolment = Background(lambda: enrol(store))
        assert not enrolment.over(within=0.2)
        other.execute("ROLLBACK")

        assert leads(store, enrolment.result())


def test_a_newer_schema_is_left_alone(database: sqlite3.Connection, open_store: Open) -> None:
    """A node that was not upgraded yet says so instead of guessing."""
    database.execute("PRAGMA user_version = 99")

    with pytest.raises(StoreUnusable, match=r"schema 99 .* upgrade"):
        enrol(open_store())


def test_the_database_of_another_program_is_left_alone(path: Path, store: SqliteStore) -> None:
    """A site's own database is not turned into a store by a slip in the settings."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE invoices (number)")
    before = path.read_bytes()

    with pytest.raises(StoreUnusable, match="another program; give the store a file of its own"):
        enrol(store)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_reported(path: Path, store: SqliteStore) -> None:
    """Garbage is named as such, in one line with the way out."""
    path.write_bytes(b"no database at all " * 1000)

    with pytest.raises(StoreUnusable, match="not a sound database; stop every node") as caught:
        enrol(store)
    assert "\n" not in str(caught.value)


def test_a_damaged_database_is_reported(path: Path, store: SqliteStore) -> None:
    """Pages that were overwritten are found out when they are read."""
    writes = [Write(f"record/{n}", b"x" * 500) for n in range(1000)]
    store.commit("mail", writes, candidacy=None, deadline=within())
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_000)

    with pytest.raises(StoreUnusable, match="not a sound database"):
        store.read("mail", "", deadline=within())


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_wrong_path_is_reported(tmp_path: Path, place: str) -> None:
    """A folder that is missing, and one where the file should be."""
    path = tmp_path / "missing" / "leader.sqlite3" if place == "folder" else tmp_path
    with closing(SqliteStore(path, clock=CLOCK)) as store, pytest.raises(StoreUnusable):
        enrol(store)


def test_lock_files_that_can_not_be_made_are_reported(path: Path, store: SqliteStore) -> None:
    """Whatever is in the way of the folder of locks is named, and nobody is enrolled."""
    path.with_name(f"{path.name}-candidates").touch()

    with pytest.raises(StoreUnusable, match=r"sqlite3-candidates can not be used"):
        enrol(store)
    assert store.candidates("mail", deadline=within()) == ()


def test_a_locked_database_is_unavailable_by_the_deadline(
    store: SqliteStore, database: sqlite3.Connection
) -> None:
    """A writer that never ends costs the caller no more than its deadline."""
    candidacy = enrol(store)
    database.execute("BEGIN IMMEDIATE")
    deadline = within(0.3)

    with pytest.raises(StoreUnavailable, match="another process kept it locked"):
        store.renew(candidacy, leading=True, deadline=deadline)
    assert -0.05 < CLOCK.now() - deadline < 2.0

    database.execute("ROLLBACK")
    store.renew(candidacy, leading=True, deadline=within())


def test_a_turn_that_never_comes_is_unavailable_by_the_deadline(store: SqliteStore) -> None:
    """Threads of one process wait for each other no longer than for other processes."""
    with store._database.transaction(within(), write=True):
        enrolment = Background(lambda: store.enrol("mail", b"", 30.0, deadline=within(0.2)))
        with pytest.raises(StoreUnavailable, match="deadline passed"):
            enrolment.result()


def test_a_full_database_is_unavailable_and_unchanged(store: SqliteStore) -> None:
    """A batch that does not fit leaves no part of itself behind."""
    store.commit("mail", [Write("record", b"old")], candidacy=None, deadline=within())
    with store._database.transaction(within(), write=True) as connection:
        connection.execute("PRAGMA max_page_count = 20")
    batch = [Write("record", b"new"), Write("large", b"x" * 200_000)]

    with pytest.raises(StoreUnavailable, match="disk is full; make room"):
        store.commit("mail", batch, candidacy=None, deadline=within())
    found = store.read("mail", "", deadline=within())
    assert {key: record.value for key, record in found.items()} == {"record": b"old"}


def test_candidacies_of_an_earlier_boot_are_void(
    store: SqliteStore, database: sqlite3.Connection
) -> None:
    """The boot-time clock began anew, so their expiry means nothing, however late it seems."""
    before = enrol(store)
    now = enrol(store)
    database.execute("UPDATE candidates SET boot = 'earlier' WHERE id = ?", (before.id,))

    assert [e.id for e in store.candidates("mail", deadline=within())] == [now.id]
    with pytest.raises(Fenced):
        store.commit("mail", [Write("k", b"")], candidacy=before, deadline=within())
    with pytest.raises(CandidacyLost):
        store.renew(before, leading=True, deadline=within())
    assert leads(store, now)


def test_the_dead_ahead_are_removed(path: Path, store: SqliteStore, open_store: Open) -> None:
    """Row and lock file of whoever died go when the next in line looks."""
    other = open_store()
    dead = [enrol(other), enrol(other)]
    heir = enrol(store)
    for candidacy in dead:
        other._places[candidacy.id].lock.release()

    assert leads(store, heir)
    assert [p.stem for p in locks(path)] == [heir.id]


def test_the_living_ahead_are_not_removed_with_the_dead(store: SqliteStore) -> None:
    """Between two living candidates, only the dead one goes."""
    first, dead, last = enrol(store), enrol(store), enrol(store)
    store._places[dead.id].lock.release()

    assert store.standing(last, deadline=within()).predecessor == first.id
    assert leads(store, first)


def test_without_its_lock_file_a_candidate_has_its_lease(path: Path, store: SqliteStore) -> None:
    """Somebody who tidies the folder up makes takeover slower, not unsafe."""
    first, second = enrol(store, ttl=1.0), enrol(store)
    for file in locks(path):
        file.unlink()

    assert not leads(store, second)
    while not leads(store, second):
        store.wait(second, store.standing(second, deadline=within()), timeout=5.0)
    with pytest.raises(CandidacyLost):
        store.renew(first, leading=True, deadline=within())


def test_lock_files_without_a_row_are_tidied_up(path: Path, store: SqliteStore) -> None:
    """What a process left that was killed while it enrolled goes with the next enrolment."""
    candidacy = enrol(store)
    orphan = locks(path)[0].with_name(f"{'0' * 32}.lock")
    orphan.touch()
    enrol(store)

    assert not orphan.exists()
    assert candidacy.id in {p.stem for p in locks(path)}


def test_a_failed_enrolment_leaves_nobody(store: SqliteStore) -> None:
    """An enrolment that was rolled back has no row and holds no lock."""
    other = enrol(store)
    with pytest.raises(StoreError):
        store.enrol("mail", None, 30.0, deadline=within())  # type: ignore[arg-type]  # to fail

    assert [e.id for e in store.candidates("mail", deadline=within())] == [other.id]
    assert list(store._places) == [other.id]


def test_a_replaced_database_ends_the_candidacies_of_the_old_one(
    path: Path, store: SqliteStore, open_store: Open
) -> None:
    """Two files are never two elections: whoever stands in a file that is gone finds out."""
    old = enrol(store)
    for file in path.parent.glob(f"{path.name}*"):
        if file.is_file():
            file.unlink()
    other = open_store()
    new = enrol(other)

    with pytest.raises(Fenced):
        store.commit("mail", [Write("k", b"old")], candidacy=old, deadline=within())
    with pytest.raises(CandidacyLost):
        store.renew(old, leading=True, deadline=within())
    other.commit("mail", [Write("k", b"new")], candidacy=new, deadline=within())
    assert store.read("mail", "k", deadline=within())["k"].value == b"new"


def test_closing_withdraws_nobody(open_store: Open) -> None:
    """A candidacy lives on until its lease ends, as on a store across the network."""
    store, other = open_store(), open_store()
    candidacy = enrol(store)
    store.close()

    assert not leads(other, enrol(other))
    assert leads(store, candidacy)


def test_a_store_nobody_refers_to_holds_nothing(path: Path, open_store: Open) -> None:
    """The locks of a store that was dropped are given up."""
    store = SqliteStore(path, clock=CLOCK)
    enrol(store)
    store.close()
    del store
    gc.collect()

    other = open_store()
    assert leads(other, enrol(other))


def test_a_withdrawal_that_fails_still_hands_over(
    store: SqliteStore, database: sqlite3.Connection, open_store: Open
) -> None:
    """When the row can not be removed the lock is released, and that says as much."""
    leader = enrol(store)
    other = open_store()
    heir = enrol(other)
    database.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        store.withdraw(leader, deadline=within(0.1))
    database.execute("ROLLBACK")

    assert leads(other, heir)


def test_leases_run_by_the_given_clock(path: Path) -> None:
    """Nothing in the store but its clock says when a lease is over."""
    clock = ManualClock()
    with closing(SqliteStore(path, clock=clock)) as store:
        candidacy = store.enrol("mail", b"", 10.0, deadline=within(1, clock))
        clock.advance(9.9)
        assert store.renew(candidacy, leading=True, deadline=within(1, clock)) == 10.0
        clock.advance(9.9)
        (entrant,) = store.candidates("mail", deadline=within(1, clock), leases=True)
        assert entrant.remaining == pytest.approx(0.1)
        clock.advance(0.2)
        assert store.candidates("mail", deadline=within(1, clock)) == ()
        with pytest.raises(CandidacyLost):
            store.renew(candidacy, leading=True, deadline=within(1, clock))


def test_waiting_costs_little(store: SqliteStore) -> None:
    """A standby that waits uses a small part of a processor; see the benchmarks for how small."""
    enrol(store)
    standby = enrol(store)
    standing = store.standing(standby, deadline=within())
    before = time.thread_time()
    store.wait(standby, standing, timeout=2.0)

    assert time.thread_time() - before < 0.04


def test_a_wait_sees_a_lease_that_is_not_renewed(store: SqliteStore) -> None:
    """A wait ends with the predecessor's lease, not a poll before a renewal would be due."""
    leader, standby = enrol(store, ttl=1.0), enrol(store)
    standing = store.standing(standby, deadline=within())
    wait = Background(lambda: store.wait(standby, standing, timeout=30.0))
    for _ in range(3):
        assert not wait.over(within=0.5)
        store.renew(leader, leading=True, deadline=within())

    wait.result(within=3.0)
    assert leads(store, standby)
