"""Metrics: what Prometheus reads of a process that stands in elections."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.events import ElectionWon, Renewed, Resumed, Suspended, TermEnded
from leader_jobs.exceptions import Fenced
from leader_jobs.metrics import Metrics, metrics_of_process, publish
from leader_jobs.orders import Pause, paused_key
from leader_jobs.records import JobRecord, State
from leader_jobs.standing import place_of
from leader_jobs.stores.base import Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from leader_jobs.vitals import Place
from testsupport.ledgers import LedgerNode, claim_one, make_job, run

CLOCK = SystemClock()
_SOON = 5.0
Sample = dict[tuple[str, ...], float]


def read(metrics: Metrics, name: str) -> Sample:
    """Return the samples of metric *name*, by the values of their labels, as a scrape sees them."""
    text = metrics.exposition()[0].decode()
    found: Sample = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels.values())] = sample.value
    return found


class _Stand:
    """Places on a store in memory, and the metrics of the process that has them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.store = MemoryStore(CLOCK)
        self.places: list[Place] = []
        self.metrics = Metrics(places=lambda: tuple(self.places), clock=CLOCK)

    def stand(self, node: str, ttl: float = 15.0) -> Place:
        """Have a candidate stand."""
        place = place_of(
            Settings(store="memory://", node=node, ttl=ttl),
            "mail",
            store=self.store,
            clock=CLOCK,
            observers=[self.metrics],
        )
        self._stack.callback(place.candidate.stop)
        self.places.append(place)
        return place

    def wait_for(self, name: str, least: float, who: tuple[str, str] = ("mail", "n1")) -> float:
        """Wait until metric *name* is at least *least*; return it."""
        limit = CLOCK.now() + _SOON
        while (value := read(self.metrics, name).get(who, -1.0)) < least:
            assert CLOCK.now() < limit, f"{name} is {value}"
            CLOCK.wait(threading.Event(), 0.02)
        return value


@pytest.fixture(name="stand")
def _stand() -> Iterator[_Stand]:
    with ExitStack() as stack:
        made = _Stand(stack)
        yield made
        made.store.restore()


def test_a_leader_and_a_standby(stand: _Stand) -> None:
    """One of them is 1; what only a leader has, only the leader shows."""
    leader, standby = stand.stand("n1"), stand.stand("n2")
    term = leader.candidate.campaign(_SOON)
    standby.candidate.start()

    assert read(stand.metrics, "leader_jobs_leader") == {("mail", "n1"): 1, ("mail", "n2"): 0}
    assert read(stand.metrics, "leader_jobs_token") == {("mail", "n1"): term.token}
    margin = read(stand.metrics, "leader_jobs_deadline_margin_seconds")
    assert margin.keys() == {("mail", "n1")}
    assert 0 < margin["mail", "n1"] <= 12
    assert stand.wait_for("leader_jobs_terms_total", 1) == 1
    assert read(stand.metrics, "leader_jobs_terms_total")["mail", "n2"] == 0
    assert read(stand.metrics, "leader_jobs_paused") == {("mail", "n1"): 0}
    assert read(stand.metrics, "leader_jobs_jobs_overdue") == {("mail", "n1"): 0}


def test_renewals_that_work_are_timed(stand: _Stand) -> None:
    """Each renewal of a term is one observation; they come by themselves."""
    stand.stand("n1", ttl=2.0).candidate.campaign(_SOON)
    count = stand.wait_for("leader_jobs_renew_seconds_count", 1)

    assert count >= 1
    assert read(stand.metrics, "leader_jobs_renew_seconds_sum")["mail", "n1"] < _SOON
    buckets = read(stand.metrics, "leader_jobs_renew_seconds_bucket")
    assert max(buckets.values()) >= count


def test_a_pause(stand: _Stand) -> None:
    """As far as the leader has heard of it."""
    place = stand.stand("n1")
    place.candidate.campaign(_SOON)
    write = Write(paused_key(), Pause(by="ops", reason="", since=CLOCK.utcnow()).encode())
    stand.store.commit("mail", [write], candidacy=None, deadline=CLOCK.now() + 1)

    assert stand.wait_for("leader_jobs_paused", 1) == 1


def test_suspended_seconds_grow_while_it_lasts() -> None:
    """They are counted until the term goes on, or ends, and shown before."""
    clock = ManualClock()
    metrics = Metrics(places=tuple, clock=clock)
    name, who = "leader_jobs_suspended_seconds_total", ("mail", "n1")
    assert read(metrics, name) == {}
    metrics(Suspended("mail", "n1", 1, 9.0, "away"))
    clock.advance(3)
    assert read(metrics, name)[who] == 3
    clock.advance(1)
    metrics(Resumed("mail", "n1", 1))
    clock.advance(100)
    assert read(metrics, name)[who] == 4
    metrics(Suspended("mail", "n1", 1, 9.0, "away"))
    clock.advance(2)
    metrics(TermEnded("mail", "n1", 1, "deadline"))
    clock.advance(100)
    assert read(metrics, name)[who] == 6


def test_what_became_of_occurrences(clock: ManualClock, node: LedgerNode) -> None:
    """Those that this process closed, by state, and how late they were started."""
    place = _PlaceOfNode(node)
    metrics = Metrics(places=lambda: (place,), clock=clock)  # type: ignore[return-value, arg-type]  # what it looks at is there
    claim = claim_one(node, make_job(), clock)
    clock.advance(3)
    run(node, claim)

    closed = read(metrics, "leader_jobs_occurrences_total")
    assert closed == {("mail", "n1", "succeeded"): 1}
    assert read(metrics, "leader_jobs_dispatch_lag_seconds_count")["mail", "n1"] == 1
    assert read(metrics, "leader_jobs_dispatch_lag_seconds_sum")["mail", "n1"] == pytest.approx(3)
    assert read(metrics, "leader_jobs_refused_claims_total")["mail", "n1"] == 0


class _PlaceOfNode:
    """As much of a place as there is in a ledger that a test drives by hand."""

    def __init__(self, node: LedgerNode) -> None:
        self.ledger = node.ledger
        self.candidate = self
        self.election, self.node, self.alive = "mail", "n1", True
        self.term = self.candidacy = self.doubt = None


def test_a_write_that_was_fenced_off(clock: ManualClock, node: LedgerNode) -> None:
    """The store refused it: a zombie would have done harm."""
    place = _PlaceOfNode(node)
    metrics = Metrics(places=lambda: (place,), clock=clock)  # type: ignore[return-value, arg-type]  # as above
    claim = claim_one(node, make_job(), clock)
    term = node.term()
    node.dies()
    with pytest.raises(Fenced):
        node.ledger.start(claim, term)

    assert read(metrics, "leader_jobs_refused_claims_total")["mail", "n1"] == 1
    assert State.STARTED.value not in str(read(metrics, "leader_jobs_occurrences_total"))


def test_one_collector_for_the_process() -> None:
    """However often it is asked for, and published."""
    registry = CollectorRegistry()
    metrics = metrics_of_process()
    assert metrics_of_process() is metrics
    publish(registry)
    publish(registry)

    metrics(ElectionWon("once", "n1", 1))
    metrics(Renewed("once", "n1", 1, 0.02, 10.0))
    who = {"election": "once", "node": "n1"}
    assert registry.get_sample_value("leader_jobs_terms_total", who) == 1
    assert registry.get_sample_value("leader_jobs_renew_seconds_sum", who) == pytest.approx(0.02)


def test_the_default_registry_on_request_only() -> None:
    """A program that exposes that one decides by itself; a second request changes nothing."""
    name = "leader_jobs_terms_total"
    metrics = metrics_of_process()
    metrics(ElectionWon("default", "alone", 1))
    who = {"election": "default", "node": "alone"}
    assert REGISTRY.get_sample_value(name, who) is None
    publish()
    publish()
    try:
        assert REGISTRY.get_sample_value(name, who) == 1
    finally:
        REGISTRY.unregister(metrics)


def test_names_are_as_prometheus_has_them(stand: _Stand) -> None:
    """Every family has a help text, and counters end in _total, seconds in _seconds."""
    stand.stand("n1").candidate.campaign(_SOON)
    text, kind = stand.metrics.exposition()
    families = list(text_string_to_metric_families(text.decode()))

    assert kind.startswith("text/plain")
    assert len({family.name for family in families}) >= 11
    for family in families:
        assert family.name.startswith("leader_jobs_")
        assert family.documentation.endswith(".") or family.name.endswith("_created")


def test_overdue_jobs(stand: _Stand) -> None:
    """As many as the leader remembers to be late."""
    place = stand.stand("n1")
    place.candidate.campaign(_SOON)
    now = CLOCK.utcnow()
    record = JobRecord(
        job="late", schedule="s", words="", cursor=now, due=now - timedelta(minutes=1)
    )
    place.ledger.remember(record, 1)

    assert read(stand.metrics, "leader_jobs_jobs_overdue")["mail", "n1"] == 1
