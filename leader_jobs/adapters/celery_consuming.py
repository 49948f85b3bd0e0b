"""
Leader-only consuming: of all workers, the elected one consumes the queue ``leader_jobs.<election>``.

A worker stands in each of ``leader_jobs_worker_elections``. Tasks get to the elected one by routing::

    app.conf.leader_jobs_worker_elections = ["reports"]
    app.conf.task_routes = {"shop.tasks.nightly": {"queue": "leader_jobs.reports"}}

The queue is declared as Celery declares a queue that it has to create, durable, unless ``task_queues``
has one of that name. The election must not be one that beat stands in.

What is guaranteed, in every pool: a body starts on a worker only while that worker's term holds and is
not in doubt. The queue switch is no fence, since a worker has fetched messages ahead, so each one is
looked at twice; see `leader_jobs.adapters.celery_deliveries`. A message that is late goes back to the
broker: rejected with requeue, or, if it had been acknowledged as Celery does by default when a task
starts, published anew as it came, once. On loss what has not started goes back at once; only what was
written to a prefork child's pipe waits until the child refuses it, and a task with an ``eta`` or a rate
limit until it is due.

What is not: between the last look and a body's first line a freeze goes unseen, and a body that started
may outlive the term. ``current_run()`` has the token to hand on, and tells such a body by ``lost``;
``leader_jobs_revoke_after`` terminates it where the pool can (prefork, gevent and eventlet). What a
killed or frozen worker had fetched comes back when the broker thinks so: from RabbitMQ with the
connection, from Redis after the ``visibility_timeout`` (an hour unless set; in kombu 5.7 green workers
look for it only when they connect). Redis loses what was on its way to a worker that is killed, and
Celery what was acknowledged early. A worker that leads and has lost its broker stays leader.

On a warm shutdown the worker ceases to consume, lets what runs come to its end, and resigns then.

An elected worker consumes within milliseconds, on Redis within its ``brpop_timeout`` of a second if it
waits for other queues. Gevent and eventlet workers have no event loop that could be woken: without
traffic they come round every 2 s. A body there that never yields keeps the lease from being renewed.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from celery import Celery, bootsteps, signals
from celery.worker import state

from leader_jobs.adapters.celery_deliveries import Delivery
from leader_jobs.adapters.celery_settings import options_of, settings_of
from leader_jobs.adapters.celery_terms import SharedTerms
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.escort import Escort
from leader_jobs.exceptions import ConfigurationError, StoreError
from leader_jobs.standing import place_of
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store
from leader_jobs.term import Term, held_terms
from leader_jobs.vitals import Place

__all__ = ["LeaderConsuming", "install", "queue_of"]

_log = logging.getLogger(__name__)
_LOOK: Final = 0.2
_STOP_LIMIT: Final = 5.0


def queue_of(election: str) -> str:
    """Return the name of the queue that the elected worker of *election* consumes."""
    return f"leader_jobs.{election}"


def install(app: Celery) -> None:
    """Have the workers of *app* stand in its ``leader_jobs_worker_elections``, if it has any."""
    app.steps["consumer"].add(LeaderConsuming)


class Following:
    """
    This worker's part in one election, followed by a thread.

    Args:
        place: ours.
        shared: where the pool's children see the term.
        changed: called when the queue should be consumed and is not, or the other way round.
        lost: called with election and token when a term is over.
        clock: where moments come from.

    Attributes:
        consuming: what the consumer last made of it.
    """

    def __init__(
        self,
        place: Place,
        shared: SharedTerms,
        *,
        changed: Callable[[], None],
        lost: Callable[[str, int], None],
        clock: Clock,
    ) -> None:
        self.election: Final = place.candidate.election
        self.consuming = False
        self._candidate = place.candidate
        self._orders = place.orders
        self._shared = shared
        self._changed = changed
        self._lost = lost
        self._clock = clock
        self._ending = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def term(self) -> Term | None:
        """The term that a body may be started under now, or None."""
        term = self._candidate.term
        return term if term is not None and self._may_start(term) else None

    def holds(self, token: int) -> bool:
        """Whether term *token* goes on, in doubt or not."""
        term = self._candidate.term
        return term is not None and term.token == token

    def _may_start(self, term: Term) -> bool:
        return term.may_start and not self._orders.is_paused()

    def start(self) -> None:
        """Stand, from now on; a second call changes nothing."""
        if self._thread is None:
            name = f"leader-jobs-worker-{self.election}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Stand no more: resign when nothing runs in this worker any more; returns at once."""
        self._ending.set()
        self._candidate.release()

    def stop(self) -> None:
        """Resign and stand no more; returns at once."""
        self._stopping.set()
        self.end()

    def join(self, timeout: float) -> None:
        """Wait up to *timeout* seconds until the store has heard."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._candidate.start()
            while not self._ending.is_set():
                term = self._candidate.wait_for_term()
                if term is not None and not self._ending.is_set():
                    self._follow(term)
        finally:  # whatever happens here, no term stays without one who follows it
            self._shared.clear(self.election)
            self._candidate.stop(_STOP_LIMIT)

    def _follow(self, term: Term) -> None:
        with suppress(StoreError):  # then the steward finds out, and nothing starts before
            self._orders.look()
        while term.active and not self._is_done():
            may_start = self._may_start(term)
            self._shared.show(term, may_start=may_start)
            if self.consuming != may_start:
                self._changed()
            self._clock.wait(term.ended, _LOOK)
        self._shared.clear(self.election)
        if not term.active:
            self._lost(self.election, term.token)

    def _is_done(self) -> bool:
        ended = self._ending.is_set() and not state.active_requests
        return ended or self._stopping.is_set()


class LeaderConsuming(bootsteps.StartStopStep):
    """
    The part of a worker's consumer that stands in the elections and follows their terms.

    Raises:
        ConfigurationError: the elections or their queues can not be served like that.

    Candidates start with the first connection to the broker, after the pool has forked, and live on
    through lost connections.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._consumer = consumer
        self._connected = False
        self._followings: dict[str, Following] = {}
        app: Celery = consumer.app
        elections = options_of(app).worker_elections
        if not elections:
            return
        settings = settings_of(app)
        _check(elections, settings, consumer)
        self._clock: Clock = SystemClock()
        self._store: Store = open_store(settings, clock=self._clock)
        # Probes are the worker's, which has them before there is a consumer.
        self._escort = Escort(settings, serve=False, clock=self._clock)
        self._revoke_after = options_of(app).revoke_after
        self._shared = SharedTerms(elections, self._clock)
        signals.worker_process_init.connect(self._lend, weak=False)
        for election in elections:
            self._followings[queue_of(election)] = self._follow(settings, election)
            consumer.app.amqp.queues.deselect(queue_of(election))
        self._deliveries: weakref.WeakSet[Delivery] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._asked = False
        self._closing = False
        self._over = threading.Event()
        self._complained = False
        self._to_free = 0
        self._freeing = False
        self._take = consumer.on_task_request
        consumer.on_task_request = self._reserve

    def _follow(self, settings: Settings, election: str) -> Following:
        place = place_of(
            settings,
            election,
            store=self._store,
            clock=self._clock,
            observers=self._escort.observers,
        )
        return Following(place, self._shared, changed=self.ask, lost=self._lost, clock=self._clock)

    def include_if(self, consumer: Any) -> bool:
        """Take part only where there are elections to stand in."""
        return bool(self._followings)

    # -- the consumer's life ----------------------------------------------------------------------

    def start(self, consumer: Any) -> None:
        """Begin, or begin again after the connection was lost; a leader consumes at once."""
        self._connected = True
        self._asked = False
        for following in self._followings.values():
            following.consuming = False
            following.start()
        self.ask()

    def close(self, consumer: Any) -> None:
        """Begin to shut down: resign as soon as what runs has ended, which Celery waits for."""
        self._closing = True
        for following in self._followings.values():
            following.end()

    def stop(self, consumer: Any) -> None:
        """Consume no more: the connection is gone, or the worker shuts down. The term goes on."""
        self._connected = False
        for queue in self._followings:
            consumer.app.amqp.queues.deselect(queue)
        if self._closing:
            for delivery in self._snapshot():
                delivery.abandon()

    def terminate(self, consumer: Any) -> None:
        """Consume no more: the worker shuts down and does not wait for what runs."""
        self.stop(consumer)

    def shutdown(self, consumer: Any) -> None:
        """Resign at the latest now: Celery calls this when the pool is gone."""
        self._over.set()
        for following in self._followings.values():
            following.stop()
        for following in self._followings.values():
            following.join(_STOP_LIMIT)
        self._escort.close()
        self._store.close()

    def _lend(self, **_: Any) -> None:
        if not self._shared.is_holder:  # the solo pool sends this signal too
            held_terms.borrow(self._shared.find)

    # -- called by the consumer -------------------------------------------------------------------

    def _reserve(self, request: Any) -> None:
        following = self._followings.get(request.delivery_info.get("routing_key"))
        if following is not None:
            delivery = Delivery(request, following, self._refused, self._clock)
            with self._lock:
                self._deliveries.add(delivery)
            request.execute_using_pool = delivery.dispatch
        self._take(request)

    def _refused(self) -> None:
        """Free the place in the pool that was kept for a task, and see why it was refused."""
        semaphore = self._consumer.controller.semaphore
        if self._connected and self._consumer.pool.uses_semaphore and semaphore is not None:
            self._free(semaphore)
        self.ask()

    def _free(self, semaphore: Any) -> None:
        # Whatever waits for a place is dispatched within `release`, and may be refused as well: it
        # only adds to the count then, so that a long queue is no deep recursion.
        self._to_free += 1
        while self._to_free and not self._freeing:
            self._freeing = True
            self._to_free -= 1
            try:
                semaphore.release()
            finally:
                self._freeing = False

    # -- what the terms mean for the consumer -----------------------------------------------------

    def ask(self) -> None:
        """Have `_settle` called in the consumer's thread; from any thread, as often as you like."""
        if self._connected and not self._asked:
            self._asked = True
            # From a thread of its own, which wakes the event loop (kombu 5.7): what the loop's own
            # callbacks schedule, such as a message's way back, waits for the next event otherwise.
            threading.Thread(
                target=self._consumer.call_soon, args=(self._settle,), daemon=True
            ).start()

    def _settle(self) -> None:
        """Consume where we lead, and nowhere else; give back what must not start any more."""
        self._asked = False
        consumer = self._consumer
        if not self._connected or consumer.task_consumer is None:
            return
        for queue, following in self._followings.items():
            leads = following.term is not None
            if leads and not consumer.task_consumer.consuming_from(queue):
                consumer.add_task_queue(queue)
            elif not leads and consumer.task_consumer.consuming_from(queue):
                consumer.cancel_task_queue(queue)
            following.consuming = leads
        self._withdraw()

    def _withdraw(self) -> None:
        in_process = not self._consumer.pool.uses_semaphore
        returned = [delivery.withdraw(in_process=in_process) for delivery in self._snapshot()]
        if any(returned):
            self.ask()

    def _lost(self, election: str, token: int) -> None:
        """Called in the thread that followed the term."""
        self.ask()
        if self._consumer.hub is None:
            # The consumer of a green pool may be waiting for a place in it; acknowledging from
            # another greenlet is what Celery does as well.
            self._withdraw()
        if self._revoke_after is not None:
            threading.Thread(target=self._revoke, args=(election, token), daemon=True).start()

    def _revoke(self, election: str, token: int) -> None:
        if self._clock.wait(self._over, self._revoke_after or 0.0):
            return
        if self._consumer.hub is None:
            self._terminate_all(election, token)
        else:
            self._consumer.call_soon(self._terminate_all, election, token)

    def _terminate_all(self, election: str, token: int) -> None:
        for delivery in self._snapshot():
            if delivery.following.election == election and delivery.runs_under(token):
                self._terminate(delivery.request)

    def _terminate(self, request: Any) -> None:
        try:
            request.terminate(self._consumer.pool)
        except NotImplementedError:
            if not self._complained:
                _log.warning("leader_jobs_revoke_after: this worker's pool can not terminate tasks")
            self._complained = True
        except Exception:  # noqa: BLE001  the others have to be terminated still
            _log.exception("task %s[%s] was terminated, or not", request.name, request.id)

    def _snapshot(self) -> list[Delivery]:
        with self._lock:
            return list(self._deliveries)


def _check(elections: Sequence[str], settings: Settings, consumer: Any) -> None:
    if settings.election in elections:
        msg = (
            f"leader_jobs_worker_elections has {settings.election!r}, the election of beat: a beat "
            "that waits in line behind a worker would never tick; give workers one of their own"
        )
        raise ConfigurationError(msg)
    forks = consumer.pool.uses_semaphore
    if forks and getattr(consumer.controller, "pool_start_method", "fork") == "spawn":
        msg = (
            "leader_jobs_worker_elections needs pool children that are forked; "
            "set worker_pool_start_method to 'fork', or take another pool"
        )
        raise ConfigurationError(msg)
    for election in elections:
        _check_queue(queue_of(election), consumer.app)


def _check_queue(queue: str, app: Any) -> None:
    try:
        declared = app.amqp.queues[queue]
    except KeyError:
        msg = f"there is no queue {queue!r}; add it to task_queues"
        raise ConfigurationError(msg) from None
    if declared.routing_key != queue:
        msg = (
            f"queue {queue!r} has routing key {declared.routing_key!r}; give it its own name as "
            "routing key, by which its messages are known"
        )
        raise ConfigurationError(msg)
