"""
One leading beat without a process: every part of it real, time and store in the test's hands.

Messages go to Celery's transport on a folder, or to any other broker.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Self

from celery import Celery
from celery.beat import Scheduler

from leader_jobs.adapters.celery_publisher import Publisher
from leader_jobs.adapters.celery_ticking import BeatTerm
from leader_jobs.adapters.celery_timetable import Timetable
from leader_jobs.candidate import Candidate
from leader_jobs.ledger import Ledger
from leader_jobs.records import OccurrenceRecord
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.brokers import Broker, Message
from testsupport.place import ELECTION

__all__ = ["START", "BeatRig"]

#: Where the clock stands at first: half a minute before an hour, and before a day.
START: Final = datetime(2026, 1, 1, 23, 59, 30, tzinfo=UTC)
_TTL: Final = 3600.0


class BeatRig:
    """
    A leader's term, to be ticked by hand.

    Args:
        broker: where messages go.
        entries: the beat schedule.
        scheduler: the class of the wrapped scheduler.
        conf: more of Celery's configuration.

    Attributes:
        app: the application.
        clock: what everything goes by.
        scheduler: the wrapped scheduler.
        beat: the present term.
    """

    def __init__(
        self,
        broker: Broker,
        entries: dict[str, Any],
        *,
        scheduler: type[Scheduler] = Scheduler,
        **conf: Any,
    ) -> None:
        self.broker = broker
        self.app = Celery("rig", set_as_current=False)
        self.app.conf.update(broker.settings, timezone="UTC", beat_schedule=entries, **conf)
        self.clock = ManualClock(START)
        self.app.now = self.clock.utcnow  # type: ignore[method-assign]  # schedules ask it
        self.store = MemoryStore(self.clock)
        self.candidate = Candidate(ELECTION, store=self.store, node="a", ttl=_TTL, clock=self.clock)
        self._ledger = Ledger(
            self.store,
            ELECTION,
            node="a",
            owner=self.candidate.proposal.incarnation,
            clock=self.clock,
        )
        self.scheduler = scheduler(self.app, lazy=True)
        self.timetable = Timetable(self.app, self.scheduler)
        self.publisher = Publisher(self.app, ELECTION, self.timetable.send)
        try:
            self.beat = self.lead()
        except BaseException:  # a schedule that the test wants refused: nothing of it stays behind
            self.candidate.stop()
            raise

    @classmethod
    @contextmanager
    def running(cls, broker: Broker, entries: dict[str, Any], **options: Any) -> Iterator[Self]:
        """Make one, see to its first tick, and put everything away at the end."""
        rig = cls(broker, entries, **options)
        try:
            rig.beat.tick()
            yield rig
        finally:
            rig.beat.drop()
            rig.publisher.close()
            rig.timetable.close()
            rig.candidate.stop()
            rig.app.close()

    def lead(self) -> BeatTerm:
        """Begin a term, after the present one if there is one."""
        if self.candidate.term is not None:
            self.beat.drop()
            self.candidate.resign()
        term = self.candidate.campaign(10.0)
        self.timetable.set_up()
        return BeatTerm(
            term,
            candidate=self.candidate,
            ledger=self._ledger,
            timetable=self.timetable,
            publisher=self.publisher,
            clock=self.clock,
            look_every=5.0,
        )

    def lead_again(self) -> None:
        """Have the present term end, and another one begin."""
        self.beat = self.lead()
        self.beat.tick()

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, with a tick at every step of it."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.beat.tick()

    def messages(self, queue: str = "celery") -> list[Message]:
        """Return what was published."""
        return self.broker.messages(queue)

    def planned(self, queue: str = "celery") -> list[tuple[str, datetime]]:
        """Return job and planned instant of what was published, sorted."""
        tickets = [message.headers["leader_jobs"] for message in self.messages(queue)]
        return sorted((t["job"], datetime.fromisoformat(t["planned_at"])) for t in tickets)

    def history(self, job: str) -> list[OccurrenceRecord]:
        """Return all that the ledger keeps of the occurrences of *job*."""
        reader = Ledger(self.store, ELECTION, node="reader", owner="reader", clock=self.clock)
        return reader.history(job)
