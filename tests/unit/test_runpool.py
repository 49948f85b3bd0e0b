"""The pool: each body is started once, told when its term is over, and its end is recorded."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import pytest

from leader_jobs.exceptions import StoreRefused
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.records import OccurrenceRecord, State, job_key
from leader_jobs.runpool import RunPool
from leader_jobs.runs import Run, assert_leader, current_run
from leader_jobs.stores.base import Candidacy, Record, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import EndReason, Term
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.ledgers import LedgerNode, entries_of, make_job, passing
from testsupport.place import ELECTION

LONG = 10.0
ALL = Policy(catch_up="all")
OVERLAPPING = Policy(catch_up="all", overlap=True)


class Body:
    """A body that says when it runs, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self._end = threading.Semaphore(0)
        self.runs: list[Run | None] = []

    def __call__(self) -> None:
        self.runs.append(current_run())
        self.begun.release()
        assert self._end.acquire(timeout=LONG)

    def wait_begun(self) -> None:
        """Wait until it runs once more."""
        assert self.begun.acquire(timeout=LONG)

    def end(self, times: int = 1) -> None:
        """Let so many runs end."""
        self._end.release(times)


class Freed:
    """Notes which jobs became free, and whether they were run."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, bool]] = []
        self._told = threading.Semaphore(0)

    def __call__(self, job: Job, ran: bool) -> None:
        self.jobs.append((job.name, ran))
        self._told.release()

    def wait(self, times: int = 1) -> None:
        """Wait until it was told so many times more."""
        for _ in range(times):
            assert self._told.acquire(timeout=LONG)


class TroubledStore(MemoryStore):
    """
    A store that raises what it is told to at the next commits, and says when it was called.

    Attributes:
        asked: released at each read, and when a commit has had its effect.
        troubles: what the next commits raise.
        gate: what the replies to fenced commits wait for.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.asked = threading.Semaphore(0)
        self.troubles: list[Exception] = []
        self.gate: threading.Event | None = None

    def commit(
        self, election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        """Write a batch."""
        assert isinstance(writes, list)
        try:
            if self.troubles:
                raise self.troubles.pop(0)
            return super().commit(election, writes, candidacy=candidacy, deadline=deadline)
        finally:
            self.asked.release()
            if self.gate is not None and candidacy is not None:
                assert self.gate.wait(LONG)

    def read(self, election: str, *prefixes: str, deadline: float) -> Mapping[str, Record]:
        """Return the records whose keys start with one of *prefixes*."""
        self.asked.release()
        return super().read(election, *prefixes, deadline=deadline)

    def wait_asked(self, times: int = 1) -> None:
        """Wait until so many calls more were made."""
        for _ in range(times):
            assert self.asked.acquire(timeout=LONG)

    def forget_asked(self) -> None:
        """Count from here."""
        while self.asked.acquire(blocking=False):
            pass


class Stage:
    """A pool of a node that leads, with what it needs and what it tells."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = TroubledStore(self.clock)
        self.node = LedgerNode("a", self.store, self.clock)
        self.term = self.node.term()
        self.body = Body()
        self.freed = Freed()
        self.fenced: list[Term] = []
        self.pool = self.new_pool()

    def new_pool(self, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> RunPool:
        """Return a pool."""
        return RunPool(
            self.node.ledger,
            workers=4,
            clock=self.clock,
            freed=self.freed,
            fenced=self.fenced.append,
            around=around,
        )

    def claimed(self, job: Job, count: int = 1) -> tuple[Claim, ...]:
        """Have the node claim so many occurrences of *job*."""
        claims = self.node.claims(job)
        self.node.tick(claims)
        self.clock.advance(10 * count)
        found = self.node.tick(claims)
        assert len(found) == count
        return found

    def submit(self, job: Job, count: int = 1) -> tuple[Claim, ...]:
        """Have so many occurrences of *job* claimed and run."""
        claims = self.claimed(job, count)
        for claim in claims:
            self.pool.submit(claim, job, self.term)
        return claims

    def entries(self, job: str = "job") -> list[OccurrenceRecord]:
        """Return all that is kept of the occurrences of a job."""
        return entries_of(self.store, job, self.clock)

    def states(self, job: str = "job") -> list[State]:
        """Return what became of the occurrences of a job."""
        return [entry.state for entry in self.entries(job)]

    def close(self) -> None:
        """End all threads."""
        self.body.end(100)
        self.term.end(EndReason.RESIGNED)
        self.pool.stop(now=True)
        with passing(self.clock):
            self.pool.drain(0.0)
            self.pool._threads.shutdown(wait=True)


@pytest.fixture(name="stage")
def _stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


# -- bodies -------------------------------------------------------------------------------------------


def test_a_body_runs_once_and_its_end_is_recorded(stage: Stage) -> None:
    """On a thread of the pool, and nothing is in hand afterwards."""
    ran = []
    job = make_job(body=lambda: ran.append(threading.current_thread().name))
    stage.submit(job)
    stage.freed.wait()

    assert len(ran) == 1
    assert ran[0].startswith("leader-jobs-run")
    assert stage.freed.jobs == [("job", True)]
    (entry,) = stage.entries()
    assert entry.state is State.SUCCEEDED
    assert not stage.node.ledger.holds("job", entry)


class Unprintable(Exception):
    """An error that fails when it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no\nway"), "ValueError: no way"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (Unprintable(), "Unprintable: <exception str() failed>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_body_that_raises_has_failed_and_the_pool_goes_on(
    stage: Stage, error: BaseException, reason: str
) -> None:
    """Whatever it raises."""

    def fail() -> None:
        raise error

    for name, body in (("bad", fail), ("good", lambda: None)):
        job = make_job(name, body=body)
        stage.submit(job)
        stage.freed.wait()

    (entry,) = stage.entries("bad")
    assert entry.state is State.FAILED
    assert entry.reason.endswith(reason)
    assert stage.states("good") == [State.SUCCEEDED]


def test_a_coroutine_function_is_run_to_its_end(stage: Stage) -> None:
    """In a loop of its own, and it knows its run."""
    ran: list[Run | None] = []

    async def body() -> None:
        await asyncio.sleep(0)
        ran.append(current_run())

    job = make_job(body=body)
    (claim,) = stage.submit(job)
    stage.freed.wait()

    assert ran[0] is not None
    assert ran[0].occurrence == claim.occurrence
    assert stage.states() == [State.SUCCEEDED]


def test_a_body_knows_its_run(stage: Stage) -> None:
    """Job, instant, id, token and attempt; code outside of it knows none."""
    seen: list[tuple[Run | None, int]] = []
    job = make_job(body=lambda: seen.append((current_run(), assert_leader())))
    (claim,) = stage.submit(job)
    stage.freed.wait()

    ((run, token),) = seen
    assert run is not None
    assert (run.election, run.job, run.planned_at) == (ELECTION, "job", claim.planned_at)
    assert (run.occurrence, run.attempt) == (claim.occurrence, 1)
    assert run.token == token == stage.term.token
    assert current_run() is None


def test_a_body_is_told_when_its_term_is_over(stage: Stage) -> None:
    """It goes on all the same, and its end is recorded."""
    job = make_job(body=stage.body)
    stage.submit(job)
    stage.body.wait_begun()
    (run,) = stage.body.runs
    assert run is not None
    assert not run.lost.is_set()
    waiting = Background(lambda: run.lost.wait(LONG))
    stage.term.end(EndReason.LOST)

    assert waiting.result()
    stage.node.dies()
    stage.body.end()
    stage.freed.wait()
    assert stage.states() == [State.SUCCEEDED]


def test_what_a_framework_needs_is_around_each_body(stage: Stage) -> None:
    """On the same thread; where it fails, so does the run."""
    seen = []

    @contextmanager
    def around() -> Iterator[None]:
        seen.append(("in", threading.get_ident()))
        yield
        seen.append(("out", threading.get_ident()))
        msg = "closing failed"
        raise OSError(msg)

    pool = stage.new_pool(around)
    job = make_job(body=lambda: seen.append(("body", threading.get_ident())))
    pool.submit(stage.claimed(job)[0], job, stage.term)
    stage.freed.wait()
    pool.drain(0.0)

    assert [word for word, _ in seen] == ["in", "body", "out"]
    assert len({thread for _, thread in seen}) == 1
    assert stage.states() == [State.FAILED]


# -- one after the other ------------------------------------------------------------------------------


def test_runs_that_must_not_overlap_take_turns(stage: Stage) -> None:
    """In the order they were planned, and the job is free after the last one."""
    job = make_job(body=stage.body, policy=ALL)
    claims = stage.submit(job, 3)
    for number in range(3):
        stage.body.wait_begun()
        assert len(stage.body.runs) == number + 1
        assert stage.states().count(State.STARTED) == 1
        stage.body.end()
    stage.freed.wait()

    assert [run.planned_at for run in stage.body.runs if run] == [c.planned_at for c in claims]
    assert stage.freed.jobs == [("job", True)]


def test_runs_that_may_overlap_do(stage: Stage) -> None:
    """All at once, as far as there are threads."""
    job = make_job(body=stage.body, policy=OVERLAPPING)
    stage.submit(job, 3)
    for _ in range(3):
        stage.body.wait_begun()
    stage.body.end(3)
    stage.freed.wait(3)

    assert stage.freed.jobs == [("job", True)] * 3


def test_what_waits_when_the_term_ends_is_handed_over(stage: Stage) -> None:
    """What runs goes on; the rest is still claimed, and in nobody's hands."""
    job = make_job(body=stage.body, policy=ALL)
    stage.submit(job, 3)
    stage.body.wait_begun()
    stage.term.end(EndReason.LOST)
    stage.pool.drop_waiting()
    entries = stage.entries()

    assert [stage.node.ledger.holds("job", entry) for entry in entries] == [True, False, False]
    stage.body.end()
    stage.freed.wait()
    assert len(stage.body.runs) == 1
    assert stage.states() == [State.SUCCEEDED, State.CLAIMED, State.CLAIMED]


# -- starts -------------------------------------------------------------------------------------------


def test_nothing_starts_under_a_term_that_is_over(stage: Stage) -> None:
    """The store is not even asked; the job is to be looked at again."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    stage.term.end(EndReason.LOST)
    stage.pool.submit(claim, job, stage.term)
    stage.freed.wait()

    assert stage.freed.jobs == [("job", False)]
    (entry,) = stage.entries()
    assert entry.state is State.CLAIMED
    assert not stage.node.ledger.holds("job", entry)


def test_a_suspended_term_starts_nothing_until_it_is_sure_again(stage: Stage) -> None:
    """The claim waits; it is not given up."""
    job = make_job()
    (claim,) = stage.claimed(job)
    stage.term.suspended = True
    stage.store.forget_asked()
    stage.pool.submit(claim, job, stage.term)
    for _ in range(10):
        stage.clock.advance(0.2)
    assert not stage.store.asked.acquire(timeout=0.05)

    stage.term.suspended = False
    stage.clock.advance(0.2)
    stage.freed.wait()
    assert stage.states() == [State.SUCCEEDED]


@pytest.mark.parametrize("error", [StoreRefused("no"), None], ids=["refused", "lost reply"])
def test_a_start_in_doubt_is_tried_again(stage: Stage, error: Exception | None) -> None:
    """The body runs once, when the start is known to be recorded."""
    ran = []
    job = make_job(body=lambda: ran.append(1))
    (claim,) = stage.claimed(job)
    if error is not None:
        stage.store.troubles = [error]
    else:
        stage.store.lose_reply("commit")
    with passing(stage.clock):
        stage.pool.submit(claim, job, stage.term)
        stage.freed.wait()

    assert ran == [1]
    assert stage.states() == [State.SUCCEEDED]


def test_a_start_in_doubt_when_the_term_ends_is_taken_back(stage: Stage) -> None:
    """It was recorded, nobody learned of it, and it was not started: the next leader shall."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    stage.store.forget_asked()
    stage.store.lose_reply("commit")
    stage.pool.submit(claim, job, stage.term)
    stage.store.wait_asked()
    stage.term.end(EndReason.LOST)
    stage.freed.wait()

    assert stage.body.runs == []
    assert stage.freed.jobs == [("job", False)]
    assert stage.states() == [State.CLAIMED]


def test_a_start_in_doubt_is_taken_back_when_the_store_returns(stage: Stage) -> None:
    """However long that takes."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    term = stage.node.term(lasts=5.0)
    stage.store.forget_asked()
    stage.store.lose_reply("commit")
    stage.pool.submit(claim, job, term)
    stage.store.wait_asked()
    stage.store.cut()
    with passing(stage.clock):
        assert stage.clock.wait(term.ended, 20.0) is False
        stage.store.restore()
        stage.freed.wait()

    assert stage.body.runs == []
    assert stage.states() == [State.CLAIMED]


def test_a_start_whose_reply_comes_after_the_term_is_taken_back(stage: Stage) -> None:
    """A process that was frozen while it waited for the reply does not begin the body."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    stage.store.forget_asked()
    gate = stage.store.gate = threading.Event()
    stage.pool.submit(claim, job, stage.term)
    stage.store.wait_asked()
    assert stage.states() == [State.STARTED]
    stage.term.end(EndReason.LOST)
    gate.set()
    stage.freed.wait()

    assert stage.body.runs == []
    assert stage.states() == [State.CLAIMED]


def test_a_fenced_start_says_that_the_term_is_lost(stage: Stage) -> None:
    """The body does not run."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    stage.node.dies()
    stage.pool.submit(claim, job, stage.term)
    stage.freed.wait()

    assert stage.fenced == [stage.term]
    assert stage.body.runs == []
    assert stage.states() == [State.CLAIMED]


def test_what_somebody_else_started_is_not_run(stage: Stage) -> None:
    """A copy of a claim is worth nothing."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    other = LedgerNode("b", stage.store, stage.clock)
    stage.node.dies()
    assert other.ledger.start(claim, other.term())
    stage.node.stand()
    other.dies()
    stage.pool.submit(claim, job, stage.node.term())
    stage.freed.wait()

    assert stage.body.runs == []
    assert stage.states() == [State.STARTED]


def test_a_record_that_can_not_be_read_harms_no_other_job(stage: Stage) -> None:
    """Its run is given up, the pool goes on."""
    ran: list[str] = []
    jobs = [make_job(name, body=partial(ran.append, name)) for name in ("broken", "sound")]
    claims = [stage.claimed(job)[0] for job in jobs]
    write = Write(job_key("broken"), b"?")
    stage.store.commit(ELECTION, [write], candidacy=None, deadline=stage.node.clock.now() + 1)
    stage.node.ledger.forget()
    for claim, job in zip(claims, jobs, strict=True):
        stage.pool.submit(claim, job, stage.term)
    stage.freed.wait(2)

    assert ran == ["sound"]
    assert sorted(stage.freed.jobs) == [("broken", False), ("sound", True)]


# -- ends ---------------------------------------------------------------------------------------------


def test_an_end_is_recorded_when_the_store_returns(stage: Stage) -> None:
    """Until then the job counts as running."""
    job = make_job(body=stage.body)
    stage.submit(job)
    stage.body.wait_begun()
    stage.store.cut()
    stage.store.forget_asked()
    stage.body.end()
    stage.store.wait_asked()
    with passing(stage.clock):
        stage.store.wait_asked(2)
        assert stage.freed.jobs == []
        stage.store.restore()
        stage.freed.wait()

    assert stage.states() == [State.SUCCEEDED]


def test_draining_waits_for_bodies(stage: Stage) -> None:
    """Within the grace time, and nothing more starts."""
    job = make_job(body=stage.body, policy=ALL)
    stage.submit(job, 2)
    stage.body.wait_begun()
    draining = Background(lambda: stage.pool.drain(LONG))
    assert not draining.over(0.05)
    stage.body.end()

    assert draining.result()
    stage.freed.wait()
    assert len(stage.body.runs) == 1
    assert stage.states() == [State.SUCCEEDED, State.CLAIMED]


def test_draining_waits_for_a_start_that_is_under_way(stage: Stage) -> None:
    """Or it would say that all has ended, and then a body would begin."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    stage.store.forget_asked()
    stage.store.gate = threading.Event()
    stage.pool.submit(claim, job, stage.term)
    stage.store.wait_asked()
    draining = Background(lambda: stage.pool.drain(LONG))
    assert not draining.over(0.05)
    stage.store.gate.set()

    assert draining.result()
    stage.freed.wait()
    assert stage.body.runs == []
    assert stage.states() == [State.CLAIMED]


@pytest.mark.parametrize("rerun", [False, True])
def test_a_start_that_outlasts_the_grace_time_is_handed_back(stage: Stage, rerun: bool) -> None:
    """It did not begin, so it was not interrupted, and the next one is no other attempt."""
    job = make_job(body=stage.body, rerun=rerun)
    (claim,) = stage.claimed(job)
    stage.store.forget_asked()
    gate = stage.store.gate = threading.Event()
    stage.pool.submit(claim, job, stage.term)
    stage.store.wait_asked()
    assert not stage.pool.drain(0.0)
    gate.set()
    stage.freed.wait()

    assert stage.body.runs == []
    (entry,) = stage.entries()
    assert (entry.state, entry.attempt) == (State.CLAIMED, 1)


@pytest.mark.parametrize("rerun", [False, True])
@pytest.mark.parametrize("told_twice", [False, True])
def test_what_outlasts_the_grace_time_is_closed_or_handed_back(
    stage: Stage, rerun: bool, told_twice: bool
) -> None:
    """And what the body does later changes nothing of it; a second signal does not wait."""
    job = make_job(body=stage.body, rerun=rerun)
    stage.submit(job)
    stage.body.wait_begun()
    draining = Background(lambda: stage.pool.drain(5.0))
    assert not draining.over(0.05)
    if told_twice:
        stage.pool.stop(now=True)
    else:
        stage.clock.advance(5.0)

    assert not draining.result()
    stage.body.end()
    stage.freed.wait()
    (entry,) = stage.entries()
    if rerun:
        assert (entry.state, entry.attempt) == (State.CLAIMED, 2)
    else:
        assert (entry.state, entry.reason) == (State.INTERRUPTED, "the node was stopped")


def test_a_pool_that_was_drained_lets_go_of_what_it_is_given(stage: Stage) -> None:
    """A tick that was under way may still come with claims."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    assert stage.pool.drain(0.0)
    stage.pool.submit(claim, job, stage.term)

    (entry,) = stage.entries()
    assert entry.state is State.CLAIMED
    assert not stage.node.ledger.holds("job", entry)


def test_a_stopped_pool_starts_nothing(stage: Stage) -> None:
    """Although the term still leads."""
    job = make_job(body=stage.body)
    (claim,) = stage.claimed(job)
    stage.pool.stop()
    stage.pool.submit(claim, job, stage.term)
    stage.freed.wait()

    assert stage.body.runs == []
    assert stage.states() == [State.CLAIMED]


def test_draining_without_a_store_still_ends(stage: Stage) -> None:
    """What can not be recorded is left to the next leader, who sees that the process is gone."""
    job = make_job(body=stage.body)
    stage.submit(job)
    stage.body.wait_begun()
    stage.store.cut()
    stage.pool.stop(now=True)

    assert not stage.pool.drain(LONG)
    stage.store.restore()
    assert stage.states() == [State.STARTED]
