"""A ledger that was taken back: who notices, what is noted, and what becomes of what was planned."""

from datetime import datetime, timedelta

import pytest

from leader_jobs.admissions import Admissions, Message, Refused
from leader_jobs.claims import Claims
from leader_jobs.exceptions import Fenced, StoreUnavailable, StoreUnusable
from leader_jobs.jobs import Job
from leader_jobs.lineage import LINEAGE_KEY, Lineage
from leader_jobs.occurrences import CatchUp, Policy, occurrence_id
from leader_jobs.orderbook import OrderBook
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.restores import Notice, Witnessed
from leader_jobs.stores.base import Origin, Write
from leader_jobs.term import Term
from leader_jobs.testing import ManualClock
from leader_jobs.tickets import Ticket
from testsupport.ledgers import (
    CountingStore,
    LedgerNode,
    dispatch,
    entries_of,
    make_job,
    make_planned,
    planned,
    record_of,
    run,
)
from testsupport.place import ELECTION

FIRST = "first"
ALL = Policy(catch_up=CatchUp.ALL, max_burst=100)


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> CountingStore:
    return CountingStore(clock, cluster=FIRST)


def lineage(store: CountingStore, clock: ManualClock) -> Lineage:
    """Return what is recorded."""
    rows = store.read(ELECTION, LINEAGE_KEY, deadline=clock.now() + 1)
    return Lineage.decode(rows[LINEAGE_KEY].value)


def works_on(node: LedgerNode, job: Job, clock: ManualClock, seconds: int) -> list[int]:
    """Have *node* run what is due for a while; return the planned seconds of what it ran."""
    claims, ran = node.claims(job), []
    for _ in range(seconds):
        clock.advance(1)
        found = node.tick(claims)
        run(node, *found)
        ran += planned(found)
    return ran


def reasons(entries: list[OccurrenceRecord]) -> list[tuple[State, int]]:
    """Return how entries ended that a restore ended, and how many occurrences each stands for."""
    return [(entry.state, entry.count) for entry in entries if entry.reason == "restored"]


def test_the_first_leader_notes_where_the_ledger_is(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Before its first claim, once: a later term finds it and writes nothing."""
    node.tick(node.claims(make_job()))
    assert lineage(store, clock) == Lineage(cluster=FIRST)
    many = len(store.batches)
    node.tick(node.claims(make_job()))
    assert len(store.batches) == many


def test_a_store_without_a_name_has_no_lineage(clock: ManualClock) -> None:
    """What can not be noticed is not written down either."""
    store = CountingStore(clock)
    node = LedgerNode("a", store, clock)
    node.tick(node.claims(make_job()))
    assert not store.read(ELECTION, LINEAGE_KEY, deadline=clock.now() + 1)


@pytest.mark.parametrize("catch_up", list(CatchUp))
@pytest.mark.parametrize("cluster", [FIRST, "second"])
def test_what_was_planned_before_is_passed_over(
    node: LedgerNode, store: CountingStore, clock: ManualClock, catch_up: CatchUp, cluster: str
) -> None:
    """Once, whatever the job catches up on; from then on it goes on."""
    job = make_job(every=1, policy=Policy(catch_up=catch_up, max_burst=100))
    first = works_on(node, job, clock, 5)
    snapshot = store.snapshot()
    lost = works_on(node, job, clock, 5)
    store.take_back(snapshot, cluster=cluster)
    clock.advance(3)
    node.stand()
    store.expire_all_but(node.candidacy)
    after = works_on(node, job, clock, 5)
    assert (first, lost, after) == ([*range(2, 6)], [*range(6, 11)], [*range(14, 19)])
    assert reasons(entries_of(store, "job", clock)) == [(State.SKIPPED, 8)]
    assert lineage(store, clock).since is not None
    assert node.ledger.tally.restored == 1


def test_a_process_that_came_later_sees_another_cluster(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """It saw nothing, and finds the name of the cluster in the record to be another one."""
    job = make_job(every=1, policy=ALL)
    works_on(node, job, clock, 5)
    snapshot = store.snapshot()
    works_on(node, job, clock, 5)
    store.take_back(snapshot, cluster="second", unseen=True)
    store.expire_all_but(None)
    later = LedgerNode("later", store, clock)
    assert works_on(later, job, clock, 3) == [11, 12, 13]
    assert lineage(store, clock) == Lineage(
        cluster="second", since=lineage(store, clock).since, noted_by="later"
    )


def test_a_restore_is_noted_once(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Whoever leads next saw the same restore, and finds it noted: nothing is passed over again."""
    job = make_job(every=1, policy=ALL)
    works_on(node, job, clock, 3)
    store.take_back(store.snapshot())
    clock.advance(1)
    store.expire_all_but(None)
    node.stand()
    works_on(node, job, clock, 3)
    noted = lineage(store, clock)
    other = LedgerNode("b", store, clock)
    node.dies()
    assert works_on(other, job, clock, 3) == [8, 9, 10]
    assert lineage(store, clock) == noted


def test_a_second_restore_is_noted_again(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """A note that came back with the snapshot is of an earlier restore."""
    job = make_job(every=1, policy=ALL)
    works_on(node, job, clock, 3)
    for _ in range(2):
        snapshot = store.snapshot()
        works_on(node, job, clock, 3)
        store.take_back(snapshot)
        clock.advance(1)
        store.expire_all_but(None)
        node.stand()
        works_on(node, job, clock, 2)
    assert node.ledger.tally.restored == 2


def test_a_term_of_before_is_fenced(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Although its candidacy came back with the snapshot and is the first in line."""
    claims = node.claims(make_job(every=1))
    node.tick(claims)
    store.take_back(store.snapshot())
    clock.advance(1)
    with pytest.raises(Fenced):
        node.tick(claims)


def test_open_occurrences_are_closed(
    node: LedgerNode, other: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Claimed, dispatched or started, and whoever started it lives: it may be through long since."""
    jobs = [make_planned(name, policy=ALL) for name in ("claimed", "dispatched", "started")]
    node.tick(node.claims(*jobs))
    clock.advance(10)
    claims = {claim.job: claim for claim in node.tick(node.claims(*jobs))}
    dispatch(node, claims["dispatched"])
    assert node.ledger.start(claims["started"], node.term())
    store.take_back(store.snapshot())
    clock.advance(1)
    other.stand()
    store.expire_all_but(other.candidacy)
    assert other.tick(other.claims(*jobs)) == ()
    ended = {job.name: reasons(entries_of(store, job.name, clock)) for job in jobs}
    skipped, interrupted = [(State.SKIPPED, 1)], [(State.INTERRUPTED, 1)]
    assert ended == {"claimed": skipped, "dispatched": skipped, "started": interrupted}


def test_a_run_of_our_own_goes_on(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """What is in our own hands is known to run; it is recorded when it ends."""
    job = make_job(policy=ALL)
    node.tick(node.claims(job))
    clock.advance(10)
    (claim,) = node.tick(node.claims(job))
    assert node.ledger.start(claim, node.term())
    store.take_back(store.snapshot())
    clock.advance(1)
    store.expire_all_but(None)
    node.stand()
    assert node.tick(node.claims(job)) == ()
    assert node.ledger.finish(claim, State.SUCCEEDED)
    assert reasons(entries_of(store, "job", clock)) == []


def test_a_number_that_is_counted_again_is_another_occurrence(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """A body that ran through the restore is not taken for the one that now has its number."""
    job = make_job(every=1, policy=ALL)
    node.tick(node.claims(job))
    snapshot = store.snapshot()
    clock.advance(1)
    (claim,) = node.tick(node.claims(job))
    store.take_back(snapshot)
    clock.advance(1)
    store.expire_all_but(None)
    node.stand()
    node.tick(node.claims(job))
    clock.advance(1)
    node.tick(node.claims(job))
    entry = record_of(store, "job", clock).open[0]
    assert node.ledger.holds("job", entry)
    node.ledger.let_go(claim)
    assert node.ledger.holds("job", entry)
    assert not node.ledger.finish(claim, State.SUCCEEDED)


def test_a_job_that_runs_once_is_not_run_after_a_restore(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Its time was before: it may have run."""
    began = clock.utcnow()
    job = make_planned(every=5, since=began, once=True)
    node.tick(node.claims())
    store.take_back(store.snapshot())
    clock.advance(6)
    store.expire_all_but(None)
    node.stand()
    assert node.tick(node.claims(job)) == ()
    assert reasons(entries_of(store, "job", clock)) == [(State.SKIPPED, 1)]


def test_nothing_is_claimed_while_the_restore_is_not_noted(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """The reply to the note is lost: nothing is claimed then, and in the next tick it is found."""
    job = make_job(every=1, policy=ALL)
    works_on(node, job, clock, 3)
    store.take_back(store.snapshot())
    clock.advance(2)
    store.expire_all_but(None)
    node.stand()
    claims = node.claims(job)
    store.lose_reply("commit")
    with pytest.raises(StoreUnavailable):
        node.tick(claims)
    clock.advance(1)
    assert planned(node.tick(claims)) == [5, 6]


def test_a_record_that_can_not_be_read_stops_everything(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Nobody guesses whether there was a restore."""
    write = Write(LINEAGE_KEY, b"{}")
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    with pytest.raises(StoreUnusable, match="control/lineage"):
        node.tick(node.claims(make_job()))


def test_a_note_that_comes_within_a_term_is_obeyed(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Whoever else noticed wrote it; the leader hears of it as of an order."""
    job = make_job(every=1, policy=ALL)
    orders = OrderBook(store, ELECTION, node="a", clock=clock)
    claims = Claims(node.ledger, node.term(), [job], clock=clock, orders=orders)
    node.tick(claims)
    clock.advance(3)
    note = Lineage(cluster=FIRST, since=clock.utcnow(), noted_by="b")
    write = Write(LINEAGE_KEY, note.encode())
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    orders.look()
    assert planned(node.tick(claims)) == [3]


# -- whoever starts what a leader dispatched ------------------------------------------------------


def message(store: CountingStore, clock: ManualClock, at: datetime) -> Message:
    """Return a message of an occurrence planned for *at*, as the ledger has it."""
    entry = record_of(store, "job", clock).open[0]
    ticket = Ticket(
        election=ELECTION,
        job="job",
        planned_at=at,
        sequence=entry.sequence,
        attempt=1,
        token=entry.token,
    )
    return Message(
        ticket=ticket,
        id=occurrence_id(ELECTION, "job", at),
        task="",
        retries=0,
        policy=ALL,
        rerun_on_crash=False,
    )


def dispatched(node: LedgerNode, clock: ManualClock) -> Claims:
    """Have an occurrence claimed and dispatched."""
    claims = node.claims(make_planned(policy=ALL))
    node.tick(claims)
    clock.advance(10)
    dispatch(node, *node.tick(claims))
    return claims


def admit(node: LedgerNode, asked: Message, clock: ManualClock) -> None:
    """Have a worker decide about a message."""
    Admissions(node.ledger, clock=clock, start_within=0.0).admit(asked, _presence(node, clock))


def _presence(node: LedgerNode, clock: ManualClock) -> Term:
    return Term(candidacy=node.candidacy, deadline=clock.now() + 100, clock=clock)


def test_a_message_of_before_is_refused(
    node: LedgerNode, other: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """Even if its occurrence is open in the ledger that was restored: it may have run since."""
    dispatched(node, clock)
    asked = message(store, clock, record_of(store, "job", clock).open[0].planned_at)
    store.take_back(store.snapshot())
    clock.advance(1)
    note = Lineage(cluster=FIRST, since=clock.utcnow())
    write = Write(LINEAGE_KEY, note.encode())
    store.commit(ELECTION, [write], candidacy=None, deadline=clock.now() + 1)
    with pytest.raises(Refused, match="restored"):
        admit(other, asked, clock)


def test_nothing_starts_before_a_leader_has_noted_the_restore(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """A worker that has noticed waits for the leader's word."""
    dispatched(node, clock)
    notice = Notice(store, ELECTION, clock=clock)
    assert notice.since() is None
    store.take_back(store.snapshot())
    with pytest.raises(StoreUnavailable, match="no leader has noted it"):
        notice.since()
    clock.advance(1)
    store.expire_all_but(None)
    node.stand()
    node.tick(node.claims())
    assert notice.since() == clock.utcnow()


def test_a_lineage_holds_for_those_it_is_newer_than() -> None:
    """A note from before a process last heard of the former history is of an earlier restore."""
    seen = datetime.fromisoformat("2026-11-28T04:00:00+00:00")
    earlier, later = (seen + timedelta(seconds=s) for s in (-1, 1))
    held = [
        Lineage(cluster="a", since=since).holds(Origin("a", seen))
        for since in (None, earlier, later)
    ]
    assert held == [False, False, True]
    assert Lineage(cluster="a").holds(Origin("a"))
    assert not Lineage(cluster="a", since=later).holds(Origin("b"))


# -- whoever noticed, and the next in line --------------------------------------------------------


def test_whoever_noticed_tells_the_next_leader(
    node: LedgerNode, store: CountingStore, clock: ManualClock
) -> None:
    """It is written before the next in line, who may have noticed nothing, can lead; and once."""
    job = make_job(every=1, policy=ALL)
    works_on(node, job, clock, 3)
    witnessed = Witnessed(store, ELECTION, node="a", clock=clock, noted=node.ledger.tally.restore)
    many = len(store.batches)
    witnessed.note()
    assert len(store.batches) == many
    store.take_back(store.snapshot())
    clock.advance(2)
    for _ in range(2):
        witnessed.note()
    assert lineage(store, clock) == Lineage(cluster=FIRST, since=clock.utcnow(), noted_by="a")
    assert (len(store.batches), node.ledger.tally.restored) == (many + 1, 1)
    store.expire_all_but(None)
    other = LedgerNode("b", store, clock)
    assert works_on(other, job, clock, 2) == [5, 6, 7]
