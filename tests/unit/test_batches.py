"""Changes of many jobs in a few transactions: what is refused or in doubt holds up nothing else."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from leader_jobs.batches import Batches, Change
from leader_jobs.exceptions import Conflict, Fenced, StoreUnavailable
from leader_jobs.ledger import Ledger, Versioned
from leader_jobs.records import JobRecord, job_key
from leader_jobs.stores.base import Candidacy, Limits
from leader_jobs.term import Term
from leader_jobs.testing import ManualClock
from testsupport.ledgers import CountingStore, LedgerNode, make_job, reader
from testsupport.place import ELECTION, Place

NAMES = tuple(f"job-{number}" for number in range(6))


def known(node: LedgerNode) -> None:
    """Have the ledger know all jobs."""
    node.tick(node.claims(*map(make_job, NAMES)))


def changes(ledger: Ledger, names: Sequence[str] = NAMES) -> list[Change]:
    """Return a change of each job, made from what *ledger* remembers."""
    made = []
    loaded = ledger.load(names)
    for found in map(loaded.__getitem__, names):
        assert isinstance(found, Versioned)
        assert found.record is not None
        made.append(Change(replace(found.record, words="changed"), found.version))
    return made


def commit(node: LedgerNode, made: Sequence[Change], term: Term | None = None) -> list[str]:
    """Commit, and return the jobs whose changes are known to stand."""
    batches = Batches[Change](node.ledger, term or node.term(), clock=node.clock)
    return [change.record.job for batch in batches.commit(made) for change in batch]


def changed(node: LedgerNode) -> list[str]:
    """Return the jobs that are changed in the store."""
    found = reader(node.store, node.clock).jobs()
    return sorted(name for name, record in found.items() if record.words == "changed")


def move_on(node: LedgerNode, *names: str) -> None:
    """Have another process change the records of some jobs."""
    other = reader(node.store, node.clock)
    for name in names:
        assert other.change(name, lambda record: (replace(record, task="moved on"), ()), None)


# -- what a conflict costs ----------------------------------------------------------------------------


def test_a_conflict_refuses_its_own_job_alone(store: CountingStore, node: LedgerNode) -> None:
    """The others of the batch are committed at once; what moved on is read anew."""
    known(node)
    made = changes(node.ledger)
    move_on(node, "job-1", "job-4")
    store.batches.clear()

    assert commit(node, made) == ["job-0", "job-2", "job-3", "job-5"]
    assert store.batches == [4]
    assert changed(node) == ["job-0", "job-2", "job-3", "job-5"]
    assert commit(node, changes(node.ledger)) == list(NAMES)


def test_what_moves_on_while_a_conflict_is_settled_is_left_out_too(
    store: CountingStore, node: LedgerNode
) -> None:
    """As often as it takes."""
    known(node)
    made = changes(node.ledger)
    store.before = [
        lambda: move_on(node, "job-0"),
        lambda: None,  # what `move_on` itself commits
        lambda: move_on(node, "job-5"),
    ]

    assert commit(node, made) == ["job-1", "job-2", "job-3", "job-4"]


def test_a_batch_all_of_which_moved_on_is_not_written(
    store: CountingStore, node: LedgerNode
) -> None:
    """Nor is an empty one."""
    known(node)
    made = changes(node.ledger)
    move_on(node, *NAMES)
    store.batches.clear()

    assert commit(node, made) == []
    assert store.batches == []


def test_a_conflict_of_unknown_jobs_refuses_the_batch(
    store: CountingStore, node: LedgerNode
) -> None:
    """A store that can not tell who moved on is believed, and everything is read anew."""
    known(node)
    made = changes(node.ledger)
    move_on(node, "job-2")

    def conflict() -> None:
        raise Conflict(())

    store.before = [conflict]
    assert commit(node, made) == []
    assert commit(node, changes(node.ledger)) == list(NAMES)


# -- what else can go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(guards=2, writes=128, size=1_000_000)])
def test_a_batch_in_doubt_is_read_anew_and_the_others_stand(
    store: CountingStore, node: LedgerNode
) -> None:
    """It may have been written, and what is remembered of its jobs is worth nothing."""
    known(node)
    made = changes(node.ledger)
    store.before = [lambda: None, lambda: store.lose_reply("commit")]

    assert commit(node, made) == ["job-0", "job-1", "job-4", "job-5"]
    assert changed(node) == list(NAMES)
    assert [change.version for change in changes(node.ledger)] == [
        change.version for change in changes(reader(store, node.clock))
    ]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(guards=2, writes=128, size=1_000_000),
        Limits(guards=2, writes=128, size=1_000_000, at_once=3),
    ],
    ids=["one by one", "at once"],
)
def test_a_fenced_term_is_told_so(
    store: CountingStore, node: LedgerNode, other: LedgerNode
) -> None:
    """And what was written before it was fenced stands."""
    assert other.ledger.living() == {"a", "b"}
    known(node)
    made = changes(node.ledger)
    store.before = [lambda: None, lambda: None, node.dies]

    with pytest.raises(Fenced):
        commit(node, made)
    assert len(changed(node)) == 4


def test_nothing_is_sent_when_the_term_is_over(
    store: CountingStore, node: LedgerNode, clock: ManualClock
) -> None:
    """A commit may take a third of the ttl, and never longer than the term."""
    known(node)
    made = changes(node.ledger)
    deadlines: list[float] = []
    committing = store.commit

    def note(*args: object, deadline: float, **more: object) -> int:
        deadlines.append(deadline)
        return committing(*args, deadline=deadline, **more)  # type: ignore[arg-type]  # as given

    store.commit = note  # type: ignore[method-assign]  # to see the deadline
    commit(node, made[:1], node.term(lasts=5.0))
    commit(node, made[1:2])

    assert deadlines == [clock.now() + 5.0, clock.now() + node.candidacy.ttl / 3]


class Rendezvous(CountingStore):
    """A store on which commits wait for each other."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, Limits(guards=2, writes=128, size=1_000_000, at_once=3))
        self.met: threading.Barrier | None = None

    def commit(
        self, election: str, writes: object, *, candidacy: Candidacy | None, deadline: float
    ) -> int:
        """Write a batch when three are under way."""
        if self.met is not None:
            self.met.wait(10.0)
        return super().commit(election, writes, candidacy=candidacy, deadline=deadline)


def test_several_transactions_are_under_way_at_once(clock: ManualClock) -> None:
    """Where the store gains by it; they are yielded in order all the same."""
    store = Rendezvous(clock)
    node = LedgerNode("a", store, clock)
    known(node)
    made = changes(node.ledger)
    store.met = threading.Barrier(3)

    assert commit(node, made) == list(NAMES)


def test_a_change_is_never_split(store: CountingStore, node: LedgerNode) -> None:
    """A record and the history it closes are in one transaction, even if they fill it alone."""
    known(node)
    made = changes(node.ledger)
    for number, change in enumerate(made):
        record = change.record.claim(
            change.record.cursor, token=1, node="a", now=node.clock.utcnow()
        )
        change.record = record.without(record.open[0].sequence)
        change.closed = [replace(record.open[0], sequence=n) for n in range(number)]
    store.batches.clear()

    batches = Batches[Change](node.ledger, node.term(), clock=node.clock)
    assert sum(map(len, batches.commit(made))) == len(NAMES)
    assert sum(store.batches) == sum(1 + number for number in range(6))


# -- on every kind of store ---------------------------------------------------------------------------


def test_every_store_says_whose_record_moved_on(place: Place) -> None:
    """So that on each of them a conflict refuses its own job alone."""
    candidacy = place.enrol()
    term = Term(candidacy=candidacy, deadline=place.within(30.0), clock=place.clock)
    ledger, other = (
        Ledger(place.open(), ELECTION, node=name, owner=name, clock=place.clock)
        for name in ("leader", "other")
    )
    batches = Batches[Change](ledger, term, clock=place.clock)
    now = place.clock.utcnow()
    new = [Change(JobRecord(job=n, schedule="s", words="w", cursor=now), 0) for n in NAMES]
    assert sum(map(len, batches.commit(new))) == len(NAMES)
    made = changes(ledger)
    assert other.change("job-3", lambda record: (replace(record, task="moved on"), ()), None)

    (standing,) = batches.commit(made)
    assert [change.record.job for change in standing] == [n for n in NAMES if n != "job-3"]
    assert place.read(job_key("job-3"))[job_key("job-3")].version > made[0].version
    assert [len(batch) for batch in batches.commit(changes(ledger))] == [len(NAMES)]


def test_an_unknown_outcome_is_no_refusal(store: CountingStore, node: LedgerNode) -> None:
    """A store that is away refuses nobody: nothing is known to stand, and nothing is raised."""
    known(node)
    made = changes(node.ledger)
    store.cut()

    assert commit(node, made) == []
    with pytest.raises(StoreUnavailable):
        node.ledger.load(NAMES)
