"""
A fleet of real schedulers of APScheduler, and the verdict on what their jobs wrote.

All clocks of the fleet are wrong alike, so that the minute strikes some time after the start.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from leader_jobs.proposals import Proposal
from leader_jobs.records import JobRecord, State
from testsupport.apscheduler_node import HostClock
from testsupport.node_fleet import Fleet, Node, Verdict

__all__ = ["CONTRACT", "NODES", "SchedulerFleet", "every", "once"]

#: The names of the processes of a fleet.
NODES: Final = ("a", "b", "c", "d")
_MINUTE: Final = 60.0
_PATIENCE: Final = 20.0


def every(seconds: float, **options: Any) -> dict[str, Any]:
    """Return the plan of a job of which each run time counts; *options* are for ``add_job``."""
    return {"trigger": "interval", "seconds": seconds, "coalesce": False} | options


def once(after: float, **options: Any) -> dict[str, Any]:
    """Return the plan of a job that is to be run once, so many seconds after the fleet was made."""
    return {"trigger": "date", "after": after} | options


#: Five jobs every second and one every minute, of which each run time counts; one that coalesces.
CONTRACT: Final = {f"s{number}": every(1) for number in range(5)} | {
    "minute": {"trigger": "cron", "second": 0, "coalesce": False},
    "latest": {"trigger": "interval", "seconds": 1},
}


@dataclass
class SchedulerVerdict(Verdict):
    """
    What became of every run time.

    Attributes:
        once: how many one-shot jobs there were.
        minutes: how many strokes of the minute there were.
        unbegun: how many were closed as interrupted without a word of their body.
    """

    once: int = 0
    minutes: int = 0
    unbegun: int = 0


class SchedulerFleet(Fleet):
    """
    Starts schedulers on one store, and judges them; used as a context manager.

    Args:
        folder: for evidence and logs.
        store: the store's URL.
        plan: the jobs of every node, by id; see `testsupport.apscheduler_node.add_jobs`.
        ttl: the lease time the nodes ask for, in seconds.
        namespace: the prefix in a shared store.
        workers: how many threads run bodies, in each process.
        until_minute: how many seconds after the start the minute strikes.
    """

    program = "testsupport.apscheduler_node"

    def __init__(
        self,
        folder: Path,
        store: str,
        plan: Mapping[str, dict[str, Any]] = CONTRACT,
        *,
        ttl: float = 2.0,
        namespace: str = "fleet",
        workers: int = 10,
        until_minute: float = 10.0,
    ) -> None:
        super().__init__(folder, store, ttl=ttl, namespace=namespace)
        self.clock: HostClock = HostClock(folder / "wall")
        self.clock.step(_MINUTE - until_minute - self.clock.utcnow().timestamp() % _MINUTE)
        self._trap = folder / "trap"
        plan = {name: self._dated(job) for name, job in plan.items()}
        (folder / "plan.json").write_text(json.dumps({"workers": workers, "jobs": plan}))
        self.once = {n: _instant(job["run_date"]) for n, job in plan.items() if "run_date" in job}
        self.jobs = {
            n: job.get("seconds", _MINUTE) for n, job in plan.items() if n not in self.once
        }
        self.lenient = frozenset(n for n in self.jobs if plan[n].get("coalesce", True))
        self.reruns = frozenset(n for n, job in plan.items() if job.get("rerun"))

    def _dated(self, job: dict[str, Any]) -> dict[str, Any]:
        if "after" not in job:
            return job
        instant = self.clock.utcnow() + timedelta(seconds=job["after"])
        return {k: v for k, v in job.items() if k != "after"} | {"run_date": instant.isoformat()}

    def populate(self, *names: str) -> None:
        """Start nodes, and wait until one leads and works."""
        for name in names or NODES:
            self.start(name)
        _, leader = self.leader()
        self.await_run(leader.token)

    def fill_up(self) -> None:
        """Start a node for each one that has ended."""
        while len(self.living()) < len(NODES):
            self.start(f"r{len(self.nodes)}")

    def living(self) -> list[Node]:
        """Return the nodes that run, or are frozen."""
        return [node for node in self.nodes if node.alive]

    def await_back(self, node: Node, newer_than: int) -> None:
        """Wait until *node*, which was thawed, stands with a token that is *newer_than* this one."""

        def stands() -> bool:
            entrants = self.store.candidates("default", deadline=self.clock.now() + _PATIENCE)
            return any(
                entrant.token > newer_than and proposal.pid == node.process.pid
                for entrant in entrants
                if (proposal := Proposal.decode(entrant.proposal)) is not None
            )

        self.await_that(stands, f"{node.name} does not stand again")

    # -- traps ------------------------------------------------------------------------------------

    def set_trap(self, signal: str, point: str) -> None:
        """Have whoever comes to *point* next get *signal* there; see `apscheduler_node.POINTS`."""
        loaded = self._trap.with_suffix(".loaded")
        loaded.write_text(f"{signal} {point}")
        loaded.rename(self._trap)

    def disarm(self) -> None:
        """Take the trap away that nobody stepped on."""
        self._trap.unlink(missing_ok=True)

    def sprung(self) -> list[list[str]]:
        """Return process id, point and signal of every trap that was sprung."""
        return [line[1:] for line in self._lines("sprung")]

    def await_sprung(self, times: int) -> Node:
        """Wait until traps were sprung so many times; return whom the last one caught."""
        self.await_that(lambda: len(self.sprung()) >= times, "no trap was sprung")
        pid = int(self.sprung()[times - 1][0])
        return next(node for node in self.nodes if node.process.pid == pid)

    # -- what happened ----------------------------------------------------------------------------

    def begun(self, job: str) -> list[tuple[datetime, int, str]]:
        """Return planned instant, attempt and node of each body of *job* that began, in order."""
        lines = [line for line in self._lines("begin") if line[1] == job]
        return [(_instant(line[2]), int(line[4]), line[5]) for line in lines]

    def last_at_work(self) -> str:
        """Return the node on which a body began last; the empty string if none did."""
        return next((line[5] for line in reversed(self._lines("begin"))), "")

    def tokens(self) -> list[int]:
        """Return the terms under which bodies began, in order."""
        return [int(line[3]) for line in self._lines("begin")]

    def _is_settled(self, start: datetime) -> bool:
        records = self._ledger.jobs()
        if not records.keys() >= self.jobs.keys() | self.once.keys():
            return False
        past = (entry for r in records.values() for entry in r.open if entry.planned_at < start)
        return not any(past) and all(self._is_ahead(r, start) for r in records.values())

    def _is_ahead(self, record: JobRecord, start: datetime) -> bool:
        """Whether nothing of a job is due before *start* any more."""
        instant = self.once.get(record.job)
        if instant is not None:
            return record.cursor >= min(instant, start)
        return record.cursor + timedelta(seconds=self.jobs[record.job]) > start

    def stop(self, within: float = 20.0) -> SchedulerVerdict:
        """Let the fleet settle *within* some seconds, stop every node gracefully, and judge."""
        super().stop(within)
        return self.verdict()

    def verdict(self) -> SchedulerVerdict:
        """Compare what was planned with what the jobs wrote and what the ledger says."""
        verdict = SchedulerVerdict(**vars(super().verdict()))
        for job, instant in self.once.items():
            self._judge_once(verdict, job, instant)
        for job in self.jobs:
            wrote = {instant for instant, _, _ in self.begun(job)}
            closed = self._closed(job)
            verdict.minutes += len(wrote | closed.keys()) if self.jobs[job] == _MINUTE else 0
            verdict.unbegun += sum(
                state is State.INTERRUPTED and at not in wrote for at, state in closed.items()
            )
            run_and_passed = [at for at in wrote if closed.get(at) in _PASSED]
            verdict.doubled += [f"{job} {at} was run and passed over" for at in run_and_passed]
        return verdict

    def _judge_once(self, verdict: SchedulerVerdict, job: str, instant: datetime) -> None:
        verdict.once += 1
        begun = [(planned, attempt) for planned, attempt, _ in self.begun(job)]
        expected = [(instant, number + 1) for number in range(len(begun) or 1)]
        if begun == expected and (len(begun) == 1 or job in self.reruns):
            return
        states = [entry.state for entry in self._ledger.history(job)]
        if not begun and states == [State.INTERRUPTED]:
            verdict.unbegun += 1
            return
        wrong = verdict.doubled if begun else verdict.missed
        wrong.append(f"{job} {instant} {begun} {states}")

    def interrupted_on(self) -> set[str]:
        """Return the nodes whose runs were closed as interrupted."""
        return {
            entry.node
            for entries in self._history.values()
            for entry in entries.values()
            if entry.state is State.INTERRUPTED
        }


_PASSED: Final = (State.SKIPPED, State.COALESCED)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
