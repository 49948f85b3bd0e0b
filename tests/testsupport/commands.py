"""Commands to run under terms, and processes that run them."""

import os
import subprocess
import sys
from typing import Any, Self

from leader_jobs.clock import SystemClock
from leader_jobs.command import Backoff, CommandRunner
from leader_jobs.config import Timing
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import Term
from testsupport.processes import Diary

__all__ = ["POLITE", "STUBBORN_FAMILY", "Runleader", "lease_expiry", "new_runner", "new_term"]

clock = SystemClock()
#: A command with a child in its group and one in a session of its own; none of them heeds SIGTERM.
STUBBORN_FAMILY = """
trap '' TERM
echo $$ > $DIARY
sleep 300 & echo $! > $DIARY
setsid sh -c 'echo $$ > $DIARY; sleep 300'
"""
#: A command that says that it got SIGTERM and then exits 0.
POLITE = """
trap 'echo asked > $DIARY; exit 0' TERM
echo $$ > $DIARY
while :; do sleep 0.02; done
"""

_RUNLEADER = """
import os, signal, sys, threading
from leader_jobs.clock import SystemClock
from leader_jobs.command import CommandRunner
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import Term

def fork_when_told():
    if sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            signal.pause()
        print(pid, flush=True)

clock = SystemClock()
candidacy = Candidacy(election="readers", id="c1", token=7, ttl=float(sys.argv[1]))
deadline = clock.now() + float(sys.argv[2])
runner = CommandRunner(sys.argv[3:], election="readers", node="a", clock=clock, grace=10.0)
threading.Thread(target=fork_when_told, daemon=True).start()
print(deadline, flush=True)
runner.run(Term(candidacy=candidacy, deadline=deadline, clock=clock))
"""


def new_term(*, ttl: float = 15.0, token: int = 7, lasts: float | None = None) -> Term:
    """Return a term just begun, whose next renewal would be needed within *lasts* seconds."""
    lasts = Timing(ttl).valid_for if lasts is None else lasts
    candidacy = Candidacy(election="readers", id="c1", token=token, ttl=ttl)
    return Term(candidacy=candidacy, deadline=clock.now() + lasts, clock=clock)


def lease_expiry(term: Term) -> float:
    """Return the moment the lease of *term* can run out."""
    return term.deadline + Timing(term.ttl).safety_margin


def new_runner(diary: Diary, script: str, **options: Any) -> CommandRunner:
    """Return a runner of a shell script that finds *diary* in its environment."""
    settings: dict[str, Any] = {
        "grace": 10.0,
        "backoff": Backoff(first=0.1, ceiling=0.4),
        **options,
    }
    return CommandRunner(
        ["sh", "-c", script],
        election="readers",
        node="alpha",
        clock=clock,
        environ={**os.environ, "DIARY": str(diary.path)},
        **settings,
    )


class Runleader:
    """A process that runs a script under a term, as runleader does."""

    def __init__(
        self, script: str, diary: Diary, *, ttl: float = 15.0, lasts: float = 12.0
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUNLEADER, str(ttl), str(lasts), "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "DIARY": str(diary.path)},
        )
        self.pid = self._process.pid
        self.deadline = float(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def send_signal(self, number: int) -> float:
        """Signal it; return the moment."""
        self._process.send_signal(number)
        return clock.now()

    def fork(self) -> int:
        """Make it fork, without executing anything; return the child's id."""
        assert self._process.stdin is not None
        self._process.stdin.write("fork\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return self._process.wait(10)
