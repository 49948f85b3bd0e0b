"""What the doctor makes of what there is, apart from etcd itself."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.doctor import Finding, Level, cluster, examine
from leader_jobs.doctor.clocks import Heard, listening
from leader_jobs.doctor.cluster import known_bugs
from leader_jobs.doctor.elections import examine_election
from leader_jobs.doctor.files import examine_files, judge
from leader_jobs.orders import Pause
from leader_jobs.overview import ElectionView, JobView, Member
from leader_jobs.records import JobRecord, OccurrenceRecord, State, job_key
from leader_jobs.stores.base import Write
from leader_jobs.stores.etcd_checkup import Expiry
from leader_jobs.stores.etcd_checkup import Member as EtcdMember
from leader_jobs.stores.factory import open_store
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.stores.sqlite_checkup import Files, Owned, look_at_files
from testsupport.cli import Cli

CLOCK = SystemClock()
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def bad(findings: Iterator[Finding]) -> dict[str, Finding]:
    """Return the findings that are not fine, by what was looked at; each has a remedy."""
    found = {finding.check: finding for finding in findings if finding.level is not Level.OK}
    assert all(finding.remedy for finding in found.values())
    return found


# -- an election ----------------------------------------------------------------------------------


def member(node: str, place: int | None = 0, **changes: object) -> Member:
    """Return a healthy candidate, or another."""
    values: dict[str, object] = {
        "place": place,
        "id": node,
        "token": 7,
        "node": node,
        "host": "h",
        "pid": 1,
        "version": "1.0",
        "foreign": False,
        "ttl": 15.0,
        "remaining": 14.0,
    }
    return Member(**(values | changes))  # type: ignore[arg-type]


HEALTHY = ElectionView(
    election="shop",
    at=NOW,
    candidates=(member("a"), member("b", 1)),
    members=(),
    pause=None,
    jobs=(JobView(name="tidy"),),
    terms=(),
    requests=(),
    receipt=None,
)
LONG_AGO = Pause(by="ada", reason="poison", since=NOW - timedelta(days=3))


def test_a_healthy_election() -> None:
    """Nothing is wrong with it."""
    assert bad(examine_election(HEALTHY)) == {}


@pytest.mark.parametrize(
    ("changes", "check", "said", "remedy"),
    [
        ({"candidates": ()}, "leader", "nobody leads", "start a candidate"),
        (
            {"candidates": (member("go", foreign=True), member("b"))},
            "leader",
            "another program",
            "end",
        ),
        ({"candidates": (member("a", remaining=3.0), member("b"))}, "leader", "not renewed", "log"),
        ({"candidates": (member("a"),)}, "standby", "nobody is next", "start another"),
        ({"candidates": (member("a"), member("go", 1, foreign=True))}, "foreign", "go", "end that"),
        ({"members": (member("w", None, version="0.9"),)}, "nodes", "0.9, 1.0", "deployment"),
        ({"pause": LONG_AGO}, "paused", "by ada (poison), since 3 d ago", "leader-jobs resume"),
        ({"jobs": (JobView(name="x", pause=LONG_AGO),)}, "paused", "job 'x'", "resume x"),
        (
            {"jobs": (JobView(name="x", overdue=True),)},
            "jobs",
            "1 of 1 jobs are overdue: 'x'",
            "log",
        ),
        ({"jobs": (JobView(name="x", unreadable="v2"),)}, "job", "can not be read: v2", "version"),
    ],
)
def test_what_may_be_wrong_with_an_election(
    changes: dict[str, object], check: str, said: str, remedy: str
) -> None:
    """Each is named, with what to do."""
    view = replace(HEALTHY, **changes)  # type: ignore[arg-type]
    (finding,) = bad(examine_election(view)).values()
    assert finding.check == check
    assert said in finding.message
    assert remedy in finding.remedy


def test_pauses_that_nobody_forgot() -> None:
    """A young one, and one that ends by itself, are told and are fine."""
    young = replace(LONG_AGO, since=NOW - timedelta(hours=3))
    ending = replace(LONG_AGO, until=NOW + timedelta(hours=1))
    view = replace(HEALTHY, pause=young, jobs=(JobView(name="x", pause=ending),))
    assert bad(examine_election(view)) == {}
    told = [finding.message for finding in examine_election(view) if finding.check == "paused"]
    assert [message.endswith("ago") for message in told] == [True, False]


# -- versions of etcd -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "bugs"),
    [
        ("3.4.30", ["15247"]),
        ("3.4.31", []),
        ("3.5.1", ["15247", "13766", "20615"]),
        ("3.5.12", ["15247", "20615"]),
        ("3.5.13", ["20615"]),
        ("3.5.22", ["20615"]),
        ("3.5.23", []),
        ("3.6.0-rc.1", ["20615"]),
        ("3.6.4", ["20615"]),
        ("3.6.5", []),
        ("3.7.0", []),
        ("unknown", []),
    ],
)
def test_known_bugs_of_leases(version: str, bugs: list[str]) -> None:
    """From their first version up to but without the one that fixed them."""
    assert [text.partition("etcd#")[2].rstrip(")") for text in known_bugs(version)] == bugs


# -- what a cluster says of itself ----------------------------------------------------------------

MEMBER = EtcdMember(
    version="3.6.5",
    cluster=1,
    id=2,
    leader=2,
    learner=False,
    size=2**20,
    quota=None,
    errors=(),
    round_trip=0.002,
    clock=(-0.4, 0.6),
)


@pytest.mark.parametrize(
    ("finding", "level", "said"),
    [
        (cluster._reached("e", MEMBER), Level.OK, "a consistent read takes 2 ms"),
        (cluster._reached("e", replace(MEMBER, leader=0)), Level.PROBLEM, "knows no leader"),
        (cluster._reached("e", replace(MEMBER, learner=True)), Level.WARNING, "is a learner"),
        (cluster._grant(15.0, 15.0), Level.OK, "a ttl of 15 s is granted"),
        (cluster._grant(3.0, 8.0), Level.WARNING, "of a ttl of 3 s the cluster makes 8 s"),
        (cluster._pace(15.0, 0.002), Level.OK, "a call takes 2 ms"),
        (cluster._pace(15.0, 1.2), Level.PROBLEM, "one that takes 1.0 s is given up"),
        (cluster._pace(3.0, 0.55), Level.PROBLEM, "so leases run out"),
        (cluster._expiry(Expiry(2.0, 2.4)), Level.OK, "of 2 s ran out after 2.4 s"),
        (cluster._expiry(Expiry(2.0, None)), Level.PROBLEM, "is never replaced"),
        (cluster._expiry(Expiry(2.0, 1.5)), Level.PROBLEM, "two may lead at once"),
    ],
)
def test_what_a_cluster_says(finding: Finding, level: Level, said: str) -> None:
    """Each fact becomes a finding, with a remedy unless it is fine."""
    assert finding.level is level
    assert said in finding.message
    assert bool(finding.remedy) == (level is not Level.OK)


@pytest.mark.parametrize(
    ("changes", "judge_", "said"),
    [
        ({"version": "3.3.25"}, cluster._versions, "is too old"),
        ({"size": 1_900 * 2**20}, cluster._room, "unless it was told otherwise"),
        ({"size": 90, "quota": 100}, cluster._room, "it takes no writes any more"),
        ({"errors": ("NOSPACE",)}, cluster._room, "says: NOSPACE"),
        ({"clock": (2.1, 3.1)}, cluster._clocks, "this host's clock is 2.1 s behind that of e"),
        (
            {"clock": (-40.0, -39.0)},
            cluster._clocks,
            "this host's clock is 39 s ahead of that of e",
        ),
    ],
)
def test_what_may_be_wrong_with_a_member(
    changes: dict[str, object],
    judge_: Callable[[dict[str, EtcdMember]], Iterator[Finding]],
    said: str,
) -> None:
    """It is named; a member without any of this is fine."""
    assert bad(judge_({"e": MEMBER})) == {}
    (finding,) = bad(judge_({"e": replace(MEMBER, **changes)})).values()  # type: ignore[arg-type]
    assert said in finding.message


# -- the embedded store ---------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An embedded store in which somebody has stood."""
    path = tmp_path / "store.sqlite3"
    with closing(open_store(Settings(store=f"sqlite:///{path}"), clock=CLOCK)) as store:
        candidacy = store.enrol("shop", b"", 30.0, deadline=CLOCK.now() + 5.0)
        store.withdraw(candidacy, deadline=CLOCK.now() + 5.0)
    return path


def test_files_as_they_should_be(path: Path) -> None:
    """Nothing is wrong with them, and nothing is left behind by looking."""
    before = sorted(path.parent.rglob("*"))
    files = look_at_files(path)

    assert bad(judge(path, replace(files, kind="ext4"))) == {}
    assert files.locks
    assert {owned.uid for owned in files.owned} == {os.geteuid()}
    assert sorted(path.parent.rglob("*")) == before


def test_lock_files_of_the_dead_are_counted(path: Path) -> None:
    """They do no harm; whoever stands next removes them."""
    (path.with_name(f"{path.name}-candidates") / "0123.lock").touch()
    files = look_at_files(path)
    assert files.left == 1
    told = {finding.check: finding for finding in judge(path, files)}
    assert told["leftovers"].level is Level.OK


@pytest.mark.parametrize(
    ("changes", "check", "level", "said"),
    [
        ({"kind": "tmpfs"}, "place", Level.WARNING, "at a reboot the ledger is lost"),
        ({"kind": "overlay"}, "place", Level.WARNING, "a layer of a container"),
        ({"locks": False}, "locks", Level.PROBLEM, "are not seen by others"),
        ({"free": 3 * 2**20}, "room", Level.PROBLEM, "3 MiB are free"),
        ({"free": 50 * 2**20}, "room", Level.WARNING, "50 MiB are free"),
        ({"log": 100 * 2**20}, "log", Level.WARNING, "100 MiB"),
        ({"owned": (Owned(Path("a"), 1), Owned(Path("b"), 2))}, "owner", Level.PROBLEM, "several"),
    ],
)
def test_what_may_be_wrong_with_files(
    changes: dict[str, object], check: str, level: Level, said: str
) -> None:
    """Each is named, with what to do."""
    good = Files(
        kind="ext4",
        free=2**40,
        owned=(Owned(Path("store"), os.geteuid()),),
        log=0,
        left=0,
        locks=True,
    )
    (finding,) = bad(judge(Path("/store"), replace(good, **changes))).values()  # type: ignore[arg-type]
    assert (finding.check, finding.level) == (check, level)
    assert said in finding.message


@pytest.mark.parametrize(
    ("place", "said", "remedy"),
    [
        ("store.sqlite3", "there is no store", "the first one to stand makes it"),
        ("nowhere/store.sqlite3", "there is no folder", "create it"),
        ("", "is a folder", "name a file in it"),
    ],
)
def test_no_store(tmp_path: Path, place: str, said: str, remedy: str) -> None:
    """Without one there is nothing else to look at."""
    (finding,) = bad(examine_files(tmp_path / place)).values()
    assert finding.fatal
    assert said in finding.message
    assert remedy in finding.remedy


def test_a_store_that_is_no_database(tmp_path: Path) -> None:
    """What the store itself says is passed on, and is the end of it."""
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"not a database" * 100)
    found = bad(examine(Settings(store=f"sqlite:///{path}"), clock=CLOCK))
    assert found["store"].fatal
    assert "not a sound database" in found["store"].message + found["store"].remedy


def test_memory_is_no_store_for_a_doctor() -> None:
    """Every process elects itself there."""
    found = bad(examine(Settings(store="memory://"), clock=CLOCK))
    assert found["store"].fatal


def test_secrets_that_are_none(tmp_path: Path) -> None:
    """A password that others may read, or that goes over the network as it is; it is never shown."""
    file = tmp_path / "password"
    file.write_text("hush-hush")
    file.chmod(0o644)
    settings = Settings(store="etcd://127.0.0.1:1", user="app", password_file=file)
    found = list(examine(settings, clock=CLOCK, timeout=0.2))

    told = [finding.message for finding in found if finding.level is Level.WARNING]
    assert told == [
        "the password goes over the network in plain text",
        f"others than its owner may read the password in {file}",
    ]
    assert found[-1].fatal
    assert "hush-hush" not in repr(found)


# -- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0.0, "agrees"),
        (3.0, "3.0 s ahead of"),
        (-9.0, "8.0 s behind"),
        (-3000.0, "49 min 59 s behind"),
    ],
)
def test_a_note_bounds_how_far_a_clock_is_off(ahead: float, said: str) -> None:
    """It was made between two looks, or up to a second before."""
    heard = Heard()
    noted = NOW + timedelta(seconds=ahead)
    heard.note("a", noted, NOW - timedelta(seconds=9), NOW)
    heard.note(
        "a", noted + timedelta(seconds=60), NOW + timedelta(seconds=60), NOW + timedelta(seconds=60)
    )
    (finding,) = heard.findings()
    assert said in finding.message
    assert (finding.level is Level.PROBLEM) == (abs(ahead) > 11)


def test_listening_hears_new_notes_alone() -> None:
    """What stood there before was written who knows when."""
    store = MemoryStore(CLOCK)
    old = CLOCK.utcnow() - timedelta(hours=1)

    def write(name: str, node: str, instant: datetime) -> None:
        entry = OccurrenceRecord(
            sequence=0,
            planned_at=instant,
            state=State.CLAIMED,
            token=1,
            node=node,
            claimed_at=instant,
        )
        record = JobRecord(job=name, schedule="s", words="", cursor=instant, open=(entry,))
        write_ = Write(job_key(name), record.encode())
        store.commit("shop", [write_], candidacy=None, deadline=CLOCK.now() + 5.0)

    write("x", "old", old)
    with listening(store, "shop", clock=CLOCK) as heard:
        limit = CLOCK.now() + 10.0
        number = 0
        while set(heard.bounds) != {"slow", "right"} and CLOCK.now() < limit:
            number += 1
            write("y", "slow", CLOCK.utcnow() - timedelta(minutes=5, seconds=number))
            write("z", "right", CLOCK.utcnow())
            CLOCK.wait(threading.Event(), 0.05)
    found = {finding.message.split()[4]: finding.level for finding in heard.findings()}
    assert found == {"slow": Level.PROBLEM, "right": Level.OK}


# -- the command ----------------------------------------------------------------------------------


def test_the_command(path: Path) -> None:
    """Marks in words, a remedy below each finding that is not fine, and exit codes for scripts."""
    cli = Cli("--store", f"sqlite:///{path}", "--election", "shop")
    answer = cli("doctor")

    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("ok       store sqlite:///")
    at = lines.index("warning  nobody leads election 'shop': no jobs are run")
    assert lines[at + 1].startswith("         → start a candidate; ")
    assert "0 problems" in lines[-1]

    report = cli("doctor", "--json").json
    assert list(report) == ["format", "election", "ok", "findings"]
    assert report["ok"] is True
    keys = {tuple(finding) for finding in report["findings"]}
    assert keys == {("check", "level", "message", "remedy")}
    assert {finding["level"] for finding in report["findings"]} <= {"ok", "warning"}

    shutil.rmtree(path.parent)
    gone = cli("doctor", "--json")
    assert (gone.code, gone.json["ok"]) == (2, False)
