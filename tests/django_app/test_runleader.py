"""``manage.py runleader`` as its users meet it: real processes, real signals, real exit codes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.ledger import Ledger
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from testsupport.processes import Diary, children_of, is_alive
from testsupport.site import JOB, RunningCommand, Site

CLOCK = SystemClock()
BAD_JOB = """
    from leader_jobs import leader_only

    @leader_only({arguments})
    def tidy():
        pass
"""
#: A job that says when it begins, and then takes its time.
SLOW_JOB = """
    import os, threading
    from leader_jobs import leader_only

    @leader_only(every=0.5, name="slow", on_crash="{on_crash}")
    def slow():
        with open({diary!r}, "w") as diary:
            diary.write("begun\\n")
        threading.Event().wait({seconds})
"""


@contextmanager
def store_of(site: Site) -> Iterator[Store]:
    """Open the store that the election of *site* is held in."""
    with closing(open_store(Settings(store=site.store), clock=CLOCK)) as store:
        yield store


def history(site: Site, job: str) -> list[OccurrenceRecord]:
    """Return what the ledger says of *job*."""
    with store_of(site) as store:
        return Ledger(store, "default", node="test", owner="", clock=CLOCK).history(job)


def wait_for_candidates(site: Site, number: int) -> None:
    """Wait until so many candidates stand."""
    with store_of(site) as store:
        while len(store.candidates("default", deadline=CLOCK.now() + 5.0)) < number:
            store.wait_for_change("default", timeout=0.5)


def wait_for_answer(address: tuple[str, int]) -> None:
    """Wait until somebody listens at *address*."""
    give_up = CLOCK.now() + 20.0
    while CLOCK.now() < give_up:
        with suppress(ConnectionRefusedError), socket.create_connection(address):
            return
        CLOCK.wait(threading.Event(), 0.05)
    pytest.fail(f"nobody listens at {address}")


def refusal(site: Site, *arguments: str, status: int = 1, **environ: str) -> str:
    """Run the command, which must refuse in a single line; return that line."""
    result = site.run("runleader", *arguments, **environ)
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("CommandError: ")
    return line


TWO_ELECTIONS = """
    from leader_jobs import leader_only

    @leader_only(every=1, name="tidy")
    def tidy():
        pass

    @leader_only(every=1, name="stock", election="warehouse")
    def stock():
        pass
"""


def test_an_election_named_runs_its_own_jobs_and_no_others(tmp_path: Path) -> None:
    """Where a node stands does not decide where jobs belong that name no election."""
    site = Site(tmp_path, TWO_ELECTIONS)
    with site.running("runleader", "--election", "warehouse") as node, store_of(site) as store:
        node.wait_for("leads election 'warehouse'")
        ledger = Ledger(store, "warehouse", node="test", owner="", clock=CLOCK)
        while not ledger.jobs():
            CLOCK.wait(threading.Event(), 0.05)

        assert set(ledger.jobs()) == {"stock"}
        assert Ledger(store, "default", node="test", owner="", clock=CLOCK).jobs() == {}


class TestRefusals:
    """Bad input gets one line that says what to change, and exit code 1."""

    @pytest.mark.parametrize(
        ("store", "said"),
        [
            ("sqlite://election.sqlite3", "write four slashes and an absolute path"),
            ("mysql://db/election", "unknown kind of store; use sqlite://"),
            ("sqllite:////tmp/x.sqlite3", "did you mean sqlite://?"),
            ("sqlite:////nowhere/x.sqlite3", "there is no folder /nowhere; create it"),
            ("sqlite:////proc/x.sqlite3", "give this user write access"),
            ("sqlite:////tmp", "name a file in it"),
            ("etcd://u:secret@127.0.0.1:1", "keep credentials out of the URL"),
        ],
    )
    def test_a_wrong_store(self, tmp_path: Path, store: str, said: str) -> None:
        """What is wrong with the URL, or with the place it names, is said at once."""
        line = refusal(Site(tmp_path), LEADER_JOBS_STORE=store)
        assert said in line
        assert "secret" not in line

    def test_an_unreachable_etcd(self, tmp_path: Path) -> None:
        """Every endpoint is named, with what became of it, and how long it was tried."""
        line = refusal(Site(tmp_path), "--store", "etcd://127.0.0.1:1,127.0.0.1:2")
        assert "127.0.0.1:1" in line
        assert "127.0.0.1:2" in line
        assert "within 10.0 s" in line
        assert "refused" in line

    def test_a_corrupt_database(self, tmp_path: Path) -> None:
        """It is never repaired or replaced behind the operator's back."""
        (tmp_path / "election.sqlite3").write_bytes(b"not a database" * 100)
        assert "it is not a sound database" in refusal(Site(tmp_path))

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"STROE": "memory://"}, "LEADER_JOBS['STROE'] is not a setting; did you mean STORE?"),
            ({"TTL": "soon"}, "LEADER_JOBS['TTL'] is 'soon'; it must be a number"),
            ({}, "store is not set: say where the election lives"),
        ],
    )
    def test_a_wrong_setting(self, tmp_path: Path, settings: dict[str, object], said: str) -> None:
        """Key and value are named, and the near miss."""
        assert said in refusal(Site(tmp_path, settings=settings))

    def test_a_misspelt_variable(self, tmp_path: Path) -> None:
        """A variable with our prefix that nobody reads is a mistake, not a detail."""
        line = refusal(Site(tmp_path), LEADER_JOBS_TTLL="5")
        assert "LEADER_JOBS_TTLL is not a setting; did you mean LEADER_JOBS_TTL?" in line

    def test_a_ttl_out_of_range(self, tmp_path: Path) -> None:
        """The range is given."""
        assert "ttl is 0.5; it must be between 2 and 3600" in refusal(
            Site(tmp_path), "--ttl", "0.5"
        )

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ("every=0", "every is 0; it must be between"),
            ('cron="0 0 30 2 *"', "it never fires"),
            ('cron="* * * *"', "cron is '* * * *'"),
            ('every=5, cron="* * * * *"', "keep one of them"),
            ('every=5, catch_up="lastest"', "did you mean 'latest'?"),
            ('every=5, name="a/b"', "a/b"),
        ],
    )
    def test_a_wrong_job(self, tmp_path: Path, arguments: str, said: str) -> None:
        """A schedule that can not be kept is refused before anything is elected."""
        line = refusal(Site(tmp_path, BAD_JOB.format(arguments=arguments)))
        assert said in line
        assert not (tmp_path / "election.sqlite3").exists()

    def test_two_jobs_of_one_name(self, tmp_path: Path) -> None:
        """Both places are named."""
        line = refusal(Site(tmp_path, JOB + JOB.replace("def tidy", "def tidy_up")))
        assert "two jobs are called 'tidy'" in line
        assert line.count("jobs.py:") == 2

    def test_no_jobs(self, tmp_path: Path) -> None:
        """A leader with nothing to do is a mistake in the project."""
        assert "there are no jobs: decorate a function" in refusal(Site(tmp_path, ""))

    def test_a_command_that_is_not_there(self, tmp_path: Path) -> None:
        """A standby that could not take over is no standby."""
        line = refusal(Site(tmp_path), "--", "no-such-reader", status=127)
        assert "'no-such-reader' is not found" in line

    def test_a_command_in_two_elections(self, tmp_path: Path) -> None:
        """One command runs under one election."""
        line = refusal(Site(tmp_path), "--election", "a", "--election", "b", "--", "true")
        assert "a command runs under one election" in line


class TestSignals:
    """SIGTERM: finish, resign, exit 0. A second one: do not wait."""

    def test_the_first_sigterm_lets_a_job_finish(self, tmp_path: Path) -> None:
        """The job under way ends as it would have, then the node resigns and exits with 0."""
        with Diary.opened(tmp_path / "diary") as diary:
            jobs = SLOW_JOB.format(diary=str(diary.path), seconds=1.0, on_crash="interrupt")
            site = Site(tmp_path, jobs)
            with site.running("runleader", "--node", "alpha") as node:
                diary.line()
                node.process.terminate()
                node.wait_for("SIGTERM: finishing what runs, then resigning")
                node.wait_for("node alpha no longer leads election 'default'")
                assert "(resigned)" in node.lines[-1]
                assert node.finish()[0] == 0
        assert [entry.state for entry in history(site, "slow")][:1] == [State.SUCCEEDED]

    @pytest.mark.parametrize(
        ("on_crash", "state"), [("interrupt", State.INTERRUPTED), ("rerun", State.CLAIMED)]
    )
    def test_a_second_sigterm_does_not_wait(
        self, tmp_path: Path, on_crash: str, state: State
    ) -> None:
        """A job that would take a minute is closed, or handed back, and the process ends now."""
        with Diary.opened(tmp_path / "diary") as diary:
            jobs = SLOW_JOB.format(diary=str(diary.path), seconds=60, on_crash=on_crash)
            site = Site(tmp_path, jobs)
            with site.running("runleader", "--grace", "50") as node:
                diary.line()
                node.process.terminate()
                node.wait_for("SIGTERM: finishing")
                # What comes within half a second is taken for one signal sent twice.
                SystemClock().wait(threading.Event(), 0.6)
                node.process.terminate()
                code, said = node.finish(within=10)
        assert code == 0
        assert "SIGTERM: stopping at once" in said
        assert "was stopped before it ended" in said
        assert history(site, "slow")[0].state is state

    def test_a_signal_sent_twice_is_one(self, tmp_path: Path) -> None:
        """A supervisor that signals the process and then its group gets a graceful end."""
        with Diary.opened(tmp_path / "diary") as diary:
            jobs = SLOW_JOB.format(diary=str(diary.path), seconds=1.5, on_crash="interrupt")
            site = Site(tmp_path, jobs)
            with site.running("runleader") as node:
                diary.line()
                node.process.terminate()
                node.process.terminate()
                node.wait_for("SIGTERM: finishing")
                node.process.terminate()
                code, said = node.finish(within=10)
        assert code == 0
        assert "stopping at once" not in said
        assert history(site, "slow")[0].state is State.SUCCEEDED

    def test_the_grace_time_ends(self, tmp_path: Path) -> None:
        """A job that is not done by then is closed without a second signal."""
        with Diary.opened(tmp_path / "diary") as diary:
            jobs = SLOW_JOB.format(diary=str(diary.path), seconds=60, on_crash="interrupt")
            with Site(tmp_path, jobs).running("runleader", "--grace", "0.5") as node:
                diary.line()
                node.process.terminate()
                code, said = node.finish(within=10)
        assert code == 0
        assert "was stopped before it ended" in said

    def test_a_standby_stops_at_once(self, tmp_path: Path) -> None:
        """It holds nothing, so it has nothing to finish."""
        site = Site(tmp_path)
        with site.running("runleader") as leader:
            leader.wait_for("leads election")
            with site.running("runleader", "--node", "beta") as standby:
                wait_for_candidates(site, 2)
                standby.process.terminate()
                code, said = standby.finish(within=10)
            assert code == 0
            assert "leads" not in said
            assert leader.process.poll() is None


class TestCommand:
    """``runleader -- CMD``: one of several nodes runs it."""

    SCRIPT = (
        'echo $LEADER_JOBS_NODE $LEADER_JOBS_TOKEN $LEADER_JOBS_ELECTION $$ > "$DIARY"; sleep 60'
    )

    def start(
        self, stack: ExitStack, site: Site, node: str, script: str, *options: str
    ) -> RunningCommand:
        """Start a node that runs a shell script while it leads."""
        diary = str(site.folder / "diary")
        arguments = ("runleader", "--node", node, "--ttl", "2", *options, "--", "sh", "-c", script)
        return stack.enter_context(site.running(*arguments, DIARY=diary))

    def test_only_the_leader_runs_it(self, tmp_path: Path) -> None:
        """The standby's runs when the leader, with all that is its, is gone: under a greater token."""
        site = Site(tmp_path, jobs="")
        with Diary.opened(tmp_path / "diary") as diary, ExitStack() as stack:
            nodes = {name: self.start(stack, site, name, self.SCRIPT) for name in ("alpha", "beta")}
            first, token, election, pid = diary.line().split()
            assert election == "default"
            assert diary.is_silent(0.5)
            nodes[first].process.kill()
            second, next_token, _, next_pid = diary.line().split()
            assert {first, second} == {"alpha", "beta"}
            assert int(next_token) > int(token)
            assert not is_alive(int(pid))
            nodes[second].process.terminate()
            assert nodes[second].finish()[0] == 0
            assert not is_alive(int(next_pid))

    def test_done_on_one_node_then_on_the_next(self, tmp_path: Path) -> None:
        """Exit code 0 ends the node that ran it, not the others: each is elected and runs it too."""
        site = Site(tmp_path, jobs="")
        script = 'echo $LEADER_JOBS_NODE > "$DIARY"'
        with Diary.opened(tmp_path / "diary") as diary, ExitStack() as stack:
            nodes = [self.start(stack, site, name, script) for name in ("alpha", "beta")]
            assert {diary.line(), diary.line()} == {"alpha", "beta"}
            assert [node.finish()[0] for node in nodes] == [0, 0]
            assert diary.is_silent(0.2)

    def test_always_runs_it_again(self, tmp_path: Path) -> None:
        """With ``--restart always`` exit code 0 is no end."""
        site = Site(tmp_path, jobs="")
        script = 'echo $LEADER_JOBS_TOKEN > "$DIARY"'
        with Diary.opened(tmp_path / "diary") as diary, ExitStack() as stack:
            node = self.start(stack, site, "alpha", script, "--restart", "always")
            assert diary.number() == diary.number()
            node.process.terminate()
            assert node.finish()[0] == 0


class TestChecks:
    """What ``manage.py check`` says before anything is deployed."""

    def test_a_good_site_is_silent(self, tmp_path: Path) -> None:
        """Nothing is reported, and nothing is opened to find that out."""
        result = Site(tmp_path).run("check", "--fail-level", "WARNING")
        assert result.returncode == 0, result.stderr
        assert not (tmp_path / "election.sqlite3").exists()

    @pytest.mark.parametrize(
        ("settings", "jobs", "said"),
        [
            ({"STORE": "memory://", "TTL": 1}, JOB, "leader_jobs.E001"),
            ({"STORE": "memory://"}, BAD_JOB.format(arguments="every=0"), "leader_jobs.E002"),
            ({"STORE": "memory://"}, JOB, "leader_jobs.W001"),
        ],
    )
    def test_a_bad_site_is_told(
        self, tmp_path: Path, settings: dict[str, object], jobs: str, said: str
    ) -> None:
        """E001: the settings; E002: the jobs; W001: a store that does not leave the process."""
        result = Site(tmp_path, jobs, settings).run("check", "--fail-level", "WARNING")
        assert result.returncode == 1
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_nothing_starts_by_itself(tmp_path: Path) -> None:
    """Setting Django up and finding the jobs starts no thread and makes no file."""
    code = (
        "import threading, sys;"
        "from django_leader_jobs.discovery import discover_jobs; discover_jobs();"
        "from leader_jobs.jobs import registry; assert registry.of('default'), 'no jobs';"
        "sys.exit(threading.active_count() - 1)"
    )
    site = Site(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    result = site.run("shell", "--no-imports", "--command", code, PYTHONDONTWRITEBYTECODE="1")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_autoreloader_doubles_nothing(tmp_path: Path) -> None:
    """``runserver`` and the process it reloads in both import the project and stand in nothing."""
    site = Site(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with site.running("runserver", f"127.0.0.1:{address[1]}") as server:
        server.wait_for("Watching for file changes")
        wait_for_answer(address)
        assert len(children_of(server.process.pid)) == 1
        assert not (tmp_path / "election.sqlite3").exists()
