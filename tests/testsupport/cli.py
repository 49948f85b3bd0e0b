"""The command line as tests call it: within this process, or as a real one."""

import io
import json
import os
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from leader_jobs.cli.entry import call
from leader_jobs.cli.front import Front
from leader_jobs.cli.parser import declare
from leader_jobs.config import ENVIRONMENT_PREFIX, Settings

__all__ = ["COMMAND", "Answer", "Cli", "environ", "run"]

#: ``leader-jobs``, without relying on where scripts are installed.
COMMAND: Final = (sys.executable, "-m", "leader_jobs")


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str = ""

    @property
    def json(self) -> Any:
        """What it said as JSON; nothing else may be written."""
        assert self.err == ""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The line that says what is wrong, and all that was said."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line.removeprefix("error: ")


class Cli:
    """
    The command line within this process, so that a store in memory can be seen.

    Args:
        arguments: what every command begins with.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments

    def __call__(self, *arguments: str) -> Answer:
        """Carry out a command."""
        out, err = io.StringIO(), io.StringIO()
        parser = ArgumentParser(prog="leader-jobs")
        declare(parser)
        options = parser.parse_args([*self._arguments, *arguments])
        front = Front(load=partial(Settings.load, environ={}), out=out, err=err)
        return Answer(call(front, options), out.getvalue(), err.getvalue())


def environ(**extra: str) -> dict[str, str]:
    """Return the environment of a process without settings, apart from *extra*."""
    return {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)} | extra


def run(*arguments: str, **extra: str) -> Answer:
    """Run ``leader-jobs`` as a process; *extra* is for its environment."""
    found = subprocess.run(
        [*COMMAND, *arguments],
        env=environ(**extra),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    return Answer(found.returncode, found.stdout, found.stderr)
