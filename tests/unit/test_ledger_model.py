"""
Random histories of a fleet, each commit and each body compared with what is promised.

P2: an occurrence has one identity and is claimed once, by the term that leads. P3: every planned
instant is run, open, or recorded as passed over, and nothing stays open for ever. P4: a body starts
once per occurrence; again only where the job asks for it, and the former run is dead or handed back.
"""

import logging
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from leader_jobs.occurrences import Policy
from leader_jobs.stores.base import Limits
from testsupport.fleet import FleetClock, FleetStore, Node
from testsupport.ledgers import make_job
from testsupport.promises import Promises

#: Two releases of one program; the second one has another schedule for half of the jobs.
RELEASES = tuple(
    (
        make_job("all", 7 + release, rerun=True, policy=Policy(catch_up="all", max_burst=3)),
        make_job("latest", 10, policy=Policy()),
        make_job("overlap", 5 + release, policy=Policy(catch_up="all", window=20, overlap=True)),
        make_job("rerun", 11, rerun=True, policy=Policy(window=30)),
        make_job("skip", 6, policy=Policy(catch_up="skip")),
    )
    for release in (0, 1)
)
JOBS = {job.name: job for job in RELEASES[0]}
SCHEDULES = {job.schedule.fingerprint: job.schedule for jobs in RELEASES for job in jobs}
NODES = st.integers(0, 2)
BOTH = st.booleans()


class FleetMachine(RuleBasedStateMachine):
    """Everything that can happen to a fleet."""

    def __init__(self) -> None:
        super().__init__()
        self.promises = Promises(JOBS, SCHEDULES)
        self.clock = FleetClock()
        self.store = FleetStore(
            self.clock, limits=Limits(2, 128, 1_000_000, at_once=1), watch=self.promises.seen
        )
        self.nodes: list[Node] = []
        self.booted = 0
        self.restore_at: float | None = None
        self.stepped = 0.0

    def teardown(self) -> None:
        """End with a quiet time; then nothing may be left open."""
        try:
            if sys.exc_info()[0] is None:
                self.quiet_time()
                self.no_promise_is_broken()
        finally:
            for node in self.nodes:
                node.die()

    def node(self, index: int) -> Node:
        """Return one of the nodes."""
        return self.nodes[index % len(self.nodes)]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and each process mind its lease meanwhile."""
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            self.clock.advance(min(1.0, until - self.clock.now()))
            if self.restore_at is not None and self.clock.now() >= self.restore_at:
                self.restore()
            for node in self.nodes:
                node.mind_the_lease()

    # -- what happens when all is well ------------------------------------------------------------

    @initialize()
    def found(self) -> None:
        """Two nodes, of which one leads, and every job is known."""
        self.boot(0)
        self.boot(0)
        self.live(1)

    def boot(self, release: int) -> None:
        """Another process comes up."""
        self.booted += 1
        node = Node(
            self.booted,
            store=self.store,
            clock=self.clock,
            jobs=RELEASES[release],
            began=self.promises.begins,
        )
        node.mind_the_lease()
        self.nodes.append(node)

    def live(self, seconds: int, steps: int = 1000) -> None:
        """Time passes, and everybody does what there is to do."""
        for _ in range(seconds):
            self.pass_time(1.0)
            for node in self.nodes:
                node.work(steps)

    @rule(seconds=st.integers(1, 8), ending=BOTH, steps=st.sampled_from([2, 5, 12, 1000]))
    def live_on(self, seconds: int, ending: bool, steps: int) -> None:
        """Time passes, bodies come to their end, and everybody gets some way with what is to do."""
        for body in [body for node in self.nodes for body in node.bodies if ending]:
            body.done = True
        self.live(seconds, steps)

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 13.0, 40.0]))
    def idle(self, seconds: float) -> None:
        """Time passes, and no thread gets to do anything."""
        self.pass_time(seconds)

    @rule(index=NODES)
    def work(self, index: int) -> None:
        """One process does all it can do now."""
        self.node(index).work()

    @rule(index=NODES, which=st.integers(0, 9), steps=st.integers(1, 6))
    def step(self, index: int, which: int, steps: int) -> None:
        """One thread goes on for a few steps, up to some call of the store or after it."""
        able = self.node(index).able()
        if able:
            task = able[which % len(able)]
            for _ in range(steps):
                if task.ready:
                    task.resume()

    @rule(index=NODES, which=st.integers(0, 9), fails=st.booleans())
    def end_body(self, index: int, which: int, fails: bool) -> None:
        """A body comes to its end."""
        bodies = self.node(index).bodies
        if bodies:
            body = bodies[which % len(bodies)]
            body.done, body.fails = True, fails

    # -- what goes wrong --------------------------------------------------------------------------

    @rule(index=NODES, what=st.sampled_from(["kill", "shut_down", "black_out", "boot"]), late=BOTH)
    def processes(self, index: int, what: str, late: bool) -> None:
        """Processes come and go; *late* if the store learns of a death by the lease alone."""
        node = self.node(index)
        if what == "black_out":
            for each in self.nodes:
                each.die()
            self.nodes.clear()
            self.pass_time(30.0 if late else 2.0)
        elif what == "boot" or len(self.nodes) == 1:
            if len(self.nodes) == 3:
                return
        elif not node.frozen:
            self.nodes.remove(node)
            if what == "shut_down":
                node.shut_down()
            else:
                node.die()
                if node.candidacy is not None and not late:
                    self.store.expire(node.candidacy)
            return
        self.boot(int(late))

    @rule(index=NODES, what=st.sampled_from(["revoke", "resign", "freeze"]))
    def leadership(self, index: int, what: str) -> None:
        """A term ends: unknown to its holder, by will, or while the holder can not see it."""
        node = self.node(index)
        if what == "freeze":
            node.frozen = not node.frozen
        elif what == "resign":
            node.resign()
        elif node.candidacy is not None:
            self.store.expire(node.candidacy)

    @rule(index=NODES, seconds=st.integers(1, 3), knows=BOTH)
    def deposed(self, index: int, seconds: int, knows: bool) -> None:
        """The one who leads is deposed, and the next one gets to work before or beside it."""
        leading = [node for node in self.nodes if node.term is not None]
        if not leading:
            return
        node = leading[index % len(leading)]
        if knows:
            node.resign()
        elif node.candidacy is not None:
            self.store.expire(node.candidacy)
            for other in self.nodes:
                if other is not node:
                    other.mind_the_lease()
                    other.work()
            node.work()
        self.live(seconds)

    @rule(what=st.sampled_from(["lose", "withhold", "deliver"]), index=NODES)
    def network(self, what: str, index: int) -> None:
        """The next reply is lost, or the next request late; or what was late arrives."""
        if what == "deliver":
            self.store.deliver()
        elif what == "lose":
            self.store.lose_reply("commit")
        else:
            self.store.withhold_next = True
        self.node(index).work()

    @rule(seconds=st.sampled_from([2.0, 8.0, 30.0]))
    def cut(self, seconds: float) -> None:
        """Nobody reaches the store for some time."""
        self.store.cut()
        self.restore_at = self.clock.now() + seconds

    def restore(self) -> None:
        """The store is back."""
        self.store.restore()
        self.restore_at = None

    @rule(seconds=st.sampled_from([-15.0, -2.0, 2.0, 40.0]))
    def step_wall(self, seconds: float) -> None:
        """The wall clock steps."""
        if abs(self.stepped + seconds) < 60:
            self.stepped += seconds
            self.clock.step_wall(seconds)

    @invariant()
    def no_promise_is_broken(self) -> None:
        """No commit and no body so far was one that must not be."""
        for error in self.promises.broken:
            raise error

    # -- what must come of it ---------------------------------------------------------------------

    @rule()
    def quiet_time(self) -> None:
        """Everything heals; soon nothing is open, and nothing due is left."""
        self.restore()
        self.store.lose_reply("nothing")
        self.store.withhold_next = False
        self.store.deliver()
        for node in self.nodes:
            node.frozen = False
        for _ in range(150):
            self.pass_time(1.0)
            for node in self.nodes:
                self.work_and_end_bodies(node)
            if not self.left():
                return
        msg = f"left over: {self.left()}"
        raise AssertionError(msg)

    def work_and_end_bodies(self, node: Node) -> None:
        """Let a process do all it can do, with bodies that come to their end at once."""
        node.work()
        for _ in range(100):
            if not node.bodies:
                return
            for body in node.bodies:
                body.done = True
            node.work()
        msg = f"{node} starts bodies without end"
        raise AssertionError(msg)

    def left(self) -> list[str]:
        """Return the jobs that have something open, or something due."""
        now, left = self.clock.utcnow(), []
        for name in JOBS:
            record = self.promises.records.get(name)
            if record is None or record.open:
                left.append(f"{name}: {record}")
                continue
            due = SCHEDULES[record.schedule].next_after(record.cursor)
            if due is None or due <= now:
                left.append(f"{name}: {due} is due")
        return left


@pytest.mark.timeout(300)  # a failure is worth the time to make it small
def test_a_fleet_keeps_what_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes, freezes, lost and late requests, revoked leases, cuts, deploys, clock steps."""
    monkeypatch.setattr(logging.getLogger("leader_jobs"), "disabled", True)
    for name in ("claims", "runpool", "runner"):
        monkeypatch.setattr(logging.getLogger(f"leader_jobs.{name}"), "disabled", True)
    run_state_machine_as_test(
        FleetMachine,
        settings=settings(
            max_examples=250, stateful_step_count=40, deadline=None, report_multiple_bugs=False
        ),
    )
