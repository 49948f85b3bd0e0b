"""What goes along with a process that stands in elections: what was asked for, and nothing else."""

import argparse
import subprocess
import sys
import textwrap
from contextlib import closing
from dataclasses import fields

import pytest

from leader_jobs import escort
from leader_jobs.config import Settings
from leader_jobs.escort import OPTIONS, Escort, add_options, observe_everywhere
from leader_jobs.events import ElectionWon, Event
from leader_jobs.exceptions import ConfigurationError
from testsupport.probing import ask
from testsupport.processes import Diary


def settings(**given: object) -> Settings:
    """Return settings on a store in memory."""
    return Settings.load(dict(given), environ={}, store="memory://escort")


def in_a_fresh_interpreter(program: str) -> str:
    """Run *program* in a new process; return what it prints."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_by_default_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No observer, so no thread; no port."""
    monkeypatch.setattr(escort, "_everywhere", [])
    with Escort(settings()) as company:
        assert company.observers == ()
        assert company.port is None


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    """Neither prometheus_client, though it is there, nor what probes and hooks are made of."""
    printed = in_a_fresh_interpreter(
        """
        import sys
        from leader_jobs.config import Settings
        from leader_jobs.escort import Escort
        with Escort(Settings(store="memory://", probe_port=0)):
            pass
        print([name for name in ("prometheus_client", "leader_jobs.hooks") if name in sys.modules])
        """
    )
    assert printed == "[]"


def test_metrics_without_their_library() -> None:
    """One sentence that names the extra."""
    printed = in_a_fresh_interpreter(
        """
        import sys
        sys.modules["prometheus_client"] = None
        from leader_jobs.config import Settings
        from leader_jobs.escort import Escort
        from leader_jobs.exceptions import ConfigurationError
        try:
            Escort(Settings(store="memory://", metrics=True))
        except ConfigurationError as error:
            print(error)
        """
    )
    assert 'pip install "leader-jobs[metrics]"' in printed
    assert "\n" not in printed


def test_probes_and_metrics() -> None:
    """They are answered inside the block, metrics only where they were asked for."""
    with Escort(settings(PROBE_PORT=0)) as plain:
        url = f"http://127.0.0.1:{plain.port}"
        assert ask(url, "/livez").status == 200
        assert ask(url, "/metrics").status == 404
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/livez")
    with Escort(settings(PROBE_PORT=0, METRICS=True)) as counted:
        answer = ask(f"http://127.0.0.1:{counted.port}", "/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert "leader_jobs_renew_seconds" in answer.text


def test_where_many_processes_share_the_settings_none_serves() -> None:
    """A port belongs to one process."""
    with Escort(settings(PROBE_PORT=0), serve=False) as company:
        assert company.port is None


def test_hooks_are_observers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """And the end of the block waits for them."""
    with Diary.opened(tmp_path_factory.mktemp("d") / "diary") as diary:
        command = f"sh -c 'sleep 0.2; echo $LEADER_JOBS_TOKEN >{diary.path}'"
        with Escort(settings(ON_ELECTED=command)) as company:
            for observer in company.observers:
                observer(ElectionWon("mail", "n1", 7))
        assert not diary.is_silent(0.0)
        assert diary.line() == "7"


@pytest.mark.parametrize("key", ["ON_ELECTED", "ON_STEPPED_DOWN"])
def test_a_hook_that_is_not_there_is_refused_at_once(key: str) -> None:
    """Not when it should run."""
    with pytest.raises(ConfigurationError, match=f"{key.lower()} is 'no-such-thing'"):
        Escort(settings(**{key: "no-such-thing"}))


def test_a_port_that_is_taken_is_refused_at_the_start() -> None:
    """The second of two processes of one host says which setting to change."""
    with Escort(settings(PROBE_PORT=0)) as first:
        second = Escort(settings(PROBE_PORT=first.port))
        with closing(second), pytest.raises(ConfigurationError, match="another process listens"):
            second.start()


def test_observers_of_a_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told everything, once."""
    heard: list[Event] = []
    monkeypatch.setattr(escort, "_everywhere", [])
    observe_everywhere(heard.append)
    noted = Escort(settings())
    assert len(noted.observers) == 1
    observe_everywhere(noted.observers[0])

    assert Escort(settings()).observers == noted.observers


def test_options_are_settings_of_the_same_names() -> None:
    """What is not given is None, so that the environment counts."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert set(OPTIONS) == set(vars(parser.parse_args([])))
    assert set(vars(parser.parse_args([])).values()) == {None}
    assert set(OPTIONS) <= {field.name for field in fields(Settings)}
    given = "--probe-port 0 --probe-host :: --metrics --on-elected true --on-stepped-down false"
    parsed = vars(parser.parse_args([*given.split(), "--hook-timeout", "3"]))
    loaded = Settings.load(environ={"LEADER_JOBS_PROBE_PORT": "1"}, store="memory://", **parsed)

    assert (loaded.probe_port, loaded.probe_host, loaded.metrics) == (0, "::", True)
    assert (loaded.on_elected, loaded.on_stepped_down) == ("true", "false")
    assert loaded.hook_timeout == 3.0
