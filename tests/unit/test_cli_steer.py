"""The commands that steer an election, within this process: real candidates, a store in memory."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.control import Control
from leader_jobs.orders import Answer, request_key
from leader_jobs.records import JobRecord, job_key
from leader_jobs.standing import place_of
from leader_jobs.stores.base import Write
from leader_jobs.stores.factory import open_store
from testsupport.background import Background
from testsupport.cli import Cli

CLOCK = SystemClock()
ELECTION = "shop"


class Desk:
    """An election in memory, the nodes that stand in it, and the command line."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.store = open_store(Settings(store=url), clock=CLOCK)
        self.run = Cli("--store", url, "--election", ELECTION)
        self.control = Control(self.store, ELECTION, by="test", clock=CLOCK)
        self._url = url
        self._stack = stack

    def stand(self, *nodes: str) -> None:
        """Have nodes stand, one after the other."""
        for node in nodes:
            number = len(self.candidates())
            settings = Settings(store=self._url, election=ELECTION, node=node)
            place = place_of(settings, ELECTION, store=self.store, clock=CLOCK)
            self._stack.enter_context(place.candidate)
            while len(self.candidates()) == number:
                self.store.wait_for_change(ELECTION, timeout=0.05)

    def foreign(self) -> None:
        """Have a candidate of another program stand."""
        self.store.enrol(ELECTION, b"etcdctl", 30.0, deadline=CLOCK.now() + 5.0)

    def job(self, name: str) -> None:
        """Have the ledger know a job."""
        now = CLOCK.utcnow()
        record = JobRecord(job=name, schedule="s", words="every day", cursor=now)
        write = Write(job_key(name), record.encode())
        self.store.commit(ELECTION, [write], candidacy=None, deadline=CLOCK.now() + 5.0)

    def candidates(self) -> list[str]:
        """Return the ids of the candidates, in order of succession."""
        found = self.store.candidates(ELECTION, deadline=CLOCK.now() + 5.0)
        return [entrant.id for entrant in found]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An election of the test's own; whoever stands in it is stopped with the test."""
    with ExitStack() as stack:
        yield Desk(f"memory://{tmp_path.name}", stack)


class TestPauses:
    """They are written, and stand; who goes by them is said."""

    def test_the_leader_obeys(self, desk: Desk) -> None:
        """Which one, and after how long."""
        desk.stand("web-1")
        answer = desk.run("pause", "--reason", "migration")

        assert answer.code == 0
        assert answer.out.startswith("election 'shop' is paused; web-1 (term 1) obeys, ")
        assert answer.out.endswith(" ms after the order\n")
        pause = desk.control.orders().pause_of(None, CLOCK.utcnow())
        assert pause is not None
        assert pause.reason == "migration"
        assert "@" in pause.by

        resumed = desk.run("resume", "--json").json
        assert (resumed["order"], resumed["obeyed"], resumed["node"]) == ("resume", True, "web-1")
        assert resumed["took"] < 5.0
        assert desk.control.orders().pause_of(None, CLOCK.utcnow()) is None

    def test_one_job_for_a_while(self, desk: Desk) -> None:
        """It ends by itself, at an instant that is said."""
        desk.stand("web-1")
        desk.job("tidy")
        answer = desk.run("pause", "tidy", "--for", "30m")

        pause = desk.control.orders().pause_of("tidy", CLOCK.utcnow())
        assert pause is not None
        assert pause.until is not None
        assert abs(pause.until - pause.since - timedelta(minutes=30)) < timedelta(seconds=1)
        assert (
            f"job 'tidy' is paused until {pause.until:%Y-%m-%d %H:%M:%S} UTC; web-1" in answer.out
        )

    def test_nobody_leads(self, desk: Desk) -> None:
        """It is written all the same, and that is success."""
        answer = desk.run("pause", "--wait", "0.05")
        assert answer.code == 0
        assert answer.out == (
            "election 'shop' is paused; nobody leads at the moment: the next leader will obey\n"
        )
        desk.stand("web-1")
        assert "web-1 (term 2) obeys" in desk.run("resume").out

    def test_a_foreign_leader(self, desk: Desk) -> None:
        """That one obeys nothing, which is said."""
        desk.foreign()
        answer = desk.run("pause", "--wait", "0.05")
        assert answer.code == 0
        assert "'etcdctl' is of another program and obeys no orders" in answer.out
        assert desk.run("resume", "--wait", "0", "--json").json["obeyed"] is False

    def test_a_leader_that_does_not_hear(self, desk: Desk) -> None:
        """As one that is frozen: it stands in the store, and that is all."""
        desk.stand("web-1")
        proposal = desk.store.candidates(ELECTION, deadline=CLOCK.now() + 5.0)[0].proposal
        desk.store.enrol("silent", proposal, 30.0, deadline=CLOCK.now() + 5.0)
        for wait, said in (
            ("0.05", "has not heard of it within 50 ms"),
            ("0", "was not waited for"),
        ):
            answer = desk.run("--election", "silent", "pause", "--wait", wait)
            assert answer.code == 0
            assert said in answer.out

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("resume",), "election 'shop' is not paused"),
            (("resume", "tidy"), "job 'tidy' is not paused"),
            (("pause", "tydy"), "has no job 'tydy'; did you mean 'tidy'?"),
            (("pause", "--until", "2020-01-01T00:00Z"), "which is past; name a later instant"),
        ],
    )
    def test_what_makes_no_sense(self, desk: Desk, arguments: tuple[str, ...], said: str) -> None:
        """It is refused, nothing is written, and the exit code says so."""
        desk.job("tidy")
        answer = desk.run(*arguments)
        assert answer.code == 1
        assert said in answer.error
        assert desk.control.orders().version == 0


class TestRequests:
    """They are done when the leader says so."""

    def test_resign(self, desk: Desk) -> None:
        """The next in line leads, and for how long nobody did is said."""
        desk.stand("web-1", "web-2")
        answer = desk.run("resign")
        assert answer.code == 0
        assert answer.out.startswith("web-1 has given up term 1; web-2 leads (term ")
        assert ", nobody led for " in answer.out

        report = desk.run("resign", "--json").json
        assert (report["obeyed"], report["node"], report["leader"]) == (True, "web-2", "web-1")
        assert 0.0 <= report["gap"] < 5.0

    def test_transfer(self, desk: Desk) -> None:
        """To one that is not next in line; those ahead of it step back."""
        desk.stand("web-1", "web-2", "web-3")
        heir = desk.candidates()[2]
        report = desk.run("transfer", "web-3", "--json").json

        assert (report["obeyed"], report["node"], report["leader"]) == (True, "web-1", "web-3")
        assert report["message"].startswith("web-1 hands over; web-3 leads (term ")
        assert desk.candidates()[0] == heir
        again = desk.run("transfer", heir)
        assert again.code == 1
        assert "leads already" in again.error

    @pytest.mark.parametrize("answered", [Answer.REFUSED, Answer.LAPSED])
    def test_a_leader_that_does_not(self, desk: Desk, answered: Answer) -> None:
        """Its reason is passed on, and who it was."""
        desk.job("tidy")
        calling = Background(lambda: desk.run("run-now", "tidy", "--json"))
        while not desk.control.orders().requests:
            CLOCK.wait(threading.Event(), 0.01)
        (request,) = desk.control.orders().requests
        why = "it is not declared here"
        reply = request.answered(answered, why, node="web-9", now=CLOCK.utcnow())
        write = Write(request_key(request.id), reply.encode())
        desk.store.commit(ELECTION, [write], candidacy=None, deadline=CLOCK.now() + 5.0)
        answer = calling.result(5.0)

        assert answer.code == 1
        assert answer.json["message"] == "web-9 did not obey: it is not declared here"
        assert (answer.json["obeyed"], answer.json["node"]) == (False, "web-9")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("resign",), "nobody leads election 'shop'"),
            (("transfer", "web-2"), "nobody leads election 'shop'"),
            (("run-now", "nothing"), "has no job 'nothing'"),
        ],
    )
    def test_what_makes_no_sense(self, desk: Desk, arguments: tuple[str, ...], said: str) -> None:
        """It is refused before it is asked for."""
        answer = desk.run(*arguments)
        assert answer.code == 1
        assert said in answer.error

    def test_a_foreign_leader(self, desk: Desk) -> None:
        """It is not even asked."""
        desk.foreign()
        desk.job("tidy")
        for arguments in (("resign",), ("run-now", "tidy")):
            answer = desk.run(*arguments)
            assert answer.code == 1
            assert "is of another program and obeys no orders" in answer.error

    def test_no_answer(self, desk: Desk) -> None:
        """Is exit code 1, for it may never be done; the request stands for a while."""
        desk.job("tidy")
        answer = desk.run("run-now", "tidy", "--wait", "0.05")
        assert answer.code == 1
        assert answer.out.startswith("nobody leads at the moment; the request stands until ")
        (request,) = desk.control.orders().requests
        assert request.answer is None

    def test_no_wait(self, desk: Desk) -> None:
        """Who does not wait has only asked, and that is done."""
        desk.job("tidy")
        answer = desk.run("run-now", "tidy", "--wait", "0", "--json")
        assert answer.code == 0
        assert answer.json["obeyed"] is False
        assert "the answer was not waited for" in answer.json["message"]
