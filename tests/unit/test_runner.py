"""The runner: looks when it is time to, starts what the ledger gives it, and stops with the term."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.exceptions import Fenced
from leader_jobs.jobs import Job
from leader_jobs.ledger import Ledger
from leader_jobs.occurrences import Policy
from leader_jobs.records import State
from leader_jobs.runner import JobRunner
from leader_jobs.runpool import RunPool
from leader_jobs.stores.base import Candidacy, Standing
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import Term
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.ledgers import LedgerNode, entries_of, make_job, passing
from testsupport.place import ELECTION

LONG = 10.0
#: Leases so long that a test can let minutes go by at once.
TTL = 36_000.0
ALL = Policy(catch_up="all")


class HandTimer:
    """Notes when the runner wants to look again; the test is the one that looks."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.woken = threading.Semaphore(0)
        self.wakes: list[datetime] = []
        self.stopped = False
        self.tick: Callable[[], None] = lambda: None

    def start(self, tick: Callable[[], None]) -> None:
        """Keep *tick* for the test to call."""
        self.tick = tick
        self.started.set()

    def wake_at(self, instant: datetime) -> None:
        """Note *instant*."""
        self.wakes.append(instant)
        self.woken.release()

    def stop(self) -> None:
        """Note that no tick is wanted any more."""
        self.stopped = True

    def wait_woken(self) -> datetime:
        """Wait until the runner says once more when it wants to look, and return that."""
        assert self.woken.acquire(timeout=LONG)
        return self.wakes[-1]

    def forget(self) -> None:
        """Count from here."""
        while self.woken.acquire(blocking=False):
            pass


class Rehearsed(MemoryStore):
    """A store that can refuse a commit, and counts who asks where they stand."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.fence_next = False
        self.asked = 0

    def commit(
        self, election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        """Write a batch."""
        assert isinstance(writes, list)
        if self.fence_next:
            self.fence_next = False
            msg = "another one leads"
            raise Fenced(msg)
        return super().commit(election, writes, candidacy=candidacy, deadline=deadline)

    def standing(self, candidacy: Candidacy, *, deadline: float) -> Standing:
        """Say who is just ahead."""
        self.asked += 1
        return super().standing(candidacy, deadline=deadline)


class Stage:
    """A node with a real candidate, whose runner is given one term after the other."""

    def __init__(self, clock: ManualClock, store: Rehearsed) -> None:
        self.clock = clock
        self.store = store
        self.candidate = Candidate(ELECTION, store=store, node="a", ttl=TTL, clock=clock)
        self.ledger = Ledger(
            store,
            ELECTION,
            node="a",
            owner=self.candidate.proposal.incarnation,
            clock=clock,
        )
        self.timers: list[HandTimer] = []
        self.let_end = threading.Event()
        self.let_end.set()
        self.begun = threading.Semaphore(0)
        self.runner: JobRunner | None = None
        self.term: Term | None = None
        self._pool: RunPool | None = None
        self._running: Background[bool] | None = None

    def body(self) -> None:
        """Run until the test lets bodies end."""
        self.begun.release()
        assert self.let_end.wait(LONG)

    def _new_timer(self) -> HandTimer:
        self.timers.append(HandTimer())
        return self.timers[-1]

    def _new_pool(
        self, freed: Callable[[Job, bool], None], fenced: Callable[[Term], None]
    ) -> RunPool:
        self._pool = RunPool(self.ledger, workers=4, clock=self.clock, freed=freed, fenced=fenced)
        return self._pool

    def lead(self, *jobs: Job) -> HandTimer:
        """Begin to run *jobs* under the next term, and look once."""
        if self.runner is None:
            self.runner = JobRunner(
                candidate=self.candidate,
                ledger=self.ledger,
                jobs=jobs,
                timer=self._new_timer,
                pool=self._new_pool,
                clock=self.clock,
            )
        runner, count = self.runner, len(self.timers)
        term = self.candidate.campaign(LONG)
        self.term = term
        self._running = Background(lambda: runner.run(term))
        while len(self.timers) == count:
            assert not self._running.over(0.001)
        timer = self.timers[-1]
        assert timer.started.wait(LONG)
        self.look(timer)
        return timer

    def look(self, timer: HandTimer) -> datetime:
        """Tick, and return when the runner wants to look again."""
        timer.forget()
        timer.tick()
        return timer.wait_woken()

    def result(self) -> bool:
        """Wait until the runner is done with the term; return what it says."""
        assert self._running is not None
        with passing(self.clock):
            return self._running.result()

    def wait_begun(self) -> None:
        """Wait until one more body runs."""
        assert self.begun.acquire(timeout=LONG)

    def states(self, job: str = "job") -> list[State]:
        """Return what became of the occurrences of a job."""
        return [entry.state for entry in entries_of(self.store, job, self.clock)]

    def close(self) -> None:
        """End all threads."""
        self.let_end.set()
        self.candidate.stop()
        with passing(self.clock):
            if self.runner is not None and self._pool is not None:
                self.runner.stop(now=True)
                self.runner.drain(0.0)
                self._pool._threads.shutdown(wait=True)
            if self._running is not None:
                self._running.result()


@pytest.fixture(name="stage")
def _stage() -> Iterator[Stage]:
    clock = ManualClock()
    stage = Stage(clock, Rehearsed(clock))
    yield stage
    stage.close()


# -- looking ------------------------------------------------------------------------------------------


def test_what_is_due_is_run(stage: Stage) -> None:
    """The first look makes the job known; the body runs when it is due."""
    timer = stage.lead(make_job(body=stage.body))
    assert stage.states() == []
    stage.clock.advance(10)
    stage.look(timer)
    stage.wait_begun()
    stage.clock.advance(10)
    while stage.states() != [State.SUCCEEDED]:
        assert not threading.Event().wait(0.001)

    stage.look(timer)
    stage.wait_begun()


@pytest.mark.parametrize(
    ("every", "wait"), [(0.25, 0.25), (0.75, 0.75), (60, 1.0)], ids=["soon", "soon enough", "late"]
)
def test_it_looks_when_something_is_due_and_at_least_every_second(
    stage: Stage, every: float, wait: float
) -> None:
    """The wall clock may be stepped while a timer waits for it."""
    timer = stage.lead(make_job(every=every))

    assert timer.wakes[-1] == stage.clock.utcnow() + timedelta(seconds=wait)


def test_what_could_not_be_settled_is_looked_at_soon(stage: Stage) -> None:
    """A lost reply, say."""
    timer = stage.lead(make_job(body=stage.body))
    stage.clock.advance(10)
    stage.store.lose_reply("commit")
    assert stage.look(timer) == stage.clock.utcnow() + timedelta(seconds=0.2)
    stage.look(timer)

    stage.wait_begun()
    assert len(stage.states()) == 1


def test_a_store_that_is_away_is_asked_again_soon(stage: Stage) -> None:
    """Nothing is started, and nothing is lost."""
    timer = stage.lead(make_job(body=stage.body), make_job("other", every=3600))
    stage.ledger.forget()
    stage.clock.advance(10)
    stage.store.cut()
    assert stage.look(timer) == stage.clock.utcnow() + timedelta(seconds=0.2)
    stage.store.restore()
    stage.look(timer)

    stage.wait_begun()


def test_a_suspended_term_claims_nothing(stage: Stage) -> None:
    """While renewals fail."""
    timer = stage.lead(make_job())
    stage.clock.advance(10)
    assert stage.term is not None
    stage.term.suspended = True
    stage.look(timer)
    stage.look(timer)

    assert stage.states() == []


def test_of_two_looks_at_once_one_does_nothing(stage: Stage) -> None:
    """A tick that takes long is not joined by another one."""
    timer = stage.lead(make_job(body=stage.body))
    stage.clock.advance(10)
    inside, go_on = threading.Event(), threading.Event()
    commit = stage.store.commit

    def slow(election: str, writes: object, *, candidacy: Candidacy | None, deadline: float) -> int:
        inside.set()
        assert go_on.wait(LONG)
        return commit(election, writes, candidacy=candidacy, deadline=deadline)

    stage.store.commit = slow  # type: ignore[method-assign]  # a commit that takes its time
    first = Background(timer.tick)
    assert inside.wait(LONG)
    timer.forget()
    timer.tick()
    assert not timer.woken.acquire(blocking=False)
    go_on.set()
    first.result()

    assert len(stage.states()) == 1


# -- runs that wait for one another ---------------------------------------------------------------------


def test_what_was_put_off_is_run_when_the_run_before_it_ends(stage: Stage) -> None:
    """The end of a run wakes the timer; until then nothing spins."""
    stage.let_end.clear()
    timer = stage.lead(make_job(body=stage.body, policy=ALL))
    stage.clock.advance(10)
    stage.look(timer)
    stage.wait_begun()
    stage.clock.advance(10)
    assert stage.look(timer) == stage.clock.utcnow() + timedelta(seconds=1)
    timer.forget()
    stage.let_end.set()

    assert timer.wait_woken() == stage.clock.utcnow()
    timer.tick()
    stage.wait_begun()


def test_a_run_that_ends_during_a_look_is_noticed_at_its_end(stage: Stage) -> None:
    """The tick that missed it asks for another one at once."""
    stage.let_end.clear()
    timer = stage.lead(make_job(body=stage.body, policy=ALL), make_job("other"))
    stage.clock.advance(10)
    stage.look(timer)
    stage.wait_begun()
    stage.clock.advance(10)
    commit = stage.store.commit
    ticking = threading.get_ident()

    def commit_after_the_run_ended(
        election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        if threading.get_ident() == ticking:
            stage.let_end.set()
            while State.SUCCEEDED not in stage.states():
                assert not threading.Event().wait(0.001)
            assert stage._pool is not None
            while stage._pool._running:
                assert not threading.Event().wait(0.001)
        return commit(election, writes, candidacy=candidacy, deadline=deadline)

    stage.store.commit = commit_after_the_run_ended  # type: ignore[method-assign]  # see its name

    assert stage.look(timer) <= stage.clock.utcnow() + timedelta(seconds=0.2)
    stage.look(timer)
    stage.wait_begun()


# -- clocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_jump_of_the_clock_asks_the_store_before_anything_is_claimed(
    stage: Stage, seconds: int
) -> None:
    """It says that we lead, and then things go on."""
    timer = stage.lead(make_job())
    asked = stage.store.asked
    stage.look(timer)
    assert stage.store.asked == asked
    stage.clock.step_wall(seconds)
    stage.look(timer)
    assert stage.store.asked == asked + 1
    stage.look(timer)

    assert stage.store.asked == asked + 1
    assert len(stage.states()) == (2 if seconds > 0 else 0)


def test_after_a_jump_nothing_is_claimed_until_the_store_has_answered(stage: Stage) -> None:
    """One question without an answer is not enough."""
    timer = stage.lead(make_job())
    stage.clock.step_wall(3600)
    stage.store.cut()
    for _ in range(3):
        stage.look(timer)
    stage.store.restore()
    assert stage.states() == []
    asked = stage.store.asked
    stage.look(timer)

    assert stage.store.asked > asked
    assert stage.states()[0] is State.COALESCED


def test_a_slow_drift_is_no_jump(stage: Stage) -> None:
    """A clock that is slewed over hours never makes the runner ask."""
    timer = stage.lead(make_job(every=3600))
    asked = stage.store.asked
    for _ in range(20):
        stage.clock.step_wall(0.5)
        stage.look(timer)

    assert stage.store.asked == asked


# -- the end of a term ---------------------------------------------------------------------------------


def test_a_fenced_claim_ends_the_term(stage: Stage) -> None:
    """The runner is done with it, and the candidate stands anew."""
    timer = stage.lead(make_job(body=stage.body))
    former = stage.term
    assert former is not None
    stage.clock.advance(10)
    stage.store.fence_next = True
    timer.tick()

    assert not former.active
    assert stage.result()
    with passing(stage.clock):
        stage.lead()
    assert stage.term is not former
    stage.wait_begun()


def test_a_fenced_start_ends_the_term(stage: Stage) -> None:
    """Whoever learns of it first says so."""
    timer = stage.lead(make_job(body=stage.body))
    former = stage.term
    assert former is not None
    stage.clock.advance(10)
    claimed = threading.Event()
    commit = stage.store.commit

    def fence_the_second(
        election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        stage.store.fence_next = claimed.is_set() and candidacy is not None
        claimed.set()
        return commit(election, writes, candidacy=candidacy, deadline=deadline)

    stage.store.commit = fence_the_second  # type: ignore[method-assign]  # first claimed, then fenced
    timer.tick()

    assert former.ended.wait(LONG)
    assert stage.result()
    assert stage.states() == [State.CLAIMED]


def test_when_the_term_ends_what_runs_goes_on_and_what_waits_is_handed_over(stage: Stage) -> None:
    """The next leader starts it while this node stands again."""
    stage.let_end.clear()
    timer = stage.lead(make_job(body=stage.body, policy=ALL))
    stage.clock.advance(20)
    stage.look(timer)
    stage.wait_begun()
    other = LedgerNode("b", stage.store, stage.clock)
    stage.candidate.resign()

    assert stage.result()
    assert timer.stopped
    stage.let_end.set()
    while stage.states() != [State.SUCCEEDED, State.CLAIMED]:
        assert not threading.Event().wait(0.001)
    assert len(other.tick(other.claims(make_job(policy=ALL)))) == 1


def test_a_look_after_the_end_does_nothing(stage: Stage) -> None:
    """A timer may ring once more."""
    timer = stage.lead(make_job())
    stage.candidate.resign()
    assert stage.result()
    stage.clock.advance(10)
    timer.forget()
    timer.tick()

    assert stage.states() == []
    assert not timer.woken.acquire(blocking=False)


def test_a_stopped_runner_starts_nothing_and_drains(stage: Stage) -> None:
    """What runs is given its time, under a term that still holds."""
    stage.let_end.clear()
    timer = stage.lead(make_job(body=stage.body))
    stage.clock.advance(10)
    stage.look(timer)
    stage.wait_begun()
    runner = stage.runner
    assert runner is not None
    runner.stop()
    assert stage.result()
    assert stage.term is not None
    assert stage.term.active
    draining = Background(lambda: runner.drain(LONG))
    assert not draining.over(0.05)
    stage.let_end.set()

    assert draining.result()
    assert stage.states() == [State.SUCCEEDED]


def test_the_next_term_of_the_same_process_goes_on_where_the_last_one_ended(stage: Stage) -> None:
    """What was handed over and not taken is taken by itself, once."""
    stage.let_end.clear()
    job = make_job(body=stage.body, policy=ALL)
    timer = stage.lead(job)
    stage.clock.advance(20)
    stage.look(timer)
    stage.wait_begun()
    stage.candidate.resign()
    assert stage.result()
    with passing(stage.clock):
        timer = stage.lead()
    stage.let_end.set()
    stage.wait_begun()

    instants = [entry.planned_at for entry in entries_of(stage.store, "job", stage.clock)]
    assert len(instants) == len(set(instants))


def test_a_clock_set_back_does_not_leave_the_timer_asleep(stage: Stage) -> None:
    """A timer set by the wall clock would sleep for the size of the step; it is woken at once."""
    timer = stage.lead(make_job("job"))
    stage.look(timer)
    timer.forget()
    stage.clock.step_wall(-3600)
    stage.clock.advance(0.2)

    assert timer.wait_woken() == stage.clock.utcnow()
