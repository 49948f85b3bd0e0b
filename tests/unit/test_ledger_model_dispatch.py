"""
Random histories of beats and workers; see `test_ledger_model` for jobs that run where they are claimed.

P2: an occurrence has one identity and is claimed once. P3: every planned instant is claimed or passed
over for a reason, what is claimed is dispatched until it ends, and nothing stays open for ever. P4:
a body starts once per occurrence, attempt and retry, whatever the broker loses or repeats; runs of a
job that may not overlap follow each other.
"""

import logging
import sys
from datetime import datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from leader_jobs.occurrences import Policy
from leader_jobs.planned import PlannedJob
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.stores.base import Limits
from testsupport.dispatching import Beat, Broker, DispatchPromises, Hand
from testsupport.fleet import FleetClock, FleetStore
from testsupport.ledgers import make_planned

MOST_OPEN = 5
ALL = Policy(catch_up="all", max_burst=3)
WIDE = Policy(catch_up="all", max_burst=4, overlap=True)
#: Two versions of one schedule.
RELEASES: tuple[tuple[PlannedJob, ...], ...] = tuple(
    (
        make_planned("all", 7 + release, policy=ALL),
        make_planned("latest", 10, rerun=True),
        make_planned("overlap", 5 + release, policy=WIDE, rerun=True),
        make_planned("window", 11, policy=Policy(catch_up="all", window=40)),
        make_planned("sent", 6 + release, guarded=False, policy=WIDE),
        make_planned("sent-latest", 9, guarded=False),
        make_planned("once", 8, once=True, policy=ALL),
    )
    for release in (0, 1)
)
JOBS = {job.name: job for job in RELEASES[0]}
SCHEDULES = {job.schedule.fingerprint: job.schedule for jobs in RELEASES for job in jobs}
INDEX = st.integers(0, 9)
BOTH = st.booleans()
TROUBLE = st.sampled_from(["", "", "", "lose", "withhold", "deliver"])
HOW = st.sampled_from(["succeed", "succeed", "fail", "retry", "again"])


class BeatMachine(RuleBasedStateMachine):
    """Everything that can happen to beats, a broker and workers."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.promises = DispatchPromises(JOBS, SCHEDULES, self.broker, MOST_OPEN)
        self.clock = FleetClock()
        self.store = FleetStore(
            self.clock, limits=Limits(3, 128, 1_000_000), watch=self.promises.seen
        )
        self.beats: list[Beat] = []
        self.hands: list[Hand] = []
        self.release = 0
        self.booted = 0
        self.stepped = 0.0

    def teardown(self) -> None:
        """End with a quiet time; then nothing that was due before it may be left."""
        if sys.exc_info()[0] is None:
            self.quiet_time()

    @initialize()
    def found(self) -> None:
        """Two beats and two workers, and all jobs are known."""
        for _ in range(2):
            self.boot_beat()
            self.boot_hand()
        self.live(1, True, "succeed")

    def boot_beat(self) -> None:
        """Another beat comes up."""
        self.booted += 1
        self.store.restore()  # nobody gets so far without a store
        beat = Beat(f"beat-{self.booted}", self.store, self.clock, RELEASES[self.release])
        self.beats.append(beat)

    def boot_hand(self) -> None:
        """Another worker comes up."""
        self.booted += 1
        self.store.restore()
        self.hands.append(Hand(f"hand-{self.booted}", self.store, self.clock, self.promises))

    def beat(self, index: int) -> Beat:
        """Return one of the beats, most often one that leads."""
        leading = [beat for beat in self.beats if beat.leads] if index < 7 else []
        return (leading or self.beats)[index % len(leading or self.beats)]

    def consume(self, hand: Hand) -> None:
        """Have a worker take every message that waits no longer."""
        due = [m for m in self.broker.messages if m.not_before <= self.clock.now()]
        for message in due:
            self.broker.messages.remove(message)
            hand.take(message, self.broker)

    # -- what happens when all is well ------------------------------------------------------------

    @rule(seconds=st.integers(1, 12), consume=BOTH, how=HOW)
    def live(self, seconds: int, consume: bool, how: str) -> None:
        """Time passes, and everybody does what there is to do."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            for beat in self.beats:
                beat.work(self.broker)
            for hand in self.hands if consume else ():
                hand.settle(self.broker)
                self.consume(hand)
                for body in tuple(hand.bodies):
                    hand.end(body, how, self.broker)

    @rule(seconds=st.sampled_from([1.0, 5.0, 13.0, 45.0, 130.0]))
    def idle(self, seconds: float) -> None:
        """Time passes, and nobody gets to do anything."""
        self.clock.advance(seconds)

    @rule(index=INDEX, most=st.none() | st.integers(1, 4))
    def claim(self, index: int, most: int | None) -> None:
        """A beat claims what is due, and gets no further."""
        self.beat(index).mind()
        self.beat(index).claim(self.broker, most)

    @rule(index=INDEX, count=st.integers(1, 4), refused=st.sampled_from([False] * 5 + [True]))
    def publish(self, index: int, count: int, refused: bool) -> None:
        """A beat sends a few messages."""
        for _ in range(count):
            self.beat(index).publish(self.broker, refused=refused)

    @rule(index=INDEX, trouble=TROUBLE)
    def mark(self, index: int, trouble: str) -> None:
        """A beat records what it sent."""
        self.trouble_with_the_store(trouble)
        self.beat(index).mark()

    @rule(index=INDEX, which=INDEX, keep=BOTH, trouble=TROUBLE)
    def take(self, index: int, which: int, keep: bool, trouble: str) -> None:
        """A worker takes a message; *keep* if the broker will deliver it once more."""
        if not self.broker.messages:
            return
        self.trouble_with_the_store(trouble)
        message = self.broker.messages[which % len(self.broker.messages)]
        if not keep:
            self.broker.messages.remove(message)
        self.hands[index % len(self.hands)].take(message, self.broker)

    @rule(index=INDEX, how=st.none() | HOW, seconds=st.sampled_from([0.0, 1.0, 6.0]))
    def be_quicker(self, index: int, how: str | None, seconds: float) -> None:
        """A worker is through with a message before the beat has recorded that it was sent."""
        beat, known = self.beat(index), len(self.broker.messages)
        beat.claim(self.broker)
        beat.publish(self.broker)
        hand = self.hands[index % len(self.hands)]
        for message in self.broker.messages[known:] if how else ():
            self.broker.messages.remove(message)
            hand.take(message, self.broker)
            if message.claim in hand.bodies:
                hand.end(message.claim, how or "", self.broker)
        self.clock.advance(seconds)
        beat.claim(self.broker)
        beat.mark()

    @rule(index=INDEX, which=INDEX, how=HOW)
    def end_body(self, index: int, which: int, how: str) -> None:
        """A body comes to its end."""
        hand = self.hands[index % len(self.hands)]
        if hand.bodies:
            hand.end(hand.bodies[which % len(hand.bodies)], how, self.broker)

    # -- what goes wrong --------------------------------------------------------------------------

    @rule(index=INDEX, what=st.sampled_from(["kill", "depose", "boot"]))
    def beats_come_and_go(self, index: int, what: str) -> None:
        """A leader dies, or is deposed and does not know it yet."""
        if what == "boot":
            if len(self.beats) < 3:
                self.boot_beat()
            return
        beat = self.beat(index)
        beat.dies()
        if what == "kill":
            self.beats.remove(beat)
            if not self.beats:
                self.boot_beat()

    @rule(index=INDEX, what=st.sampled_from(["kill", "lapse", "boot"]))
    def workers_come_and_go(self, index: int, what: str) -> None:
        """A worker dies, or is taken for dead and goes on."""
        hand = self.hands[index % len(self.hands)]
        if what != "boot":
            hand.lapse()
        if what == "kill":
            self.hands.remove(hand)
        if len(self.hands) < 2 or (what == "boot" and len(self.hands) < 3):
            self.boot_hand()

    @rule(what=st.sampled_from(["lose", "double", "purge"]), which=INDEX)
    def trouble_with_the_broker(self, what: str, which: int) -> None:
        """Messages are lost, or are delivered twice."""
        if not self.broker.messages:
            return
        message = self.broker.messages[which % len(self.broker.messages)]
        if what == "lose":
            self.broker.messages.remove(message)
        elif what == "double":
            self.broker.messages.append(message)
        else:
            self.broker.messages.clear()

    @rule(what=st.sampled_from(["withhold", "deliver", "cut", "restore"]))
    def trouble_with_the_store(self, what: str) -> None:
        """The next reply is lost, or the next request late; or what was late arrives."""
        if what == "lose":
            self.store.lose_reply("commit")
        elif what == "withhold":
            self.store.withhold_next = True
        elif what == "deliver":
            self.store.deliver()
        elif what == "cut":
            self.store.cut()
        elif what == "restore":
            self.store.restore()

    @rule(seconds=st.sampled_from([-15.0, -2.0, 2.0, 40.0]))
    def step_wall(self, seconds: float) -> None:
        """The wall clock steps."""
        if abs(self.stepped + seconds) < 60:
            self.stepped += seconds
            self.clock.step_wall(seconds)

    @rule(release=st.integers(0, 1), off=st.sets(st.sampled_from(sorted(JOBS)), max_size=2))
    def edit(self, release: int, off: set[str]) -> None:
        """The schedule is edited, and some jobs are switched off."""
        self.release = release
        for beat in self.beats:
            beat.switch(RELEASES[release], off)

    # -- what must come of it ---------------------------------------------------------------------

    @rule()
    def quiet_time(self) -> None:
        """Everything heals; soon nothing that was due before that is left."""
        self.store.restore()
        self.store.lose_reply("nothing")
        self.store.withhold_next = False
        self.store.deliver()
        healed = self.clock.utcnow()
        for beat in self.beats:
            beat.switch(beat.jobs, ())
        for hand in self.hands:
            if hand.name in self.promises.lapsed:
                hand.bodies.clear()  # whoever was taken for dead dies at last
        for step in range(400):
            self.clock.advance(1.0 if step < 60 else 15.0)
            self.work_it_off()
            if not self.left(healed):
                return
        msg = f"left over: {self.left(healed)}"
        raise AssertionError(msg)

    def work_it_off(self) -> None:
        """Let everybody do all there is to do, with bodies that end at once."""
        for beat in self.beats:
            beat.work(self.broker)
        for hand in self.hands:
            hand.settle(self.broker)
            self.consume(hand)
            for body in tuple(hand.bodies):
                hand.end(body, "succeed", self.broker)

    def left(self, healed: datetime) -> list[str]:
        """Return what is open or due of what was planned until everything was well."""
        left = []
        for name, job in JOBS.items():
            record = self.promises.records.get(name)
            if record is None:
                left.append(f"{name} is not known")
                continue
            left += [str(e) for e in record.open if e.planned_at <= healed and not _settled(job, e)]
            if job.once or not record.schedule:
                continue
            due = SCHEDULES[record.schedule].next_after(record.cursor)
            if due is None or due <= healed:
                left.append(f"{name}: {due} is due")
        return left


def _settled(job: PlannedJob, entry: OccurrenceRecord) -> bool:
    return entry.state is State.DISPATCHED and not job.guarded


@pytest.mark.timeout(300)  # a failure is worth the time to make it small
def test_beats_and_workers_keep_what_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes between any two steps, lost and repeated messages, lost replies, edits, clock steps."""
    monkeypatch.setattr("leader_jobs.decisions._MOST_OPEN", MOST_OPEN)
    monkeypatch.setattr(logging.getLogger("leader_jobs"), "disabled", True)
    for name in ("claims", "decisions", "batches"):
        monkeypatch.setattr(logging.getLogger(f"leader_jobs.{name}"), "disabled", True)
    run_state_machine_as_test(
        BeatMachine,
        settings=settings(
            max_examples=250, stateful_step_count=50, deadline=None, report_multiple_bugs=False
        ),
    )
