"""What probes answer: from a place in an election as it is, with a store that may be away."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.events import ElectionWon, Event, Suspended
from leader_jobs.exceptions import StoreUnavailable
from leader_jobs.orders import CONTROL_PREFIX, Pause, paused_key
from leader_jobs.probes import Answer, Probes
from leader_jobs.records import JobRecord
from leader_jobs.standing import place_of
from leader_jobs.stores.base import Entrant, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.vitals import Place, vitals
from testsupport.background import Background
from testsupport.forking import in_forked_child

_SOON = 5.0
CLOCK = SystemClock()


class _Store(MemoryStore):
    """A store that counts how often it is asked who stands, and can be slow to say."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.asked = 0
        self.slow: threading.Event | None = None

    def candidates(
        self, election: str, *, deadline: float, leases: bool = False
    ) -> tuple[Entrant, ...]:
        """Count, and wait if asked to, up to the deadline."""
        self.asked += 1
        if self.slow is not None and not CLOCK.wait(self.slow, deadline - CLOCK.now()):
            msg = "no answer within a second"
            raise StoreUnavailable(msg)
        return super().candidates(election, deadline=deadline, leases=leases)


class _Stand:
    """Makes places in elections, on one store, and asks probes about them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.store = _Store()
        self.places: list[Place] = []
        self.probes = Probes(_no_settings, places=lambda: tuple(self.places))
        self._happened = threading.Condition()
        self._events: list[Event] = []

    def stand(self, election: str = "mail", node: str = "n1", ttl: float = 15.0) -> Place:
        """Have a candidate stand, and return its place."""
        settings = Settings(store="memory://", node=node, ttl=ttl)
        place = place_of(settings, election, store=self.store, clock=CLOCK, observers=[self._note])
        self._stack.callback(place.candidate.stop)
        place.candidate.start()
        self.places.append(place)
        return place

    def lead(self, election: str = "mail", node: str = "n1", ttl: float = 15.0) -> Place:
        """Have a candidate stand until it leads."""
        place = self.stand(election, node, ttl)
        place.candidate.campaign(_SOON)
        return place

    def wait_for(self, kind: type[Event]) -> None:
        """Wait until an event of *kind* has happened."""
        with self._happened:
            assert self._happened.wait_for(
                lambda: any(isinstance(event, kind) for event in self._events), _SOON
            )

    def ask(self, path: str, election: str | None = None) -> tuple[int, str]:
        """Return status and text of an answer."""
        answer = self.probes.answer(path, election=election)
        return answer.status, answer.body.decode().rstrip("\n")

    def status(self) -> Any:
        """Return what ``/status`` says."""
        answer = self.probes.answer("/status")
        assert answer.status == 200
        assert answer.content_type == "application/json"
        return json.loads(answer.body)

    def _note(self, event: Event) -> None:
        with self._happened:
            self._events.append(event)
            self._happened.notify_all()


def _no_settings() -> Settings:
    raise AssertionError


@pytest.fixture(name="stand")
def _stand() -> Iterator[_Stand]:
    with ExitStack() as stack:
        made = _Stand(stack)
        yield made
        made.store.restore()
        if made.store.slow is not None:
            made.store.slow.set()


def is_standby(place: Place) -> bool:
    """Wait until *place* is in the electorate."""
    limit = CLOCK.now() + _SOON
    while place.candidate.candidacy is None and CLOCK.now() < limit:
        CLOCK.wait(threading.Event(), 0.01)
    return place.candidate.candidacy is not None


# -- who leads --------------------------------------------------------------------------------------


def test_the_leader_and_a_standby(stand: _Stand) -> None:
    """Both are live and ready; one of them is the leader."""
    leader = stand.lead(node="n1")
    assert stand.ask("/livez") == (200, "alive: leader in election 'mail'")
    assert stand.ask("/readyz") == (200, "ready: the store answers")
    token = leader.candidate.require_term().token
    assert stand.ask("/leader") == (200, f"node n1 leads election 'mail', term {token}")
    stand.places.clear()

    standby = stand.stand(node="n2")
    assert is_standby(standby)
    assert stand.ask("/livez") == (200, "alive: standby in election 'mail'")
    assert stand.ask("/readyz")[0] == 200
    assert stand.ask("/leader") == (503, "node n2 is standby in election 'mail'")


def test_a_process_that_stands_nowhere(tmp_path: Path) -> None:
    """It is alive, it does not lead, and its settings say which store has to answer."""
    settings = Settings(store=f"sqlite:///{tmp_path}/store.sqlite3")
    probes = Probes(lambda: settings, places=tuple)

    assert probes.answer("/livez").body == b"alive: stands in no election\n"
    assert probes.answer("/readyz").status == 200
    assert probes.answer("/leader").status == 503
    assert probes.answer("/leader", election="mail").body == (
        b"this process does not stand in election 'mail'\n"
    )
    assert json.loads(probes.answer("/status").body)["elections"] == []
    probes.close()


def test_one_of_several_elections(stand: _Stand) -> None:
    """Which one is meant has to be said: a balancer would follow the wrong leader otherwise."""
    stand.lead("mail", "n1")
    other = stand.lead("web", "n2")
    other.candidate.stop()

    assert stand.ask("/leader", "mail")[0] == 200
    assert stand.ask("/leader", "web")[0] == 503
    status, said = stand.ask("/leader")
    assert status == 400
    assert "?election=" in said


def test_what_else_is_asked_for(stand: _Stand) -> None:
    """An unknown path is told which ones there are; metrics only where they were asked for."""
    status, said = stand.ask("/metrics")

    assert (status, said) == (404, "there is /livez, /readyz, /leader, /status")
    probes = Probes(_no_settings, metrics=lambda: (b"up 1\n", "text/plain"), places=tuple)
    assert probes.answer("/metrics") == Answer(200, b"up 1\n", "text/plain")


# -- a store that is away ---------------------------------------------------------------------------


def test_a_store_that_is_away_kills_nobody(stand: _Stand) -> None:
    """The process is not ready, and it is alive: to start it anew would not help."""
    stand.lead(ttl=2.0)
    stand.store.cut()
    stand.wait_for(Suspended)

    assert stand.ask("/livez")[0] == 200
    status, said = stand.ask("/readyz")
    assert status == 503
    assert said.startswith("the store does not answer: ")
    assert stand.status()["elections"][0]["role"] in ("suspended", "seeking")


def test_the_store_is_asked_once_by_however_many_ask_here(stand: _Stand) -> None:
    """A hundred probes at once, and those of the next seconds, are one question to the store."""
    stand.stand()
    assert is_standby(stand.places[0])
    stand.store.slow = threading.Event()
    before = stand.store.asked
    asking = [Background(lambda: stand.ask("/readyz")) for _ in range(100)]
    CLOCK.wait(threading.Event(), 0.05)
    stand.store.slow.set()

    assert {asked.result() for asked in asking} == {(200, "ready: the store answers")}
    assert stand.ask("/readyz")[0] == 200
    assert stand.store.asked == before + 1


def test_a_store_that_never_answers_holds_a_probe_up_for_a_second(stand: _Stand) -> None:
    """However many wait: the ones behind take the answer of the first."""
    stand.stand()
    assert is_standby(stand.places[0])
    stand.store.slow = threading.Event()
    began = CLOCK.now()
    asking = [Background(lambda: stand.ask("/readyz")) for _ in range(20)]

    assert {asked.result()[0] for asked in asking} == {503}
    assert CLOCK.now() - began < 2.5


def test_settings_that_make_no_sense_are_said(tmp_path: Path) -> None:
    """A web process without a store is not ready, and says what to change."""
    probes = Probes(Settings.load, places=tuple)

    answer = probes.answer("/readyz")
    assert answer.status == 503
    assert b"store is not set" in answer.body


def test_the_child_of_a_fork_asks_by_itself(stand: _Stand) -> None:
    """It stands nowhere; a lock that was held when it was born does not hold it up."""
    probes = Probes(lambda: Settings(store="memory://forked"))
    stand.lead()
    stand.store.slow = threading.Event()
    asking = Background(lambda: probes.answer("/readyz"))
    CLOCK.wait(threading.Event(), 0.05)

    def in_child() -> tuple[int, bytes]:
        return probes.answer("/readyz").status, probes.answer("/livez").body

    assert any(place in vitals.places() for place in stand.places)
    assert in_forked_child(in_child) == repr((200, b"alive: stands in no election\n"))
    stand.store.slow.set()
    assert asking.result().status == 200


# -- leaders that are not well ----------------------------------------------------------------------


def test_a_loop_that_hangs_is_not_alive(stand: _Stand) -> None:
    """A leader whose loop has not come round for half a minute is better started anew."""
    place = stand.lead()
    place.ledger.tally.turn(CLOCK.now() - 29, None)
    assert stand.ask("/livez")[0] == 200

    place.ledger.tally.turn(CLOCK.now() - 42, None)
    said = "node n1 leads, the store answers, and its loop has not come round for 42 s"
    assert stand.ask("/livez") == (503, f"election 'mail': {said}")
    assert stand.status()["healthy"] is False
    assert "has not come round" in stand.status()["why"]


def test_what_is_due_and_not_claimed_is_not_alive(stand: _Stand) -> None:
    """A leader that turns and claims nothing does not lead."""
    place = stand.lead()
    place.ledger.tally.turn(CLOCK.now(), CLOCK.utcnow() - timedelta(seconds=20))
    assert stand.ask("/livez")[0] == 200

    place.ledger.tally.turn(CLOCK.now(), CLOCK.utcnow() - timedelta(seconds=50))
    status, said = stand.ask("/livez")
    assert status == 503
    assert "what is due has not been claimed for 50 s" in said


def test_a_pause_excuses_what_is_due(stand: _Stand) -> None:
    """Nothing is claimed in a paused election, and that is how it should be."""
    place = stand.lead()
    pause = Pause(by="ops", reason="", since=CLOCK.utcnow())
    write = Write(paused_key(), pause.encode())
    stand.store.commit("mail", [write], candidacy=None, deadline=CLOCK.now() + 1)
    place.orders.look()
    place.ledger.tally.turn(CLOCK.now(), CLOCK.utcnow() - timedelta(seconds=50))

    assert stand.ask("/livez")[0] == 200
    assert stand.status()["elections"][0]["paused"] is True
    assert stand.store.read("mail", CONTROL_PREFIX, deadline=CLOCK.now() + 1)


def test_a_store_that_is_away_excuses_the_loop(stand: _Stand) -> None:
    """Nothing can turn without a store; the loop is not what is wrong."""
    place = stand.lead()
    place.ledger.tally.turn(CLOCK.now() - 42, None)
    stand.store.slow = threading.Event()

    assert stand.ask("/livez")[0] == 200


def test_a_standby_has_no_loop_to_come_round(stand: _Stand) -> None:
    """What the loop did in a former term does not count."""
    stand.lead(node="n1")
    stand.places.clear()
    standby = stand.stand(node="n2")
    assert is_standby(standby)
    standby.ledger.tally.turn(CLOCK.now() - 500, CLOCK.utcnow() - timedelta(hours=1))

    assert stand.ask("/livez") == (200, "alive: standby in election 'mail'")


def test_a_candidate_whose_thread_has_died_is_not_alive(stand: _Stand) -> None:
    """Nobody would ever stand again."""
    place = stand.lead()
    place.candidate.stop()

    assert stand.ask("/livez") == (503, "election 'mail': the thread that stands in it has died")


# -- status -----------------------------------------------------------------------------------------


def test_the_status_of_a_leader(stand: _Stand) -> None:
    """All that the process knows of itself, in one shape that programs can rely on."""
    place = stand.lead()
    stand.wait_for(ElectionWon)
    due = CLOCK.utcnow() + timedelta(seconds=60)
    place.ledger.tally.turn(CLOCK.now(), due)
    status = stand.status()

    assert {"format", "at", "version", "pid", "healthy", "why", "elections"} == status.keys()
    (election,) = status["elections"]
    token, remaining = place.candidate.require_term().token, election.pop("remaining")
    assert 0 < remaining <= 12
    assert 0 <= election.pop("turned") < 5
    assert election.pop("since") is not None
    assert election == {
        "election": "mail",
        "node": "n1",
        "role": "leader",
        "token": token,
        "ttl": 15.0,
        "due": due.isoformat(),
        "late": 0.0,
        "overdue": 0,
        "paused": False,
        "doubt": None,
    }


def test_the_status_of_one_that_waits_or_seeks(stand: _Stand) -> None:
    """What only a leader has is null, of the same shape."""
    stand.lead(node="n1")
    shape = stand.status()["elections"][0].keys()
    stand.places.clear()
    standby = stand.stand(node="n2")
    assert is_standby(standby)
    (shown,) = stand.status()["elections"]
    assert shown.keys() == shape
    assert (shown["role"], shown["remaining"], shown["since"]) == ("standby", None, None)
    assert shown["token"] == standby.candidate.candidacy.token  # type: ignore[union-attr]
    stand.places.clear()

    stand.store.cut()
    stand.stand(node="n3")
    (shown,) = stand.status()["elections"]
    assert shown.keys() == shape
    assert (shown["role"], shown["token"], shown["ttl"]) == ("seeking", None, None)


def test_overdue_jobs_are_counted_unless_they_are_paused(stand: _Stand) -> None:
    """From what the leader remembers: the store is not asked for it."""
    place = stand.lead()
    now = CLOCK.utcnow()
    for number, (job, late) in enumerate([("a", 60), ("b", 60), ("c", 1)]):
        due = now - timedelta(seconds=late)
        record = JobRecord(job=job, schedule="s", words="", cursor=now, due=due)
        place.ledger.remember(record, number + 1)
    assert stand.status()["elections"][0]["overdue"] == 2

    pause = Pause(by="ops", reason="", since=now)
    write = Write(paused_key("a"), pause.encode())
    stand.store.commit("mail", [write], candidacy=None, deadline=CLOCK.now() + 1)
    place.orders.look()
    assert stand.status()["elections"][0]["overdue"] == 1


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/leader", "/nowhere"])
def test_every_answer_is_one_line(stand: _Stand, path: str) -> None:
    """People read them in the events of a supervisor."""
    stand.lead()
    answer: Callable[..., Answer] = stand.probes.answer

    assert answer(path).body.count(b"\n") == 1
    assert answer(path).content_type.startswith("text/plain")
