"""
``leader-jobs``: the command line without a framework, and what every other way in shares with it.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from signal import SIGPIPE
from typing import Final

from leader_jobs.cli import run, show, steer, watch
from leader_jobs.cli.doctor import doctor
from leader_jobs.cli.front import Call, Front, Verb, answer
from leader_jobs.cli.parser import declare
from leader_jobs.config import Settings
from leader_jobs.version import version

__all__ = ["call", "main"]

_VERBS: Final[Mapping[str, Verb]] = {
    "status": show.status,
    "candidates": show.candidates,
    "jobs": show.jobs,
    "history": show.history,
    "watch": watch.watch,
    "pause": steer.pause,
    "resume": steer.resume,
    "transfer": steer.transfer,
    "resign": steer.resign,
    "run-now": steer.run_now,
    "doctor": doctor,
    "run": run.run,
}
_TEXT: Final = "See who leads an election and what became of its jobs, steer it, examine it."


def main(argv: Sequence[str] | None = None) -> int:
    """
    Carry out a command; settings come from its options and the environment.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        The exit code: 0 done, 1 refused or "no", 2 the store is out of reach or what was asked for
        makes no sense; of ``run``, that of the command it ran.
    """
    parser = ArgumentParser(prog="leader-jobs", description=_TEXT)
    parser.add_argument("--version", action="version", version=f"leader-jobs {version()}")
    declare(parser)
    front = Front(load=Settings.load, out=sys.stdout, err=sys.stderr)
    return call(front, parser.parse_args(argv))


def call(front: Front, options: Namespace) -> int:
    """Carry out the command that *options* name; return the exit code."""
    try:
        return answer(_VERBS[options.verb], Call(front, options))
    except BrokenPipeError:
        # Nobody reads on, as in `leader-jobs history … | head`. What the interpreter still wants to
        # write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + SIGPIPE
