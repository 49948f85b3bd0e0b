"""Commands that are run at the beginning and the end of terms: real processes, in order."""

import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.events import CandidateEnrolled, ElectionWon, TermEnded
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.hooks import Hooks
from testsupport.background import Background
from testsupport.forking import in_forked_child
from testsupport.processes import Diary, is_alive

CLOCK = SystemClock()
Make = Callable[..., Hooks]


def won(token: int, election: str = "mail") -> ElectionWon:
    """Return the beginning of a term."""
    return ElectionWon(election, "n1", token)


def ended(token: int, election: str = "mail", reason: str = "resigned") -> TermEnded:
    """Return the end of a term."""
    return TermEnded(election, "n1", token, reason)


def wait_for_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until *text* is in the log."""
    limit = CLOCK.now() + 5.0
    while text not in caplog.text:
        assert CLOCK.now() < limit, caplog.text
        CLOCK.wait(threading.Event(), 0.01)


@pytest.fixture(name="diary")
def _diary(tmp_path: Path) -> Iterator[Diary]:
    with Diary.opened(tmp_path / "diary") as diary:
        yield diary


@pytest.fixture(name="make")
def _make(diary: Diary) -> Iterator[Make]:
    """Return what makes hooks of shell scripts, which know the diary as ``$D``."""
    with ExitStack() as stack:

        def make(timeout: float = 10.0, **scripts: str) -> Hooks:
            commands = {
                event: shlex.join(["sh", "-c", f"D={shlex.quote(str(diary.path))}; {script}"])
                for event, script in scripts.items()
            }
            hooks = Hooks(commands, timeout=timeout)
            stack.callback(hooks.close)
            return hooks

        yield make


def test_what_a_command_is_told(make: Make, diary: Diary) -> None:
    """All of it in the environment, which is otherwise the process's own."""
    names = "EVENT ELECTION NODE TOKEN REASON"
    say = (
        "echo " + " ".join(f'"$LEADER_JOBS_{name}"' for name in names.split()) + ' "${HOME:+h}" >$D'
    )
    hooks = make(elected=say, stepped_down=say)
    hooks(CandidateEnrolled("mail", "n1", 7, 15.0))
    hooks(won(7))
    assert diary.line() == "elected mail n1 7  h"
    hooks(ended(7, reason="deadline"))
    assert diary.line() == "stepped_down mail n1 7 deadline h"


def test_no_shell_reads_a_command(tmp_path: Path) -> None:
    """What would be somebody else's command in a shell is a word here."""
    program = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(repr(sys.argv[2:]))"
    words = [sys.executable, "-c", program, str(tmp_path / "said"), "$HOME; touch x", "a b"]
    hooks = Hooks({"elected": shlex.join(words)}, timeout=10.0)
    hooks(won(1))
    hooks.close()

    assert (tmp_path / "said").read_text() == "['$HOME; touch x', 'a b']"


def test_they_run_one_after_the_other(make: Make, diary: Diary) -> None:
    """The end of a term is not told before its beginning was, however long that takes."""
    hooks = make(
        elected="echo + >$D; read x <$D.go; echo elected >$D", stepped_down="echo stepped down >$D"
    )
    with Diary.opened(Path(f"{diary.path}.go")) as go:
        hooks(won(1))
        assert diary.line() == "+"
        hooks(ended(1))
        assert diary.is_silent(0.2)
        go.path.write_text("\n")
        assert [diary.line(), diary.line()] == ["elected", "stepped down"]


def test_nobody_waits_for_a_command(make: Make, diary: Diary) -> None:
    """Whoever announces is not held up: renewals and other observers go on."""
    hooks = make(timeout=0.5, elected="echo + >$D; sleep 60")
    began = CLOCK.now()
    hooks(won(1))
    assert CLOCK.now() - began < 0.2
    assert diary.line() == "+"


def test_one_that_hangs_is_killed_with_all_it_started(
    make: Make, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """When time is up; the next one is run."""
    hooks = make(
        timeout=0.5,
        elected="trap '' TERM; sleep 60 & echo $! >$D; echo $$ >$D; wait",
        stepped_down="echo stepped down >$D",
    )
    hooks(won(1))
    started = [diary.number(), diary.number()]
    hooks(ended(1))

    assert diary.line() == "stepped down"
    assert not any(map(is_alive, started))
    assert "on_elected: killed after 0.5 s, which is hook_timeout" in caplog.text


def test_a_term_that_is_over_before_it_was_told_is_not_told(make: Make, diary: Diary) -> None:
    """Leadership that comes and goes does not pile up behind a slow command."""
    say = "echo $LEADER_JOBS_EVENT $LEADER_JOBS_TOKEN >$D"
    hooks = make(elected=f"{say}; read x <$D.go", stepped_down=say)
    with Diary.opened(Path(f"{diary.path}.go")) as go:
        hooks(won(1))
        assert diary.line() == "elected 1"
        hooks(ended(1))
        for token in range(2, 500):
            hooks(won(token))
            hooks(ended(token))
        hooks(won(500))
        go.path.write_text("\n\n")
        assert [diary.line(), diary.line()] == ["stepped_down 1", "elected 500"]
        hooks.close()


def test_only_the_last_end_counts_where_beginnings_are_not_told(make: Make, diary: Diary) -> None:
    """What is to be cleaned up after a term is cleaned up after the last one."""
    hooks = make(stepped_down="echo $LEADER_JOBS_TOKEN $LEADER_JOBS_ELECTION >$D; read x <$D.go")
    with Diary.opened(Path(f"{diary.path}.go")) as go:
        for token in range(1, 100):
            hooks(won(token))
            hooks(ended(token))
            if token == 1:
                assert diary.line() == "1 mail"
        hooks(ended(7, "web"))
        go.path.write_text("\n\n\n")
        assert [diary.line(), diary.line()] == ["99 mail", "7 web"]
        hooks.close()


# -- what goes wrong --------------------------------------------------------------------------------


def test_what_they_say_and_how_they_end_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Line by line; a failure is an error, and ends nothing."""
    caplog.set_level(logging.INFO, "leader_jobs.hooks")
    hooks = make(
        elected="echo good; printf 'evil\\033[2J\\n' >&2; exit 3", stepped_down="kill -KILL $$"
    )
    hooks(won(1))
    wait_for_log(caplog, "ended with status 3")
    hooks(ended(1))
    hooks.close()

    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert ("INFO", "on_elected: good") in told
    assert ("INFO", "on_elected: evil?[2J") in told
    assert "ERROR" in {level for level, text in told if "on_elected: ended with status 3" in text}
    assert "ERROR" in {
        level for level, text in told if "on_stepped_down: ended with SIGKILL" in text
    }


def test_one_that_says_too_much_is_not_held_up(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first lines are logged, the rest is read and thrown away."""
    caplog.set_level(logging.INFO, "leader_jobs.hooks")
    hooks = make(elected="seq 1 100000; printf '%0100000d' 7")
    hooks(won(1))
    hooks.close()

    assert "ended with status 0" in caplog.text
    assert "on_elected: 200" in caplog.text
    assert "on_elected: 201" not in caplog.text
    assert "what else it says is not logged" in caplog.text


def test_a_daemon_that_it_leaves_behind_is_left_alone(
    make: Make, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither killed nor waited for, although it keeps the output open."""
    caplog.set_level(logging.INFO, "leader_jobs.hooks")
    hooks = make(elected="sleep 60 & echo $! >$D", stepped_down="echo over >$D")
    hooks(won(1))
    daemon = diary.number()
    try:
        wait_for_log(caplog, "ended with status 0")
        hooks(ended(1))
        assert diary.line() == "over"
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("command", ["no-such-command --now", "/nowhere/at-all", "/etc/passwd"])
def test_a_command_that_is_not_there_is_refused(command: str) -> None:
    """At the start, in one sentence that says which."""
    settings = Settings(store="memory://", on_stepped_down=command)
    with pytest.raises(ConfigurationError) as caught:
        Hooks.of(settings)

    assert str(caught.value).startswith(f"on_stepped_down is {command!r}, and there is no command")
    assert "\n" not in str(caught.value)


def test_a_command_that_went_away_is_an_error_in_the_log(
    tmp_path: Path, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """And the next one is run."""
    script = tmp_path / "hook"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    say = shlex.join(["sh", "-c", f"echo over >{diary.path}"])
    hooks = Hooks({"elected": str(script), "stepped_down": say}, timeout=5.0)
    script.unlink()
    hooks(won(1))
    wait_for_log(caplog, "on_elected: it can not be run")
    hooks(ended(1))
    hooks.close()

    assert diary.line() == "over"


# -- the end of the process -------------------------------------------------------------------------


def test_the_end_waits_for_what_is_left_to_tell(make: Make, diary: Diary) -> None:
    """The process that leaves still says that it has stepped down."""
    hooks = make(
        elected="echo elected >$D; sleep 0.1", stepped_down="sleep 0.2; echo stepped down >$D"
    )
    hooks(won(1))
    assert diary.line() == "elected"  # else neither would be told
    hooks(ended(1, reason="resigned"))
    closing = Background(hooks.close)
    assert diary.line() == "stepped down"
    closing.result()


def test_the_end_does_not_wait_for_ever(make: Make, diary: Diary) -> None:
    """No longer than one command may take: then it is killed."""
    hooks = make(timeout=1.0, stepped_down="trap '' TERM; echo $$ >$D; while :; do sleep 1; done")
    hooks(ended(1))
    pid = diary.number()
    began = CLOCK.now()
    hooks.close()

    assert CLOCK.now() - began < 2.5
    assert not is_alive(pid)


def test_nothing_to_tell_costs_nothing(make: Make) -> None:
    """No thread before the first event, and none to wait for."""
    before = threading.active_count()
    hooks = make(elected="true")
    hooks(ended(1))
    assert threading.active_count() == before
    hooks.close()


def test_the_child_of_a_fork_runs_no_hooks(make: Make, diary: Diary) -> None:
    """They are its parent's; and it waits for none at its end."""
    hooks = make(elected="echo $$ >$D")

    def in_child() -> str:
        hooks(won(1))
        hooks.close()
        return "closed"

    assert in_forked_child(in_child) == "'closed'"
    assert diary.is_silent(0.2)
