"""``runleader`` answers probes, runs hooks and sends signals: real processes, asked over sockets."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from testsupport.probing import Asked, ask
from testsupport.processes import Diary
from testsupport.site import RunningCommand, Site

CLOCK = SystemClock()
#: The loop of this process turns once, and then hangs; half a minute is half a second here.
HANGING = """
    import threading
    from leader_jobs import leader_only, positions
    from leader_jobs.claims import Claims

    positions.UNHEALTHY_AFTER = 0.5
    tick = Claims.tick

    def hang(self, now, **more):
        found = tick(self, now, **more)
        threading.Event().wait()

    Claims.tick = hang

    @leader_only(every=3600, name="tidy")
    def tidy():
        pass
"""


class Probed:
    """A ``runleader`` that answers probes."""

    def __init__(self, node: RunningCommand) -> None:
        self.node = node
        self.url = node.wait_for("probes are answered on").rpartition(" ")[2]

    def ask(self, path: str) -> Asked:
        """Ask a probe."""
        return ask(self.url, path)

    def wait_for(self, path: str, status: int, text: str = "", within: float = 10.0) -> Asked:
        """Ask until the answer has *status*, and *text* in it."""
        limit = CLOCK.now() + within
        while (answer := self.ask(path)).status != status or text not in answer.text:
            assert CLOCK.now() < limit, answer
            CLOCK.wait(threading.Event(), 0.05)
        return answer


@contextmanager
def running(site: Site, *arguments: str, **environ: str) -> Iterator[Probed]:
    """Run ``runleader`` with probes on a free port."""
    with site.running("runleader", "--probe-port", "0", *arguments, **environ) as node:
        yield Probed(node)


@pytest.fixture(name="diary")
def _diary(tmp_path: Path) -> Iterator[Diary]:
    with Diary.opened(tmp_path / "diary") as diary:
        yield diary


def test_a_leader_and_a_standby_through_a_takeover(tmp_path: Path) -> None:
    """Both are live and ready all the time; ``/leader`` follows the leader."""
    site = Site(tmp_path)
    with running(site, "--node", "one") as first:
        first.wait_for("/leader", 200)
        with running(site, "--node", "two") as second:
            second.wait_for("/livez", 200, "alive: standby in election 'default'")
            assert second.ask("/readyz").status == 200
            assert second.ask("/leader").status == 503
            first.node.process.send_signal(signal.SIGKILL)
            assert "node two leads" in second.wait_for("/leader", 200).text
            status = second.ask("/status").json
            assert (status["healthy"], status["pid"]) == (True, second.node.process.pid)
            assert status["elections"][0]["role"] == "leader"
            second.node.process.terminate()
            assert second.node.finish()[0] == 0
            with pytest.raises(ConnectionRefusedError):
                second.ask("/livez")


def test_a_loop_that_hangs(tmp_path: Path) -> None:
    """A leader that holds its lease and does nothing else is not live; it stays the leader."""
    with running(Site(tmp_path, HANGING)) as hanging:
        hanging.wait_for("/leader", 200)
        said = hanging.wait_for("/livez", 503).text

        assert "its loop has not come round for" in said
        assert hanging.ask("/readyz").status == 200
        status = hanging.ask("/status").json
        assert (status["healthy"], status["why"]) == (False, said.rstrip("\n"))


def test_a_command_under_runleader_has_no_loop_to_hang(tmp_path: Path) -> None:
    """What is probed is that the process holds its term."""
    site = Site(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import leader_jobs.positions as p; p.UNHEALTHY_AFTER = 0.05"
    )
    with running(site, "--", "sleep", "60") as probed:
        probed.wait_for("/leader", 200)
        CLOCK.wait(threading.Event(), 0.3)

        assert probed.ask("/livez").status == 200
        assert probed.ask("/status").json["elections"][0]["turned"] is None


def test_what_settings_and_environment_say(tmp_path: Path) -> None:
    """The port, the metrics; an option overrides them."""
    store = f"sqlite:///{tmp_path}/election.sqlite3"
    site = Site(tmp_path, settings={"STORE": store, "PROBE_PORT": 1, "METRICS": True})
    with site.running("runleader", LEADER_JOBS_PROBE_PORT="0") as node:
        probed = Probed(node)
        probed.wait_for("/leader", 200)

        assert 'leader_jobs_leader{election="default"' in probed.ask("/metrics").text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--probe-port", "70000"), "probe_port is 70000; it must be between 0 and 65535"),
        (("--probe-port", "0", "--probe-host", "192.0.2.1"), "can not listen there"),
        (("--on-elected", "no-such-command"), "there is no command 'no-such-command'"),
    ],
)
def test_refusals(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """One line says what to change, and nothing has begun."""
    result = Site(tmp_path).run("runleader", *arguments)

    assert result.returncode != 0
    assert said in result.stderr.splitlines()[-1]
    assert "leads election" not in result.stderr


def test_the_second_process_on_one_port(tmp_path: Path) -> None:
    """It says so in one line and does not run unseen."""
    site = Site(tmp_path)
    with running(site) as first:
        port = first.url.rpartition(":")[2]
        result = site.run("runleader", "--probe-port", port)

    assert result.returncode == 1
    assert f"probe_port is {port}, and another process listens" in result.stderr


def test_hooks_through_the_life_of_a_leader(tmp_path: Path, diary: Diary) -> None:
    """They are told of the beginning, and, before the process ends, of the end and its reason."""
    say = f"sh -c 'echo $LEADER_JOBS_EVENT $LEADER_JOBS_ELECTION $LEADER_JOBS_REASON >{diary.path}'"
    options = ("--on-elected", say, "--on-stepped-down", say, "--hook-timeout", "5")
    with running(Site(tmp_path), *options) as probed:
        assert diary.line() == "elected default"
        probed.node.process.terminate()
        assert probed.node.finish()[0] == 0
    assert not diary.is_silent(0.0)
    assert diary.line() == "stepped_down default resigned"


SIGNALS = """
    import os, threading
    from django.dispatch import receiver
    from django.db import connection
    from django_leader_jobs.signals import elected, leader_changed, stepped_down
    from leader_jobs import leader_only

    def say(*words):
        with open({diary!r}, "w") as diary:
            diary.write(" ".join(map(str, words)) + "\\n")

    @receiver(elected)
    def on_elected(sender, election, node, token, **_):
        say("elected", election, node, token > 0)
        raise RuntimeError("a receiver is nobody's problem")

    @receiver(stepped_down)
    def on_stepped_down(sender, election, node, token, reason, **_):
        say("stepped down", election, node, reason)

    @receiver(leader_changed)
    def on_change(sender, election, leader, **_):
        name = leader.node if leader else None
        if name != os.environ["LEADER_JOBS_NODE"]:
            say(os.environ["LEADER_JOBS_NODE"], "sees", name, "lead", election)

    @leader_only(every=3600, name="tidy")
    def tidy():
        pass
"""


def read_until(diary: Diary, *wanted: str) -> None:
    """
    Read on until all of *wanted* were written.

    Nobody may be seen to lead in between, and a node on its way out may see its successor.
    """
    missing = set(wanted)
    while missing:
        line = diary.line()
        passing = " sees None lead" in line or line == "one sees two lead default"
        assert line in missing or passing, (line, missing)
        missing.discard(line)


def test_django_signals(tmp_path: Path, diary: Diary) -> None:
    """Sent where they happen; a change of leader also on a node that only watches."""
    site = Site(tmp_path, SIGNALS.format(diary=os.fspath(diary.path)))
    with running(site, LEADER_JOBS_NODE="one") as first:
        read_until(diary, "elected default one True")
        with running(site, LEADER_JOBS_NODE="two") as second:
            read_until(diary, "two sees one lead default")
            first.node.process.terminate()
            assert first.node.finish()[0] == 0
            read_until(diary, "stepped down default one resigned", "elected default two True")
            assert second.ask("/livez").status == 200
