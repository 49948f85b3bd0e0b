"""Looking at elections from outside."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from leader_jobs.control import Control
from leader_jobs.exceptions import ConfigurationError, StoreRefused
from leader_jobs.ledger import Claim
from leader_jobs.names import runners_of
from leader_jobs.observatory import Observatory
from leader_jobs.orders import (
    RECEIPT_KEY,
    Answer,
    Kind,
    Receipt,
    Request,
    paused_key,
    request_key,
)
from leader_jobs.overview import JobView
from leader_jobs.records import HISTORY, State, history_key, history_prefix, job_key
from leader_jobs.report import election_report, elections_report
from leader_jobs.terms import GONE, TermRecord, term_key
from leader_jobs.testing import ManualClock
from testsupport.ledgers import (
    OVERLAPPING,
    LedgerNode,
    Worker,
    entries_of,
    make_job,
    record_of,
    run,
)
from testsupport.looking import WatchedStore, go, one, put
from testsupport.place import ELECTION


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> WatchedStore:
    return WatchedStore(clock)


@pytest.fixture(name="observatory")
def _observatory(store: WatchedStore, clock: ManualClock) -> Observatory:
    return Observatory(store, clock=clock)


# -- who stands ---------------------------------------------------------------------------------------


def test_a_name_that_nobody_uses_is_an_empty_election(
    observatory: Observatory, clock: ManualClock
) -> None:
    """It is no error to look there, and looking makes no election of it."""
    view = observatory.election("nobody")

    assert (view.election, view.at, view.leader, view.pause) == (
        "nobody",
        clock.utcnow(),
        None,
        None,
    )
    assert (view.candidates, view.members, view.jobs) == ((), (), ())
    assert (view.terms, view.requests) == ((), ())
    assert view.receipt is None
    assert observatory.elections() == ()
    assert observatory.history("nobody", "job") == ()


@pytest.mark.parametrize("name", ["", "a/b", "mail.runners", "../x"])
def test_a_name_that_no_election_can_have_is_refused(observatory: Observatory, name: str) -> None:
    """On every kind of store alike, before it becomes part of a key."""
    with pytest.raises(ConfigurationError):
        observatory.election(name)
    with pytest.raises(ConfigurationError):
        observatory.history(name, "job")


def test_candidates_are_seen_in_order_of_succession(
    observatory: Observatory, node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """The first one leads; those who only run jobs have no place."""
    worker = Worker("w", node.store, clock)
    clock.advance(25_000)
    view = observatory.election(ELECTION)

    assert view.leader == view.candidates[0]
    assert [(m.place, m.node, m.id, m.token) for m in view.candidates] == [
        (0, "a", node.candidacy.id, node.candidacy.token),
        (1, "b", other.candidacy.id, other.candidacy.token),
    ]
    leader = view.candidates[0]
    assert (leader.host, leader.pid, leader.version, leader.foreign) == ("host", 1, "0", False)
    assert (leader.ttl, leader.remaining, leader.suspended) == (100_000.0, 75_000.0, False)
    assert [(m.place, m.node, m.id) for m in view.members] == [(None, "w", worker.presence.id)]
    clock.advance(30_000)
    assert observatory.election(ELECTION).candidates[0].suspended


HOSTILE = [
    b"<script>alert(1)</script>",
    b"\x1b[31mred\x00",
    b"\xff\xfe\x00",
    b"x" * 100_000,
    b"",
    json.dumps(dict.fromkeys(("node", "host", "version", "incarnation"), "\x1b[0m\ud800") | {"pid": -1})
    .encode(),
    b'{"node":"n\\u202e","host":"h\\n","pid":1e300,"version":"","incarnation":"x"}',
    b'{"node":"n","host":"h","pid":' + b"9" * 3000 + b',"version":"","incarnation":"x"}',
]  # fmt: skip


def test_nothing_that_candidates_say_is_taken_at_its_word(
    observatory: Observatory, store: WatchedStore, clock: ManualClock
) -> None:
    """Whatever it is, it comes out as short text that can be printed and encoded."""
    for proposal in HOSTILE:
        for electorate in (ELECTION, runners_of(ELECTION)):
            store.enrol(electorate, proposal, 10.0, deadline=clock.now() + 1)
    view = observatory.election(ELECTION)

    members = (*view.candidates, *view.members)
    assert len(members) == 2 * len(HOSTILE)
    assert view.candidates[0].node == "<script>alert(1)</script>"
    assert (view.candidates[0].foreign, view.candidates[0].host) == (True, None)
    for member in members:
        for text in (member.node, member.host or "", member.version or ""):
            assert text.isprintable()
            assert len(text) <= 200
        assert member.pid is None
    assert not view.candidates[-1].foreign
    shown = json.dumps([election_report(view), elections_report(observatory.elections())])
    assert len(shown) < 50_000
    json.dumps(election_report(view), ensure_ascii=False).encode()


def test_elections_are_summed_up(
    observatory: Observatory, node: LedgerNode, other: LedgerNode, clock: ManualClock
) -> None:
    """By name, with who leads, how many there are, and what is overdue or paused."""
    Worker("w", node.store, clock)
    node.store.enrol("another", b"foreign", 100.0, deadline=clock.now() + 1)
    node.tick(node.claims(make_job("fine", 1000), make_job("late", 1)))
    clock.advance(12)
    Control(node.store, ELECTION, by="me", clock=clock).pause("fine", reason="why not")
    first, second = observatory.elections()

    assert (first.election, first.candidates, first.members, first.jobs) == ("another", 1, 0, 0)
    assert first.leader is not None
    assert (first.leader.node, first.leader.foreign, first.leader.place) == ("foreign", True, 0)
    assert (second.election, second.candidates, second.members, second.jobs) == (ELECTION, 2, 1, 2)
    assert (second.overdue, second.pause) == (1, None)
    assert second.leader is not None
    assert (second.leader.node, second.leader.remaining) == ("a", 100_000.0 - 12)
    assert second.leader == observatory.election(ELECTION).leader
    assert other.candidacy.token > node.candidacy.token


def test_a_paused_election_without_candidates_is_summed_up(
    observatory: Observatory, store: WatchedStore, clock: ManualClock
) -> None:
    """Its records are enough to be seen."""
    Control(store, ELECTION, by="me", clock=clock).pause(reason="why not")
    (summary,) = observatory.elections()

    assert (summary.election, summary.leader, summary.candidates) == (ELECTION, None, 0)
    assert summary.pause is not None
    assert (summary.pause.by, summary.pause.reason) == ("me", "why not")


# -- jobs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [0, 1, 30, 99, 101, 160, 200])
def test_the_newest_occurrences_are_those_of_the_ledger(
    store: WatchedStore, node: LedgerNode, clock: ManualClock, times: int
) -> None:
    """However often the ring went round, and however many are looked for, at once or after fewer."""
    go(node, times, make_job("job", 1), make_job("job 2", 1))
    whole = tuple(entries_of(store, "job", clock))
    assert len(whole) == min(times, HISTORY)
    observatory = Observatory(store, clock=clock)
    for recent in (0, 1, 30, 95, 100, 1000, 2):
        for view in (
            observatory.election(ELECTION, recent=recent),
            Observatory(store, clock=clock).election(ELECTION, recent=recent),
        ):
            assert one(view).recent == whole[max(0, len(whole) - recent) :]
            assert one(view).open == ()
            assert one(view, "job 2").recent == one(view).recent
    assert observatory.history(ELECTION, "job") == whole


def test_a_job_is_seen_as_the_ledger_knows_it(
    observatory: Observatory, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """Name, schedule, what is due, what is open; all in one view."""
    node.ledger.start(claim, node.term())
    record = record_of(node.store, claim.job, clock)
    job = one(observatory.election(ELECTION))

    assert (job.schedule, job.task, job.due) == (record.words, record.task, record.due)
    assert job.accounted_until == record.cursor
    assert job.open == job.recent == record.open
    assert job.last == record.open[0]
    assert job.unreadable == ""


def test_a_run_that_lasts_is_shown_beside_the_newest(
    observatory: Observatory, node: LedgerNode, clock: ManualClock
) -> None:
    """In its place, though the ring went round behind it; and what lies there does not return."""
    job = make_job("job", 1, policy=OVERLAPPING)
    claims = node.claims(job)
    node.tick(claims)
    clock.advance(1)
    (long,) = node.tick(claims)
    assert node.ledger.start(long, node.term())
    for _ in range(HISTORY + 20):
        clock.advance(1)
        (claim,) = node.tick(claims)
        run(node, claim)
    seen = one(observatory.election(ELECTION, recent=30))
    assert [entry.sequence for entry in seen.open] == [0]
    assert [entry.sequence for entry in seen.recent] == [0, *range(91, 121)]

    clock.advance(1)
    (later,) = node.tick(claims)  # its place in the ring is that of number 21
    assert later.sequence == HISTORY + 21
    seen = one(observatory.election(ELECTION, recent=HISTORY - 1))
    assert [entry.sequence for entry in seen.recent] == [0, *range(22, 122)]
    assert seen.open[-1].state is State.CLAIMED


def test_an_occurrence_that_ends_during_a_look_is_not_missed(
    store: WatchedStore, observatory: Observatory, node: LedgerNode, claim: Claim
) -> None:
    """It is open or closed in any view, and in one that saw both, closed."""
    node.ledger.start(claim, node.term())
    store.after_read = [lambda: node.ledger.finish(claim, State.SUCCEEDED)]
    job = one(observatory.election(ELECTION))

    assert [entry.state for entry in job.recent] == [State.SUCCEEDED]
    assert job.open == ()
    assert one(observatory.election(ELECTION)) == job


@pytest.mark.parametrize("recent", [3, 30])
def test_a_damaged_entry_of_the_history_is_left_out(
    observatory: Observatory, node: LedgerNode, clock: ManualClock, recent: int
) -> None:
    """And older ones move up."""
    go(node, 10, make_job("job", 1))
    put(node.store, clock, history_key("job", 8), b'{"v": 1}')
    put(node.store, clock, f"{history_prefix('job')}nonsense", b"nonsense")
    expected = [0, 1, 2, 3, 4, 5, 6, 7, 9]

    seen = one(observatory.election(ELECTION, recent=recent))
    assert [entry.sequence for entry in seen.recent] == expected[-recent:]
    assert [e.sequence for e in observatory.history(ELECTION, "job")] == expected


@pytest.mark.parametrize("damage", [b"garbage", b'{"v": 2}', None])
def test_a_job_whose_record_can_not_be_read_is_shown_as_that(
    observatory: Observatory,
    node: LedgerNode,
    claim: Claim,
    clock: ManualClock,
    damage: bytes | None,
) -> None:
    """With the reason; nothing else is said of it, and the other jobs are all there."""
    assert node.ledger.start(claim, node.term())
    if damage is None:  # a good record in another one's place
        damage = record_of(node.store, claim.job, clock).encode()
    put(node.store, clock, job_key("broken"), damage)
    clock.advance(1000)
    view = observatory.election(ELECTION)

    broken = one(view, "broken")
    assert broken.unreadable
    assert broken == JobView(name="broken", unreadable=broken.unreadable)
    assert one(view).open
    assert observatory.history(ELECTION, "broken") == ()
    assert observatory.elections()[0].jobs == 2
    put(node.store, clock, job_key("broken"), b"")
    assert one(observatory.election(ELECTION), "broken").unreadable


def test_texts_of_records_can_be_printed(
    observatory: Observatory, node: LedgerNode, clock: ManualClock
) -> None:
    """The message of an exception may hold anything, a file's undecodable name for instance."""
    claims = node.claims(make_job("job", 1))
    node.tick(claims)
    clock.advance(1)
    (claim,) = node.tick(claims)
    node.ledger.start(claim, node.term())
    node.ledger.finish(claim, State.FAILED, "no file 'a\udc80b', or \x1b[31m, or é")
    Control(node.store, ELECTION, by="\x1b[1mme", clock=clock).pause("job", reason="\x9b1m")
    view = observatory.election(ELECTION)

    assert one(view).recent[0].reason == "no file 'a�b', or �[31m, or é"
    assert observatory.history(ELECTION, "job") == one(view).recent
    pause = one(view).pause
    assert pause is not None
    assert (pause.by, pause.reason) == ("�[1mme", "�1m")


def test_only_the_jobs_asked_for_are_looked_into(
    store: WatchedStore, observatory: Observatory, node: LedgerNode
) -> None:
    """Of the others only what is open is shown, even if more is remembered."""
    go(node, 5, make_job("job", 1), make_job("job 2", 1))
    view = observatory.election(ELECTION, of=["job 2", "unknown"])
    assert (len(one(view).recent), len(one(view, "job 2").recent)) == (0, 5)
    assert all(prefix.startswith("history/job 2/") for prefix in store.histories())

    observatory.election(ELECTION)
    view = observatory.election(ELECTION, of=[])
    assert (len(one(view).recent), len(one(view, "job 2").recent)) == (0, 0)


# -- overdue, paused ----------------------------------------------------------------------------------


def test_a_job_that_nothing_holds_back_is_overdue(
    observatory: Observatory, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """A claim that is not started for ten seconds, unless the job or the election is paused."""
    control = Control(node.store, ELECTION, by="me", clock=clock)

    def overdue() -> bool:
        view = observatory.election(ELECTION)
        assert view.overdue == observatory.elections()[0].overdue == one(view).overdue
        return one(view).overdue

    clock.advance(9)
    assert not overdue()
    clock.advance(2)
    assert overdue()
    control.pause(claim.job)
    assert not overdue()
    control.resume(claim.job)
    assert overdue()
    control.pause()
    assert not overdue()
    control.resume()
    node.ledger.start(claim, node.term())
    assert not overdue()


def test_pauses_in_force_are_shown(
    observatory: Observatory, node: LedgerNode, claim: Claim, clock: ManualClock
) -> None:
    """That of the election and that of a job, each for as long as it holds."""
    control = Control(node.store, ELECTION, by="me", clock=clock)
    control.pause(claim.job, until=clock.utcnow() + timedelta(seconds=5))
    control.pause(reason="the disk")
    put(node.store, clock, paused_key("gone"), b"garbage")
    view = observatory.election(ELECTION)
    assert view.pause is not None
    assert view.pause.reason == "the disk"
    assert one(view).pause is not None

    control.resume()
    clock.advance(5)
    view = observatory.election(ELECTION)
    assert (view.pause, one(view).pause) == (None, None)


def test_a_pause_that_can_not_be_read_is_shown_as_one(
    observatory: Observatory, store: WatchedStore, clock: ManualClock
) -> None:
    """It holds, so it must be seen; with the reason."""
    put(store, clock, paused_key(), b"garbage")
    pause = observatory.election(ELECTION).pause

    assert pause is not None
    assert "can not be read" in pause.reason


# -- requests, terms, receipts ------------------------------------------------------------------------


def test_requests_of_the_last_minutes_are_shown(
    observatory: Observatory, store: WatchedStore, clock: ManualClock
) -> None:
    """Oldest first, answered or not; one asked long ago by a wrong clock and answered now, too."""

    def ask(kind: Kind) -> Request:
        now = clock.utcnow()
        request = Request.new(kind, by="me", at=now, until=now + timedelta(minutes=1), job="job")
        put(store, clock, request_key(request.id), request.encode())
        return request

    old, wrong = ask(Kind.RUN_NOW), ask(Kind.RESIGN)
    clock.advance(1)
    new = [ask(Kind.RUN_NOW), ask(Kind.RESIGN)]
    clock.advance(599.5)
    assert list(observatory.election(ELECTION).requests) == new

    answered = wrong.answered(Answer.OBEYED, "done", node="a", now=clock.utcnow())
    put(store, clock, request_key(wrong.id), answered.encode())
    put(store, clock, request_key("0"), b"garbage")
    assert list(observatory.election(ELECTION).requests) == [*new, answered]
    assert old.id not in {request.id for request in observatory.election(ELECTION).requests}


def test_terms_and_the_receipt_are_shown(
    observatory: Observatory, store: WatchedStore, clock: ManualClock
) -> None:
    """Oldest first; a record that can not be read is left out."""
    now = clock.utcnow()
    first = TermRecord(
        number=49, token=7, node="a", host="h", pid=1, version="0", began_at=now
    ).ended("resigned", now + timedelta(seconds=5))
    second = replace(first, number=50, token=9, ended_at=None, reason="")
    second = replace(second, began_at=now + timedelta(seconds=6))
    for term in (second, first):
        put(store, clock, term_key(term.number), term.encode())
    put(store, clock, term_key(3), b"garbage")
    receipt = Receipt(version=5, token=9, node="b\x7f", at=now)
    put(store, clock, RECEIPT_KEY, receipt.encode())
    view = observatory.election(ELECTION)

    assert view.terms == (first, replace(second, took=1.0))
    assert view.receipt == replace(receipt, node="b�")
    put(store, clock, RECEIPT_KEY, b"garbage")
    assert observatory.election(ELECTION).receipt is None


def test_a_succession_after_a_death_took_no_longer_than_since_the_last_sign_of_life(
    observatory: Observatory, node: LedgerNode, store: WatchedStore, clock: ManualClock
) -> None:
    """The dead leader wrote no end, but its jobs show until when it lived at least."""
    first = TermRecord(
        number=0,
        token=node.candidacy.token,
        node=node.name,
        host="h",
        pid=1,
        version="0",
        began_at=clock.utcnow(),
    )
    claims = node.claims(make_job(every=10))
    node.tick(claims)
    clock.advance(10)
    run(node, *node.tick(claims))
    clock.advance(4)
    second = replace(first, number=1, token=first.token + 1, node="b", began_at=clock.utcnow())
    for term in (first.ended(GONE, clock.utcnow()), second):
        put(store, clock, term_key(term.number), term.encode())

    (_, successor) = observatory.election(ELECTION).terms
    assert (successor.took, successor.exact) == (4.0, False)


class ConfinedStore(WatchedStore):
    """A store that does not let this process list its elections."""

    def elections(self, *, deadline: float) -> tuple[str, ...]:
        """Refuse."""
        msg = "etcd: permission denied"
        raise StoreRefused(msg)


def test_where_elections_can_not_be_listed_those_that_are_named_are_shown(
    clock: ManualClock,
) -> None:
    """A role may be confined to its own; without a name there is nothing to show."""
    confined = Observatory(ConfinedStore(clock), clock=clock)
    assert [summary.election for summary in confined.elections(otherwise=("mine",))] == ["mine"]
    with pytest.raises(StoreRefused):
        confined.elections()
