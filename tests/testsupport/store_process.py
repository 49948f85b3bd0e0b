"""
A process that uses a store at a test's command, so that a test can kill, freeze and fork it.

Run as a program, it opens the store of a URL (further settings come from the environment, as
everywhere) and then reads commands from standard input, one JSON object a line, and answers each
with one on standard output. `StoreProcess` is the test's end of that.
"""

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from leader_jobs import exceptions
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import Conflict, LeaderJobsError
from leader_jobs.stores.base import ABSENT, Candidacy, Store, Write
from leader_jobs.stores.factory import open_store

__all__ = ["Peer", "StoreProcess"]

_TESTS = Path(__file__).resolve().parent.parent


class Peer:
    """
    The test's end of a line of commands to a process.

    Args:
        pid: the process.
        commands: what it reads.
        answers: what it writes.
    """

    def __init__(self, pid: int, commands: IO[str], answers: IO[str]) -> None:
        self.pid = pid
        self._commands = commands
        self._answers = answers
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._answers:
            self._lines.put(line)
        self._lines.put("")

    def begin(self, do: str, **arguments: object) -> None:
        """Send the command *do*; fetch its answer later."""
        self._commands.write(json.dumps({"do": do, **arguments}) + "\n")
        self._commands.flush()

    def answer(self, within: float = 20.0) -> Any:
        """Return the next answer, or raise the library's exception that it reports."""
        line = self._lines.get(timeout=within)
        assert line, f"process {self.pid} ended without an answer"
        answer = json.loads(line)
        if "error" in answer:
            kind: type[LeaderJobsError] = getattr(exceptions, answer["error"])
            raise kind(answer["about"])
        return answer["result"]

    def ask(self, do: str, **arguments: object) -> Any:
        """Send the command *do* and return its answer."""
        self.begin(do, **arguments)
        return self.answer()

    def wait_gone(self, within: float = 20.0) -> None:
        """Wait until the process has ended."""
        assert self._lines.get(timeout=within) == "", f"process {self.pid} goes on"

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the process and let go of the line."""
        self.kill()
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        self._reader.join(10.0)
        self._answers.close()


class StoreProcess(Peer):
    """
    A new process on the store of *url*.

    Args:
        url: the store.
        prefix: a command that is to run the program, such as ``unshare --mount``.
    """

    def __init__(self, url: str, *, prefix: Sequence[str] = ()) -> None:
        # The lines for its fork, should it be told to fork.
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        program = [sys.executable, "-m", __name__, url, str(theirs_in), str(theirs_out)]
        self._process = subprocess.Popen(
            [*prefix, *program],
            cwd=_TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(theirs_in, theirs_out),
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._child_line = os.fdopen(ours_out, "w"), os.fdopen(ours_in)
        self._child: Peer | None = None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        super().__init__(self._process.pid, self._process.stdin, self._process.stdout)

    def fork(self) -> Peer:
        """Let the process fork, once, and return the line to its child."""
        self._child = Peer(self.ask("fork"), *self._child_line)
        return self._child

    def freeze(self) -> None:
        """Stop the process with SIGSTOP; return when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill the process and its fork."""
        if self._child is not None:
            self._child.close()
        super().close()
        self._process.wait()
        for line in self._child_line:
            line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Program:
    """The process's end: every public method is a command."""

    def __init__(self, store: Store, clock: Clock, child_line: tuple[int, int]) -> None:
        self._store = store
        self._clock = clock
        self._child_line = child_line
        self._commands, self._answers = sys.stdin, sys.stdout
        self._candidacy: Candidacy | None = None

    def serve(self) -> None:
        for line in iter(self._commands.readline, ""):
            answer = self._obey(json.loads(line))
            self._answers.write(json.dumps(answer) + "\n")
            self._answers.flush()

    def _obey(self, command: dict[str, Any]) -> dict[str, Any]:
        method: Callable[..., object] = getattr(self, command.pop("do"))
        try:
            return {"result": method(**command)}
        except Conflict as error:
            return {"error": "Conflict", "about": error.keys}
        except LeaderJobsError as error:
            return {"error": type(error).__name__, "about": str(error)}

    def _within(self, seconds: float = 10.0) -> float:
        return self._clock.now() + seconds

    @property
    def _ours(self) -> Candidacy:
        assert self._candidacy is not None
        return self._candidacy

    def enrol(self, election: str = "mail", ttl: float = 30.0) -> dict[str, Any]:
        """Stand; later commands are about this candidacy."""
        self._candidacy = self._store.enrol(election, b"", ttl, deadline=self._within())
        return dataclasses.asdict(self._candidacy)

    def renew(self) -> float:
        """Renew as a leader."""
        return self._store.renew(self._ours, leading=True, deadline=self._within())

    def leads(self) -> bool:
        """Say whether we lead."""
        return self._store.standing(self._ours, deadline=self._within()).leads

    def lead(self, renew_every: float | None = None) -> float:
        """Wait until we lead, renewing meanwhile if told to; return the moment when we knew."""
        while True:
            standing = self._store.standing(self._ours, deadline=self._within())
            if standing.leads:
                return self._clock.now()
            self._store.wait(self._ours, standing, timeout=renew_every or 10.0)
            if renew_every is not None:
                self._store.renew(self._ours, leading=False, deadline=self._within())

    def withdraw(self) -> None:
        """Give up."""
        self._store.withdraw(self._ours, deadline=self._within())

    def tokens(self, election: str = "mail") -> list[int]:
        """List the living candidates' tokens."""
        return [e.token for e in self._store.candidates(election, deadline=self._within())]

    def write(self, key: str, value: str, *, fenced: bool = False, within: float = 10.0) -> int:
        """Commit one record, under our term if *fenced*."""
        return self._store.commit(
            "mail",
            [Write(key, value.encode())],
            candidacy=self._ours if fenced else None,
            deadline=self._within(within),
        )

    def read(self, prefix: str = "") -> dict[str, str]:
        """Return the records' values."""
        found = self._store.read("mail", prefix, deadline=self._within())
        return {key: record.value.decode() for key, record in found.items()}

    def increment(self, key: str, times: int, threads: int = 1) -> None:
        """Count up a record, *times* times in each of *threads* threads, with guarded commits."""
        with self._counting(key, times, threads):
            pass

    def fork_while_counting(self, key: str, times: int, threads: int, forks: int) -> None:
        """Do the same, and meanwhile fork children that count up too, once each."""
        with self._counting(key, times, threads):
            children = []
            for _ in range(forks):
                pid = os.fork()
                if pid == 0:
                    self._count(key)
                    os._exit(0)
                children.append(pid)
            assert not any(os.waitpid(pid, 0)[1] for pid in children)

    @contextlib.contextmanager
    def _counting(self, key: str, times: int, threads: int) -> Iterator[None]:
        def count() -> None:
            for _ in range(times):
                self._count(key)

        running = [threading.Thread(target=count) for _ in range(threads)]
        for thread in running:
            thread.start()
        yield
        for thread in running:
            thread.join()

    def _count(self, key: str) -> None:
        while True:
            record = self._store.read("mail", key, deadline=self._within()).get(key)
            value, version = (0, ABSENT) if record is None else (int(record.value), record.version)
            write = Write(key, str(value + 1).encode(), expect=version)
            with contextlib.suppress(Conflict):
                self._store.commit("mail", [write], candidacy=None, deadline=self._within())
                return

    def fork(self) -> int:
        """Fork; the child obeys the commands of a line of its own."""
        pid = os.fork()
        theirs_in, theirs_out = self._child_line
        if pid == 0:
            self._commands, self._answers = os.fdopen(theirs_in), os.fdopen(theirs_out, "w")
            self.serve()
            os._exit(0)
        os.close(theirs_in)
        os.close(theirs_out)
        return pid

    def run_multiprocessing_child(self) -> None:
        """Let a forked multiprocessing child begin and end."""
        child = multiprocessing.get_context("fork").Process(target=self.leads)
        child.start()
        child.join()
        assert child.exitcode == 0

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def exit(self) -> NoReturn:
        """End the ordinary way, exit handlers and all."""
        sys.exit(0)


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("child_line", nargs=2, type=int)
    arguments = parser.parse_args()
    clock = SystemClock()
    store = open_store(Settings.load(store=arguments.store), clock=clock)
    _Program(store, clock, tuple(arguments.child_line)).serve()


if __name__ == "__main__":
    _main()
