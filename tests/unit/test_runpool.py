"""The pool: each body is started once, told when its term is over, and its end is recorded."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from leader_jobs.exceptions import StoreRefused
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.records import State, job_key
from leader_jobs.runpool import RunPool
from leader_jobs.runs import Run, assert_leader, current_run
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import EndReason, Term
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.ledgers import LedgerNode, entries_of, make_job, states
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
    """A store that raises what it is told to at the next commits, and says when it was asked."""

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
        self.asked.release()
        if self.gate is not None:
            assert self.gate.wait(LONG)
        if self.troubles:
            raise self.troubles.pop(0)
        return super().commit(election, writes, candidacy=candidacy, deadline=deadline)

    def wait_asked(self, times: int = 1) -> None:
        """Wait until so many commits more were asked for."""
        for _ in range(times):
            assert self.asked.acquire(timeout=LONG)

    def forget_asked(self) -> None:
        """Count from here."""
        while self.asked.acquire(blocking=False):
            pass


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> TroubledStore:
    return TroubledStore(clock)


@pytest.fixture(name="node")
def _node(store: TroubledStore, clock: ManualClock) -> LedgerNode:
    return LedgerNode("a", store, clock)


@pytest.fixture(name="term")
def _term(node: LedgerNode) -> Term:
    return node.term()


@pytest.fixture(name="body")
def _body() -> Iterator[Body]:
    body = Body()
    yield body
    body.end(100)


@pytest.fixture(name="freed")
def _freed() -> Freed:
    return Freed()


@pytest.fixture(name="fenced")
def _fenced() -> list[Term]:
    return []


@pytest.fixture(name="pool")
def _pool(
    node: LedgerNode, clock: ManualClock, freed: Freed, fenced: list[Term], body: Body
) -> Iterator[RunPool]:
    pool = RunPool(node.ledger, workers=4, clock=clock, freed=freed, fenced=fenced.append)
    yield pool
    body.end(100)
    pool.stop(now=True)
    pool.drain(0.0)
    pool._threads.shutdown(wait=True)


@pytest.fixture(name="advancing")
def _advancing(clock: ManualClock) -> Callable[[], object]:
    """Return what makes time go by on its own from then on, for threads that wait and retry."""

    def begin() -> Iterator[None]:
        over = threading.Event()

        def advance() -> None:
            while not over.wait(0.002):
                clock.advance(0.05)

        going = Background(advance)
        yield
        over.set()
        going.result()

    return contextmanager(begin)


def claimed(node: LedgerNode, job: Job, count: int = 1) -> tuple[Claim, ...]:
    """Have *node* claim so many occurrences of *job*."""
    claims = node.claims(job)
    node.tick(claims)
    node.clock.advance(10 * count)
    found = node.tick(claims)
    assert len(found) == count
    return found


# -- bodies -------------------------------------------------------------------------------------------


def test_a_body_runs_once_and_its_end_is_recorded(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, clock: ManualClock
) -> None:
    """On a thread of the pool, and nothing is in hand afterwards."""
    ran = []
    job = make_job(body=lambda: ran.append(threading.current_thread().name))
    (claim,) = claimed(node, job)
    pool.submit(claim, job, term)
    freed.wait()

    assert len(ran) == 1
    assert ran[0].startswith("leader-jobs-run")
    assert freed.jobs == [("job", True)]
    (entry,) = entries_of(node.store, "job", clock)
    assert entry.state is State.SUCCEEDED
    assert not node.ledger.holds("job", entry)


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
    pool: RunPool,
    node: LedgerNode,
    term: Term,
    freed: Freed,
    clock: ManualClock,
    error: BaseException,
    reason: str,
) -> None:
    """Whatever it raises."""

    def fail() -> None:
        raise error

    for name, body in (("bad", fail), ("good", lambda: None)):
        job = make_job(name, body=body)
        pool.submit(claimed(node, job)[0], job, term)
        freed.wait()

    (entry,) = entries_of(node.store, "bad", clock)
    assert entry.state is State.FAILED
    assert entry.reason.endswith(reason)
    assert states(node.store, "good", clock) == [State.SUCCEEDED]


def test_a_coroutine_function_is_run_to_its_end(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, clock: ManualClock
) -> None:
    """In a loop of its own, and it knows its run."""
    ran: list[Run | None] = []

    async def body() -> None:
        await asyncio.sleep(0)
        ran.append(current_run())

    job = make_job(body=body)
    (claim,) = claimed(node, job)
    pool.submit(claim, job, term)
    freed.wait()

    assert ran[0] is not None
    assert ran[0].occurrence == claim.occurrence
    assert states(node.store, "job", clock) == [State.SUCCEEDED]


def test_a_body_knows_its_run(pool: RunPool, node: LedgerNode, term: Term, freed: Freed) -> None:
    """Job, instant, id, token and attempt; code outside of it knows none."""
    seen: list[tuple[Run | None, int]] = []
    job = make_job(body=lambda: seen.append((current_run(), assert_leader())))
    (claim,) = claimed(node, job)
    pool.submit(claim, job, term)
    freed.wait()

    ((run, token),) = seen
    assert run is not None
    assert (run.election, run.job, run.planned_at) == (ELECTION, "job", claim.planned_at)
    assert (run.occurrence, run.attempt) == (claim.occurrence, 1)
    assert run.token == token == term.token
    assert current_run() is None


def test_a_body_is_told_when_its_term_is_over(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, clock: ManualClock, body: Body
) -> None:
    """It goes on all the same, and its end is recorded."""
    job = make_job(body=body)
    pool.submit(claimed(node, job)[0], job, term)
    body.wait_begun()
    (run,) = body.runs
    assert run is not None
    assert not run.lost.is_set()
    waiting = Background(lambda: run.lost.wait(LONG))
    term.end(EndReason.LOST)

    assert waiting.result()
    node.dies()
    body.end()
    freed.wait()
    assert states(node.store, "job", clock) == [State.SUCCEEDED]


def test_what_a_framework_needs_is_around_each_body(
    node: LedgerNode, term: Term, freed: Freed, clock: ManualClock
) -> None:
    """On the same thread; where it fails, so does the run."""
    seen = []

    @contextmanager
    def around() -> Iterator[None]:
        seen.append(("in", threading.get_ident()))
        yield
        seen.append(("out", threading.get_ident()))
        msg = "closing failed"
        raise OSError(msg)

    pool = RunPool(
        node.ledger, workers=1, clock=clock, freed=freed, fenced=lambda t: None, around=around
    )
    job = make_job(body=lambda: seen.append(("body", threading.get_ident())))
    pool.submit(claimed(node, job)[0], job, term)
    freed.wait()
    pool.drain(0.0)

    assert [word for word, _ in seen] == ["in", "body", "out"]
    assert len({thread for _, thread in seen}) == 1
    assert states(node.store, "job", clock) == [State.FAILED]


# -- one after the other ------------------------------------------------------------------------------


def test_runs_that_must_not_overlap_take_turns(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, clock: ManualClock, body: Body
) -> None:
    """In the order they were planned, and the job is free after the last one."""
    job = make_job(body=body, policy=ALL)
    claims = claimed(node, job, 3)
    for claim in claims:
        pool.submit(claim, job, term)
    for number in range(3):
        body.wait_begun()
        assert len(body.runs) == number + 1
        assert states(node.store, "job", clock).count(State.STARTED) == 1
        body.end()
    freed.wait()

    assert [run.planned_at for run in body.runs if run] == [c.planned_at for c in claims]
    assert freed.jobs == [("job", True)]


def test_runs_that_may_overlap_do(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, body: Body
) -> None:
    """All at once, as far as there are threads."""
    job = make_job(body=body, policy=OVERLAPPING)
    for claim in claimed(node, job, 3):
        pool.submit(claim, job, term)
    for _ in range(3):
        body.wait_begun()
    body.end(3)
    freed.wait(3)

    assert freed.jobs == [("job", True)] * 3


def test_what_waits_when_the_term_ends_is_handed_over(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, clock: ManualClock, body: Body
) -> None:
    """What runs goes on; the rest is still claimed, and in nobody's hands."""
    job = make_job(body=body, policy=ALL)
    for claim in claimed(node, job, 3):
        pool.submit(claim, job, term)
    body.wait_begun()
    term.end(EndReason.LOST)
    pool.drop_waiting()
    entries = entries_of(node.store, "job", clock)

    assert [node.ledger.holds("job", entry) for entry in entries] == [True, False, False]
    body.end()
    freed.wait()
    assert len(body.runs) == 1
    assert states(node.store, "job", clock) == [State.SUCCEEDED, State.CLAIMED, State.CLAIMED]


# -- starts -------------------------------------------------------------------------------------------


def test_nothing_starts_under_a_term_that_is_over(
    pool: RunPool, node: LedgerNode, term: Term, freed: Freed, clock: ManualClock, body: Body
) -> None:
    """The store is not even asked; the job is to be looked at again."""
    job = make_job(body=body)
    (claim,) = claimed(node, job)
    term.end(EndReason.LOST)
    pool.submit(claim, job, term)
    freed.wait()

    assert freed.jobs == [("job", False)]
    (entry,) = entries_of(node.store, "job", clock)
    assert entry.state is State.CLAIMED
    assert not node.ledger.holds("job", entry)


def test_a_suspended_term_starts_nothing_until_it_is_sure_again(
    pool: RunPool,
    node: LedgerNode,
    store: TroubledStore,
    term: Term,
    freed: Freed,
    clock: ManualClock,
) -> None:
    """The claim waits; it is not given up."""
    job = make_job()
    (claim,) = claimed(node, job)
    term.suspended = True
    store.forget_asked()
    pool.submit(claim, job, term)
    for _ in range(10):
        clock.advance(0.2)
    assert not store.asked.acquire(timeout=0.05)

    term.suspended = False
    clock.advance(0.2)
    freed.wait()
    assert states(store, "job", clock) == [State.SUCCEEDED]


@pytest.mark.parametrize("error", [StoreRefused("no"), None], ids=["refused", "lost reply"])
def test_a_start_in_doubt_is_tried_again(
    pool: RunPool,
    node: LedgerNode,
    store: TroubledStore,
    term: Term,
    freed: Freed,
    clock: ManualClock,
    advancing: Callable[[], contextmanager],  # type: ignore[valid-type]  # a fixture's own shape
    error: Exception | None,
) -> None:
    """The body runs once, when the start is known to be recorded."""
    ran = []
    job = make_job(body=lambda: ran.append(1))
    (claim,) = claimed(node, job)
    if error is not None:
        store.troubles = [error]
    else:
        store.lose_reply("commit")
    with advancing():
        pool.submit(claim, job, term)
        freed.wait()

    assert ran == [1]
    assert states(store, "job", clock) == [State.SUCCEEDED]
