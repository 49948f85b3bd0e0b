"""
A fleet of nodes in one process, with everything real but threads, time and the network.

Each node has its own ledger, runner, ticks and pool. Their threads take turns: they stop before and
after each call of the store, wherever they wait, and inside the bodies of jobs, and the test says
who goes on. So any interleaving can be had, and the same one again.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from leader_jobs.candidate import Candidate
from leader_jobs.exceptions import CandidacyLost, CommitRefused, StoreUnavailable
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim, Ledger
from leader_jobs.proposals import Proposal
from leader_jobs.runner import JobRunner
from leader_jobs.runpool import RunPool
from leader_jobs.runs import Run, current_run
from leader_jobs.stores.base import Candidacy, Entrant, Limits, Record, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import EndReason, Term
from leader_jobs.testing import ManualClock
from testsupport.lockstep import Task, actor, park
from testsupport.place import ELECTION

__all__ = ["TTL", "Commit", "FleetClock", "FleetStore", "Node"]

TTL = 15.0
_VALID = 12.0
_RENEW_EVERY = 5.0


@dataclass(frozen=True)
class Commit:
    """
    What one commit changed, and the state of the world at that moment.

    Attributes:
        actor: the incarnation that committed.
        leader: the incarnation that led.
        living: all that stood in the election when the actor last looked, a lease's time ago at most.
        before: the election's records before it.
        after: the election's records after it.
    """

    actor: str
    leader: str | None
    living: frozenset[str]
    before: Mapping[str, Record]
    after: Mapping[str, Record]


@dataclass(eq=False)
class Body:
    """A body that is running, and how the test wants it to end."""

    run: Run
    done: bool = False
    fails: bool = False


class FleetClock(ManualClock):
    """A clock on which only the test's own thread never waits."""

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Park until *event* is set or the clock was moved by *timeout* seconds."""
        until = self.now() + timeout
        park(lambda: event.is_set() or self.now() >= until)
        return event.is_set()


class FleetStore(MemoryStore):
    """
    The store in memory, each call of which may be interrupted before and after it has its effect.

    Args:
        clock: what leases and deadlines are measured on.
        limits: what one commit may carry.
        watch: told of every commit that changed something.
    """

    def __init__(
        self, clock: ManualClock, *, limits: Limits, watch: Callable[[Commit], None]
    ) -> None:
        super().__init__(clock, limits=limits)
        self._watch = watch
        self._looks: dict[str, tuple[float, frozenset[str]]] = {}
        self._withheld: list[Callable[[], int]] = []
        self.withhold_next = False

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return the records whose keys start with one of *prefixes*."""
        park()
        found = super().read(election, *prefixes, deadline=deadline)
        park()
        return found

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """List the living candidates."""
        park()
        found = super().candidates(election, deadline=deadline, leases=leases)
        self._looks[actor()] = (self._clock.now(), frozenset(self.standing_now()))
        park()
        return found

    def commit(
        self,
        election: str,
        writes: Sequence[Write],
        *,
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        """Write a batch, or leave it under way if `withhold_next` is set."""
        park()
        doer, seen = actor(), self._seen_by(actor())

        def arrive(deadline: float = deadline) -> int:
            return self._arrive(doer, seen, election, writes, candidacy, deadline)

        if self.withhold_next:
            self.withhold_next = False
            self._withheld.append(lambda: arrive(float("inf")))
            msg = "commit: no reply in time; the request is still under way"
            raise StoreUnavailable(msg)
        try:
            return arrive()
        finally:
            park()

    def deliver(self) -> None:
        """Let the requests that were withheld arrive; nobody waits for the replies any more."""
        withheld, self._withheld = self._withheld, []
        for arrive in withheld:
            with contextlib.suppress(CommitRefused, StoreUnavailable):
                arrive()

    def _seen_by(self, doer: str) -> frozenset[str]:
        looked_at, seen = self._looks.get(doer, (0.0, frozenset()))
        recent = self._clock.now() <= looked_at + TTL
        return seen if recent else frozenset(self.standing_now())

    def _arrive(
        self,
        doer: str,
        seen: frozenset[str],
        election: str,
        writes: Sequence[Write],
        candidacy: Candidacy | None,
        deadline: float,
    ) -> int:
        before = dict(self._state.registers.get(election, {}))
        leader = next(iter(self.standing_now()), None)
        try:
            return super().commit(election, writes, candidacy=candidacy, deadline=deadline)
        finally:
            after = dict(self._state.registers.get(election, {}))
            if after != before:
                self._watch(Commit(doer, leader, seen, before, after))

    def standing_now(self) -> list[str]:
        """Return the incarnations that stand in the election, whoever is cut off; leader first."""
        seats = self._electorate(self._state, ELECTION).seats.values()
        proposals = (Proposal.decode(seat.proposal) for seat in seats)
        return [proposal.incarnation for proposal in proposals if proposal is not None]


class HandTimer:
    """A `leader_jobs.runner.Timer` that rings when the node's hand comes by."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._at: datetime | None = None
        self._stopped = False
        self.tick: Callable[[], None] = lambda: None

    def start(self, tick: Callable[[], None]) -> None:
        """Ring now."""
        self.tick, self._at = tick, self._clock.utcnow()

    def wake_at(self, instant: datetime) -> None:
        """Ring at *instant*."""
        self._at = instant

    def stop(self) -> None:
        """Ring no more."""
        self._stopped = True

    def rings(self) -> bool:
        """Whether it rings now; it does so once."""
        rings = not self._stopped and self._at is not None and self._at <= self._clock.utcnow()
        if rings:
            self._at = None
        return rings


class SteppedPool(RunPool):
    """A pool whose threads are tasks of a node."""

    spawn: Callable[[Callable[[], object]], object]

    def _dispatch(self, claim: Claim, job: Job, term: Term) -> None:
        self.spawn(lambda: self._execute(claim, job, term))


class Node:
    """
    One process: stands, renews, leads, and runs jobs; also what its runner takes for a candidate.

    Args:
        number: which process of the fleet it is.
        store: the store.
        clock: the clock.
        jobs: what is deployed on it; each body runs until the test lets it end.
        began: told of each body that begins.
    """

    def __init__(
        self,
        number: int,
        *,
        store: FleetStore,
        clock: FleetClock,
        jobs: Iterable[Job],
        began: Callable[["Node", Run], None],
    ) -> None:
        self.proposal = Proposal(
            node=f"node-{number}", host="h", pid=number, version="0", incarnation=f"life-{number}"
        )
        self.owner = self.proposal.incarnation
        self.jobs = tuple(replace(job, function=self._body) for job in jobs)
        self.frozen = False
        self.bodies: list[Body] = []
        self.term: Term | None = None
        self.candidacy: Candidacy | None = None
        self._store = store
        self._clock = clock
        self._began = began
        self._tasks: list[Task] = []
        self._leading: Task | None = None
        self._renew_at = 0.0
        self._timer = HandTimer(clock)
        self._ledger = Ledger(
            store, ELECTION, node=self.proposal.node, owner=self.owner, clock=clock
        )
        self._runner = JobRunner(
            candidate=cast(Candidate, self),
            ledger=self._ledger,
            jobs=self.jobs,
            timer=self._new_timer,
            pool=self._new_pool,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"<{self.owner}>"

    def _new_timer(self) -> HandTimer:
        self._timer = HandTimer(self._clock)
        return self._timer

    def _new_pool(
        self, freed: Callable[[Job, bool], None], fenced: Callable[[Term], None]
    ) -> RunPool:
        pool = SteppedPool(self._ledger, workers=1, clock=self._clock, freed=freed, fenced=fenced)
        pool.spawn = self._spawn
        return pool

    def _spawn(self, call: Callable[[], object]) -> Task:
        task = Task(call, actor=self.owner)
        self._tasks.append(task)
        return task

    def _body(self) -> None:
        run = current_run()
        assert run is not None
        body = Body(run)
        self.bodies.append(body)
        self._began(self, run)
        park(lambda: body.done)
        self.bodies.remove(body)
        if body.fails:
            msg = "as the test wants it"
            raise RuntimeError(msg)

    # -- what the candidate's threads do ----------------------------------------------------------

    def mind_the_lease(self) -> None:
        """Stand, renew and lead, as far as it is time to and the store is there."""
        if self.frozen:
            return
        try:
            self._renew()
            self._take_office()
        except CandidacyLost:
            self._end_term(EndReason.LOST)
            self.candidacy = None
        except StoreUnavailable:
            self._renew_at = self._clock.now() + 1.0
            if self.term is not None:
                self.term.suspended = True

    def _renew(self) -> None:
        now = self._clock.now()
        if self.term is not None and not self.term.active:
            self.resign()
        if self.candidacy is None:
            self.candidacy = self._store.enrol(
                ELECTION, self.proposal.encode(), TTL, deadline=now + _VALID
            )
        elif now >= self._renew_at:
            self._store.renew(self.candidacy, leading=True, deadline=now + 1.0)
            if self.term is not None and self.term.extend(now + _VALID):
                self.term.suspended = False
        else:
            return
        self._renew_at = now + _RENEW_EVERY

    def _take_office(self) -> None:
        if self._leading is not None and self._leading.over:
            self._leading = None
        if self.candidacy is not None and self.term is None:
            now = self._clock.now()
            self._store.renew(self.candidacy, leading=True, deadline=now + 1.0)
            if self._store.standing(self.candidacy, deadline=now + 1.0).leads:
                self.term = Term(candidacy=self.candidacy, deadline=now + _VALID, clock=self._clock)
        term = self.term
        if term is not None and self._leading is None:
            self._leading = self._spawn(lambda: self._runner.run(term))

    def _end_term(self, reason: EndReason) -> None:
        if self.term is not None:
            self.term.end(reason)
            self.term = None

    def resign(self) -> None:
        """Give the term up by will; it stands again when it next minds its lease."""
        self._end_term(EndReason.RESIGNED)
        candidacy, self.candidacy = self.candidacy, None
        if candidacy is not None:
            with contextlib.suppress(StoreUnavailable):
                self._store.withdraw(candidacy, deadline=self._clock.now() + 1.0)

    # -- what the runner asks of a candidate ------------------------------------------------------

    def lose(self, term: Term) -> None:
        """Take note that *term* is lost."""
        if self.term is term:
            self.resign()

    def verify(self, timeout: float) -> bool:
        """Ask the store whether the present term leads."""
        term, candidacy = self.term, self.candidacy
        if term is None or candidacy is None:
            return False
        try:
            standing = self._store.standing(candidacy, deadline=self._clock.now() + timeout)
        except CandidacyLost:
            self.lose(term)
            return False
        except StoreUnavailable:
            return False
        return standing.leads and term.active

    # -- what the test asks for -------------------------------------------------------------------

    def able(self) -> list[Task]:
        """Return the threads that have something to do; a tick that is due begins one."""
        if self.frozen:
            return []
        if self._timer.rings():
            self._spawn(self._timer.tick)
        self._tasks = [task for task in self._tasks if not task.over]
        return [task for task in self._tasks if task.ready]

    def work(self, steps: int = 1000) -> None:
        """Let all threads run until each of them waits, or for so many steps."""
        for _ in range(steps):
            able = self.able()
            if not able:
                return
            for task in able:
                task.resume()
        if steps < 1000:
            return
        msg = f"{self} never comes to rest"
        raise AssertionError(msg)

    def die(self) -> None:
        """End as by kill -9, wherever each thread is."""
        for task in self._tasks:
            task.kill()

    def shut_down(self) -> None:
        """End as by two SIGTERMs: what runs is closed or handed back, then it resigns."""
        self._runner.stop(now=True)
        drain = self._spawn(lambda: self._runner.drain(0.0))
        while not drain.over:
            drain.resume()
        self.resign()
        self.die()
