"""A fleet whose store is hurt, and the measure of what that did to it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.doctor.cluster import examine_cluster
from leader_jobs.doctor.findings import Level
from leader_jobs.ledger import Ledger
from leader_jobs.stores.factory import open_store
from testsupport.etcd import EtcdCluster, Member
from testsupport.node_fleet import Fleet, Node, Verdict
from testsupport.sick_node import beliefs_beside

__all__ = ["Belief", "Figures", "Mark", "SickFleet", "longest_hole", "overlap"]

_ELECTION: Final = "default"
_FIELDS: Final = 4


@dataclass(frozen=True, slots=True)
class Belief:
    """For how long a node believed to lead, in moments."""

    node: str
    token: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a round begins."""

    moment: float
    instant: datetime
    token: int
    logs: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What a round did to a fleet.

    Attributes:
        survived: whether the term that was there at the beginning was there at the end.
        terms: how many terms began.
        leaderless: the longest time in which no node had an active term, in seconds.
        idle: the longest time in which no body began, in seconds.
        overlap: the longest time in which two nodes believed to lead, in seconds.
        planned: how many occurrences came due.
        doubled: how many bodies began more often than allowed.
        missed: how many occurrences neither ran nor were passed over by their job's policy.
        interrupted: how many are recorded as interrupted.
    """

    survived: bool
    terms: int
    leaderless: float
    idle: float
    overlap: float
    planned: int
    doubled: int
    missed: int
    interrupted: int


class SickFleet(Fleet):
    """
    A fleet on an etcd cluster that is going to be hurt.

    Args:
        folder: for evidence and logs.
        cluster: the cluster.
        ttl: the lease time the nodes ask for, in seconds.
        namespace: the prefix in the cluster.
        user: whom the fleet's judge logs in as; None for nobody.
        password: the password of that user.
    """

    program = "testsupport.sick_node"

    def __init__(
        self,
        folder: Path,
        cluster: EtcdCluster,
        *,
        ttl: float,
        namespace: str = "fleet",
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        super().__init__(folder, cluster.url, ttl=ttl, namespace=namespace)
        self.cluster: Final = cluster
        self.settings: Final = Settings(
            store=cluster.url, namespace=namespace, ttl=ttl, user=user, password=password
        )
        store = open_store(self.settings, clock=self.clock)
        self.store = self._stack.enter_context(closing(store))
        self._ledger = Ledger(store, _ELECTION, node="judge", owner="judge", clock=self.clock)

    def populate(self, *names: str) -> Self:
        """Start nodes, and wait until all stand and one works."""
        for name in names or ("a", "b"):
            self.start(name)
        _, leader = self.leader()
        self.await_run(leader.token)
        return self

    def leading(self) -> Node:
        """Wait for the node that leads."""
        return self.leader()[0]

    def heal(self, within: float = 30.0) -> None:
        """Wait until all members are well, all nodes stand, and everything due is done."""
        self.cluster.wait_healthy()
        self.settle(within)
        for node in self.nodes:
            if node.alive:
                self._await_standing(node)

    def member_of(self, node: Node) -> Member:
        """Return the member that *node* talks to: the one it has most connections with."""
        folder = Path(f"/proc/{node.process.pid}")
        sockets = {link.readlink().name for link in (folder / "fd").iterdir() if link.is_symlink()}
        ports: dict[int, int] = defaultdict(int)
        for line in (folder / "net" / "tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in sockets:
                ports[int(fields[2].split(":")[1], 16)] += 1
        return max(self.cluster.members, key=lambda member: ports[member.client_port])

    def drive(self, node: Node, member: Member) -> None:
        """Have *node* talk to *member*: freeze those it talks to until it does."""
        while (current := self.member_of(node)) is not member:
            current.freeze()
            self.await_that(lambda m=current: self.member_of(node) is not m, f"{node.name} stays")  # type: ignore[misc]
            current.thaw()

    # -- what happened ----------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Begin a round: remember where everything is."""
        self.heal()
        assert self._settled is not None
        logs = {node.name: node.log.stat().st_size for node in self.nodes}
        return Mark(self.clock.now(), self._settled, self.leader()[1].token, logs)

    def measure(self, since: Mark) -> Figures:
        """End a round: wait until all is well, and say what happened since the *mark*."""
        self.heal()
        assert self._settled is not None
        self.note_history()
        verdict = self._verdict_between(since.instant, self._settled)
        beliefs = [belief for belief in self.beliefs() if belief.last >= since.moment]
        tokens = {belief.token for belief in beliefs}
        present = self.leader()[1].token
        starts = [float(line[6]) for line in self._lines("begin")]
        return Figures(
            survived=present == since.token,
            terms=len(tokens - {since.token}),
            leaderless=longest_hole(since.moment, ((b.first, b.last) for b in beliefs)),
            idle=longest_hole(since.moment, ((start, start) for start in starts)),
            overlap=overlap(beliefs),
            planned=verdict.planned,
            doubled=len(verdict.doubled),
            missed=len(verdict.missed),
            interrupted=verdict.interrupted,
        )

    def _verdict_between(self, since: datetime, until: datetime) -> Verdict:
        verdict = Verdict()
        for job, period in self.jobs.items():
            begun = defaultdict(list)
            for line in self._lines("begin"):
                if line[1] == job:
                    begun[datetime.fromisoformat(line[2])].append(int(line[4]))
            closed = self._closed(job)
            instant = min([*begun, *closed])
            while instant < until:
                if instant >= since:
                    self._judge(verdict, job, instant, begun[instant], closed.get(instant))
                instant += timedelta(seconds=period)
        return verdict

    def beliefs(self) -> list[Belief]:
        """Return who believed to lead when, one for each term."""
        path = beliefs_beside(self._evidence)
        found: dict[tuple[str, int], Belief] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            fields = line.split()
            if len(fields) == _FIELDS:
                node, token, first, last = fields[0], int(fields[1]), *map(float, fields[2:])
                known = found.get((node, token))
                start = known.first if known is not None else first
                found[node, token] = Belief(node, token, start, last)
        return list(found.values())

    def said(self, since: Mark, what: re.Pattern[str]) -> str | None:
        """Return the first line of a node's log since the mark that has *what* in it."""
        for node in self.nodes:
            with node.log.open("rb") as log:
                log.seek(since.logs.get(node.name, 0))
                for line in log.read().decode(errors="replace").splitlines():
                    if what.search(line):
                        return line
        return None

    def await_said(self, since: Mark, what: re.Pattern[str], within: float = 20.0) -> None:
        """Wait until a node's log has a line with *what* in it."""
        self.await_that(
            lambda: self.said(since, what) is not None, f"nobody says {what.pattern!r}", within
        )

    def doctor(self) -> list[str]:
        """Return what a doctor finds wrong with the cluster at present."""
        findings = examine_cluster(self.settings, clock=SystemClock(), timeout=1.0)
        return [f.message for f in findings if f.level is not Level.OK]


def longest_hole(start: float, stretches: Iterable[tuple[float, float]]) -> float:
    """Return the longest time from *start* on that no stretch covers, up to the last of them."""
    longest, reached = 0.0, start
    for first, last in sorted(stretches):
        longest = max(longest, first - reached)
        reached = max(reached, last)
    return longest


def overlap(beliefs: Sequence[Belief]) -> float:
    """Return the longest time in which two nodes believed to lead."""
    pairs = ((a, b) for i, a in enumerate(beliefs) for b in beliefs[i + 1 :] if a.node != b.node)
    return max((0.0, *(min(a.last, b.last) - max(a.first, b.first) for a, b in pairs)))
