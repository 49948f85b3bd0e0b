"""
A beat that leads when told to, on the clock of the test, with a real database and a real broker.

It has all the parts of a node of beat but its thread: the test takes the turns.
"""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from celery import Celery

from leader_jobs.adapters.celery_entries import HEADER
from leader_jobs.adapters.celery_publisher import Publisher
from leader_jobs.adapters.celery_ticking import BeatTerm
from leader_jobs.adapters.celery_timetable import Timetable, scheduler_class
from leader_jobs.candidate import Candidate
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.brokers import Broker, Message
from testsupport.ledgers import LedgerNode
from testsupport.place import ELECTION

__all__ = ["DATABASE_SCHEDULER", "LOOK", "Desk", "Sent"]

DATABASE_SCHEDULER: Final = "django_celery_beat.schedulers:DatabaseScheduler"
#: Seconds between two looks at the schedule, as in a node of beat.
LOOK: Final = 5.0


class Sent(NamedTuple):
    """What lies on the broker: the entry, the planned instant, and the message."""

    entry: str
    planned_at: datetime
    message: Message


class Desk:
    """
    A node of beat.

    Args:
        name: its label; the first one made leads, the next one when the first one has died.
        store: where the election is held.
        broker: where messages go.
        clock: the clock of everything but django-celery-beat's own.
        scheduler: the wrapped scheduler's class.
        conf: more of Celery's configuration.
    """

    def __init__(
        self,
        name: str,
        store: MemoryStore,
        broker: Broker,
        clock: ManualClock,
        *,
        scheduler: str = DATABASE_SCHEDULER,
        conf: dict[str, Any] | None = None,
    ) -> None:
        self.app = Celery("desk", fixups=[], set_as_current=False)
        self.app.conf.update(broker.settings, result_expires=None, timezone="UTC")
        self.app.conf.update(conf or {})
        self.node = LedgerNode(name, store, clock)
        self.clock = clock
        self.scheduler: Any = scheduler_class(scheduler)(app=self.app, lazy=True)
        self.timetable = Timetable(self.app, self.scheduler)
        self._publisher = Publisher(self.app, ELECTION, self.timetable.send)
        self._candidate = Candidate(
            ELECTION, store=store, node=name, ttl=10.0, version="0", clock=clock
        )
        self._broker = broker
        self._beat: BeatTerm | None = None

    def lead(self) -> None:
        """Begin a term, and have the first turn."""
        self.timetable.set_up()
        self._beat = BeatTerm(
            self.node.term(),
            candidate=self._candidate,
            ledger=self.node.ledger,
            timetable=self.timetable,
            publisher=self._publisher,
            clock=self.clock,
            look_every=LOOK,
        )
        self.tick()

    def tick(self) -> None:
        """Have turns until nothing more is due now."""
        assert self._beat is not None, "it does not lead"
        while self._beat.tick() == 0.0:
            pass

    def go_on(self, seconds: float) -> None:
        """Let time pass, with a turn in every second of it."""
        until = self.clock.utcnow() + timedelta(seconds=seconds)
        while self.clock.utcnow() < until:
            left = (until - self.clock.utcnow()).total_seconds()
            self.clock.advance(min(1.0, left))
            self.tick()

    def look(self) -> None:
        """Go on to the next look at the schedule, so that what was edited up to now is known."""
        assert self._beat is not None, "it does not lead"
        limit = self.clock.now() + LOOK
        due = self._beat._look_at
        while self._beat._look_at == due:
            assert self.clock.now() < limit, f"it did not look for {LOOK} s"
            self.go_on(1)

    def resign(self) -> None:
        """End the term as a node does that is asked to end."""
        assert self._beat is not None, "it does not lead"
        self._beat.finish()
        self._beat.drop()
        self._beat = None
        self.timetable.rest()
        self.node.dies()

    def depose(self) -> None:
        """End the term as a node does whose lease has run out."""
        assert self._beat is not None, "it does not lead"
        self.node.dies()
        self.timetable.forget_books()
        self._beat.drop()
        self._beat = None
        self.timetable.rest()

    def die(self) -> None:
        """End as by kill -9: nothing is finished, marked or written any more."""
        self._beat = None
        self.node.dies()

    def close(self) -> None:
        """Let go of broker and database."""
        self._publisher.close()
        self.timetable.close()

    def sent(self, entry: str | None = None) -> list[Sent]:
        """Return what was sent, of one entry or of all, in the order of planned instants."""
        found = [
            Sent(
                message.headers["periodic_task_name"],
                datetime.fromisoformat(message.headers[HEADER]["planned_at"]),
                message,
            )
            for message in self._broker.messages("celery")
        ]
        return sorted(
            (one for one in found if entry in (None, one.entry)), key=lambda one: one.planned_at
        )

    def instants(self, entry: str) -> list[datetime]:
        """Return the planned instants of what was sent of an entry."""
        return [one.planned_at for one in self.sent(entry)]
