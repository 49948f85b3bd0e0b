"""
A fleet of real beats and workers on a real broker, and the verdict on every planned instant.

Five entries are due every second, one every minute and one every hour; all clocks of the fleet are
wrong alike, so that the hour strikes some time after the start. Published messages are counted on the
broker, or by the workers that receive them; bodies by what they write down themselves.
"""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from leader_jobs.clock import SystemClock
from leader_jobs.leaders import Leader
from leader_jobs.occurrences import occurrence_id
from leader_jobs.proposals import Proposal
from leader_jobs.records import State
from testsupport.brokers import Broker
from testsupport.job_node import SkewedClock
from testsupport.node_fleet import Fleet, Node
from testsupport.parenthood import die_with_parent

__all__ = ["BEATS", "BeatFleet", "BeatVerdict"]

#: The names of the beats of a fleet.
BEATS: Final = ("a", "b", "c")
_ELECTION: Final = "default"
_TESTS: Final = Path(__file__).parents[1]
_SECOND, _MINUTE, _HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
_PERIODS: Final = {f"s{number}": _SECOND for number in range(5)} | {
    "minute": _MINUTE,
    "hour": _HOUR,
}
_SCHEDULES: Final[dict[timedelta, Any]] = {
    _SECOND: 1.0,
    _MINUTE: {"minute": "*"},
    _HOUR: {"minute": "0"},
}
#: How many seconds before the hour the fleet's clocks stand when it is made.
_UNTIL_HOUR: Final = 25.0
_PATIENCE: Final = 20.0


@dataclass
class BeatVerdict:
    """
    What became of every planned instant.

    Attributes:
        planned: how many there were.
        copies: how many messages were published beyond the first one of their occurrence.
        hours: how many strokes of the hour there were.
        missed: planned instants without a message, or without a body where there are workers.
        strange: messages of no planned instant, or with another id than their occurrence's.
        doubled: planned instants whose body started more than once.
    """

    planned: int = 0
    copies: int = 0
    hours: int = 0
    missed: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Everything that may never be, whatever was done to the fleet."""
        return [*self.missed, *self.strange, *self.doubled]


class BeatFleet(Fleet):
    """
    Starts beats and workers on one store and one broker, and judges them; a context manager.

    Args:
        folder: for evidence and logs.
        store: the store's URL.
        broker: where messages go.
        ttl: the lease time the nodes ask for, in seconds.
        namespace: the prefix in a shared store.
        task: what the entries run: ``plain``, or ``guarded`` where there are workers.
        patience: seconds after which a message that no worker took is sent once more.
        conf: more of Celery's configuration.
    """

    def __init__(
        self,
        folder: Path,
        store: str,
        broker: Broker,
        *,
        ttl: float = 2.0,
        namespace: str = "fleet",
        task: str = "plain",
        patience: float = 60.0,
        conf: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(folder, store, ttl=ttl, namespace=namespace)
        self.broker = broker
        now = SystemClock().utcnow()
        hour = now.replace(minute=0, second=0, microsecond=0) + _HOUR
        self._skew = (hour - now).total_seconds() - _UNTIL_HOUR
        self.clock = SkewedClock(self._skew)
        self._begun: dict[str, datetime] = {}
        self._beats: list[Node] = []
        self._patience = patience
        self._conf = broker.settings | {
            "leader_jobs_store": store,
            "leader_jobs_namespace": namespace,
            "leader_jobs_ttl": ttl,
            "worker_prefetch_multiplier": 1,
        }
        self._conf |= conf or {}
        policy = {"leader_jobs": {"catch_up": "all", "max_burst": 100, "overlap": True}}
        self._entries = {
            name: {"task": task, "schedule": _SCHEDULES[period], "options": policy}
            for name, period in _PERIODS.items()
        }

    # -- its processes ----------------------------------------------------------------------------

    def populate(self, *names: str) -> Leader:
        """Start beats; return what the first one to lead shows, once it has published."""
        for name in names or BEATS:
            self.beat(name)
        _, leader = self.leader()
        self.begin()
        self.await_published(leader.token)
        return leader

    def begin(self) -> None:
        """Take note of where every job stands: from here on nothing may be missed."""
        self.await_that(lambda: _PERIODS.keys() <= self._ledger.jobs().keys(), "nothing is planned")
        self._begun = {name: record.cursor for name, record in self._ledger.jobs().items()}

    def beat(self, name: str, *arguments: str, store: str | None = None) -> Node:
        """Start a beat; *store* is its own way to the store."""
        schedule = f"{self._folder}/{name}.schedule"
        own = ("-S", "leader", "-s", schedule, "--pidfile=")
        self._beats.append(self.celery(name, "beat", *own, *arguments, store=store))
        return self._beats[-1]

    def worker(self, name: str, *arguments: str) -> Node:
        """Start a worker with one process, which leaves it to others to find each other."""
        alone = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        return self.celery(name, "worker", "-n", f"{name}@%h", "-c", "1", *alone, *arguments)

    def celery(self, name: str, *arguments: str, store: str | None = None) -> Node:
        """Start a Celery program as a node of the fleet."""
        conf = self._conf | ({"leader_jobs_store": store} if store else {})
        given = {
            "conf": conf,
            "entries": self._entries,
            "skew": self._skew,
            "patience": self._patience,
            "folder": str(self._folder),
        }
        log = self._folder / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", "testsupport.beat_app", *arguments]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "-l", "INFO"],
                env={**os.environ, "LEADER_JOBS_NODE": name, "BEAT_APP": json.dumps(given)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=_TESTS,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it calls one libc function
            )
        node = Node(name, process, log)
        self.nodes.append(node)
        return node

    # -- what is done to them ---------------------------------------------------------------------

    def end(self, node: Node) -> None:
        """Have a beat end by SIGTERM, once it stands; one that is about to end anyway may do so."""

        def stands_or_ended() -> bool:
            node.thaw()  # it may have gone on towards a trap, and stepped on it only now
            return not node.alive or self._stands(node)

        self.await_that(stands_or_ended, f"{node.name} neither stands nor ends")
        if node.alive:
            node.process.terminate()
        assert node.process.wait(_PATIENCE) == 0, f"{node.name} failed:\n{self.logs()}"

    def _stands(self, node: Node) -> bool:
        entrants = self.store.candidates(_ELECTION, deadline=self.clock.now() + _PATIENCE)
        proposals = [Proposal.decode(entrant.proposal) for entrant in entrants]
        return any(p is not None and p.pid == node.process.pid for p in proposals)

    def set_trap(self, number: signal.Signals, count: int) -> None:
        """Have whoever publishes the message number *count* from now get a signal right before."""
        loaded = self._folder / "trap.loaded"
        loaded.write_text(f"{number.name} {count}")
        loaded.rename(self._folder / "trap")

    def take_trap_away(self) -> None:
        """Have nobody go towards the trap who does not do so yet."""
        (self._folder / "trap").unlink(missing_ok=True)

    def await_sprung(self, times: int) -> int:
        """Wait until traps were sprung so many times; return the id of the last one's process."""
        sprung: list[list[str]] = []

        def enough() -> bool:
            sprung[:] = self._lines("sprung")
            return len(sprung) >= times

        self.await_that(enough, "no trap was sprung")
        return int(sprung[-1][1])

    def await_published(self, token: int) -> None:
        """Wait until something was published under a term not older than *token*."""

        def published() -> bool:
            return any(
                entry.token >= token and entry.state is not State.CLAIMED
                for record in self._ledger.jobs().values()
                for entry in record.open
            )

        self.await_that(published, f"nothing is published under {token}")

    def await_hour(self) -> None:
        """Wait until the fleet's clocks are a moment past the hour."""
        self.await_that(lambda: self.clock.utcnow().minute == 0, "the hour never strikes")

    # -- what happened ----------------------------------------------------------------------------

    def _is_settled(self, start: datetime) -> bool:
        records = self._ledger.jobs()
        if not records.keys() >= _PERIODS.keys():
            return False
        if any(
            entry.state is State.CLAIMED and entry.planned_at < start
            for record in records.values()
            for entry in record.open
        ):
            return False
        return all(_after(job, records[job].cursor) > start for job in _PERIODS)

    def living_beats(self) -> list[Node]:
        """Return the beats that run, or are frozen."""
        return [node for node in self._beats if node.alive]

    def finish(self, within: float = _PATIENCE) -> BeatVerdict:
        """Let the fleet settle *within* some seconds, end it gracefully, and judge."""
        self.settle(within)
        workers = [node for node in self.nodes if node not in self._beats and node.alive]
        if workers:
            self._await_runs(self.clock.utcnow(), within)
        for node in self.living_beats():
            self.end(node)
        if workers:
            self._await_runs(None, within)
        for node in workers:
            assert node.terminate() == 0, f"{node.name} failed:\n{self.logs()}"
        return self.judge()

    def _await_runs(self, until: datetime | None, within: float) -> None:
        """Wait until all that was planned, *until* some instant, was run."""
        limit = self.clock.now() + within
        while missed := self.judge(until).missed:
            self.note_history()
            if self.clock.now() > limit:
                found = "\n".join([*missed, *self._words_about(missed)])
                msg = f"not everything is run:\n{self.logs()}\n{found}"
                raise AssertionError(msg)
            self.pause(0.05)

    def note_history(self) -> None:
        """Keep what the ledger says now; it forgets after a hundred occurrences of a job."""
        for job in _PERIODS:
            for entry in self._ledger.history(job):
                self._history[job][entry.sequence] = entry

    def _words_about(self, missed: list[str]) -> list[str]:
        """Return what the ledger said of instants that were missed."""
        about = {tuple(line.split()[:3]) for line in missed}
        return [
            f"{job} {entry}"
            for job, entries in self._history.items()
            for entry in entries.values()
            if (job, *str(entry.planned_at).split()) in about
        ]

    def judge(self, until: datetime | None = None) -> BeatVerdict:
        """Compare what was planned, *until* some instant, with what was published and run."""
        verdict = BeatVerdict()
        records = self._ledger.jobs()
        received, begun = self._noted("received"), self._noted("begin")
        published = self._on_broker()
        for job, instants in received.items():
            for instant, ids in instants.items():
                published[job][instant] += ids
        for job, period in _PERIODS.items():
            chain = []
            instant = min([*published[job], _after(job, self._begun[job])])
            while instant <= min(records[job].cursor, until or records[job].cursor):
                chain.append(instant)
                instant += period
            verdict.planned += len(chain)
            verdict.hours += len(chain) if job == "hour" else 0
            _judge_messages(verdict, job, chain, published[job])
            if received:
                _judge_bodies(verdict, job, chain, begun[job])
        return verdict

    def count_late(self) -> int:
        """Count the messages on the broker that came after one of a later term."""
        tokens = [m.headers["leader_jobs"]["token"] for m in self.broker.messages("celery")]
        latest = accumulate(tokens, max)
        return sum(token < newest for token, newest in zip(tokens, latest, strict=True))

    def _on_broker(self) -> dict[str, dict[datetime, Counter[str]]]:
        """Return how many messages wait on the broker, by job, planned instant and id."""
        found = _empty()
        for message in self.broker.messages("celery"):
            ticket = message.headers["leader_jobs"]
            instant = datetime.fromisoformat(ticket["planned_at"])
            found[ticket["job"]][instant][message.headers["id"]] += 1
        return found

    def _noted(self, word: str) -> dict[str, dict[datetime, Counter[str]]]:
        found = _empty()
        for _, job, instant, task_id in self._lines(word):
            found[job][datetime.fromisoformat(instant)][task_id] += 1
        return found


def _empty() -> dict[str, dict[datetime, Counter[str]]]:
    return defaultdict(lambda: defaultdict(Counter))


def _after(job: str, instant: datetime) -> datetime:
    """Return the first planned instant of *job* after *instant*, which is one if it has seconds."""
    period = _PERIODS[job]
    if period == _SECOND:
        return instant + period
    return instant - (instant - datetime.min.replace(tzinfo=instant.tzinfo)) % period + period


def _judge_messages(
    verdict: BeatVerdict,
    job: str,
    chain: list[datetime],
    published: dict[datetime, Counter[str]],
) -> None:
    verdict.missed += [f"{job} {instant} no message" for instant in chain if not published[instant]]
    verdict.strange += [f"{job} {i} planned by nobody" for i in published.keys() - set(chain)]
    for instant, ids in published.items():
        verdict.copies += max(0, ids.total() - 1)
        expected = occurrence_id(_ELECTION, job, instant)
        verdict.strange += [f"{job} {instant} as {found}" for found in ids if found != expected]


def _judge_bodies(
    verdict: BeatVerdict, job: str, chain: list[datetime], begun: dict[datetime, Counter[str]]
) -> None:
    for instant in chain:
        times = begun[instant].total()
        if times > 1:
            verdict.doubled.append(f"{job} {instant} started {times} times")
        if times < 1:
            verdict.missed.append(f"{job} {instant} not started")
