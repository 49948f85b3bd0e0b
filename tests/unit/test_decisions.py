"""What is decided about one job, from its record and from who is alive; nothing is written here."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from leader_jobs.decisions import Decider, Decision, Recheck
from leader_jobs.ledger import Claim, Ledger, Versioned
from leader_jobs.occurrences import Policy, occurrence_id
from leader_jobs.planned import PlannedJob
from leader_jobs.records import JobRecord, OccurrenceRecord, State
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.ledgers import make_planned
from testsupport.place import ELECTION

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALL = Policy(catch_up="all")
WIDE = Policy(catch_up="all", overlap=True)


class Stand:
    """A decider, and a job's record to decide about."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.ledger = Ledger(
            MemoryStore(self.clock), ELECTION, node="me", owner="me", clock=self.clock
        )
        self.alive: frozenset[str] = frozenset({"me", "worker"})
        self.decider = Decider(self.ledger, 7, living=lambda: self.alive)

    def decide(
        self,
        job: PlannedJob,
        entries: Iterable[OccurrenceRecord] = (),
        *,
        now: datetime = NOW,
        **values: object,
    ) -> Decision:
        """Decide about *job* with these occurrences open; it is accounted for until *NOW*."""
        found = record(job, entries)
        return self.decider.decide(job, Versioned(replace(found, **values), 3), now)  # type: ignore[arg-type]  # fields of a record

    def hold(self, entry: OccurrenceRecord) -> None:
        """Have an occurrence in the hands of this process."""
        occurrence = occurrence_id(ELECTION, "job", entry.planned_at)
        claim = Claim("job", occurrence, entry.planned_at, entry.sequence, entry.attempt, 7)
        self.ledger.take(claim)


@pytest.fixture(name="stand")
def _stand() -> Stand:
    return Stand()


def record(job: PlannedJob, entries: Iterable[OccurrenceRecord] = ()) -> JobRecord:
    """Return the record of *job*, accounted for until *NOW*, with these occurrences open."""
    return JobRecord(
        job=job.name,
        schedule=job.schedule.fingerprint,
        words=job.schedule.describe(),
        cursor=NOW,
        task=job.task,
        sequence=10,
        open=tuple(entries),
    )


def claimed(sequence: int = 0, *, ago: float = 10.0, retries: int = 0) -> OccurrenceRecord:
    """Return an occurrence that was planned *ago* seconds ago, and claimed then."""
    planned_at = NOW - timedelta(seconds=ago)
    return OccurrenceRecord(
        sequence=sequence,
        planned_at=planned_at,
        state=State.CLAIMED,
        token=5,
        node="former",
        claimed_at=planned_at,
        retries=retries,
    )


def dispatched(
    sequence: int = 0, *, ago: float = 10.0, copies: int = 1, retries: int = 0
) -> OccurrenceRecord:
    """Return an occurrence of which the last message was sent *ago* seconds ago."""
    entry = claimed(sequence, ago=ago, retries=retries)
    return replace(entry.dispatched(entry.planned_at, token=entry.token), copies=copies)


def started(sequence: int = 0, *, owner: str = "worker", ago: float = 10.0) -> OccurrenceRecord:
    """Return an occurrence that is run by *owner*."""
    entry = claimed(sequence, ago=ago)
    return entry.starting(token=5, node=owner, owner=owner, now=entry.planned_at)


def claims_of(decision: Decision) -> list[int]:
    """Return the numbers of what is to be started."""
    return [sequence for sequence, *_ in decision.claims]


def later(seconds: float) -> datetime:
    """Return the instant *seconds* from now."""
    return NOW + timedelta(seconds=seconds)


# -- what was dispatched to those who do not say what becomes of it -----------------------------------


@pytest.mark.parametrize("policy", [Policy(), ALL, WIDE])
def test_what_nobody_answers_for_does_not_make_a_job_busy(stand: Stand, policy: Policy) -> None:
    """The next one is claimed, and with it the last one moves to the history as what it is."""
    job = make_planned(guarded=False, policy=policy)
    decision = stand.decide(job, [dispatched()], now=later(10))

    assert claims_of(decision) == [10]
    (closed,) = decision.closed
    assert (closed.sequence, closed.state) == (0, State.DISPATCHED)
    assert closed.ended_at == closed.dispatched_at
    assert [entry.sequence for entry in decision.record.open] == [10]


def test_what_nobody_answers_for_is_never_dispatched_again(stand: Stand) -> None:
    """However long ago it was; and nothing is written just to close it."""
    job = make_planned(guarded=False, every=3600 * 24 * 365)
    decision = stand.decide(job, [dispatched(ago=100_000)])

    assert (decision.claims, decision.changed, decision.recheck) == ([], False, Recheck.NEVER)


def test_what_is_not_dispatched_yet_stays_open(stand: Stand) -> None:
    """A claim whose message waits for the broker is not let go of with those that were sent."""
    job = make_planned(guarded=False, policy=WIDE)
    waiting = claimed(1)
    stand.hold(waiting)
    decision = stand.decide(job, [dispatched(0), waiting], now=later(10))

    assert [entry.sequence for entry in decision.closed] == [0]
    assert [entry.sequence for entry in decision.record.open] == [1, 10]


def test_a_hundred_dispatched_at_once_leave_room_for_a_hundred_more(stand: Stand) -> None:
    """What is to be closed takes no room: or a job that caught up once would never run again."""
    job = make_planned(guarded=False, policy=Policy(catch_up="all", max_burst=100))
    sent = [dispatched(number) for number in range(100)]
    decision = stand.decide(job, sent, now=later(1000), sequence=100)

    assert claims_of(decision) == list(range(100, 200))
    assert len(decision.closed) == 100
    assert len(decision.writes()) == 101


@pytest.mark.parametrize("guarded", [False, True])
def test_a_hundred_that_may_still_be_run_leave_no_room(stand: Stand, guarded: bool) -> None:
    """Nothing more is claimed, nothing is lost: it is looked at again soon."""
    job = make_planned(guarded=guarded, policy=Policy(catch_up="all", max_burst=100, overlap=True))
    sent = [dispatched(n) if guarded else started(n) for n in range(100)]
    decision = stand.decide(job, sent, now=later(10), sequence=100)

    assert (decision.claims, decision.closed) == ([], [])
    assert decision.record.cursor == NOW
    assert decision.recheck is Recheck.SOON


# -- what was dispatched to workers that record what becomes of it ------------------------------------


@pytest.mark.parametrize(
    ("copies", "patience"),
    [(0, 60), (1, 60), (2, 120), (3, 240), (6, 1920), (7, 3600), (8, 3600), (10_000, 3600)],
)
def test_a_message_nobody_took_is_sent_again_more_and_more_rarely(
    stand: Stand, copies: int, patience: int
) -> None:
    """After a minute, then twice as long with each copy, up to an hour; under its own number."""
    job = make_planned(every=3600 * 24 * 365)
    early = stand.decide(job, [dispatched(ago=patience - 1, copies=copies)])
    due = stand.decide(job, [dispatched(ago=patience, copies=copies)])

    assert (early.claims, early.changed) == ([], False)
    assert due.claims == [(0, later(-patience), 1, 0)]
    assert not due.changed
    assert due.recheck is early.recheck is Recheck.LATER


def test_a_retry_is_not_sent_again_before_it_is_due(stand: Stand) -> None:
    """Nor for an hour after: its message may have arguments of its own, which ours would not."""
    job = make_planned(every=3600 * 24 * 365)
    waiting = started().retried(1, later(500))

    assert stand.decide(job, [waiting], now=later(4099)).claims == []
    decision = stand.decide(job, [waiting], now=later(4100))
    assert decision.claims == [(0, later(-10), 1, 1)]


def test_a_message_nobody_took_keeps_a_job_busy(stand: Stand) -> None:
    """It may be started any moment; what falls due is passed over, or put off."""
    for policy, passed in ((Policy(), ["overlap"]), (ALL, [])):
        decision = stand.decide(make_planned(policy=policy), [dispatched()], now=later(10))
        assert decision.claims == []
        assert [entry.reason for entry in decision.closed] == passed


def test_a_message_that_is_sent_again_keeps_a_job_busy(stand: Stand) -> None:
    """The copy may be started as the first one might have been."""
    decision = stand.decide(make_planned(), [dispatched(ago=60)], now=later(10))

    assert claims_of(decision) == [0]
    assert [entry.reason for entry in decision.closed] == ["overlap"]
    assert [entry.sequence for entry in decision.record.open] == [0]


def test_a_job_that_may_overlap_is_not_kept_by_a_message(stand: Stand) -> None:
    """Both are started: what is dispatched once more, and what fell due."""
    decision = stand.decide(make_planned(policy=WIDE), [dispatched(ago=60)], now=later(10))

    assert claims_of(decision) == [0, 10]
    assert decision.closed == []


@pytest.mark.parametrize(("seconds", "late"), [(20, False), (20.5, True)])
def test_a_message_nobody_took_in_time_is_closed(stand: Stand, seconds: float, late: bool) -> None:
    """Later than the window nobody may start it any more."""
    job = make_planned(every=3600, policy=Policy(window=30))
    decision = stand.decide(job, [dispatched()], now=later(seconds))

    assert decision.claims == []
    if late:
        (closed,) = decision.closed
        assert (closed.state, closed.reason, closed.ended_at) == (
            State.SKIPPED,
            "window",
            later(seconds),
        )
        assert decision.recheck is Recheck.NEVER
    else:
        assert decision.closed == []


def test_what_is_open_with_workers_is_looked_at_again(stand: Stand) -> None:
    """They change the record behind the leader's back, and what it remembers is soon wrong."""
    job = make_planned(every=3600)

    assert stand.decide(job, []).recheck is Recheck.NEVER
    assert stand.decide(job, [claimed()]).recheck is Recheck.LATER
    assert stand.decide(job, [dispatched()]).recheck is Recheck.LATER
    assert stand.decide(job, [started()]).recheck is Recheck.LATER
    fresh = stand.decide(make_planned(), now=later(10))
    assert (claims_of(fresh), fresh.recheck) == ([10], Recheck.LATER)


@pytest.mark.parametrize("entry", [dispatched(), started()], ids=["dispatched", "started"])
def test_what_is_put_off_is_looked_at_soon(stand: Stand, entry: OccurrenceRecord) -> None:
    """It waits for the end of a run elsewhere, of which nobody tells the leader."""
    job = make_planned(policy=ALL)

    assert stand.decide(job, [entry], now=later(9)).recheck is Recheck.LATER
    assert stand.decide(job, [entry], now=later(10)).recheck is Recheck.SOON


# -- one at a time ------------------------------------------------------------------------------------


def test_workers_are_given_one_occurrence_at_a_time(stand: Stand) -> None:
    """All are claimed, in order, and the first is dispatched; the others wait for its end."""
    decision = stand.decide(make_planned(policy=ALL), now=later(30))

    assert claims_of(decision) == [10]
    assert [entry.sequence for entry in decision.record.open] == [10, 11, 12]
    assert decision.recheck is Recheck.SOON
    freed = Versioned(decision.record.without(10), 4)
    assert claims_of(stand.decider.decide(make_planned(policy=ALL), freed, later(31))) == [11]


@pytest.mark.parametrize(
    "first",
    [dispatched(0), started(0)],
    ids=["dispatched", "started"],
)
def test_the_next_one_waits_while_the_first_may_run(stand: Stand, first: OccurrenceRecord) -> None:
    """And the end of the wait is noticed soon."""
    decision = stand.decide(make_planned(every=3600, policy=ALL), [first, claimed(1)])

    assert (decision.claims, decision.changed) == ([], False)
    assert decision.recheck is Recheck.SOON


def test_the_next_one_waits_while_the_first_is_in_hand(stand: Stand) -> None:
    """Its message is on the way to the broker, or waits for it to come back."""
    first = claimed(0)
    stand.hold(first)
    decision = stand.decide(make_planned(every=3600, policy=ALL), [first, claimed(1)])

    assert decision.claims == []


@pytest.mark.parametrize("rerun", [False, True])
def test_when_the_first_has_died_the_next_one_follows(stand: Stand, rerun: bool) -> None:
    """Behind its other attempt, where there is one."""
    stand.alive = frozenset({"me"})
    job = make_planned(every=3600, rerun=rerun, policy=ALL)
    decision = stand.decide(job, [started(0), claimed(1)])

    assert decision.claims == ([(0, later(-10), 2, 0)] if rerun else [(1, later(-10), 1, 0)])
    assert [entry.state for entry in decision.closed] == ([] if rerun else [State.INTERRUPTED])


def test_runs_that_may_overlap_are_dispatched_together(stand: Stand) -> None:
    """There is nothing to wait for."""
    decision = stand.decide(make_planned(policy=WIDE), [claimed(0)], now=later(20))

    assert claims_of(decision) == [0, 10, 11]


def test_runs_here_are_claimed_together(stand: Stand) -> None:
    """Where nobody else starts them, the pool of this process sees to their order."""
    decision = stand.decide(make_planned(guarded=False, policy=ALL), now=later(30))

    assert claims_of(decision) == [10, 11, 12]


# -- retries, attempts --------------------------------------------------------------------------------


def test_a_retry_that_is_claimed_again_is_the_same_retry(stand: Stand) -> None:
    """The message with the number that counts is the one to be sent."""
    job = make_planned(every=3600)

    assert stand.decide(job, [claimed(retries=3)]).claims == [(0, later(-10), 1, 3)]


@pytest.mark.parametrize("rerun", [False, True])
def test_a_worker_that_died_is_noticed_soon_where_it_matters(stand: Stand, rerun: bool) -> None:
    """A job that is to be rerun is looked at every second, another one now and then."""
    job = make_planned(every=3600, rerun=rerun)
    decision = stand.decide(job, [started()])

    assert decision.recheck is (Recheck.SOON if rerun else Recheck.LATER)


def test_a_rerun_keeps_what_was_counted(stand: Stand) -> None:
    """Its retries and copies: it is the same message, for another attempt."""
    stand.alive = frozenset()
    job = make_planned(every=3600, rerun=True)
    entry = replace(started(), retries=2, copies=4)
    decision = stand.decide(job, [entry])

    assert decision.claims == [(0, later(-10), 2, 2)]
    (again,) = decision.record.open
    assert (again.state, again.attempt, again.retries, again.copies) == (State.CLAIMED, 2, 2, 4)
    assert again.dispatched_at is None


# -- where a job begins, and ends ---------------------------------------------------------------------


def test_a_new_job_may_begin_in_the_past(stand: Stand) -> None:
    """What was due since then is caught up on by its policy; a time to come counts as now."""
    for since, cursor, due in ((later(-25), later(-25), 3), (later(60), NOW, 0), (None, NOW, 0)):
        job = make_planned(policy=WIDE, since=since)
        decision = stand.decider.decide(job, Versioned(None, 0), NOW)
        assert len(decision.claims) == due
        assert decision.record.cursor == (NOW if due else cursor)
        assert decision.changed


def test_a_changed_job_begins_no_earlier_than_it_left_off(stand: Stand) -> None:
    """What is accounted for stays so, whatever the new schedule says about the past."""
    job = make_planned(every=5, policy=WIDE, since=later(-25))
    decision = stand.decide(job, schedule="another", now=later(10))

    assert claims_of(decision) == [10, 11]
    assert decision.record.schedule == job.schedule.fingerprint


def test_what_was_due_while_a_job_was_off_does_not_count(stand: Stand) -> None:
    """Even if no leader saw it being switched off; what it has open is recovered all the same."""
    job = make_planned(guarded=False, policy=WIDE, not_before=later(15))
    decision = stand.decide(job, [claimed(0)], now=later(20))

    assert claims_of(decision) == [0, 10]
    assert decision.record.cursor == later(20)
    assert not stand.decide(job, cursor=later(30), now=later(30)).changed


def test_the_name_of_the_task_is_recorded(stand: Stand) -> None:
    """When the job is new, and when it changes; otherwise nothing is written."""
    job = make_planned(task="shop.tasks.refresh")
    new = stand.decider.decide(job, Versioned(None, 0), NOW)
    moved = stand.decide(job, task="shop.tasks.old")

    assert new.record.task == moved.record.task == "shop.tasks.refresh"
    assert moved.changed
    assert moved.record.cursor == NOW
    assert not stand.decide(job).changed


def test_a_job_for_once_claims_the_first_and_no_other(stand: Stand) -> None:
    """However many are due, whatever its policy says, and for ever."""
    job = make_planned(once=True, policy=WIDE)
    first = stand.decide(job, now=later(30))
    assert first.claims == [(10, later(10), 1, 0)]

    done = Versioned(first.record.without(10), 4)
    after = stand.decider.decide(job, done, later(3600))
    assert (after.claims, after.closed, after.changed) == ([], [], False)


def test_what_a_job_for_once_has_open_is_recovered(stand: Stand) -> None:
    """That it was claimed does not mean that it was run."""
    job = make_planned(once=True)
    first = stand.decide(job, now=later(10))

    again = stand.decider.decide(job, Versioned(first.record, 4), later(20))
    assert again.claims == first.claims


def test_a_job_for_once_waits_for_an_occurrence_it_can_run(stand: Stand) -> None:
    """One that was passed over is none."""
    job = make_planned(once=True, policy=Policy(catch_up="skip"))
    late = stand.decide(job, now=later(15))
    assert (late.claims, [entry.reason for entry in late.closed]) == ([], ["skip"])

    assert claims_of(stand.decider.decide(job, Versioned(late.record, 4), later(20))) == [11]


def test_a_job_that_is_not_for_once_any_more_goes_on_from_now(stand: Stand) -> None:
    """As one whose schedule changed."""
    once = stand.decide(make_planned(once=True), now=later(10)).record.without(10)
    job = make_planned()
    changed = stand.decider.decide(job, Versioned(once, 4), later(35))

    assert (changed.claims, changed.record.cursor) == ([], later(35))
    assert claims_of(stand.decider.decide(job, Versioned(changed.record, 5), later(40)))


def test_another_instant_for_a_job_for_once_is_another_job(stand: Stand) -> None:
    """Who edits it means it to run again."""
    done = stand.decide(make_planned(once=True), now=later(10)).record.without(10)
    edited = make_planned(every=7, once=True)
    known = stand.decider.decide(edited, Versioned(done, 4), later(10))

    assert len(stand.decider.decide(edited, Versioned(known.record, 5), later(20)).claims) == 1
