"""
The options of the command line, for every way in: declared on whatever parser the way in brings along.

Options that all commands share may stand before or after the command.
"""

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from leader_jobs.cli.stand import add_command_options, add_node_options
from leader_jobs.durations import parse_duration, parse_instant
from leader_jobs.exceptions import ConfigurationError

__all__ = ["declare"]

_TIMEOUT: Final = 5.0
_WAIT: Final = 5.0
_VERBOSITY: Final = (0, 1, 2)
_DAY: Final = 86400
T = TypeVar("T")


class _Verbs(Protocol):
    """What `ArgumentParser.add_subparsers` returns, as far as it is used here."""

    def add_parser(self, name: str, **kwargs: Any) -> Any: ...


def declare(parser: ArgumentParser) -> list[ArgumentParser]:
    """
    Declare the commands and all their options on *parser*.

    Returns:
        The parsers of the commands. What a way in adds to them is best left without a default.
    """
    _add_common(parser)
    parser.set_defaults(
        store=None,
        namespace=None,
        election=None,
        timeout=_TIMEOUT,
        json=False,
        job=None,
        verbosity=1,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    shown = [_status(verbs), _candidates(verbs), _jobs(verbs), _history(verbs), _watch(verbs)]
    steering = [_pause(verbs), _resume(verbs), _transfer(verbs), _resign(verbs), _run_now(verbs)]
    for steered in steering:
        steered.add_argument(
            "--wait",
            type=_seconds,
            default=_WAIT,
            metavar="SECONDS",
            help="how long to wait for the leader's answer (default: 5; 0: not at all)",
        )
    found = [*shown, *steering, _doctor(verbs)]
    for each in found:
        _add_common(each)
    return [*found, _run(verbs)]


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--store", metavar="URL", help="where the election is held")
    parser.add_argument("--namespace", help="what every key in etcd begins with")
    parser.add_argument("--election", metavar="NAME", help="the election")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="to wait for the store (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _verb(verbs: _Verbs, name: str, text: str) -> Any:
    # What is not given leaves no trace, so that it does not undo what was given before the command.
    return verbs.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", argument_default=SUPPRESS
    )


# -- seeing ---------------------------------------------------------------------------------------


def _status(verbs: _Verbs) -> Any:
    parser = _verb(
        verbs, "status", "who leads, for how long its lease still lasts, and what is wrong"
    )
    parser.add_argument(
        "--exit-code", action="store_true", default=False, help="exit with 1 if nobody leads"
    )
    parser.add_argument(
        "--all", action="store_true", default=False, help="all elections of the store, a line each"
    )
    return parser


def _candidates(verbs: _Verbs) -> Any:
    return _verb(verbs, "candidates", "the candidates in order of succession; the first one leads")


def _jobs(verbs: _Verbs) -> Any:
    return _verb(verbs, "jobs", "the jobs: when each is due next, and what became of its last run")


def _history(verbs: _Verbs) -> Any:
    parser = _verb(verbs, "history", "what became of the occurrences of a job, the newest last")
    parser.add_argument("job", metavar="JOB")
    parser.add_argument(
        "--last",
        type=_number,
        default=None,
        metavar="N",
        help="the last N only (default: all kept)",
    )
    return parser


def _watch(verbs: _Verbs) -> Any:
    return _verb(verbs, "watch", "the election as it is, again at every change, until Ctrl-C")


# -- steering -------------------------------------------------------------------------------------


def _pause(verbs: _Verbs) -> Any:
    parser = _verb(verbs, "pause", "have nothing new started, in the election or of one job")
    parser.add_argument("job", nargs="?", metavar="JOB", help="the job (default: the election)")
    parser.add_argument("--reason", default="", help="why, for people")
    end = parser.add_mutually_exclusive_group()
    end.add_argument(
        "--for",
        dest="duration",
        type=_readable(parse_duration),
        default=None,
        metavar="TIME",
        help="end it after so long: 90s, 30m, 1h30m, 2d",
    )
    end.add_argument(
        "--until",
        type=_readable(parse_instant),
        default=None,
        metavar="INSTANT",
        help="end it then: 2026-12-24T18:00 (this host's time), 2026-12-24T18:00Z",
    )
    return parser


def _resume(verbs: _Verbs) -> Any:
    parser = _verb(verbs, "resume", "end a pause; what was missed is caught up on by each policy")
    parser.add_argument("job", nargs="?", metavar="JOB", help="the job (default: the election)")
    return parser


def _transfer(verbs: _Verbs) -> Any:
    parser = _verb(verbs, "transfer", "have the leader hand over to a candidate")
    parser.add_argument(
        "heir", metavar="HEIR", help="its label, or its id as `candidates` shows it"
    )
    return parser


def _resign(verbs: _Verbs) -> Any:
    return _verb(
        verbs, "resign", "have the leader give up its term and queue behind everybody else"
    )


def _run_now(verbs: _Verbs) -> Any:
    parser = _verb(verbs, "run-now", "have the leader run a job now, beside its schedule")
    parser.add_argument("job", metavar="JOB")
    return parser


# -- the rest -------------------------------------------------------------------------------------


def _doctor(verbs: _Verbs) -> Any:
    return _verb(verbs, "doctor", "examine what the election rests on, and say what to do")


def _run(verbs: _Verbs) -> Any:
    parser = _verb(verbs, "run", "stand in the election; while leading, run the command after '--'")
    parser.add_argument("--election", metavar="NAME", help="the election to stand in")
    add_node_options(parser)
    parser.add_argument(
        "-v",
        "--verbosity",
        type=int,
        choices=_VERBOSITY,
        help="0: warnings only, 1: changes of role too (default), 2: everything",
    )
    add_command_options(parser)
    return parser


# -- values ---------------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _DAY:  # also refuses NaN
        msg = f"{text!r} is not a number of seconds from 0 to {_DAY}"
        raise ArgumentTypeError(msg)
    return seconds


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"{text!r} is not a number from 1 on"
        raise ArgumentTypeError(msg)
    return int(text)


def _readable(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Return *parse* with its errors as argparse shows them."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ConfigurationError as error:
            raise ArgumentTypeError(str(error)) from None

    return parsed
