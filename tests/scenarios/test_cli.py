"""``leader-jobs`` as its users meet it: real processes, real nodes, real exit codes."""

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.cli import main
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.leaders import Leader
from leader_jobs.stores.factory import open_store
from testsupport.cli import COMMAND, Cli, environ, run
from testsupport.commands import POLITE
from testsupport.etcd import EtcdCluster
from testsupport.node_fleet import Fleet
from testsupport.parenthood import die_with_parent
from testsupport.processes import Diary
from testsupport.proxy import TcpProxy
from testsupport.site import Site

CLOCK = SystemClock()


@contextmanager
def started(*arguments: str, **options: object) -> Iterator["subprocess.Popen[str]"]:
    """Run ``leader-jobs`` during the block; what is left of it is killed then."""
    settings: dict[str, object] = {
        "env": environ(PYTHONUNBUFFERED="1"),
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "preexec_fn": die_with_parent,
    }
    with subprocess.Popen(  # type: ignore[call-overload]
        [*COMMAND, *arguments], **(settings | options)
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_console_script() -> None:
    """It is installed under its name."""
    (script,) = entry_points(group="console_scripts", name="leader-jobs")
    assert script.load() is main


def start_two(fleet: Fleet) -> Leader:
    """Have two nodes stand, and the first one run a job; return it as it shows."""
    fleet.start("web-1")
    _, leader = fleet.leader()
    fleet.start("web-2")
    fleet.await_run(leader.token)
    fleet.await_that(
        lambda: len(fleet.store.candidates("default", deadline=CLOCK.now() + 5.0)) == 2,
        "the second one does not stand",
    )
    return leader


def run_at_once(fleet: Fleet, cli: Cli) -> str:
    """Have a job run beside its schedule, which is held back; return the instant it was given."""
    assert "web-1 (term" in cli("pause", "latest", "--for", "1h").out
    fleet.await_that(lambda: not fleet._ledger.jobs()["latest"].open, "it goes on")
    answer = cli("run-now", "latest", "--json")
    assert (answer.code, answer.json["node"]) == (0, "web-1")
    planned = str(answer.json["planned_at"])
    fleet.await_that(
        lambda: ["latest", planned] in [line[1:3] for line in fleet._lines("begin")],
        "it was not run",
    )
    return planned


def test_an_operator_at_work(store_settings: Settings, tmp_path: Path) -> None:
    """Every command against nodes at work, on each store; what they say is what happens."""
    url, namespace = store_settings.store, store_settings.namespace
    store = ("--store", url, "--namespace", namespace)
    cli = Cli(*store)
    with Fleet(tmp_path, url, ttl=30.0, namespace=namespace) as fleet:
        leader = start_two(fleet)
        status = run(*store, "status", "--exit-code", "--json")
        assert (status.code, status.json["leader"]["node"]) == (0, "web-1")
        assert status.json["terms"][-1]["token"] == leader.token
        assert {job["job"] for job in cli("jobs", "--json").json["jobs"]} == set(fleet.jobs)

        assert "web-1 (term" in cli("pause", "--reason", "test").out
        assert "is paused by" in cli("run-now", "latest").error
        assert cli("resume", "--json").json["obeyed"] is True
        planned = run_at_once(fleet, cli)
        history = cli("history", "latest", "--json").json["occurrences"]
        assert [entry["planned_at"] for entry in history if entry["asked_by"]] == [planned]

        transfer = run(*store, "transfer", "web-2", "--json")
        assert (transfer.code, transfer.json["leader"]) == (0, "web-2")
        assert 0.0 <= transfer.json["gap"] < 2.0
        resign = cli("resign")
        assert resign.code == 0
        assert "web-2 has given up term" in resign.out
        assert "; web-1 leads" in resign.out


class Documents:
    """The JSON documents that a process writes, a line each."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._unread = b""

    def next(self, within: float = 20.0) -> dict[str, Any]:
        """Return the next one; fail after *within* seconds."""
        while b"\n" not in self._unread:
            assert select.select([self._fd], [], [], within)[0], "nothing was said"
            self._unread += os.read(self._fd, 65536)
        line, self._unread = self._unread.split(b"\n", 1)
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def is_silent(self, during: float) -> bool:
        """Return whether nothing is written during the next *during* seconds."""
        return not self._unread and not select.select([self._fd], [], [], during)[0]


def test_watching_for_programs(tmp_path: Path) -> None:
    """A document a line when something changed; that a lease counts down is nothing."""
    site = Site(tmp_path)
    with closing(open_store(Settings(store=site.store), clock=CLOCK)) as store:
        store.elections(deadline=CLOCK.now() + 5.0)
    with started("--store", site.store, "watch", "--json") as watching:
        documents = Documents(watching)
        assert documents.next()["leader"] is None
        with site.running("runleader", "--node", "web-1", "--ttl", "30"):
            document = documents.next()
            while not document["terms"] or not document["jobs"]:
                document = documents.next()
            assert run("--store", site.store, "pause", "--reason", "x").code == 0
            while not (document := documents.next())["paused"]:
                pass
            assert document["paused"]["reason"] == "x"
            while not documents.is_silent(1.0):
                document = documents.next()
            # It is looked at meanwhile, once a second at least, and the lease counts down.
            assert documents.is_silent(1.5), (document, documents.next())
        while document["leader"] is not None:
            document = documents.next()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
        assert watching.stderr is not None
        assert watching.stderr.read() == ""


@pytest.mark.etcd
def test_watching_while_the_store_is_away(etcd: EtcdCluster, namespace: str) -> None:
    """It is said once, and waited for."""
    with TcpProxy(etcd.endpoints[0]) as proxy:
        store = ("--store", f"etcd://{proxy.endpoint}", "--namespace", namespace)
        with started(*store, "watch", "--json", "--timeout", "0.5") as watching:
            documents = Documents(watching)
            assert documents.next()["leader"] is None
            proxy.cut()
            assert "etcd did not answer" in documents.next()["error"]
            assert documents.is_silent(1.5)
            proxy.restore()
            assert documents.next()["leader"] is None


def test_watching_at_a_terminal(tmp_path: Path) -> None:
    """The page is drawn again in its own place, the lease counts down, and Ctrl-C ends it well."""
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    ours, theirs = pty.openpty()
    with closing(open_store(Settings(store=store), clock=CLOCK)) as opened:
        opened.enrol("default", b"a [red]stranger[/]", 60.0, deadline=CLOCK.now() + 5.0)
        with started("--store", store, "watch", stdout=theirs, stderr=theirs) as watching:
            os.close(theirs)
            seen, leases = "", set[str]()
            while len(leases) < 3:
                readable, _, _ = select.select([ours], [], [], 20.0)
                assert readable, seen
                seen += os.read(ours, 65536).decode(errors="replace")
                leases = set(re.findall(r"(\d+\.\d) of 60 s", seen))
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 0
    os.close(ours)
    assert "a [red]stranger[/]" in seen
    assert "\x1b[2K" in seen or "\x1b[1A" in seen
    assert "Traceback" not in seen


def test_nobody_reads_on(tmp_path: Path) -> None:
    """As in a pipe into head: no traceback, and the exit code a shell knows."""
    store = f"sqlite:///{tmp_path}/store.sqlite3"
    with closing(open_store(Settings(store=store), clock=CLOCK)) as opened:
        opened.elections(deadline=CLOCK.now() + 5.0)
    reading, writing = os.pipe()
    os.close(reading)
    with started("--store", store, "candidates", stdout=writing) as process:
        os.close(writing)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (128 + signal.SIGPIPE, "")


class TestRun:
    """``leader-jobs run -- CMD``: as ``runleader -- CMD``, without a framework."""

    def test_the_command_runs_under_a_term(self, tmp_path: Path) -> None:
        """It finds the term in its environment, and its exit status is passed on."""
        store = f"sqlite:///{tmp_path}/store.sqlite3"
        with Diary.opened(tmp_path / "diary") as diary:
            script = f"echo $LEADER_JOBS_ELECTION $LEADER_JOBS_NODE > {diary.path}; exit 3"
            options = ("--election", "readers", "--node", "web-1", "--restart", "never")
            answer = run("--store", store, "run", *options, "--", "sh", "-c", script)
            assert diary.line() == "readers web-1"
        assert answer.code == 3
        assert "leads election 'readers'" in answer.err

    def test_a_signal_ends_it_well(self, tmp_path: Path) -> None:
        """The command gets SIGTERM, then the node resigns; settings may come from the environment."""
        store = f"sqlite:///{tmp_path}/store.sqlite3"
        with Diary.opened(tmp_path / "diary") as diary:
            settings = environ(LEADER_JOBS_STORE=store, DIARY=str(diary.path))
            with started("run", "-v", "0", "--", "sh", "-c", POLITE, env=settings) as node:
                assert diary.number()
                node.terminate()
                assert diary.line() == "asked"
                assert node.wait(10) == 0
                assert node.stderr is not None
                assert "leads" not in node.stderr.read()

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (("--", "no-such-reader"), 127, "'no-such-reader' is not found"),
            ((), 2, "no command is given; write it behind --"),
            (("--ttl", "1", "--", "true"), 2, "ttl is 1; it must be between 2 and 3600"),
        ],
    )
    def test_what_can_not_begin(
        self, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
    ) -> None:
        """It is said in a line."""
        answer = run("--store", f"sqlite:///{tmp_path}/s", "run", *arguments)
        assert answer.code == code
        assert said in answer.error
