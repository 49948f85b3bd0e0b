"""What looking at elections costs, and that it may be done by anybody; see `test_observatory`."""

import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from leader_jobs.claims import Claims
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.control import Control
from leader_jobs.exceptions import StoreUnavailable
from leader_jobs.histories import Histories
from leader_jobs.ledger import Ledger
from leader_jobs.names import runners_of
from leader_jobs.observatory import Observatory
from leader_jobs.proposals import Proposal
from leader_jobs.records import HISTORY, JOBS_PREFIX, State, job_key
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.factory import open_store
from leader_jobs.term import Term
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.forking import in_forked_child
from testsupport.ledgers import LedgerNode, entries_of, make_job, run
from testsupport.looking import WatchedStore, go, one
from testsupport.place import ELECTION, Place


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> WatchedStore:
    return WatchedStore(clock)


@pytest.fixture(name="observatory")
def _observatory(store: WatchedStore, clock: ManualClock) -> Observatory:
    return Observatory(store, clock=clock)


# -- what a look costs --------------------------------------------------------------------------------


def test_a_look_at_what_has_not_changed_reads_no_history(
    store: WatchedStore, observatory: Observatory, node: LedgerNode
) -> None:
    """Of a job that did change, its own newest entries are read, and no other's."""
    jobs = [make_job(name, 1) for name in ("job", "job 2", "other")]
    go(node, 40, *jobs)
    first = observatory.election(ELECTION)
    assert {prefix.split("/")[1] for prefix in store.histories()} == {"job", "job 2", "other"}

    assert observatory.election(ELECTION).jobs == first.jobs
    assert observatory.election(ELECTION, recent=7).jobs[0].recent == first.jobs[0].recent[-7:]
    observatory.elections()
    assert store.histories() == []

    node.clock.advance(1)
    run(node, *node.tick(node.claims(make_job("other", 1))))
    view = observatory.election(ELECTION)
    assert store.histories() == [
        "history/other/01",
        "history/other/02",
        "history/other/03",
        "history/other/04",
    ]
    assert view.jobs[:2] == first.jobs[:2]
    assert [entry.sequence for entry in one(view, "other").recent] == list(range(11, 41))

    observatory.election(ELECTION, recent=HISTORY)
    assert store.histories() == ["history/job/", "history/job 2/", "history/other/"]


def test_a_question_has_one_deadline(
    store: WatchedStore, node: LedgerNode, clock: ManualClock
) -> None:
    """All reads of a look share it; a store that is away by then is said to be."""
    go(node, 1, make_job("job", 1))
    observatory = Observatory(store, clock=clock, timeout=2.0)
    began = clock.now()
    store.deadlines.clear()
    store.after_read = [lambda: clock.advance(1.5)]
    observatory.election(ELECTION)
    assert store.deadlines == {began + 2.0}

    go(node, 1, make_job("job", 1))
    store.after_read = [lambda: clock.advance(2.5)]
    with pytest.raises(StoreUnavailable):
        observatory.election(ELECTION)
    store.cut()
    for question in (observatory.elections, lambda: observatory.history(ELECTION, "job")):
        with pytest.raises(StoreUnavailable):
            question()
    store.restore()
    assert one(observatory.election(ELECTION)).recent


def test_what_is_remembered_is_bounded(
    store: WatchedStore, node: LedgerNode, clock: ManualClock
) -> None:
    """What was not asked for longest is forgotten, and read again when it is."""
    jobs = [make_job(f"job{number}", 1) for number in range(6)]
    go(node, 20, *jobs)
    histories = Histories(store, most=60)

    def look(*names: str) -> set[str]:
        """Look at these jobs, and return of which of them the history was read."""
        rows = store.read(ELECTION, JOBS_PREFIX, deadline=clock.now() + 1)
        some = {job_key(name): rows[job_key(name)] for name in names}
        store.reads.clear()
        found = histories.look(
            ELECTION, histories.jobs(ELECTION, some), depth=19, deadline=clock.now() + 1
        )
        read = {prefix.split("/")[1] for prefix in store.histories()}
        for name in names:
            assert list(found[name].closed) == entries_of(store, name, clock)[-19:]
        return read

    for job in jobs:
        assert look(job.name) == {job.name}
        known = histories._memory._known.values()
        assert histories._memory._weight == sum(1 + len(kept.rows) for kept in known) <= 60
    assert look("job4", "job5", "job3") == set()
    assert look("job0") == {"job0"}
    assert look("job0", "job4", "job5") == set()
    assert look("job3") == {"job3"}


# -- threads and forks --------------------------------------------------------------------------------


def test_many_threads_may_look_while_jobs_run(
    store: WatchedStore, node: LedgerNode, clock: ManualClock
) -> None:
    """Every view is whole: no occurrence is missing between the oldest and the newest shown."""
    observatory = Observatory(store, clock=clock, timeout=10_000)
    job = make_job("job", 1)
    go(node, 50, job)
    over = threading.Event()

    def watch() -> int:
        looks = 0
        while not over.is_set():
            seen = [entry.sequence for entry in one(observatory.election(ELECTION)).recent]
            assert seen == list(range(seen[0], seen[0] + len(seen)))
            assert len(seen) >= 30
            looks += 1
        return looks

    watching = [Background(watch) for _ in range(4)]
    try:
        go(node, 300, job)
    finally:
        over.set()
    assert all(look.result() > 0 for look in watching)
    whole = entries_of(store, "job", clock)
    assert one(observatory.election(ELECTION)).recent == tuple(whole[-30:])


def test_the_child_of_a_fork_looks_by_itself(tmp_path: Path) -> None:
    """Even if a thread of its parent was just remembering something."""
    clock = SystemClock()
    settings = Settings(store=f"sqlite:///{tmp_path}/store.sqlite3")
    with closing(open_store(settings, clock=clock)) as store:
        row = Write(job_key("job"), b"garbage")
        store.commit(ELECTION, [row], candidacy=None, deadline=clock.now() + 5)
        observatory = Observatory(store, clock=clock)
        assert len(observatory.election(ELECTION).jobs) == 1
        with observatory._histories._memory._lock:
            assert in_forked_child(lambda: len(observatory.election(ELECTION).jobs)) == "1"
        assert len(observatory.election(ELECTION).jobs) == 1


# -- real stores --------------------------------------------------------------------------------------


def _work(place: Place, leading: Candidacy) -> Ledger:
    """Have a job every second run to its end 34 times, and once more, and another one be paused."""
    ledger = Ledger(place.store, ELECTION, node="one", owner="i", clock=place.clock)
    term = Term(candidacy=leading, deadline=place.within(30), clock=place.clock)
    jobs = [make_job("job", 1), make_job("jo", 3600)]
    claims = Claims(ledger, term, jobs, clock=place.clock)
    now = place.clock.utcnow()
    claims.tick(now)
    for second in range(1, 36):
        (claim,) = claims.tick(now + timedelta(seconds=second)).claims
        assert ledger.start(claim, term)
        if second < 35:
            assert ledger.finish(claim, State.SUCCEEDED)
            ledger.let_go(claim)
    Control(place.store, ELECTION, by="me", clock=place.clock).pause("jo", reason="why not")
    return ledger


def test_an_election_is_seen_on_every_kind_of_store(place: Place) -> None:
    """Who stands, who works, what ran, what is ordered; in full and in one line."""
    proposal = Proposal(node="one", host="here", pid=7, version="1.0", incarnation="i").encode()
    leading, foreign = place.enrol(proposal), place.enrol(b"a Go program")
    worker = place.enrol(proposal, election=runners_of(ELECTION))
    ledger = _work(place, leading)
    observatory = Observatory(place.open(), clock=place.clock)
    view = observatory.election(ELECTION)

    assert [(m.id, m.node, m.foreign, m.ttl) for m in view.candidates] == [
        (leading.id, "one", False, 30),
        (foreign.id, "a Go program", True, 30),
    ]
    assert all(m.remaining is not None and m.remaining <= 30 for m in view.candidates)
    assert [(m.id, m.host, m.pid, m.place) for m in view.members] == [(worker.id, "here", 7, None)]
    jo, job = view.jobs
    assert (jo.name, jo.recent, jo.pause is None) == ("jo", (), False)
    assert [entry.sequence for entry in job.recent] == list(range(4, 35))
    assert [entry.state for entry in job.open] == [State.STARTED]
    assert list(observatory.history(ELECTION, "job")) == ledger.history("job")
    assert observatory.history(ELECTION, "jo") == ()
    (summary,) = observatory.elections()
    assert (summary.election, summary.candidates, summary.members) == (ELECTION, 2, 1)
    assert (summary.jobs, summary.overdue, summary.pause) == (2, view.overdue, None)
    assert summary.leader is not None
    assert (summary.leader.id, summary.leader.ttl) == (leading.id, 30)
