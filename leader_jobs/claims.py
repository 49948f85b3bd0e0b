"""
What the leader does with the ledger at each tick: see what is due, claim it, say so.

All jobs due in a tick are claimed in one guarded transaction, or in as few as the store's limits
allow; a job's cursor moves in the same write that opens its claims. A leader that dies between two
transactions has claimed some jobs and not others; the next one recovers the former and finds the
latter still due.
"""

import heapq
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from leader_jobs.batches import Batches, Change, Removal
from leader_jobs.clock import Clock
from leader_jobs.decisions import Decider, Decision, Recheck
from leader_jobs.ledger import Claim, Ledger, Versioned
from leader_jobs.occurrences import occurrence_id
from leader_jobs.orderbook import OrderBook
from leader_jobs.orders import Answer, Kind, Orders, Request
from leader_jobs.planned import PlannedJob
from leader_jobs.records import JobRecord, OccurrenceRecord, State, UnreadableRecord, job_key
from leader_jobs.restores import Restores
from leader_jobs.stores.base import Write
from leader_jobs.term import Term

__all__ = ["Claims", "Tick"]

_log = logging.getLogger(__name__)
#: How often, in seconds, records that other processes may change are looked at again.
_RECHECK: Final = {Recheck.SOON: 1.0, Recheck.LATER: 15.0}


@dataclass(frozen=True, slots=True)
class Tick:
    """
    What a tick brought.

    Attributes:
        claims: what is now in the hands of this process, in the order to start it.
        unsettled: True if something could not be claimed or is not known to be: tick again soon.
        more: True if there was more to look at than the tick was to look at: tick again at once.
        passed: what was closed without a run, each with the name of its job.
    """

    claims: tuple[Claim, ...]
    unsettled: bool
    more: bool = False
    passed: tuple[tuple[str, OccurrenceRecord], ...] = ()


class Claims:
    """
    Decides and claims what is due, during one term.

    Args:
        ledger: the election's ledger.
        term: ours.
        jobs: the jobs this node knows.
        clock: where moments come from.
        orders: what operators ordered; read once more before the first tick.
    """

    def __init__(
        self,
        ledger: Ledger,
        term: Term,
        jobs: Iterable[PlannedJob],
        *,
        clock: Clock,
        orders: OrderBook | None = None,
    ) -> None:
        self._ledger = ledger
        self._orders = orders or OrderBook(
            ledger.store, ledger.election, node=ledger.node, clock=clock
        )
        self._orders.begin()
        self._term = term
        self._jobs: Mapping[str, PlannedJob] = {job.name: job for job in jobs}
        self._clock = clock
        self._decider = Decider(ledger, term.token, living=self._ask_living)
        #: When each job is next to be looked at; a job that is not in here is looked at now.
        self._due: dict[str, datetime | None] = {}
        self._again: deque[str] = deque()
        self._elsewhere: dict[Recheck, set[str]] = {Recheck.SOON: set(), Recheck.LATER: set()}
        self._recheck_at = {recheck: clock.now() + every for recheck, every in _RECHECK.items()}
        self._finished: set[str] = set()
        self._living: frozenset[str] | None = None
        self._looked = False
        self._restores = Restores(
            self._orders,
            term,
            store=ledger.store,
            node=ledger.node,
            clock=clock,
            noted=ledger.tally.restore,
        )
        self._since: datetime | None = None
        self._paused: frozenset[str] = frozenset()
        # What a former leader wrote is read once, linearizably, before anything is claimed.
        ledger.forget()

    def tick(self, now: datetime, *, most: int | None = None) -> Tick:
        """
        Claim everything due at *now*, and recover what former leaders left open.

        Args:
            now: the present instant.
            most: how many jobs to look at, those that have waited longest; None for all.

        Raises:
            Fenced: the term does not lead; nothing more was claimed.
            StoreError: nothing could be read.
        """
        with self._orders.held() as orders:
            self._go_by(self._restores.since(orders))
            tick = self._tick(now, orders, most)
        self._ledger.tally.turn(self._clock.now(), self.next_instant())
        return tick

    def _go_by(self, since: datetime | None) -> None:
        """Take what was planned before *since* as unknown."""
        if since != self._since:
            self._since = since
            self.look_at_all()

    def _tick(self, now: datetime, orders: Orders, most: int | None) -> Tick:
        self._resume(orders, now)
        self._recheck()
        self._living = None
        names = [
            name
            for name in self._jobs
            if self._is_due(name, now) and not orders.holds_back(name, now)
        ]
        asked = self._asked(orders, now)
        self._doubt([*names, *asked])
        more = most is not None and len(names) > most
        if more:
            names = heapq.nsmallest(most or 0, names, key=lambda name: self._due.get(name) or now)
        decisions = list(self._decide(names, asked, orders, now))
        claims = [
            c for decision in decisions if not decision.changed for c in self._accept(decision)
        ]
        changed = [decision for decision in decisions if decision.changed]
        standing = 0
        passed: list[tuple[str, OccurrenceRecord]] = []
        for committed in Batches[Decision](self._ledger, self._term, clock=self._clock).commit(
            changed
        ):
            standing += len(committed)
            claims.extend(claim for decision in committed for claim in self._accept(decision))
            passed.extend((d.job.name, entry) for d in committed for entry in d.closed)
            self._note_answers(asked, committed)
        # Not before: had a commit been fenced, nobody would start, nor ever let go, of these.
        for claim in claims:
            self._ledger.take(claim)
        unsettled = standing < len(changed)
        return Tick(tuple(claims), unsettled=unsettled, more=more, passed=tuple(passed))

    def _decide(
        self, names: Sequence[str], asked: Mapping[str, Request], orders: Orders, now: datetime
    ) -> Iterator[Decision]:
        """Decide about the jobs *names*, and those that an operator asked to be run now."""
        due = set(names) if asked else set()
        also = [name for name in asked if name not in due]
        # Once, all of them: those the ledger does not know are known not to be there.
        known = self._ledger.load([*names, *also] if self._looked else self._jobs)
        self._looked = True
        for name in (*names, *also):
            found, job, request = known[name], self._jobs[name], asked.get(name)
            if not isinstance(found, Versioned):
                self._leave_alone(name, found)
                continue
            paused = orders.holds_back(name, now)
            decision = self._decider.decide(
                job, found, now, request=request, paused=paused, since=self._since
            )
            if request is not None:
                decision.beside.append(self._answer(request, decision))
            yield decision

    def _resume(self, orders: Orders, now: datetime) -> None:
        """Look again at jobs whose pause is over: what was claimed of them may have been let go."""
        paused = frozenset(
            self._jobs
            if orders.pause_of(None, now) is not None
            else (job for job in orders.jobs if orders.pause_of(job, now) is not None)
        )
        self._again.extend(self._paused - paused)
        self._paused = paused

    # -- runs that operators ask for --------------------------------------------------------------

    def _asked(self, orders: Orders, now: datetime) -> dict[str, Request]:
        """Return the requests to run a job now, one for each job; refuse those of unknown ones."""
        found: dict[str, Request] = {}
        for request in self._orders.requests(orders, now):
            if request.kind is not Kind.RUN_NOW:
                continue
            pause = orders.pause_of(None, now)
            if pause is not None:
                self._refuse(request, f"the election is paused by {pause.by}")
            elif request.job not in self._jobs:
                self._refuse(request, f"the leader, node {self._ledger.node}, has no such job")
            elif request.job not in found:
                found[request.job] = request
        return found

    def _refuse(self, request: Request, why: str) -> None:
        """Answer a request that changes no job."""
        deadline = min(self._clock.now() + self._term.ttl / 3, self._term.deadline)
        self._ledger.store.commit(
            self._ledger.election,
            [self._orders.answer(request, Answer.REFUSED, why)],
            candidacy=self._term.candidacy,
            deadline=deadline,
        )
        self._orders.answered(request)

    def _answer(self, request: Request, decision: Decision) -> Write:
        answer = Answer.REFUSED if decision.refused else Answer.OBEYED
        return self._orders.answer(request, answer, decision.refused, planned_at=decision.asked)

    def _note_answers(self, asked: Mapping[str, Request], committed: Iterable[Decision]) -> None:
        for decision in committed:
            request = asked.get(decision.job.name)
            if request is not None:
                self._orders.answered(request)
                what = decision.refused or "it is run"
                _log.info("%s asks to run job %s now: %s", request.by, decision.job.name, what)

    def look_again(self, job: str) -> None:
        """Have the next tick look at *job* whether or not it is due; any thread may ask."""
        self._again.append(job)

    def look_at_all(self) -> None:
        """Have the next tick look at every job: what was due next may not be any more."""
        self._again.extend(self._jobs)

    def next_instant(self) -> datetime | None:
        """Return the next instant at which there is something to do, or None if there never is."""
        orders, now = self._orders.known, self._clock.utcnow()
        if orders.pause_of(None, now) is not None:
            return orders.next_end(now)
        paused = {job for job in orders.jobs if orders.pause_of(job, now) is not None}
        instants = [
            instant
            for job, instant in self._due.items()
            if instant is not None and job not in paused
        ]
        end = orders.next_end(now) if paused else None
        return min(instants if end is None else (*instants, end), default=None)

    def next_of(self, job: str) -> datetime | None:
        """Return the next instant at which *job* is due; None if there is none, or none yet."""
        return self._due.get(job)

    def finished(self) -> set[str]:
        """Return the jobs that nothing more will ever be due of, each of them once in a term."""
        finished, self._finished = self._finished, set()
        return finished

    # -- other jobs -------------------------------------------------------------------------------

    def plan(self, jobs: Iterable[PlannedJob]) -> None:
        """Go by *jobs* from now on; those that are new or changed are looked at in the next tick."""
        former, self._jobs = self._jobs, {job.name: job for job in jobs}
        for name in former.keys() | self._jobs.keys():
            if former.get(name) != self._jobs.get(name):
                self._due.pop(name, None)
        gone = former.keys() - self._jobs.keys()
        self._ledger.forget(gone)
        for elsewhere in self._elsewhere.values():
            elsewhere.difference_update(gone)

    def retire(self, names: Iterable[str]) -> bool:
        """
        Have jobs that are switched off start from then, not from now, if they are switched on again.

        What a former leader claimed of them and did not start is passed over.

        Returns:
            Whether that is recorded of all of them; if not, call again.

        Raises:
            Fenced: the term does not lead.
            StoreError: their records could not be read.
        """
        changes = [
            self._retired(found.record, found.version)
            for found in self._ledger.load(names).values()
            if isinstance(found, Versioned) and found.record is not None and found.record.schedule
        ]
        batches = Batches[Change](self._ledger, self._term, clock=self._clock)
        return sum(map(len, batches.commit(changes))) == len(changes)

    def erase(self, names: Iterable[str]) -> set[str]:
        """
        Remove all that is kept of jobs that are planned no more, and never will be again.

        Returns:
            Those of which nothing is left; the others have open occurrences, or changed meanwhile.

        Raises:
            Fenced: the term does not lead.
            StoreError: their records could not be read.
        """
        erased, removals = set(), []
        for name, found in self._ledger.load(names).items():
            if not isinstance(found, Versioned) or found.record is None:
                erased.add(name)
            elif not found.record.open:
                removals.append(Removal(found.record, found.version))
        for committed in Batches[Removal](self._ledger, self._term, clock=self._clock).commit(
            removals
        ):
            erased.update(removal.record.job for removal in committed)
        self._ledger.forget(erased)
        return erased

    def _retired(self, record: JobRecord, version: int) -> Change:
        change = Change(replace(record, schedule=""), version)
        for entry in record.open:
            if entry.state is State.CLAIMED and not self._ledger.holds(record.job, entry):
                change.record = change.record.without(entry.sequence)
                now = self._clock.utcnow()
                change.closed.append(entry.closed(State.SKIPPED, now, "switched off"))
        return change

    # -- looking ----------------------------------------------------------------------------------

    def _is_due(self, name: str, now: datetime) -> bool:
        if name not in self._due:
            return True
        instant = self._due[name]
        return instant is not None and instant <= now

    def _recheck(self) -> None:
        """Look again at jobs that run, or may be run, in other processes."""
        moment = self._clock.now()
        for recheck, names in self._elsewhere.items():
            if names and moment >= self._recheck_at[recheck]:
                self._recheck_at[recheck] = moment + _RECHECK[recheck]
                self._again.extend(names)
        while self._again:
            self._due.pop(self._again.popleft(), None)

    def _doubt(self, names: Iterable[str]) -> None:
        """Read anew the records of those of the jobs that other processes may have changed."""
        for elsewhere in self._elsewhere.values():
            stale = elsewhere.intersection(names)
            elsewhere.difference_update(stale)
            self._ledger.forget(stale)

    def _ask_living(self) -> frozenset[str]:
        if self._living is None:
            self._living = self._ledger.living()
        return self._living

    def _leave_alone(self, name: str, error: UnreadableRecord) -> None:
        self._due[name] = None
        _log.error(
            "job %s is not run in this term: its record can not be read (%s); repair or remove the "
            "record %s of election %r",
            name,
            error,
            job_key(name),
            self._ledger.election,
        )

    def _accept(self, decision: Decision) -> Iterator[Claim]:
        """Note that the decision stands in the store, and yield what it claims."""
        job = decision.job
        due = decision.due
        if due is None and not (job.guarded and decision.record.open):
            self._finished.add(job.name)
        # Still due after a look means put off until a run ends; `look_again` brings it back.
        self._due[job.name] = due if due is None or due > decision.now else None
        if due is not None and due <= decision.now:
            decision.look_again(Recheck.SOON)
        if decision.recheck is not Recheck.NEVER:
            self._elsewhere[decision.recheck].add(job.name)
        for sequence, planned_at, attempt, retries in decision.claims:
            yield Claim(
                job=job.name,
                occurrence=occurrence_id(self._ledger.election, job.name, planned_at),
                planned_at=planned_at,
                sequence=sequence,
                attempt=attempt,
                token=self._term.token,
                retries=retries,
            )
