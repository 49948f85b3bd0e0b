"""The commands that show an election, within this process, on a store in memory."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.names import runners_of
from leader_jobs.orders import Pause, paused_key
from leader_jobs.proposals import Proposal
from leader_jobs.records import JobRecord, OccurrenceRecord, State, history_key, job_key
from leader_jobs.stores.base import Write
from leader_jobs.stores.factory import open_store
from testsupport.cli import Answer, Cli

CLOCK = SystemClock()
ELECTION = "shop"
THEN = datetime(2024, 2, 28, 3, 0, tzinfo=UTC)
HOSTILE = "<script>[bold red]\x1b[2J\u202e"

#: What each document has at its top: nothing is taken out of it within one format.
DOCUMENTS = {
    (
        "status",
    ): "format election at leader candidates members paused overdue jobs terms requests heard",
    ("status", "--all"): "format elections",
    ("candidates",): "format election at candidates members",
    ("jobs",): "format election at jobs",
    ("history", "tidy"): "format election job occurrences",
    ("pause",): "format election order job message obeyed node token took leader gap planned_at",
    ("history", "nothing"): "format error",
}


class World:
    """An election in memory, and what is in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = open_store(Settings(store=url), clock=CLOCK)

    def enrol(self, proposal: bytes | str, *, election: str = ELECTION, ttl: float = 30.0) -> int:
        """Have somebody stand, under a lease that outlives the test; a text is one of our nodes."""
        if isinstance(proposal, str):
            ours = Proposal(node=proposal, host="h1", pid=7, version="1.2.3", incarnation=proposal)
            proposal = ours.encode()
        return self.store.enrol(election, proposal, ttl, deadline=CLOCK.now() + 5.0).token

    def write(self, key: str, value: bytes) -> None:
        """Write a record."""
        deadline = CLOCK.now() + 5.0
        self.store.commit(ELECTION, [Write(key, value)], candidacy=None, deadline=deadline)

    def job(self, name: str, *, due: datetime | None = None, **changes: object) -> None:
        """Have the ledger know a job, with one run that took two seconds."""
        record = JobRecord(
            job=name, schedule="s", words="every day", cursor=THEN, due=due, sequence=1
        )
        self.write(job_key(name), record.encode())
        self.write(history_key(name, 0), occurrence(**changes).encode())


def occurrence(**changes: object) -> OccurrenceRecord:
    """Return a run that took two seconds, or something else."""
    values: dict[str, object] = {
        "sequence": 0,
        "planned_at": THEN,
        "state": State.SUCCEEDED,
        "token": 3,
        "node": "web-1",
        "claimed_at": THEN,
        "started_at": THEN + timedelta(seconds=1),
        "ended_at": THEN + timedelta(seconds=3),
    }
    return OccurrenceRecord(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An election of the test's own."""
    with ExitStack() as stack:
        world = World(f"memory://{tmp_path.name}")
        stack.callback(world.store.close)
        yield world


@pytest.fixture
def cli(world: World) -> Cli:
    """The command line on it."""
    return Cli("--store", world.url, "--election", ELECTION)


def cells(answer: Answer) -> list[list[str]]:
    """Return the lines of what was said, cut where two blanks stand."""
    assert answer.err == ""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in answer.out.splitlines()
    ]


class TestStatus:
    """Who leads."""

    def test_nobody(self, cli: Cli) -> None:
        """That is an answer, and an exit code only where it is asked for."""
        assert cli("status").code == 0
        answer = cli("status", "--exit-code")
        assert answer.code == 1
        assert ["leader", "nobody leads"] in cells(answer)
        assert cli("status", "--json").json["leader"] is None

    def test_somebody(self, world: World, cli: Cli) -> None:
        """With its place, its lease, and who is next."""
        for node in ("web-1", "web-2", "web-3"):
            world.enrol(node)
        answer = cli("status", "--exit-code")

        assert answer.code == 0
        found = {row[0]: row[1] for row in cells(answer)}
        assert found["leader"] == "web-1 (pid 7 on h1, version 1.2.3)"
        assert found["lease"].endswith(" of 30 s")
        assert found["next"] == "web-2, web-3"
        assert found["jobs"] == "0"

    def test_what_is_wrong(self, world: World, cli: Cli) -> None:
        """A pause, with who and why; jobs that are overdue, by name, if no pause explains it."""
        world.enrol("web-1")
        world.job("late", due=THEN)
        assert ["jobs", "1, overdue: late"] in cells(cli("status"))

        pause = Pause(by="ada@ops", reason="migration", since=THEN, until=None)
        world.write(paused_key(), pause.encode())
        found = {row[0]: row[1] for row in cells(cli("status"))}
        assert found["paused"].startswith("by ada@ops, ")
        assert found["paused"].endswith(" ago: migration")
        assert found["jobs"] == "1"

    def test_all_elections(self, world: World, cli: Cli) -> None:
        """A line each; one that nobody leads is a "no"."""
        assert cli("status", "--all", "--exit-code").code == 1
        world.enrol("web-1")
        world.enrol("db-1", election="backups")
        answer = cli("status", "--all", "--exit-code")

        assert answer.code == 0
        assert [row[:2] for row in cells(answer)[1:]] == [["backups", "db-1"], ["shop", "web-1"]]
        world.job("tidy")
        world.store.commit("idle", [Write("x", b"")], candidacy=None, deadline=CLOCK.now() + 5.0)
        assert cli("status", "--all", "--exit-code").code == 1


def test_candidates(world: World, cli: Cli) -> None:
    """In order of succession, foreign ones too, and then those that never lead."""
    assert cli("candidates").out == "nobody stands in 'shop'\n"
    world.enrol("web-1")
    world.enrol(b"etcdctl elect")
    world.enrol("worker-1", election=runners_of(ELECTION))
    rows = cells(cli("candidates"))

    assert rows[1][:5] == ["leads", "web-1", "h1", "7", "1.2.3"]
    assert rows[2][:3] == ["1.", "etcdctl elect", "(another program)"]
    assert rows[3][:2] == ["never leads", "worker-1"]


def test_jobs(world: World, cli: Cli) -> None:
    """What is next and what was last, and whatever is the matter."""
    assert "knows no jobs" in cli("jobs").out
    world.job("tidy", due=CLOCK.utcnow() + timedelta(hours=5))
    world.job("late", due=THEN, state=State.FAILED)
    world.job("held", due=THEN)
    world.write(paused_key("held"), Pause(by="ada", reason="poison", since=THEN).encode())
    world.write(job_key("odd"), b"?")
    rows = {row[0]: row[1:] for row in cells(cli("jobs"))}

    assert rows["tidy"] == [
        "every day",
        "in 5 h",
        "2024-02-28 03:00:00",
        "succeeded",
        "2.0 s",
        "web-1",
    ]
    assert rows["late"][3] == "failed"
    assert rows["late"][-1] == "overdue"
    assert rows["held"][-1].startswith("paused by ada, ")
    assert rows["odd"] == ["can not be read: not a record of this library"]


def test_history(world: World, cli: Cli) -> None:
    """The newest last; ranges, reasons, attempts and who asked are shown."""
    world.job("tidy")
    first = THEN - timedelta(days=3)
    passed = {"state": State.COALESCED, "first": first, "count": 3, "reason": "coalesced"}
    world.write(history_key("tidy", 1), occurrence(sequence=1, **passed).encode())
    asked = occurrence(sequence=2, attempt=2, asked_by="ada@ops", state=State.FAILED, reason="boom")
    world.write(history_key("tidy", 2), asked.encode())
    answer = cli("history", "tidy")

    rows = cells(answer)
    assert rows[1][:2] == ["2024-02-28 03:00:00", "succeeded"]
    assert rows[2][:2] == ["2024-02-25 03:00:00 … 2024-02-28 03:00:00 (3)", "coalesced"]
    assert rows[3][-1] == "boom; attempt 2; asked for by ada@ops"
    assert cells(cli("history", "tidy", "--last", "1"))[1:] == rows[3:]


def test_history_of_nothing(world: World, cli: Cli) -> None:
    """A job that has never run is not one that is not there."""
    record = JobRecord(job="tidy", schedule="s", words="", cursor=THEN)
    world.write(job_key("tidy"), record.encode())
    assert cli("history", "tidy").out == "nothing has been recorded of it yet\n"

    answer = cli("history", "tydy")
    assert answer.code == 1
    assert answer.error == "election 'shop' has no job 'tydy'; did you mean 'tidy'?"


@pytest.mark.parametrize("arguments", DOCUMENTS, ids=" ".join)
def test_documents_for_programs(world: World, cli: Cli, arguments: tuple[str, ...]) -> None:
    """One JSON document, all of it on standard output, with these fields."""
    world.enrol("web-1")
    world.job("tidy")
    wait = ("--wait", "0") if arguments[0] == "pause" else ()
    document = cli(*arguments, *wait, "--json").json

    assert list(document) == DOCUMENTS[arguments].split()
    assert document["format"] == 1


def test_hostile_texts(world: World, cli: Cli) -> None:
    """Whatever a stranger calls itself is text, in every command, and breaks no line."""
    world.enrol(HOSTILE.encode())
    world.enrol(HOSTILE)
    world.job("tidy", node=HOSTILE, reason=HOSTILE)
    record = JobRecord(job="tidy", schedule="s", words=HOSTILE, cursor=THEN, task=HOSTILE)
    world.write(job_key("tidy"), record.encode())
    world.write(paused_key(), Pause(by=HOSTILE, reason=HOSTILE, since=THEN).encode())
    said_everywhere = "<script>[bold red]\N{REPLACEMENT CHARACTER}[2J"
    for verb in ("status", "status --all", "candidates", "jobs", "history tidy", "run-now tidy"):
        answer = cli(*verb.split())
        said = answer.out + answer.err
        assert "".join(said.split("\n")).isprintable(), verb
        assert said_everywhere in said, verb


class TestTrouble:
    """Exit code 2: the store is out of reach, or the settings make no sense."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "store is not set"),
            (("--store", "etcd://127.0.0.1:1", "--timeout", "0.2"), "etcd did not answer"),
            (("--store", "mysql://db"), "unknown kind of store"),
            (("--store", "sqlite:////nowhere/x"), "there is no store /nowhere/x"),
            (("--store", "memory://x", "--election", "a/b"), "election 'a/b' is not valid"),
        ],
    )
    @pytest.mark.parametrize("verb", ["status", "pause", "watch"])
    def test_what_can_not_be_done(self, arguments: tuple[str, ...], said: str, verb: str) -> None:
        """It is one line on standard error, or a document of its own."""
        answer = Cli()(*arguments, verb)
        assert answer.code == 2
        assert said in answer.error
        answer = Cli()(*arguments, verb, "--json")
        assert answer.code == 2
        assert answer.json == {"format": 1, "error": Cli()(*arguments, verb).error}

    def test_looking_makes_no_store(self, tmp_path: Path) -> None:
        """Whoever looks may be another user, whose file the nodes could not write."""
        url = f"sqlite:///{tmp_path}/store.sqlite3"
        for verb in (("status",), ("pause",), ("doctor",), ("history", "x")):
            assert Cli("--store", url)(*verb).code == 2
        assert list(tmp_path.iterdir()) == []
