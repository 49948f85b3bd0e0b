"""
A fleet of real processes that stand in one election, and the verdict on what their jobs did.

A scenario starts nodes, does to them what happens in life, lets the fleet settle, and then reads
what the jobs really wrote: every planned occurrence once, none twice, none missing.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import StoreUnavailable
from leader_jobs.leaders import Leader, find_leader
from leader_jobs.ledger import Ledger
from leader_jobs.proposals import Proposal
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.stores.base import Write
from leader_jobs.stores.factory import open_store
from testsupport.job_node import JOBS
from testsupport.parenthood import die_with_parent

__all__ = ["Fleet", "Node", "Verdict"]

_ELECTION = "default"
_TESTS = Path(__file__).parents[1]
_TRIES = 20


@dataclass
class Node:
    """One process of the fleet."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """Kill it with SIGKILL and wait for its end."""
        self.process.kill()
        self.process.wait(10)

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self, within: float = 15.0) -> int:
        """Ask it to end and wait; return its exit code, or fail with where its threads are."""
        self.process.terminate()
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1.0)
            msg = f"{self.name} goes on {within} s after SIGTERM:\n{self.log.read_text()[-9000:]}"
            raise AssertionError(msg) from None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None


@dataclass
class Verdict:
    """
    What became of every planned occurrence.

    Attributes:
        planned: how many there were.
        run: how many of them ran.
        doubled: those whose body started more often than its job allows.
        missed: those that neither ran nor were passed over or closed by their job's policy.
        interrupted: how many were started on a node that died, by the ledger's word.
        passed: how many were coalesced or skipped by policy.
        handed_back: how many the last node left claimed for a successor that never came.
    """

    planned: int = 0
    run: int = 0
    interrupted: int = 0
    passed: int = 0
    handed_back: int = 0
    doubled: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


class Fleet:
    """
    Starts nodes on one store, and judges them; used as a context manager.

    Args:
        folder: for evidence and logs.
        store: the store's URL, as the test itself sees it.
        ttl: the lease time the nodes ask for, in seconds.
        namespace: the prefix in a shared store.

    Attributes:
        program: the module that a node runs.
        jobs: the jobs of every node, by name, and how often they are due.
        lenient: those of which not every instant that was missed is run.
        reruns: those whose bodies are started again after a crash.
    """

    program = "testsupport.job_node"
    jobs: Mapping[str, float] = JOBS
    lenient = frozenset({"latest"})
    reruns = frozenset({"rerun"})

    def __init__(self, folder: Path, store: str, *, ttl: float, namespace: str = "fleet") -> None:
        self.clock = SystemClock()
        self.nodes: list[Node] = []
        self._folder = folder
        self._url = store
        self._ttl = ttl
        self._namespace = namespace
        self._evidence = folder / "evidence"
        self._history: dict[str, dict[int, OccurrenceRecord]] = defaultdict(dict)
        self._settled: datetime | None = None
        self._stack = ExitStack()
        settings = Settings(store=store, namespace=namespace)
        self.store = self._stack.enter_context(closing(open_store(settings, clock=self.clock)))
        self._ledger = Ledger(self.store, _ELECTION, node="judge", owner="judge", clock=self.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.alive:
                node.kill()
        self._stack.close()

    def start(self, name: str, *, store: str | None = None, skew: float = 0.0) -> Node:
        """Start a node; *store* is its own way to the store, *skew* what its wall clock is off by."""
        log = self._folder / f"{name}.log"
        command = [sys.executable, "-m", self.program, "--node", name]
        options = {
            "--store": store or self._url,
            "--evidence": self._evidence,
            "--ttl": self._ttl,
            "--namespace": self._namespace,
            "--skew": skew,
        }
        command += [str(part) for option in options.items() for part in option]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=_TESTS,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
            )
        node = Node(name, process, log)
        self.nodes.append(node)
        return node

    # -- who leads --------------------------------------------------------------------------------

    def leader(self, within: float = 20.0, *, newer_than: int = 0) -> tuple[Node, Leader]:
        """Wait for a leader that is a node of the fleet and runs; return it and what it shows."""
        limit = self.clock.now() + within
        while self.clock.now() < limit and any(node.alive for node in self.nodes):
            found = find_leader(_ELECTION, store=self.store, clock=self.clock)
            if found is not None and found.proposal is not None and found.token > newer_than:
                for node in self.nodes:
                    if node.process.pid == found.proposal.pid and node.alive:
                        return node, found
            self.store.wait_for_change(_ELECTION, timeout=0.2)
        msg = f"nobody leads after {within} s:\n{self.logs()}"
        raise AssertionError(msg)

    def freeze(self, node: Node) -> None:
        """
        Stop *node* in its tracks, but not within a transaction of the embedded store.

        There it would keep everybody else from writing until it goes on: a limit of that store, which
        is documented, and not a case for a fleet.
        """
        for _ in range(_TRIES):
            node.freeze()
            os.waitid(os.P_PID, node.process.pid, os.WSTOPPED | os.WNOWAIT)
            if self._is_writable():
                return
            node.thaw()
            self.pause(0.02)
        msg = f"{node.name} is within a transaction each time it is frozen"
        raise AssertionError(msg)

    def _is_writable(self) -> bool:
        row, limit = Write("test/frozen", b""), self.clock.now() + 0.5
        try:
            self.store.commit(_ELECTION, [row], candidacy=None, deadline=limit)
        except StoreUnavailable:
            return False
        return True

    def pause(self, seconds: float) -> None:
        """Let the fleet work for a while: the passing of time is the event."""
        self.clock.wait(threading.Event(), seconds)

    def await_that(
        self, condition: Callable[[], bool], otherwise: str, within: float = 20.0
    ) -> None:
        """Wait until *condition* holds, or fail with what is the matter *otherwise* and the logs."""
        limit = self.clock.now() + within
        while not condition():
            assert self.clock.now() < limit, f"{otherwise}:\n{self.logs()}"
            self.pause(0.02)

    def await_run(self, token: int, within: float = 20.0) -> None:
        """Wait until a job has run under a term not older than *token*."""
        limit = self.clock.now() + within
        while not any(int(line[3]) >= token for line in self._lines("begin")):
            assert self.clock.now() < limit, f"no job ran under {token}:\n{self.logs()}"
            self.pause(0.02)

    def logs(self) -> str:
        """Return the end of every node's log, for messages."""
        return "\n".join(f"--- {n.name}\n{n.log.read_text()[-3000:]}" for n in self.nodes)

    # -- what happened ----------------------------------------------------------------------------

    def note_history(self) -> None:
        """Keep what the ledger says now; it forgets after a hundred occurrences of a job."""
        for job in self.jobs:
            for entry in self._ledger.history(job):
                self._history[job][entry.sequence] = entry

    def settle(self, within: float = 20.0) -> None:
        """Wait until the leader has caught up: nothing open, every cursor of the present."""
        limit = self.clock.now() + within
        self._settled = start = self.clock.utcnow()
        while not self._is_settled(start):
            assert self.clock.now() < limit, f"not settled:\n{self._ledger.jobs()}\n{self.logs()}"
            self.pause(0.05)

    def _is_settled(self, start: datetime) -> bool:
        records = self._ledger.jobs()
        if set(records) != set(self.jobs):
            return False
        past = (entry for r in records.values() for entry in r.open if entry.planned_at < start)
        return not any(past) and all(r.cursor >= start for r in records.values())

    def stop(self, within: float = 20.0) -> Verdict:
        """Let the fleet settle *within* some seconds, stop every node gracefully, and judge."""
        self.settle(within)
        for node in self.nodes:
            if node.alive:
                self._await_standing(node)
                # One that was asked to end before may have done so by itself meanwhile.
                assert node.terminate() == 0, f"{node.name} failed:\n{self.logs()}"
        return self.verdict()

    def _await_standing(self, node: Node, within: float = 20.0) -> None:
        """Wait until *node* stands in the election: before that, SIGTERM just kills a process."""
        limit = self.clock.now() + within
        while self.clock.now() < limit and node.alive:
            entrants = self.store.candidates(_ELECTION, deadline=limit)
            proposals = [Proposal.decode(entrant.proposal) for entrant in entrants]
            if any(p is not None and p.pid == node.process.pid for p in proposals):
                return
            self.store.wait_for_change(_ELECTION, timeout=0.2)
        if node.process.poll() == 0:
            return
        msg = f"{node.name} does not stand:\n{self.logs()}"
        raise AssertionError(msg)

    def verdict(self) -> Verdict:
        """Compare what was planned with what the jobs wrote and what the ledger says."""
        self.note_history()
        verdict = Verdict()
        records = self._ledger.jobs()
        for job, period in self.jobs.items():
            begun = defaultdict(list)
            for line in self._lines("begin"):
                if line[1] == job:
                    begun[datetime.fromisoformat(line[2])].append(int(line[4]))
            closed = self._closed(job)
            instant = min([*begun, *closed], default=datetime.max.replace(tzinfo=UTC))
            while instant <= records[job].cursor:
                self._judge(verdict, job, instant, begun[instant], closed.get(instant))
                instant += timedelta(seconds=period)
        return verdict

    def _judge(
        self,
        verdict: Verdict,
        job: str,
        instant: datetime,
        attempts: list[int],
        state: State | None,
    ) -> None:
        verdict.planned += 1
        verdict.run += bool(attempts)
        verdict.interrupted += state is State.INTERRUPTED
        verdict.passed += state in (State.SKIPPED, State.COALESCED)
        name = f"{job} {instant.isoformat()} {attempts} {state}"
        twice = any(times > 1 for times in Counter(attempts).values())
        if twice or (len(attempts) > 1 and job not in self.reruns):
            verdict.doubled.append(name)
        if state is State.CLAIMED and not attempts and self._settled and instant >= self._settled:
            verdict.handed_back += 1
            return
        by_policy = state in (State.SKIPPED, State.COALESCED) and job in self.lenient
        if not attempts and not by_policy and state is not State.INTERRUPTED:
            verdict.missed.append(name)

    def _closed(self, job: str) -> dict[datetime, State]:
        """Return what the ledger says of each instant that it closed; ranges are spelt out."""
        closed = {}
        for entry in self._history[job].values():
            instant = entry.first or entry.planned_at
            while instant <= entry.planned_at:
                closed[instant] = entry.state
                instant += timedelta(seconds=self.jobs[job])
        return closed

    def _lines(self, word: str) -> list[list[str]]:
        if not self._evidence.exists():
            return []
        lines = [line.split() for line in self._evidence.read_text().splitlines()]
        return [line for line in lines if line[0] == word]
