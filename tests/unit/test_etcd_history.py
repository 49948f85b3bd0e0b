"""What answers of etcd say of its history, and what they do not."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leader_jobs.exceptions import HistoryRewound
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_history import History, Mark, Witness
from leader_jobs.stores.base import Candidacy, Origin
from leader_jobs.testing import ManualClock

ROOT = b"jobs/ledger/mail/"


def read(revision: int, cluster: int = 9) -> wire.RangeReply:
    """Return the answer to a linearizable read."""
    return wire.RangeReply(wire.Header(1, 2, revision, cluster), (), more=False)


def kept(revision: int, cluster: int = 9) -> wire.Lease:
    """Return the answer to a keepalive."""
    return wire.Lease(wire.Header(1, 2, revision, cluster), 31, 15, 0)


@pytest.fixture(name="history")
def _history() -> History:
    return History(ManualClock())


def test_an_answer_older_than_the_question(history: History) -> None:
    """It is of another history: the next question begins anew from there."""
    history.check(history.mark(), read(7))
    with pytest.raises(HistoryRewound, match="at revision 6, after 7"):
        history.check(history.mark(), read(6))
    history.check(history.mark(), read(6))


def test_another_cluster(history: History) -> None:
    """Whoever answers, to whatever, and however new that is."""
    history.check(history.mark(), read(7))
    with pytest.raises(HistoryRewound, match="cluster a answers, it was 9"):
        history.check(history.mark(), kept(8, cluster=10))
    assert history.origin.cluster == "a"


def test_answers_without_a_cluster(history: History) -> None:
    """What is not said is no difference."""
    history.check(history.mark(), read(7))
    history.check(history.mark(), read(7, cluster=0))
    assert history.origin == Origin("9")


def test_a_keepalive_is_news_not_evidence(history: History) -> None:
    """Its revision may be older than the question, but is certain to have been."""
    history.check(history.mark(), read(7))
    history.check(history.mark(), kept(5))
    history.check(history.mark(), kept(9))
    with pytest.raises(HistoryRewound):
        history.check(history.mark(), read(8))


def test_an_answer_to_a_question_of_before(history: History) -> None:
    """It is not believed, and what it says of revisions is not remembered."""
    history.check(history.mark(), read(7))
    before = history.mark()
    with pytest.raises(HistoryRewound):
        history.check(history.mark(), read(3))
    with pytest.raises(HistoryRewound, match="another history"):
        history.check(before, read(8))
    history.check(history.mark(), read(3))


def test_candidacies_of_before_are_over(history: History) -> None:
    """Also one that was being entered at that moment."""
    candidacy, late = (Candidacy("mail", id_, 7, 15.0) for id_ in ("1f", "2f"))
    mark = history.mark()
    history.check(mark, read(7))
    history.bear(candidacy, mark)
    history.confirm(candidacy)
    with pytest.raises(HistoryRewound):
        history.check(history.mark(), read(3))
    history.bear(late, mark)
    for former in (candidacy, late):
        with pytest.raises(HistoryRewound):
            history.confirm(former)


def test_when_the_former_history_was_last_heard_of() -> None:
    """So that a note can be told from one that came back with a snapshot."""
    clock = ManualClock()
    history = History(clock)
    history.check(history.mark(), read(7))
    seen = clock.utcnow()
    clock.advance(60)
    with pytest.raises(HistoryRewound):
        history.check(history.mark(), read(3))
    assert history.origin == Origin("9", seen)


def test_a_witness_is_the_newest_record_of_its_history(history: History) -> None:
    """An older one does not take its place, and none outlives the history."""
    mark = history.mark()
    for revision in (5, 4):
        history.testify(ROOT, mark, Witness(b"k", revision))
    assert history.witness(ROOT) == Witness(b"k", 5)
    with pytest.raises(HistoryRewound):
        history.rewound(mark, "k is of revision 4, it was of 5")
    assert history.witness(ROOT) is None
    history.testify(ROOT, mark, Witness(b"k", 6))
    assert history.witness(ROOT) is None


@dataclass
class _Question:
    """A question under way: what was known as it was sent, and who answers."""

    mark: Mark
    answer: Callable[[int], wire.RangeReply | wire.Lease]
    at: int | None = None


@given(st.data())
def test_answers_out_of_order_are_no_alarm(data: st.DataObject) -> None:
    """Questions of many threads, answered at any moment of their way and heard in any order."""
    history, revision = History(ManualClock()), 1
    under_way: list[_Question] = []
    for _ in range(data.draw(st.integers(0, 40))):
        step = data.draw(st.sampled_from(["write", "ask", "answer", "hear"]))
        if step == "write":
            revision += 1
        elif step == "ask":
            answer = read if data.draw(st.booleans()) else kept
            under_way.append(_Question(history.mark(), answer))
        elif under_way:
            question = data.draw(st.sampled_from(under_way))
            question.at = revision if question.at is None else question.at
            if step == "hear":
                under_way.remove(question)
                history.check(question.mark, question.answer(question.at))
    assert history.origin.seen_until is None
