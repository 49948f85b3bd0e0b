"""Schedulers in the test's own process, and what there is to know of what they did."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from apscheduler.events import EVENT_ALL, SchedulerEvent

from leader_jobs import Run, current_run
from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler, LeaderMixin
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.ledger import Ledger
from leader_jobs.records import OccurrenceRecord
from leader_jobs.stores.base import Candidacy
from leader_jobs.stores.factory import open_store
from leader_jobs.stores.memory import MemoryStore

__all__ = ["LONG", "Body", "Heard", "Rig", "until"]

LONG = 10.0
_SOON = 0.01


def until(question: Callable[[], Any], within: float = LONG) -> Any:
    """Wait until *question* has an answer that is not false, and return it; fail after *within* s."""
    clock, never = SystemClock(), threading.Event()
    limit = clock.now() + within
    while not (answer := question()):
        assert clock.now() < limit, f"still {answer!r} after {within} s"
        clock.wait(never, _SOON)
    return answer


class Body:
    """
    The body of a job: it notes its runs, and may be held until it is told to end.

    Args:
        held: whether each run waits for `end`.
        error: what it raises.
    """

    def __init__(self, *, held: bool = False, error: BaseException | None = None) -> None:
        self.runs: list[Run] = []
        self.error = error
        self._held = held
        self._begun = threading.Semaphore(0)
        self._end = threading.Semaphore(0)

    def __call__(self, *args: object) -> str:
        run = current_run()
        assert run is not None
        self.runs.append(run)
        self._begun.release()
        if self._held:
            assert self._end.acquire(timeout=LONG)
        if self.error is not None:
            raise self.error
        return "done"

    def wait(self, times: int = 1) -> Run:
        """Wait until so many runs more have begun; return the last one."""
        for _ in range(times):
            assert self._begun.acquire(timeout=LONG), f"only {len(self.runs)} runs"
        return self.runs[-1]

    def is_silent(self, during: float) -> bool:
        """Whether no run begins during the next *during* seconds."""
        return not self._begun.acquire(timeout=during)

    def end(self, times: int = 1) -> None:
        """Let so many held runs end."""
        self._end.release(times)


class Heard:
    """A listener that notes the events of a scheduler."""

    def __init__(self, scheduler: LeaderMixin, mask: int = EVENT_ALL) -> None:
        self.events: list[SchedulerEvent] = []
        scheduler.add_listener(self.events.append, mask)

    def of(self, code: int) -> list[Any]:
        """Return the events of that code so far."""
        return [event for event in tuple(self.events) if event.code == code]

    def wait(self, code: int, times: int = 1) -> Any:
        """Wait until so many events of that code were heard; return the last one."""
        return until(lambda: len(self.of(code)) >= times and self.of(code)[-1])


class Rig:
    """
    One test's store, and the schedulers on it.

    Args:
        url: the store.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: list[LeaderMixin] = []

    @classmethod
    @contextmanager
    def on(cls, url: str) -> Iterator["Rig"]:
        """Give a rig, and shut down at the end what is still running."""
        rig = cls(url)
        yield rig
        rig.close()

    @property
    def memory(self) -> MemoryStore:
        """The store, if it is one in memory."""
        return MemoryStore.named(self.url.removeprefix("memory://"), SystemClock())

    def scheduler(
        self, kind: Callable[..., LeaderMixin] = LeaderBackgroundScheduler, **options: Any
    ) -> LeaderMixin:
        """Return a scheduler on the store; *options* beginning with ``lj_`` are of its section."""
        section = {
            key.removeprefix("lj_"): options.pop(key) for key in [*options] if key[:3] == "lj_"
        }
        given = {"store": self.url, "ttl": 5} | section
        scheduler = kind(leader_jobs=given, **{"timezone": "UTC"} | options)
        self.made.append(scheduler)
        return scheduler

    def started(self, **options: Any) -> LeaderMixin:
        """Return a scheduler that leads."""
        scheduler = self.scheduler(**options)
        scheduler.start()
        until(lambda: scheduler.leads)
        return scheduler

    def add(self, scheduler: LeaderMixin, body: Callable[..., object], **options: Any) -> Any:
        """Add the job ``job``, which is due now and, unless *options* say so, not again."""
        given: dict[str, Any] = {
            "trigger": "interval",
            "id": "job",
            "next_run_time": datetime.now(UTC),
        } | options
        if given["trigger"] == "interval" and "seconds" not in options:
            given["hours"] = 1
        return scheduler.add_job(body, **given)

    def history(self, job: str, election: str = "default") -> list[OccurrenceRecord]:
        """Return what the ledger has of a job's occurrences, oldest first."""
        clock = SystemClock()
        settings = Settings(store=self.url)
        with closing(open_store(settings, clock=clock)) as store:
            return Ledger(store, election, node="test", owner="test", clock=clock).history(job)

    def depose(self) -> None:
        """End the leader's lease as a store may; it stands again at once."""
        (leader, *_) = self.memory.candidates("default", deadline=SystemClock().now() + LONG)
        self.memory.expire(Candidacy("default", leader.id, leader.token, 5))

    def wait_closed(self, job: str, count: int = 1) -> list[OccurrenceRecord]:
        """Wait until so many occurrences of a job have ended; return them, oldest first."""

        def closed() -> list[OccurrenceRecord]:
            found = [entry for entry in self.history(job) if entry.ended_at is not None]
            return found if len(found) >= count else []

        ended: list[OccurrenceRecord] = until(closed)
        return ended

    def close(self) -> None:
        """Shut down what is running."""
        for scheduler in self.made:
            if scheduler.running:
                scheduler.shutdown()
