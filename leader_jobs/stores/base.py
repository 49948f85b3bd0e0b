"""
The store contract, in prose and types.

A store keeps two things for each election and decides every race.

*The electorate.* A candidate enrols under a lease and gets a token: tokens of an election only grow,
and the living candidate with the smallest token leads. A candidate is living until its lease runs
out, it withdraws, or (where the store can see it) its process dies. Whoever waits is told when the
candidate just ahead of it, or its own candidacy, changed; being told is a hint, never a verdict:
`Store.standing` gives the verdict, from one consistent (linearizable) look.

*The register.* Records are bytes under keys, each at a version; reads are linearizable. A commit
writes a batch in **one** guarded transaction. It changes everything or nothing: it succeeds only if
the given candidacy leads at that moment (when one is given) and every write's expected version is
the record's version. A refusal names the guard: `Fenced` or `Conflict`.

Every remote call takes *deadline*, a moment on the store's clock, and raises `StoreUnavailable` by
then; that means the outcome is unknown, never that nothing happened. `StoreRefused` and
`StoreUnusable` mean that trying again as things are is of no use.

A store object may be used by many threads. After a fork the child owns nothing: its copy of the
object forgets connections and locks without touching them and opens its own when first used; it may
enrol candidates of its own, but candidacies of the parent are not its to renew or withdraw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from leader_jobs.exceptions import StoreRefused

__all__ = [
    "ABSENT",
    "Candidacy",
    "Entrant",
    "Limits",
    "Origin",
    "Record",
    "Standing",
    "Store",
    "Survey",
    "Watch",
    "Write",
]

#: The expected version of a record that must not exist yet.
ABSENT = 0


@dataclass(frozen=True, slots=True)
class Candidacy:
    """
    One candidate's place in an electorate.

    Attributes:
        election: the election's name.
        id: the store's own name for this candidacy; unique, safe in a key and in a log.
        token: the fencing token its term will carry; grows with every candidacy of the election.
        ttl: the lease time in seconds the store *granted*, which may be more than was asked.
    """

    election: str
    id: str
    token: int
    ttl: float


@dataclass(frozen=True, slots=True)
class Standing:
    """
    Where a candidacy stands, seen at one revision of the store.

    Attributes:
        predecessor: the id of the living candidate just ahead, or None: then this one leads.
        revision: the store's revision of this look, for `Store.wait` to begin at.
    """

    predecessor: str | None
    revision: int

    @property
    def leads(self) -> bool:
        """Whether nobody is ahead."""
        return self.predecessor is None


@dataclass(frozen=True, slots=True)
class Entrant:
    """
    A candidate as others see it, in order of succession; foreign ones included.

    Attributes:
        id: the store's name for the candidacy.
        token: its token.
        proposal: what it said about itself when it enrolled: hostile bytes until parsed.
        ttl: the granted lease time in seconds, or None where it was not asked for or not allowed.
        remaining: seconds until the lease runs out unless renewed, or None likewise.
    """

    id: str
    token: int
    proposal: bytes
    ttl: float | None = None
    remaining: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record's bytes and the version a later write may expect."""

    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Survey:
    """
    One election among others that were looked at together.

    Attributes:
        candidates: in order of succession; the lease times are those of the first one alone.
        runners: who runs jobs of the election without standing in it; without lease times.
        records: the records asked for.
    """

    candidates: tuple[Entrant, ...]
    runners: tuple[Entrant, ...]
    records: Mapping[str, Record]


@dataclass(frozen=True, slots=True)
class Write:
    """
    One write of a commit.

    Attributes:
        key: the record's key within the election's register.
        value: the new bytes, or None to remove the record.
        expect: the version the record must be at (`ABSENT`: must not exist), or None for any.
    """

    key: str
    value: bytes | None
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one commit may carry.

    Attributes:
        guards: how many writes may expect a version.
        writes: how many writes there may be.
        size: how many bytes keys and values may add up to.
        at_once: how many commits it is worth having under way at once.
    """

    guards: int
    writes: int
    size: int
    at_once: int = 1

    def check(self, writes: Sequence[Write]) -> None:
        """
        Refuse a batch that no commit may carry.

        Raises:
            StoreRefused: it is beyond these limits, or names a record twice.
        """
        guards = sum(write.expect is not None for write in writes)
        size = sum(len(write.key.encode()) + len(write.value or b"") for write in writes)
        if guards > self.guards or len(writes) > self.writes or size > self.size:
            msg = (
                f"a commit of {len(writes)} writes, {guards} guards and {size} bytes is beyond the "
                f"limits of {self.writes} writes, {self.guards} guards and {self.size} bytes; split it"
            )
            raise StoreRefused(msg)
        if len({write.key for write in writes}) < len(writes):
            msg = "a commit names a record twice; merge the writes"
            raise StoreRefused(msg)


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a store's answers come from, as far as this process can tell.

    Attributes:
        cluster: the store's own name for its history; empty where it has none, or has not answered.
        seen_until: when a history that this process saw taken back last answered it; None if it saw
            none. A record written since then is of the present one.
    """

    cluster: str
    seen_until: datetime | None = None


class Watch(Protocol):
    """
    Word of changes in a part of a register, for one thread that waits for them again and again.

    After a fork the child may go on with its copy: what it waits by is its own.
    """

    def wait(self, after: int, *, timeout: float) -> None:
        """
        Wait until a record under the prefix may have a version greater than *after*.

        Returns at once, or nearly so, if one has already; else after *timeout* seconds at the latest,
        on `wake`, and on any trouble, but then not so soon that a loop of waits would spin. Never
        raises for a store that is away, and never says what happened: `Store.read` tells. That a
        record was removed need not end it.

        Args:
            after: the newest version that the caller knows of; 0 for none.
            timeout: in seconds.
        """
        ...

    def wake(self) -> None:
        """Make the `wait` that is under way in another thread, or else the next one, return now."""
        ...


class Store(Protocol):
    """Keeps electorates and registers; see the module's text for what holds."""

    @property
    def limits(self) -> Limits:
        """What one commit may carry."""
        ...

    @property
    def description(self) -> str:
        """The store in a few words for logs and pages: no password in it."""
        ...

    @property
    def origin(self) -> Origin:
        """
        Where answers come from at present; nothing is asked.

        A store that notices that its history was taken back says so here. Then `renew` and `standing`
        raise `CandidacyLost` for every candidacy of before and commits under them are `Fenced`,
        whatever stands in the store; other calls that were under way raise `StoreUnavailable`.
        """
        ...

    def enrol(self, election: str, proposal: bytes, ttl: float, *, deadline: float) -> Candidacy:
        """
        Stand in *election* under a lease of about *ttl* seconds.

        Returns:
            The candidacy, with the ttl that was granted. If the call fails, whatever it left behind
            goes away by itself with its lease.
        """
        ...

    def renew(self, candidacy: Candidacy, *, leading: bool, deadline: float) -> float:
        """
        Keep the candidacy's lease.

        Args:
            candidacy: ours.
            leading: True if a term rests on this renewal. Then the store returns only when it is
                certain that the renewal counted (on etcd: a linearizable read of our own key, by
                the same member in the same raft term, after the keepalive).
            deadline: when to give up.

        Returns:
            The lease time in seconds, counted from no earlier than the moment of the call.

        Raises:
            CandidacyLost: the lease or the candidate's entry is gone.
            StoreUnavailable: not known to have worked by *deadline*.
        """
        ...

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """
        Say where we stand: own entry and predecessor, at one revision.

        Raises:
            CandidacyLost: our own entry is gone.
        """
        ...

    def wait(self, candidacy: Candidacy, standing: Standing, *, timeout: float) -> None:
        """
        Wait until the predecessor (for a leader: our own entry) may have changed since *standing*.

        Returns after *timeout* seconds at the latest, on `wake`, and on any trouble; never raises
        for a store that is away, and never says what happened: ask `standing`.
        """
        ...

    def wake(self, candidacy: Candidacy) -> None:
        """Make the `wait` on this candidacy that is under way, or else the next one, return now."""
        ...

    def guard(self, candidacy: Candidacy) -> None:
        """
        From now on, have the candidacy given up at once should this process die.

        For stores that do not see processes themselves; the others do nothing. At its best, never
        certain: without it the next in line waits for the lease to run out. Never raises.
        """
        ...

    def lifeline(self, candidacy: Candidacy) -> tuple[int, ...]:
        """
        Return the file descriptors by which the store knows that the candidate's process lives.

        A helper process that keeps copies of them open keeps the candidacy from being taken for
        dead, within its lease, until it ends too; `withdraw` is not held up by it. Empty where the
        store does not see processes, or was not asked to `guard` this candidacy.
        """
        ...

    def withdraw(self, candidacy: Candidacy, *, deadline: float) -> None:
        """
        Give the candidacy up so that the next in line leads at once; harmless if it is gone.

        Never removes anything that belongs to another candidacy.
        """
        ...

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """
        List the living candidates in order of succession; the first one leads.

        Args:
            election: the election's name.
            deadline: when to give up.
            leases: also find out each lease's ttl and remaining time, where that is allowed.
        """
        ...

    def wait_for_change(self, election: str, *, timeout: float) -> None:
        """
        Wait until the electorate of *election* may have changed; for observers.

        Returns after *timeout* seconds at the latest. A change between an earlier look and this
        call may be missed until then, so look again after each return.
        """
        ...

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """
        Return every record of the election's register whose key starts with one of *prefixes*.

        All are as of one moment, however many prefixes there are; hundreds are welcome.
        """
        ...

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """
        Write a batch in one guarded transaction; keys must differ.

        Args:
            election: whose register.
            writes: within `limits`.
            candidacy: under whose term to write, or None to write unfenced.
            deadline: when to give up.

        Returns:
            The version that every written record now has.

        Raises:
            Fenced: the candidacy does not lead (nothing was written).
            Conflict: a record is not at its expected version (nothing was written).
            StoreUnavailable: the outcome is unknown. Never retried here: a retry could refuse its
                own first attempt, and only the caller can tell by reading.
        """
        ...

    def elections(self, *, deadline: float) -> tuple[str, ...]:
        """
        Return the names of all elections with a candidate or a record, sorted.

        What others left there under names that no election can have is not in it, nor are the
        electorates of workers (`leader_jobs.names.runners_of`). The candidates may be dead ones that
        nobody has removed yet.
        """
        ...

    def survey(
        self, elections: Sequence[str], *prefixes: str, deadline: float
    ) -> Mapping[str, Survey]:
        """
        Look at several elections at once; for observers, who would ask much of a server one by one.

        Args:
            elections: their names.
            prefixes: which records to read of each, as `read` does.
            deadline: when to give up.

        Returns:
            What was found, for each of the names; all of it was true at one moment.
        """
        ...

    def watch(self, election: str, prefix: str) -> "Watch":
        """
        Return a watch on the records of the election's register whose keys begin with *prefix*.

        Nothing is sent or opened before its first wait.
        """
        ...

    def check(self, election: str, *, deadline: float) -> None:
        """
        Make sure that this process could lead *election*: it may write there, and is let in anew.

        Changes nothing, and is cheap enough to be asked once a minute.

        Raises:
            StoreRefused: something is missing; the message ends with the remedy.
            StoreUnusable: likewise.
            StoreUnavailable: no answer by *deadline*.
        """
        ...

    def close(self) -> None:
        """Let go of connections and files; candidacies that still stand are not withdrawn."""
        ...
