"""What becomes of a single message of a leader's queue, and which workers refuse to start."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.app import trace as celery_trace
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state
from celery.worker.request import Request
from kombu import Queue
from kombu.serialization import prepare_accept_content

from leader_jobs.adapters import celery_consuming
from leader_jobs.adapters.celery_consuming import queue_of
from leader_jobs.adapters.celery_deliveries import Delivery
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.runs import Run, current_run
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import EndReason, Term, held_terms
from leader_jobs.testing import ManualClock

trace: Any = celery_trace
ELECTION = "reports"
QUEUE = queue_of(ELECTION)


class Bench:
    """
    A worker's parts around one delivery: a broker in memory, a task, a term, and what bodies saw.

    Attributes:
        clock: what terms are measured on.
        refused: how many messages were not let into the pool.
        runs: what `current_run` said in each body that ran.
    """

    election = ELECTION

    def __init__(self) -> None:
        self.clock = ManualClock()
        app: Any = Celery("bench", broker="memory://", set_as_current=False)
        self.app = app
        self.refused = 0
        self.runs: list[Run | None] = []
        self._held: Term | None = None
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self._tasks = {
            late: self.app.task(name=f"task-{late}", acks_late=late, shared=False)(self._body)
            for late in (False, True)
        }
        self.app.finalize()
        self._traced = list(trace._localized)
        trace._localized[:] = [app._tasks, prepare_accept_content(["json"]), "bench"]
        app.use_fast_trace_task = True
        for name, task in self.app.tasks.items():
            task.__trace__ = trace.build_tracer(name, task, app=self.app)
        self._connection = self.app.connection_for_read()
        self._channel: Any = self._connection.channel()
        queue: Any = Queue(QUEUE, channel=self._channel)
        queue.declare()
        queue.purge()  # which all of the process's connections share

    def close(self) -> None:
        """Close what was opened."""
        self.end_term()
        self.go_on.set()
        trace._localized[:] = self._traced
        self._connection.close()
        self.app.close()
        state.reset_state()

    def _body(self, *_: object, **__: object) -> str:
        self.runs.append(current_run())
        self.begun.set()
        assert self.go_on.wait(10)
        return "done"

    # -- the footing ------------------------------------------------------------------------------

    @property
    def term(self) -> Term | None:
        """The term that a body may be started under now."""
        return self._held if self._held is not None and self._held.may_start else None

    def holds(self, token: int) -> bool:
        """Whether this term goes on."""
        return self._held is not None and self._held.active and self._held.token == token

    def lead(self, token: int) -> Term:
        """Begin a term."""
        candidacy = Candidacy(election=ELECTION, id="a", token=token, ttl=15.0)
        self._held = Term(candidacy=candidacy, deadline=self.clock.now() + 10, clock=self.clock)
        held_terms.post(self._held)
        return self._held

    def end_term(self) -> None:
        """Lose it."""
        if self._held is not None:
            self._held.end(EndReason.LOST)
            held_terms.remove(self._held)

    # -- messages ---------------------------------------------------------------------------------

    def receive(self, *, late: bool) -> Delivery:
        """Publish a message, take it from the queue, and return its delivery."""
        task = self._tasks[late]
        options = {"headers": {"mine": "kept"}, "priority": 3, "expiration": 60}
        task.apply_async((1,), {"two": 2}, queue=QUEUE, task_id="an-id", **options)
        message = self.fetch()
        assert message is not None
        request: Any = Request(
            message,
            app=self.app,
            task=task,
            on_ack=message.ack_log_error,
            on_reject=message.reject_log_error,
        )
        delivery = Delivery(request, self, self._count_refusal, self.clock)
        state.task_reserved(request)
        return delivery

    def fetch(self) -> Any:
        """Take the next message from the queue; None if there is none."""
        return Queue(QUEUE, channel=self._channel).get(no_ack=False)

    def waiting(self) -> int:
        """How many messages wait in the queue."""
        size: int = self._channel._size(QUEUE)
        return size

    def _count_refusal(self) -> None:
        self.refused += 1


class LatePool(SoloPool):
    """A pool in which something happens between hand-over and start."""

    meanwhile: Callable[[], None]

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Let it happen, then run the task."""
        self.meanwhile()
        return super().apply_async(*args, **options)


@pytest.fixture(name="bench")
def _bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture(name="pool")
def _pool() -> SoloPool:
    return SoloPool(1)


@pytest.mark.parametrize("late", [False, True])
def test_a_body_starts_under_the_term(bench: Bench, pool: SoloPool, late: bool) -> None:
    """The task runs, its message is acknowledged, and its body knows election and token."""
    bench.lead(7)
    delivery = bench.receive(late=late)
    planned = bench.clock.utcnow()

    delivery.dispatch(pool)

    [run] = bench.runs
    assert run is not None
    assert (run.election, run.token, run.job, run.occurrence, run.attempt, run.planned_at) == (
        ELECTION,
        7,
        f"task-{late}",
        "an-id",
        1,
        planned,
    )
    assert delivery.request.acknowledged
    assert (bench.waiting(), bench.refused) == (0, 0)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("how", ["never led", "lost", "deadline", "in doubt"])
def test_without_a_term_nothing_gets_into_the_pool(
    bench: Bench, pool: SoloPool, late: bool, how: str
) -> None:
    """A message that comes too late goes back to the broker as it came."""
    if how != "never led":
        term = bench.lead(7)
        term.suspended = how == "in doubt"
    delivery = bench.receive(late=late)
    if how == "lost":
        bench.end_term()
    if how == "deadline":
        bench.clock.advance(10.0)

    delivery.dispatch(pool)

    assert (bench.runs, bench.waiting(), bench.refused) == ([], 1, 1)
    assert delivery.request not in state.reserved_requests


def lose_then(bench: Bench, *, again: bool) -> Callable[[], None]:
    """Return what ends the term, and begins the next one if *again*."""

    def lose() -> None:
        bench.end_term()
        if again:
            bench.lead(8)

    return lose


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_a_body_whose_term_ended_in_the_pool_does_not_start(
    bench: Bench, late: bool, again: bool
) -> None:
    """The message goes back once, unchanged, whether it had been acknowledged or not."""
    bench.lead(7)
    delivery = bench.receive(late=late)
    pool = LatePool(1)
    pool.meanwhile = lose_then(bench, again=again)

    delivery.dispatch(pool)

    assert (bench.runs, bench.waiting()) == ([], 1)
    returned, original = bench.fetch(), delivery.request.message
    assert returned.payload == original.payload
    ours = {"mine": "kept", "id": "an-id", "task": f"task-{late}", "retries": 0}
    assert {key: returned.headers[key] for key in ours} == ours
    assert returned.delivery_info["routing_key"] == QUEUE
    for name in ("content_type", "content_encoding"):
        assert getattr(returned, name) == getattr(original, name)
    for name in ("correlation_id", "reply_to", "priority", "delivery_mode", "expiration"):
        assert returned.properties.get(name) == original.properties.get(name)


def test_a_compressed_message_can_be_read_when_it_was_published_anew(bench: Bench) -> None:
    """What is published anew says nothing of a compression that was undone."""
    bench.app.conf.task_compression = "gzip"
    bench.lead(7)
    delivery = bench.receive(late=False)
    pool = LatePool(1)
    pool.meanwhile = bench.end_term

    delivery.dispatch(pool)

    assert bench.fetch().payload[:2] == [[1], {"two": 2}]


def test_what_waits_in_this_process_goes_back_at_once(bench: Bench) -> None:
    """A task behind a long one is given back on loss, and not started when its turn comes."""
    bench.lead(7)
    bench.go_on.clear()
    pool: Any = ThreadPool(1)
    pool.start()
    bench.receive(late=True).dispatch(pool)
    assert bench.begun.wait(10)
    waiting = bench.receive(late=False)
    waiting.dispatch(pool)
    bench.end_term()
    bench.lead(8)  # leading again makes the old hand-over no better

    returned = waiting.withdraw(in_process=True), waiting.withdraw(in_process=True)
    in_the_meantime = bench.waiting()
    bench.go_on.set()
    pool.stop()

    assert returned == (True, False)
    assert in_the_meantime == bench.waiting() == 1
    assert len(bench.runs) == 1


@pytest.mark.parametrize("in_process", [False, True])
def test_what_has_started_is_not_withdrawn(bench: Bench, in_process: bool) -> None:
    """A body that runs keeps its message, although its term is over; it can see that it is."""
    bench.lead(7)
    bench.go_on.clear()
    pool: Any = ThreadPool(1)
    pool.start()
    delivery = bench.receive(late=True)
    delivery.dispatch(pool)
    assert bench.begun.wait(10)
    ran_under = delivery.runs_under(7)
    bench.end_term()

    returned = delivery.withdraw(in_process=in_process)
    [run] = bench.runs
    lost = run is not None and run.lost.is_set()
    bench.go_on.set()
    pool.stop()

    assert (ran_under, returned, lost) == (True, False, True)
    assert bench.waiting() == 0


def test_what_went_to_other_processes_waits_for_their_word(bench: Bench) -> None:
    """Whether a child has started is not known here, so the child decides."""
    bench.lead(7)
    bench.go_on.clear()
    pool: Any = ThreadPool(1)
    pool.start()
    bench.receive(late=True).dispatch(pool)
    assert bench.begun.wait(10)
    waiting = bench.receive(late=True)
    waiting.dispatch(pool)
    bench.end_term()

    returned = waiting.withdraw(in_process=False)
    in_the_meantime = bench.waiting()
    bench.go_on.set()
    pool.executor.shutdown()  # runs what waits, unlike `stop`

    assert (returned, in_the_meantime) == (False, 0)
    assert (bench.waiting(), len(bench.runs)) == (1, 1)


def test_what_has_not_left_the_consumer_goes_back_on_loss(bench: Bench) -> None:
    """Before it was handed over, a message is kept while the term holds and no longer."""
    bench.lead(7)
    delivery = bench.receive(late=False)
    kept = delivery.withdraw(in_process=False)
    bench.end_term()

    returned = delivery.withdraw(in_process=False)

    assert (kept, returned, bench.waiting()) == (False, True, 1)


def test_a_worker_that_shuts_down_abandons_what_it_has_fetched(
    bench: Bench, pool: SoloPool
) -> None:
    """What has not gone to the pool goes back at once, although the term still holds."""
    bench.lead(7)
    delivery = bench.receive(late=False)

    delivery.abandon()
    delivery.abandon()
    delivery.dispatch(pool)

    assert (bench.runs, bench.waiting()) == ([], 1)


# -- workers that do not start ------------------------------------------------------------------------


def make_worker(pool: str = "solo", **config: Any) -> Any:
    """Return a worker, not started, that stands in elections."""
    app = Celery("worker", broker="memory://", set_as_current=False)
    app.conf.update(leader_jobs_store="memory://consuming", **config)
    celery_consuming.install(app)
    with app:
        return app.WorkController(pool=pool, concurrency=1)


def test_a_worker_must_not_wait_before_beat() -> None:
    """The election that beat stands in is refused, and the message says why."""
    with pytest.raises(ConfigurationError, match="behind a worker would never tick"):
        make_worker(leader_jobs_worker_elections=["default"])


def test_pools_that_do_not_fork_their_children_are_refused() -> None:
    """A spawned child shares no memory with its parent."""
    with pytest.raises(ConfigurationError, match="worker_pool_start_method"):
        make_worker(
            "prefork", worker_pool_start_method="spawn", leader_jobs_worker_elections=[ELECTION]
        )


def test_a_queue_with_another_routing_key_is_refused() -> None:
    """Messages are known by their routing key, so it must be the queue's name."""
    queues = [Queue("celery"), Queue(QUEUE, routing_key="other")]
    with pytest.raises(ConfigurationError, match="give it its own name as routing key"):
        make_worker(task_queues=queues, leader_jobs_worker_elections=[ELECTION])


def test_a_queue_that_can_not_be_created_is_refused() -> None:
    """Where Celery must not create queues, the leader's has to be listed."""
    with pytest.raises(ConfigurationError, match="add it to task_queues"):
        make_worker(
            task_queues=[Queue("celery")],
            task_create_missing_queues=False,
            leader_jobs_worker_elections=[ELECTION],
        )


def test_a_listed_queue_is_not_consumed_before_the_election() -> None:
    """A worker would consume everything in task_queues from its start."""
    worker = make_worker(
        task_queues=[Queue("celery"), Queue(QUEUE, routing_key=QUEUE)],
        leader_jobs_worker_elections=[ELECTION],
    )

    assert list(worker.app.amqp.queues.consume_from) == ["celery"]


def test_a_worker_without_elections_is_left_alone() -> None:
    """Without elections to stand in, nothing is opened and nothing is replaced."""
    worker = make_worker()

    assert not any("LeaderConsuming" in repr(step) for step in worker.consumer.steps)
    assert worker.consumer.on_task_request == worker.process_task
