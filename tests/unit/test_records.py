"""The ledger's records: what comes back is what was written, and anything else is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leader_jobs.occurrences import Passed, Reason
from leader_jobs.records import (
    HISTORY,
    JobRecord,
    OccurrenceRecord,
    State,
    UnreadableRecord,
    history_key,
    history_prefix,
    job_key,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

INSTANTS = st.datetimes(
    # hypothesis wants its bounds without a zone
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
)
OCCURRENCES = st.builds(
    OccurrenceRecord,
    sequence=st.integers(0),
    planned_at=INSTANTS,
    state=st.sampled_from(State),
    token=st.integers(0),
    node=st.text(max_size=20),
    claimed_at=INSTANTS,
    started_at=st.none() | INSTANTS,
    ended_at=st.none() | INSTANTS,
    dispatched_at=st.none() | INSTANTS,
    copies=st.integers(0),
    retries=st.integers(0),
    owner=st.text(max_size=20),
    attempt=st.integers(1),
    reason=st.text(max_size=20),
    first=st.none() | INSTANTS,
    count=st.integers(1),
    exact=st.booleans(),
)
JOBS = st.builds(
    JobRecord,
    job=st.text(max_size=20),
    schedule=st.text(max_size=20),
    words=st.text(max_size=20),
    cursor=INSTANTS,
    task=st.text(max_size=20),
    sequence=st.integers(0),
    open=st.lists(OCCURRENCES, max_size=3).map(tuple),
)
#: Anything JSON can say, with a bias to what a record says.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "claimed", NOW.isoformat(), "0001-01-01T00:00:00+14:00", "2026-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def a_job() -> JobRecord:
    """Return a job with one open occurrence."""
    record = JobRecord(job="mail.send", schedule="every:1:0", words="every 1 s", cursor=NOW)
    return record.claim(NOW, token=7, node="n1", now=NOW)


@given(OCCURRENCES)
def test_an_occurrence_comes_back_as_it_was(record: OccurrenceRecord) -> None:
    """Whatever the fields hold."""
    assert OccurrenceRecord.decode(record.encode()) == record


@given(JOBS)
def test_a_job_comes_back_as_it_was(record: JobRecord) -> None:
    """With all that is open."""
    assert JobRecord.decode(record.encode()) == record


@given(JOBS, st.sampled_from(sorted(JobRecord.__slots__)), JSON)
def test_a_job_record_that_was_edited_is_read_or_refused(
    record: JobRecord, key: str, value: object
) -> None:
    """Nothing but `UnreadableRecord` ever comes of it, and what is read can be used."""
    edited = json.loads(record.encode()) | {key: value}
    try:
        found = JobRecord.decode(json.dumps(edited).encode())
    except UnreadableRecord:
        return
    assert JobRecord.decode(found.encode()) == found
    assert isinstance(found.job, str)
    assert found.cursor.tzinfo is UTC
    assert found.sequence + 1 > found.sequence


@given(OCCURRENCES, st.sampled_from(sorted(OccurrenceRecord.__slots__)), JSON)
def test_an_occurrence_that_was_edited_is_read_or_refused(
    record: OccurrenceRecord, key: str, value: object
) -> None:
    """Likewise: one damaged record may cost its own job, never the tick of all."""
    edited = json.loads(record.encode()) | {key: value}
    try:
        found = OccurrenceRecord.decode(json.dumps(edited).encode())
    except UnreadableRecord:
        return
    assert OccurrenceRecord.decode(found.encode()) == found
    assert found.planned_at.tzinfo is UTC
    assert history_key("j", found.sequence)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"null", b"[]", b'"v"', b"{}", b'{"job": "j"}', b'{"v": 1}', b"[" * 99_999],
    ids=lambda raw: raw[:20],
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    """Bytes of another program, of a crash, of a hand that slipped."""
    with pytest.raises(UnreadableRecord):
        JobRecord.decode(raw)
    with pytest.raises(UnreadableRecord):
        OccurrenceRecord.decode(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("job", 5),
        ("cursor", 5),
        ("cursor", "2026-01-01"),
        ("cursor", "0001-01-01T00:00:00+14:00"),
        ("sequence", float("inf")),
        ("sequence", "0"),
        ("task", None),
        ("open", None),
        ("open", [{}]),
        ("unheard of", 1),
    ],
)
def test_a_damaged_job_record_is_refused(key: str, value: object) -> None:
    """What would otherwise be an error in the middle of a tick, and so cost every other job."""
    raw = json.dumps(json.loads(a_job().encode()) | {key: value}).encode()

    with pytest.raises(UnreadableRecord):
        JobRecord.decode(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sequence", "7"),
        ("attempt", None),
        ("planned_at", None),
        ("state", "dancing"),
        ("owner", 5),
        ("copies", "1"),
        ("retries", None),
        ("dispatched_at", 0),
        ("count", 1.5),
        ("exact", "no"),
        ("first", "yesterday"),
    ],
)
def test_a_field_of_another_kind_is_refused(key: str, value: object) -> None:
    """A number that is a text would compare with no number, and match no claim."""
    record = json.loads(a_job().encode())
    record["open"][0][key] = value

    with pytest.raises(UnreadableRecord):
        JobRecord.decode(json.dumps(record).encode())


def test_a_newer_format_is_refused_by_name() -> None:
    """The message tells a deploy that was rolled back from damage."""
    raw = json.dumps(json.loads(a_job().encode()) | {"v": 2}).encode()

    with pytest.raises(UnreadableRecord, match=r"format 2 is not 1: written by another version"):
        JobRecord.decode(raw)


def test_instants_are_kept_in_utc() -> None:
    """An instant written with another offset is the same instant."""
    raw = json.loads(a_job().encode()) | {"cursor": "2026-03-01T14:00:00+02:00"}

    assert JobRecord.decode(json.dumps(raw).encode()).cursor == NOW


def test_the_history_is_a_ring() -> None:
    """A thousand occurrences use a hundred keys; the last hundred have one each."""
    keys = [history_key("mail.send", number) for number in range(1000)]

    assert len(set(keys)) == HISTORY
    assert len(set(keys[-HISTORY:])) == HISTORY
    assert all(key.startswith(history_prefix("mail.send")) for key in keys)


def test_a_job_whose_name_begins_like_another_has_keys_of_its_own() -> None:
    """A look at the history of one finds nothing of the other."""
    assert not history_key("mail.send", 0).startswith(history_prefix("mail"))
    assert job_key("mail") != job_key("mail.send")


def test_records_are_small() -> None:
    """A tick of a thousand jobs, each with a claim, fits in a few transactions."""
    assert len(a_job().encode()) < 400
    started = a_job().open[0].starting(token=7, node="n" * 60, owner="f" * 32, now=NOW)
    assert len(started.closed(State.FAILED, NOW, "x" * 10_000).encode()) < 1200


def test_a_reason_is_one_short_line() -> None:
    """Whatever an exception had to say."""
    closed = a_job().open[0].closed(State.FAILED, NOW, "ValueError: a\n  b\r\n" + "c" * 1000)

    assert closed.reason.startswith("ValueError: a b c")
    assert len(closed.reason) == 500


def test_claims_and_passed_ranges_are_numbered_in_order() -> None:
    """Each gets a number of its own, and a range says what it stands for."""
    record = a_job()
    passed = Passed(NOW, NOW + timedelta(seconds=9), 10, exact=True, reason=Reason.COALESCED)
    record, entry = record.pass_over(passed, token=8, node="n2", now=NOW)
    record = record.claim(NOW + timedelta(seconds=10), token=8, node="n2", now=NOW)

    assert [e.sequence for e in record.open] == [0, 2]
    assert (entry.sequence, entry.state, entry.count) == (1, State.COALESCED, 10)
    assert (entry.first, entry.planned_at) == (passed.first, passed.last)
    assert record.sequence == 3


def test_an_attempt_begins_anew() -> None:
    """Nothing of the former start is left but its number."""
    claimed = a_job().open[0]
    started = claimed.starting(token=9, node="n2", owner="me", now=NOW)

    assert started.back() == OccurrenceRecord.decode(started.back().encode())
    assert (started.back().state, started.back().owner) == (State.CLAIMED, "")
    assert (started.again().attempt, started.again().started_at) == (2, None)


# -- what is dispatched -------------------------------------------------------------------------------


def test_each_message_is_a_copy_more() -> None:
    """Of the same occurrence, under the term it was sent in."""
    claimed = a_job().open[0]
    once = claimed.dispatched(NOW, token=7)
    twice = once.dispatched(NOW + timedelta(seconds=60), token=9)

    assert (once.state, once.dispatched_at, once.copies) == (State.DISPATCHED, NOW, 1)
    later = NOW + timedelta(seconds=60)
    assert twice == replace(once, token=9, dispatched_at=later, copies=2)


def test_what_was_started_goes_back_to_where_it_was() -> None:
    """Dispatched if a message for it was noted, claimed if a worker was quicker than that."""
    claimed = a_job().open[0]
    for before in (claimed, claimed.dispatched(NOW, token=7)):
        started = before.starting(token=7, node="n1", owner="me", now=NOW)
        assert started.back() == before


@pytest.mark.parametrize("noted", [False, True])
def test_a_retry_waits_until_it_is_due(noted: bool) -> None:
    """Its message is with the broker already, whether or not the first one was noted."""
    claimed = a_job().open[0]
    entry = claimed.dispatched(NOW, token=7) if noted else claimed
    due = NOW + timedelta(seconds=180)
    waiting = entry.starting(token=9, node="n2", owner="me", now=NOW).retried(3, due)

    assert (waiting.state, waiting.retries, waiting.dispatched_at) == (State.DISPATCHED, 3, due)
    assert (waiting.owner, waiting.started_at, waiting.attempt) == ("", None, 1)
    assert OccurrenceRecord.decode(waiting.encode()) == waiting


def test_another_attempt_is_of_the_same_message() -> None:
    """It is to be dispatched anew, with the retry it was at; how often it was sent is not forgotten."""
    entry = replace(a_job().open[0].dispatched(NOW, token=7), retries=2)
    again = entry.starting(token=9, node="n2", owner="me", now=NOW).again()

    assert (again.state, again.dispatched_at) == (State.CLAIMED, None)
    assert (again.retries, again.copies, again.attempt) == (2, 1, 2)


def test_what_is_as_usual_is_not_written() -> None:
    """So records stay small, and those of an older release are read like any other."""
    plain = json.loads(a_job().encode())

    assert "task" not in plain
    assert not {"copies", "retries", "dispatched_at", "owner"} & plain["open"][0].keys()
    assert {"sequence", "planned_at", "state", "token", "node", "claimed_at"} <= plain["open"][
        0
    ].keys()


def test_an_instant_of_another_kind_is_written_like_any_other() -> None:
    """Schedules of other libraries have datetimes of their own, in zones of their own."""

    class OddDatetime(datetime):
        pass

    odd = OddDatetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    record = replace(a_job(), cursor=odd)

    assert json.loads(record.encode())["cursor"] == "2026-03-01T12:00:00+00:00"
    assert JobRecord.decode(record.encode()).cursor == NOW
