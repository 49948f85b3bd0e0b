"""Operators steer a fleet at work, on each store: nothing is repeated and nothing is lost by it."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from leader_jobs.control import Control
from leader_jobs.orders import Answer, Request
from leader_jobs.terms import TERMS_PREFIX, TermRecord, read_terms
from testsupport.etcd import EtcdCluster
from testsupport.node_fleet import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
_ELECTION = "default"
_WITHIN = 10.0


@pytest.fixture(params=["sqlite", pytest.param("etcd", marks=pytest.mark.etcd)])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, namespace: str) -> Iterator[Fleet]:
    """Three nodes, with leases that outlive the test: whatever changes hands does so by will."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("etcd_cluster")
        url = cluster.url
    with Fleet(tmp_path, url, ttl=30.0, namespace=namespace) as fleet:
        for name in ("a", "b", "c"):
            fleet.start(name)
        yield fleet


@pytest.fixture
def control(fleet: Fleet) -> Control:
    """An operator."""
    return Control(fleet.store, _ELECTION, by="ada", clock=fleet.clock)


def obeyed(control: Control, request: Request) -> Request:
    """Wait until a request is obeyed."""
    answered = control.wait_answer(request, within=_WITHIN)
    assert answered.answer is Answer.OBEYED, answered
    return answered


def in_line(fleet: Fleet) -> list[str]:
    """Return the candidates in order of succession."""
    entrants = fleet.store.candidates(_ELECTION, deadline=fleet.clock.now() + _WITHIN)
    return [entrant.id for entrant in entrants]


def logged_terms(fleet: Fleet) -> list[TermRecord]:
    """Return the log of terms."""
    rows = fleet.store.read(_ELECTION, TERMS_PREFIX, deadline=fleet.clock.now() + _WITHIN)
    return [record for record, _ in read_terms(rows)]


def starts(fleet: Fleet) -> int:
    """Return how many bodies have begun."""
    return len(fleet._lines("begin"))


def hand_over(fleet: Fleet, control: Control) -> None:
    """Have the last in line lead; those ahead of it are first in line until they step back."""
    heir = in_line(fleet)[-1]
    obeyed(control, control.transfer(heir))
    fleet.await_that(lambda: in_line(fleet)[:1] == [heir], "the heir does not lead")


def pause_and_run(fleet: Fleet, control: Control) -> Request:
    """Pause the election for longer than a period of its jobs, and then have a job run at once."""
    assert control.wait_heard(control.pause(reason="test"), within=_WITHIN)
    fleet.pause(1.2)
    assert control.wait_heard(control.resume(), within=_WITHIN)
    return obeyed(control, control.run_now("latest"))


def test_transfers_and_pauses_neither_repeat_nor_lose_an_occurrence(
    fleet: Fleet, control: Control
) -> None:
    """Leadership is handed to the last in line, again and again, and paused in between, under load."""
    chance = random.Random(20261128)
    token, asked = 0, []
    for number in range(6):
        _, leader = fleet.leader(newer_than=token)
        token = leader.token
        fleet.await_run(token)
        fleet.pause(chance.uniform(0.0, 0.8))
        if number % 2 == 0:
            hand_over(fleet, control)
        elif number % 4 == 1:
            asked.append(pause_and_run(fleet, control))
            token -= 1  # the same term goes on
        else:
            obeyed(control, control.resign())
        fleet.note_history()
    verdict = fleet.stop()

    assert (verdict.doubled, verdict.missed, verdict.interrupted) == ([], [], 0)
    began = Counter(line[2] for line in fleet._lines("begin") if line[1] == "latest")
    runs = [began[request.planned_at.isoformat()] for request in asked if request.planned_at]
    assert runs == [1] * len(asked), "run once, when it was asked for"
    terms = logged_terms(fleet)
    assert {term.reason for term in terms} == {"resigned"}
    # Every succession was by will, so both its sides are known.
    assert all(term.took is not None and term.took < 2.0 for term in terms[1:])


def test_nothing_starts_while_the_election_is_paused(fleet: Fleet, control: Control) -> None:
    """Not even after a succession; after that, what was missed is caught up on by policy."""
    node, leader = fleet.leader()
    fleet.await_run(leader.token)
    assert control.wait_heard(control.pause(reason="migration"), within=_WITHIN)
    fleet.pause(0.5)  # what was claimed before comes to its start
    before = starts(fleet)
    assert node.terminate() == 0
    _, successor = fleet.leader(newer_than=leader.token)
    fleet.pause(1.0)
    assert starts(fleet) == before

    assert control.wait_heard(control.resume(), within=_WITHIN)
    fleet.await_run(successor.token)
    verdict = fleet.stop()
    assert (verdict.doubled, verdict.missed) == ([], [])


def test_one_job_is_paused_and_run_on_request(fleet: Fleet, control: Control) -> None:
    """The others go on; the paused one runs when it is asked for, and catches up later."""
    _, leader = fleet.leader()
    fleet.await_run(leader.token)
    assert control.wait_heard(control.pause("all", reason="poison"), within=_WITHIN)
    fleet.pause(0.6)
    before = Counter(line[1] for line in fleet._lines("begin"))
    fleet.pause(1.2)
    after = Counter(line[1] for line in fleet._lines("begin"))
    assert after["all"] == before["all"]
    assert after["latest"] > before["latest"]

    request = obeyed(control, control.run_now("all"))
    assert request.planned_at is not None
    planned = request.planned_at.isoformat()
    fleet.await_that(
        lambda: any(line[1:3] == ["all", planned] for line in fleet._lines("begin")),
        "it was not run",
    )
    assert control.wait_heard(control.resume("all"), within=_WITHIN)
    verdict = fleet.stop()
    assert (verdict.doubled, verdict.missed) == ([], [])
