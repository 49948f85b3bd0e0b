"""
A process that stands in an election with a guardian, and does what a test writes to it.

Run as ``python -m testsupport.guarded_node SETTINGS`` (arguments of `Settings.load` as JSON). It prints ``guardian
PID`` when it stands and ``term TOKEN`` as each term begins. ``close`` on its standard input has it
close whatever descriptors it has, as daemons do, ``fork`` fork a child that stays, ``guardian`` say
who that is now.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from leader_jobs.candidate import Candidate
from leader_jobs.config import Settings
from leader_jobs.stores.factory import open_store
from testsupport.processes import children_of, time_of_death

__all__ = ["ELECTION", "GuardedNode", "guardian_of"]

#: What it stands in.
ELECTION = "mail"


class GuardedNode:
    """
    Such a process, as a test sees it.

    Args:
        settings: arguments of `Settings.load`.
        log: where its log goes.
        popen: more keywords for the process.

    Attributes:
        guardian: the process id of its guardian.
    """

    def __init__(self, settings: dict[str, Any], *, log: Path, **popen: Any) -> None:
        self._log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "testsupport.guarded_node", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                bufsize=1,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                **popen,
            )
        try:
            self.guardian = self._number("guardian")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, if it has not."""
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()  # a child of its own may hold the other end

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it logged."""
        return self._log.read_text()

    def _number(self, word: str) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == [word], f"{line} is not the {word}: {self.log}"
        return int(line[1])

    def term(self) -> int:
        """Wait for the next term; return its token."""
        return self._number("term")

    def tell(self, word: str) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def fork(self) -> int:
        """Have it fork; return the process id of the child, which stays until it is killed."""
        self.tell("fork")
        return self._number("forked")

    def ask_guardian(self) -> int:
        """Return the process id of the guardian it has now, 0 for none."""
        self.tell("guardian")
        return self._number("guardian")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, and see to it that it is gone."""
        self.process.kill()
        self.process.wait()

    def guardian_is_over(self, within: float = 5.0) -> bool:
        """Wait for the end of its guardian."""
        return time_of_death(self.guardian, within) > 0


def guardian_of(pid: int) -> int:
    """Return the process id of the guardian of process *pid*, 0 if it has none."""
    for child in children_of(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"_etcd_guardian.py" in command:
            return child
    return 0


def _say(word: str, number: int) -> None:
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


def _serve(candidate: Candidate) -> None:
    for line in sys.stdin:
        match line.strip():
            case "close":
                os.closerange(3, 1000)
            case "fork":
                child = os.fork()
                if child == 0:
                    signal.pause()
                _say("forked", child)
            case "guardian":
                _say("guardian", guardian_of(os.getpid()))
    candidate.stop()


def _main() -> None:
    logging.basicConfig(level=logging.INFO)
    settings = Settings.load(environ={}, **json.loads(sys.argv[1]))
    candidate = Candidate(
        ELECTION,
        store=open_store(settings),
        node=settings.node,
        ttl=settings.ttl,
        guarded=True,
    )
    candidate.start()
    waiting = threading.Event()
    while candidate.candidacy is None:
        waiting.wait(0.01)
    _say("guardian", guardian_of(os.getpid()))
    threading.Thread(target=_serve, args=[candidate]).start()
    for term in candidate.terms():
        _say("term", term.token)


if __name__ == "__main__":
    _main()
