"""What the command line understands."""

from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime, timedelta

import pytest

from leader_jobs.cli.parser import declare


def parsed(*arguments: str) -> Namespace:
    """Parse a command line."""
    parser = ArgumentParser(prog="leader-jobs")
    declare(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("verb", ["status", "doctor", "resign", "watch", "pause"])
def test_common_options_stand_before_or_behind_the_command(verb: str) -> None:
    """Given before, they are not undone by what is not given behind."""
    common = (
        "--store",
        "memory://x",
        "--namespace",
        "n",
        "--election",
        "e",
        "--timeout",
        "2",
        "--json",
    )
    for options in (parsed(*common, verb), parsed(verb, *common)):
        found = (options.store, options.namespace, options.election, options.timeout, options.json)
        assert found == ("memory://x", "n", "e", 2.0, True)
    assert parsed("--timeout", "2", verb, "--timeout", "3").timeout == 3.0


def test_what_is_not_given() -> None:
    """Is None, so that environment and settings decide; the timeout is five seconds."""
    options = parsed("pause")
    assert (options.store, options.namespace, options.election, options.job) == (None,) * 4
    assert (options.timeout, options.wait, options.json) == (5.0, 5.0, False)
    assert (options.reason, options.duration, options.until) == ("", None, None)


def test_the_end_of_a_pause() -> None:
    """A duration or an instant."""
    assert parsed("pause", "tidy", "--for", "1h30m").duration == timedelta(minutes=90)
    until = parsed("pause", "--until", "2026-12-24T18:00Z").until
    assert until == datetime(2026, 12, 24, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    "arguments",
    [("--store", "memory://x", "--election", "e"), ("--node", "a", "--ttl", "5", "--grace", "0")],
)
def test_a_command_to_run(arguments: tuple[str, ...]) -> None:
    """All behind -- is the command, further -- and options included."""
    options = parsed("run", *arguments, "--restart", "never", "--", "sh", "-c", "x", "--json", "--")
    assert options.command == ["sh", "-c", "x", "--json", "--"]
    assert options.restart == "never"
    assert not options.json
    assert not hasattr(parsed("run"), "command")


def test_the_store_before_run() -> None:
    """The options of every command hold for this one, too."""
    options = parsed("--store", "memory://x", "--election", "e", "run", "--", "true")
    assert (options.store, options.election) == ("memory://x", "e")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "required: COMMAND"),
        (("stauts",), "invalid choice: 'stauts'"),
        (("history",), "required: JOB"),
        (("history", "x", "--last", "0"), "'0' is not a number from 1 on"),
        (("status", "--timeout", "long"), "'long' is not a number of seconds from 0 to 86400"),
        (("pause", "--wait", "nan"), "'nan' is not a number of seconds"),
        (("pause", "--for", "soon"), "'soon' is not a duration; write for example"),
        (("pause", "--until", "noon"), "'noon' is not an instant; write for example"),
        (("pause", "--for", "1h", "--until", "2026-12-24T18:00Z"), "not allowed with"),
        (("run", "--restart", "maybe", "--", "x"), "invalid choice: 'maybe'"),
    ],
)
def test_what_makes_no_sense(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is said in a line, with exit code 2, and nothing is done."""
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
