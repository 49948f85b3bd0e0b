"""Admissions: of all messages for an occurrence one starts it, whoever delivers them where."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from leader_jobs.admissions import Later, Message, Refused
from leader_jobs.jobs import Job
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import Policy
from leader_jobs.records import State, job_key
from leader_jobs.stores.base import Write
from leader_jobs.testing import ManualClock
from testsupport.admissions import TASK, LateStore, Worker, dispatched, guarded, last, message
from testsupport.ledgers import CountingStore, LedgerNode, claim_one, entries_of, passing
from testsupport.place import ELECTION


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> LateStore:
    return LateStore(clock)


@pytest.fixture(name="job")
def _job() -> Job:
    return guarded()


@pytest.fixture(name="worker")
def _worker(node: LedgerNode, store: CountingStore, clock: ManualClock) -> Worker:
    assert node.ledger.living() == {"a"}  # who leads
    return Worker("w", store, clock)


@pytest.fixture(name="second")
def _second(worker: Worker, store: CountingStore, clock: ManualClock) -> Worker:
    assert worker.name == "w"
    return Worker("x", store, clock)


# -- one start ------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [False, True])
def test_a_message_starts_its_occurrence(
    marked: bool, node: LedgerNode, worker: Worker, claim: Claim, clock: ManualClock
) -> None:
    """Whether or not the leader has come to recording that it sent it."""
    if marked:
        dispatched(node, claim)
    clock.advance(1.0)
    started = worker.admit(message(claim))

    assert started == replace(claim, token=claim.token)
    entry = last(node)
    assert (entry.state, entry.owner, entry.node) == (State.STARTED, "w", "w")
    assert entry.started_at == clock.utcnow()

    worker.admissions.succeed(started)
    assert last(node).state is State.SUCCEEDED


def test_a_copy_is_refused_elsewhere(
    node: LedgerNode, worker: Worker, second: Worker, claim: Claim
) -> None:
    """While the body runs, and when it has ended."""
    started = worker.admit(message(claim))
    with pytest.raises(Refused, match="it runs on node w since") as refused:
        second.admit(message(claim))
    assert not refused.value.forged

    worker.admissions.fail(started, "ValueError: no\n  such thing\n")
    with pytest.raises(Refused, match="it failed on node w: ValueError: no such thing") as refused:
        second.admit(message(claim))
    assert not refused.value.forged
    assert last(node).reason == "ValueError: no such thing"


def test_a_copy_is_refused_in_the_same_process(worker: Worker, claim: Claim) -> None:
    """As long as the end is not recorded: the ledger would take it for a start of our own."""
    started = worker.admit(message(claim))
    with pytest.raises(Refused, match="in the hands of this process"):
        worker.admit(message(claim))

    worker.store.cut()
    with passing(worker.clock):
        worker.admissions.succeed(started)
    with pytest.raises(Refused, match="in the hands of this process"):
        worker.admit(message(claim))

    worker.store.restore()
    worker.settle()
    with pytest.raises(Refused, match="it succeeded on node w"):
        worker.admit(message(claim))


def test_of_two_that_ask_at_once_one_starts(
    worker: Worker, second: Worker, claim: Claim, store: LateStore
) -> None:
    """The version of the record decides, also if both had seen it free."""
    won: list[Claim] = []
    store.before.append(lambda: won.append(second.admit(message(claim))))
    commits = len(store.batches)

    with pytest.raises(Refused, match="it runs on node x"):
        worker.admit(message(claim))
    worker.settle()
    assert won
    assert last(worker).owner == "x"
    assert len(store.batches) == commits + 1, "a start that was refused has nothing to be undone"


def test_of_many_copies_on_many_threads_one_starts(
    worker: Worker, second: Worker, claim: Claim, node: LedgerNode
) -> None:
    """In two processes."""

    def ask(asked: Worker) -> bool:
        try:
            asked.admit(message(claim))
        except (Refused, Later):
            return False
        return True

    with ThreadPoolExecutor(8) as pool, passing(node.clock):
        starts = list(pool.map(ask, [worker, second] * 20))
    assert starts.count(True) == 1


def test_who_lives_is_asked_only_where_it_matters(
    worker: Worker, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary start costs a read and a write."""
    monkeypatch.setattr(worker.ledger, "living", lambda: pytest.fail("nobody needs to know"))

    worker.admissions.succeed(worker.admit(message(claim)))


# -- what no leader can have sent -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: replace(m, task="other"), "its job runs task shop.tasks.report"),
        (lambda m: replace(m, id="other"), "its ticket is of occurrence"),
        (lambda m: altered(m, sequence=7), "it was never claimed"),
        (lambda m: altered(m, attempt=2), "there was no attempt 2"),
        (lambda m: altered(m, job="unknown"), "was never claimed"),
        (
            lambda m: altered(m, planned_at=m.ticket.planned_at + timedelta(seconds=10)),
            "occurrence 0 of its job is that of",
        ),
    ],
)
def test_a_forged_message_starts_nothing(
    change: Callable[[Message], Message], why: str, worker: Worker, claim: Claim
) -> None:
    """Whatever it says, the ledger has to know of it."""
    with pytest.raises(Refused, match=why) as refused:
        worker.admit(change(message(claim)))

    assert refused.value.forged
    assert last(worker).state is State.CLAIMED
    worker.admit(message(claim))


def altered(given: Message, **changes: object) -> Message:
    """Return the message with another ticket, and the id that goes with it."""
    ticket = replace(given.ticket, **changes)  # type: ignore[arg-type]  # fields by name
    return replace(given, ticket=ticket, id=ticket.occurrence)


def test_a_ticket_of_a_past_life_of_the_job_is_refused(
    worker: Worker, node: LedgerNode, claim: Claim
) -> None:
    """Closed under this number was another occurrence."""
    worker.admissions.succeed(worker.admit(message(claim)))
    before = claim.planned_at - timedelta(hours=1)

    with pytest.raises(Refused, match="the ledger has it otherwise") as refused:
        worker.admit(altered(message(claim), planned_at=before))
    assert refused.value.forged


def test_what_was_closed_long_ago_is_not_forged(
    node: LedgerNode, worker: Worker, claim: Claim, job: Job, clock: ManualClock
) -> None:
    """The history has no room for it any more."""
    worker.admissions.succeed(worker.admit(message(claim)))
    claims = node.claims(job)
    node.ledger.let_go(claim)
    for _ in range(100):
        clock.advance(10)
        (later,) = node.tick(claims)
        worker.admissions.succeed(worker.admit(message(later)))
        node.ledger.let_go(later)
        claims.look_again(job.name)

    with pytest.raises(Refused, match="closed long ago") as refused:
        worker.admit(message(claim))
    assert not refused.value.forged


def test_a_job_that_vanishes_starts_nothing(
    worker: Worker, claim: Claim, store: LateStore, clock: ManualClock
) -> None:
    """Somebody removed its record between our look and our write."""

    def remove() -> None:
        store.commit(
            ELECTION, [Write(job_key("job"), None)], candidacy=None, deadline=clock.now() + 1
        )

    store.before.append(remove)
    with pytest.raises(Refused, match="it was never claimed"):
        worker.admit(message(claim))


def test_a_record_that_can_not_be_read_starts_nothing(
    worker: Worker, claim: Claim, clock: ManualClock
) -> None:
    """Whoever can read it may."""
    worker.store.commit(
        ELECTION,
        [Write(job_key("job"), b'{"v": 2}')],
        candidacy=None,
        deadline=clock.now() + 1,
    )
    with pytest.raises(Refused, match="can not be read: format 2"):
        worker.admit(message(claim))


# -- dead processes -------------------------------------------------------------------------------


def test_a_run_whose_process_died_is_closed(worker: Worker, second: Worker, claim: Claim) -> None:
    """Its message comes again, and starts nothing."""
    worker.admit(message(claim))
    worker.dies()

    with pytest.raises(Refused, match=r"it is interrupted \(the process .* on node w is gone\)"):
        second.admit(message(claim))
    assert last(second).state is State.INTERRUPTED


def test_a_run_that_asked_for_it_is_attempted_again(
    node: LedgerNode, worker: Worker, second: Worker, clock: ManualClock
) -> None:
    """By the same message, as the next attempt; up to the fifth."""
    claim = claim_one(node, guarded(rerun=True), clock)
    again = worker.admit(message(claim, rerun=True))
    for attempt in range(2, 6):
        worker.dies()
        worker, second = second, Worker(f"y{attempt}", node.store, clock)  # type: ignore[arg-type]
        again = worker.admit(message(claim, rerun=True))
        assert again.attempt == attempt
    worker.dies()

    with pytest.raises(Refused, match="gone, at attempt 5"):
        second.admit(message(again, rerun=True))
    assert last(node).state is State.INTERRUPTED


def test_a_rerun_may_be_too_late(
    node: LedgerNode, worker: Worker, second: Worker, clock: ManualClock
) -> None:
    """The window counts for attempts too."""
    policy = Policy(window=30)
    claim = claim_one(node, guarded(rerun=True, policy=policy), clock)
    worker.admit(message(claim, rerun=True, policy=policy))
    worker.dies()
    clock.advance(60)

    with pytest.raises(Refused, match=r"interrupted \(.*too late\)"):
        second.admit(message(claim, rerun=True, policy=policy))


def test_who_began_after_the_question_is_not_dead(
    worker: Worker, second: Worker, claim: Claim, store: LateStore, clock: ManualClock
) -> None:
    """Who is alive is asked anew when the record has changed meanwhile."""
    worker.admit(message(claim, rerun=True))
    worker.dies()
    newcomers: list[Worker] = []

    def newcomer() -> None:
        newcomers.append(Worker("z", store, clock))
        newcomers[0].admit(message(claim, rerun=True))

    store.before.append(newcomer)
    with pytest.raises(Refused, match="it runs on node z"):
        second.admit(message(claim, rerun=True))
    assert last(second).attempt == 2


def test_an_old_message_starts_a_new_attempt(
    node: LedgerNode, worker: Worker, clock: ManualClock
) -> None:
    """Which the leader has decided on; its own message is refused then."""
    claim = claim_one(node, guarded(rerun=True), clock)
    node.ledger.change("job", lambda record: (record.with_open(record.open[0].again()), ()), None)
    started = worker.admit(message(claim))

    assert started.attempt == 2
    with pytest.raises(Refused):
        worker.admit(message(started))


@pytest.mark.parametrize("ahead", [-1, 10**30])
def test_a_run_goes_by_the_token_in_the_ledger(
    worker: Worker, second: Worker, claim: Claim, ahead: int
) -> None:
    """What a message says could fence all real terms off from what checks tokens, for ever."""
    altered = replace(claim, token=max(0, claim.token + ahead))
    assert worker.admit(message(altered, rerun=True)).token == claim.token
    worker.dies()

    assert second.admit(message(altered, rerun=True)).token == claim.token


def test_a_message_that_was_thrown_away_frees_its_job(worker: Worker, claim: Claim) -> None:
    """Revoked or expired, it is thrown away by all workers, and so is every copy."""
    worker.admissions.discard(message(claim).ticket, "revoked")
    worker.settle()

    entry = last(worker)
    assert (entry.state, entry.reason) == (State.SKIPPED, "revoked")
    with pytest.raises(Refused):
        worker.admit(message(claim))


def test_what_runs_is_not_thrown_away(worker: Worker, second: Worker, claim: Claim) -> None:
    """Another copy may be revoked; the body goes on."""
    started = worker.admit(message(claim))
    second.admissions.discard(message(claim).ticket, "revoked")
    second.settle()
    worker.admissions.succeed(started)

    assert last(worker).state is State.SUCCEEDED


def test_a_retry_is_not_bound_by_the_window(
    worker: Worker, claim: Claim, clock: ManualClock
) -> None:
    """The body was in time; how long it goes on trying is its own affair."""
    policy = Policy(window=30)
    started = worker.admit(message(claim, policy=policy))
    worker.admissions.retry(started, clock.utcnow() + timedelta(seconds=180))
    worker.settle()
    clock.advance(180)

    assert worker.admit(message(claim, retries=1, policy=policy)).retries == 1


def test_calls_without_a_ticket_do_not_push_runs_out_of_the_history(
    worker: Worker, claim: Claim
) -> None:
    """They are counted in one entry, as long as nothing else happens."""
    worker.admissions.succeed(worker.admit(message(claim)))
    worker.settle()
    for _ in range(3):
        worker.admissions.skip("job", "no ticket", task=TASK)

    entries = entries_of(worker.store, "job", worker.clock)
    assert [(entry.state, entry.count) for entry in entries] == [
        (State.SUCCEEDED, 1),
        (State.SKIPPED, 3),
    ]


# -- policy ---------------------------------------------------------------------------------------


def test_too_late_is_too_late(worker: Worker, claim: Claim, clock: ManualClock) -> None:
    """A message that waited longer than the window starts nothing."""
    clock.advance(31)
    with pytest.raises(Refused, match=r"it is skipped \(window\)"):
        worker.admit(message(claim, policy=Policy(window=30)))

    entry = last(worker)
    assert (entry.state, entry.reason) == (State.SKIPPED, "window")


@pytest.fixture(name="pair")
def _pair(node: LedgerNode, clock: ManualClock) -> list[Claim]:
    """Return claims of two occurrences of one job, both with a leader who let them overlap."""
    claims = node.claims(guarded(policy=Policy(catch_up="all", overlap=True)))
    node.tick(claims)
    clock.advance(20)
    return list(node.tick(claims))


def test_a_run_does_not_overlap(worker: Worker, second: Worker, pair: list[Claim]) -> None:
    """It is passed over while another one is alive anywhere, as the policy is."""
    worker.admit(message(pair[0]))
    with pytest.raises(Refused, match=r"it is skipped \(overlap\)"):
        second.admit(message(pair[1]))
    assert last(second).state is State.SKIPPED


def test_a_run_does_not_overlap_in_one_process(worker: Worker, pair: list[Claim]) -> None:
    """Although its lease may not be seen by others yet."""
    worker.dies()
    worker.admit(message(pair[0]))
    with pytest.raises(Refused, match="overlap"):
        worker.admit(message(pair[1]))


def test_each_of_all_comes_after_the_other(
    worker: Worker, second: Worker, pair: list[Claim]
) -> None:
    """Where each is wanted, the next one waits for the end of the run."""
    policy = Policy(catch_up="all")
    first = worker.admit(message(pair[0], policy=policy))
    with pytest.raises(Later, match="has not ended on node w") as later:
        second.admit(message(pair[1], policy=policy))
    assert later.value.delay == 5.0
    assert last(second).state is State.CLAIMED

    worker.admissions.succeed(first)
    second.admit(message(pair[1], policy=policy))


def test_a_rerun_waits_for_a_run_that_is_alive(
    worker: Worker, second: Worker, pair: list[Claim]
) -> None:
    """It has been promised, and is not passed over."""
    allowed = Policy(overlap=True)
    worker.admit(message(pair[0], policy=allowed, rerun=True))
    worker.dies()
    running = second.admit(message(pair[1], policy=allowed))
    with pytest.raises(Later, match="has not ended on node x"):
        second.admit(message(pair[0], rerun=True))

    second.admissions.succeed(running)
    assert second.admit(message(pair[0], rerun=True)).attempt == 2


def test_overlapping_runs_may_be_allowed(worker: Worker, second: Worker, pair: list[Claim]) -> None:
    """By the job."""
    policy = Policy(overlap=True)
    worker.admit(message(pair[0], policy=policy))
    second.admit(message(pair[1], policy=policy))


def test_a_dead_run_stands_in_nobodys_way(
    worker: Worker, second: Worker, pair: list[Claim]
) -> None:
    """The leader closes it; whoever comes first need not wait for that."""
    worker.admit(message(pair[0]))
    worker.dies()
    second.admit(message(pair[1]))
