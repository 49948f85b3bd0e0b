"""
The embedded store: one host, many processes, no server; an SQLite database and a lock per candidate.

A candidate is *living* while three things hold: its row is of this boot of the host, its lease has
not run out on the boot-time clock, and its process holds its lock file. None of them ever comes back
once it is gone, so whoever is found dead may be removed by anybody at any time. The lock shows the
death of a process within a poll; the lease supersedes a process that is alive but frozen.

Everything that decides (who is ahead, whether a commit is fenced) happens under the database's write
lock, so a process that is frozen inside a commit has either done it before its successor's term
begins or never does it. The price: a process stopped inside its transaction, a millisecond or so,
keeps the others from writing until it goes on or is killed; they raise `StoreUnavailable`.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from leader_jobs.clock import Clock
from leader_jobs.exceptions import CandidacyLost, Fenced, StoreError
from leader_jobs.names import check_election, runners_of
from leader_jobs.stores._sqlite_database import Database
from leader_jobs.stores._sqlite_deaths import Deaths
from leader_jobs.stores._sqlite_files import LOCK_SUFFIX, LockFile, boot_id, is_held
from leader_jobs.stores._sqlite_register import (
    advance,
    apply,
    elections,
    records,
    revision_of,
)
from leader_jobs.stores._sqlite_watch import RegisterWatch
from leader_jobs.stores.base import (
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

__all__ = ["SqliteStore"]

_LIMITS: Final = Limits(guards=10_000, writes=20_000, size=64 * 2**20)
# How long a look while waiting may itself wait for its turn.
_LOOK: Final = 1.0
# Between looks for what the kernel does not tell: leases that ran out, rows that somebody removed.
_TOLD: Final = 5.0
_LEASES: Final = (
    "SELECT id, expires FROM candidates"
    " WHERE election = ? AND boot = ? AND expires > ? ORDER BY token"
)
_LEASES_OF_TWO: Final = (
    "SELECT id, expires FROM candidates WHERE id IN (?, ?) AND boot = ? AND expires > ?"
)
_BEYOND: Final = 2**63 - 1


class _Row(NamedTuple):
    """One candidate as the database keeps it."""

    id: str
    token: int
    expires: float
    boot: str
    proposal: bytes
    ttl: float


@dataclass(frozen=True, slots=True)
class _Place:
    """What this process holds for a candidacy of its own."""

    lock: LockFile
    wake: threading.Event = field(default_factory=threading.Event)


class SqliteStore:
    """
    A store in a database file that all candidates, on one host, have in common.

    Nothing is opened before the first call. Candidacies end with their process, not with `close`:
    the lock files of those that still stand stay locked for as long as this object is referred to.

    Args:
        path: the database; made if it is missing, in a folder that must exist. Beside it come its
            ``-wal`` and ``-shm`` files and the folder ``<path>-candidates`` of lock files, which
            belongs to one user: run all processes of a store as that user.
        clock: where moments come from; must be the boot-time clock unless all is in one process.
        poll: seconds between two looks of `wait` where the kernel can not tell it of a death, as
            under gevent: what noticing takes at most. Each look costs some 0.3 ms of processor time.
    """

    def __init__(self, path: Path, *, clock: Clock, poll: float = 0.1) -> None:
        self._path = path.resolve()
        self._folder = self._path.with_name(self._path.name + "-candidates")
        self._clock = clock
        self._poll = poll
        self._boot = boot_id()
        self._database = Database(self._path, clock)
        self._places: dict[str, _Place] = {}
        self._deaths = Deaths()

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path}>"

    @property
    def limits(self) -> Limits:
        """What one commit may carry; see `Store.limits`."""
        return _LIMITS

    @property
    def description(self) -> str:
        """The store in a few words; see `Store.description`."""
        return f"SQLite database {self._path}"

    @property
    def origin(self) -> Origin:
        """No name: an old copy of the file in its place is not noticed."""
        return Origin("")

    def enrol(self, election: str, proposal: bytes, ttl: float, *, deadline: float) -> Candidacy:
        """Stand in *election*; the ttl is granted as asked. See `Store.enrol`."""
        lock = None
        try:
            # The lock file is made inside the transaction: no fork of this process can come between
            # (it would copy a lock nobody knows of yet), and no other process tidies up meanwhile.
            with self._database.transaction(deadline, write=True) as connection:
                lock = LockFile(self._folder)
                connection.execute(
                    "INSERT INTO candidates (election, id, proposal, ttl, expires, boot)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (election, lock.name, proposal, ttl, self._clock.now() + ttl, self._boot),
                )
                (token,) = connection.execute("SELECT last_insert_rowid()").fetchone()
                advance(connection)
                self._tidy(connection)
        except BaseException:
            if lock is not None:
                # It may have been committed all the same; unlocked, it counts as dead.
                lock.release()
            raise
        self._places[lock.name] = _Place(lock)
        return Candidacy(election, lock.name, token, ttl)

    def renew(self, candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        """Keep the lease; a renewal that returns is certain, leading or not. See `Store.renew`."""
        if self._place(candidacy) is None:
            raise _lost(candidacy)
        with self._database.transaction(deadline, write=True) as connection:
            now = self._clock.now()
            kept = connection.execute(
                "UPDATE candidates SET expires = ? WHERE id = ? AND boot = ? AND expires > ?",
                (now + candidacy.ttl, candidacy.id, self._boot, now),
            ).rowcount
            if not kept:
                _remove(connection, [candidacy.id])
        if not kept:
            self._vacate(candidacy)
            raise _lost(candidacy)
        return candidacy.ttl

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """Say where we stand, and remove the dead ahead of us. See `Store.standing`."""
        # A write transaction even if there is nothing to remove: whatever a predecessor had begun to
        # commit is done before we learn that we lead.
        with self._database.transaction(deadline, write=True) as connection:
            if not self._stands(connection, candidacy):
                raise _lost(candidacy)
            dead, predecessor = self._look_ahead(connection, candidacy)
            _remove(connection, dead)
            revision = revision_of(connection)
        for name in dead:
            self._lock_file(name).unlink(missing_ok=True)
        return Standing(predecessor, revision)

    def wait(self, candidacy: Candidacy, standing: Standing, *, timeout: float) -> None:
        """Wait for a change around us. See `Store.wait`."""
        place = self._place(candidacy)
        wake = threading.Event() if place is None else place.wake
        first = standing.predecessor
        names = {candidacy.id, first or candidacy.id}

        def look() -> dict[str, float]:
            return self._leases(_LEASES_OF_TWO, candidacy.id, first)

        told = first is None or self._deaths.tell(self._lock_file(first), wake)
        self._watch(look, names, first, wake, timeout, pause=_TOLD if told else self._poll)

    def wake(self, candidacy: Candidacy) -> None:
        """Make a `wait` in another thread return, or the next one if none is under way."""
        place = self._place(candidacy)
        if place is not None:
            place.wake.set()

    def guard(self, candidacy: Candidacy) -> None:
        """Do nothing: the kernel tells of a death."""

    def lifeline(self, candidacy: Candidacy) -> tuple[int, ...]:
        """Return the descriptor of the candidate's locked file."""
        place = self._place(candidacy)
        return () if place is None else place.lock.descriptors

    def withdraw(self, candidacy: Candidacy, *, deadline: float) -> None:
        """Give up a candidacy of this process; of any other, do nothing. See `Store.withdraw`."""
        place = self._place(candidacy)
        if place is None:
            return
        try:
            with self._database.transaction(deadline, write=True) as connection:
                _remove(connection, [candidacy.id])
        except BaseException:
            # Unlocked, the row counts as dead even though it could not be removed.
            place.lock.release()
            raise
        self._vacate(candidacy)

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """List the living candidates in order of succession. See `Store.candidates`."""
        with self._database.transaction(deadline, write=False) as connection:
            rows = _rows(connection, election)
            return self._entrants(rows, leases=len(rows) if leases else 0)

    def _entrants(self, rows: Iterable[_Row], *, leases: int) -> tuple[Entrant, ...]:
        """Return the living ones among *rows*; with the lease times of the first *leases*."""
        now = self._clock.now()
        living = (row for row in rows if self._is_living(row, now))
        return tuple(
            Entrant(
                row.id,
                row.token,
                row.proposal,
                ttl=row.ttl if place < leases else None,
                remaining=row.expires - now if place < leases else None,
            )
            for place, row in enumerate(living)
        )

    def wait_for_change(self, election: str, *, timeout: float) -> None:
        """Wait for a change of the electorate. See `Store.wait_for_change`."""

        def look() -> dict[str, float]:
            return self._leases(_LEASES, election)

        try:
            names = look()
        except StoreError:
            return
        # Not one that is dead: its end was there to see before, and would end the wait at once.
        first = next((name for name in names if is_held(self._lock_file(name))), None)
        self._watch(look, names.keys(), first, threading.Event(), timeout, pause=self._poll)

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return the records whose keys begin with one of *prefixes*. See `Store.read`."""
        with self._database.transaction(deadline, write=False) as connection:
            return records(connection, election, prefixes)

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Write a batch in one guarded transaction. See `Store.commit`."""
        _LIMITS.check(writes)
        with self._database.transaction(deadline, write=True) as connection:
            if candidacy is not None and not self._leads(connection, candidacy):
                msg = f"token {candidacy.token} does not lead election {candidacy.election!r}"
                raise Fenced(msg)
            return apply(connection, election, writes)

    def elections(self, *, deadline: float) -> tuple[str, ...]:
        """Return the elections with a candidate or a record. See `Store.elections`."""
        with self._database.transaction(deadline, write=False) as connection:
            return elections(connection)

    def survey(
        self, elections: Sequence[str], *prefixes: str, deadline: float
    ) -> Mapping[str, Survey]:
        """Look at several elections in one transaction. See `Store.survey`."""
        with self._database.transaction(deadline, write=False) as connection:
            return {
                name: Survey(
                    candidates=self._entrants(_rows(connection, name), leases=1),
                    runners=self._entrants(_rows(connection, runners_of(name)), leases=0),
                    records=records(connection, name, prefixes),
                )
                for name in elections
            }

    def watch(self, election: str, prefix: str) -> Watch:
        """Return a watch on the records whose keys begin with *prefix*. See `Store.watch`."""
        return RegisterWatch(self._database, election, prefix, clock=self._clock, poll=self._poll)

    def check(self, election: str, *, deadline: float) -> None:
        """Take the turn to write, and write nothing. See `Store.check`."""
        check_election(election)
        with self._database.transaction(deadline, write=True):
            pass

    def close(self) -> None:
        """Close the database; a later call opens it again. See `Store.close`."""
        self._database.close()

    def _place(self, candidacy: Candidacy) -> _Place | None:
        """Return what this process holds for the candidacy; nothing, if it is that of a parent."""
        place = self._places.get(candidacy.id)
        return place if place is not None and place.lock.held else None

    def _is_living(self, row: _Row, now: float) -> bool:
        return row.boot == self._boot and row.expires > now and is_held(self._lock_file(row.id))

    def _stands(self, connection: sqlite3.Connection, candidacy: Candidacy) -> bool:
        found = connection.execute(
            "SELECT 1 FROM candidates WHERE id = ? AND boot = ? AND expires > ?",
            (candidacy.id, self._boot, self._clock.now()),
        )
        return found.fetchone() is not None

    def _look_ahead(
        self, connection: sqlite3.Connection, candidacy: Candidacy
    ) -> tuple[list[str], str | None]:
        """Return the dead between us and the nearest living candidate ahead, and that one."""
        now = self._clock.now()
        dead: list[str] = []
        for row in reversed(_rows(connection, candidacy.election, candidacy.token)):
            if self._is_living(row, now):
                return dead, row.id
            dead.append(row.id)
        return dead, None

    def _leads(self, connection: sqlite3.Connection, candidacy: Candidacy) -> bool:
        if not self._stands(connection, candidacy):
            return False
        _, predecessor = self._look_ahead(connection, candidacy)
        return predecessor is None

    def _leases(self, statement: str, *arguments: str | None) -> dict[str, float]:
        """Return when the leases of the candidates asked for end; those that have are left out."""
        now = self._clock.now()
        with self._database.transaction(now + _LOOK, write=False) as connection:
            return dict(connection.execute(statement, (*arguments, self._boot, now)).fetchall())

    def _watch(
        self,
        look: Callable[[], dict[str, float]],
        names: AbstractSet[str],
        first: str | None,
        wake: threading.Event,
        timeout: float,
        *,
        pause: float,
    ) -> None:
        """Return when *look* no longer finds *names*, *first* dies, *wake* is set, or in time."""
        end = self._clock.now() + timeout
        mark, expiry = None, 0.0
        try:
            while True:
                now = self._clock.now()
                seen = self._database.mark(now + _LOOK)
                if seen != mark or now >= expiry:
                    leases = look()
                    if leases.keys() != names:
                        return
                    mark, expiry = seen, min(leases.values(), default=end)
                if first is not None and not is_held(self._lock_file(first)):
                    return
                soon = max(0.0, min(pause, end - now, expiry - now))
                if now >= end or self._clock.wait(wake, soon):
                    return
        except (StoreError, OSError):
            return
        finally:
            wake.clear()

    def _lock_file(self, name: str) -> Path:
        return self._folder / f"{name}{LOCK_SUFFIX}"

    def _vacate(self, candidacy: Candidacy) -> None:
        place = self._places.pop(candidacy.id, None)
        if place is not None:
            place.lock.remove()

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Remove the lock files without a row: their process was killed between the two."""
        standing = {name for (name,) in connection.execute("SELECT id FROM candidates")}
        for path in self._folder.glob(f"*{LOCK_SUFFIX}"):
            if path.stem not in standing:
                path.unlink(missing_ok=True)


def _lost(candidacy: Candidacy) -> CandidacyLost:
    msg = f"candidacy {candidacy.token} of election {candidacy.election!r} is over; enrol again"
    return CandidacyLost(msg)


def _rows(connection: sqlite3.Connection, election: str, before: int = _BEYOND) -> list[_Row]:
    """Return the candidates whose tokens are smaller than *before*, in order of succession."""
    found = connection.execute(
        "SELECT id, token, expires, boot, proposal, ttl FROM candidates"
        " WHERE election = ? AND token < ? ORDER BY token",
        (election, before),
    )
    return [_Row._make(row) for row in found]


def _remove(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    for name in names:
        connection.execute("DELETE FROM candidates WHERE id = ?", (name,))
        advance(connection)
