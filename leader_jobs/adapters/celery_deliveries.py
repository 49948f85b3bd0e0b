"""
One message of a leader's queue on its way through a worker: it starts under the term, or goes back.

The term is looked at when the message leaves the consumer for the pool, and again in the pool (child
process, thread or greenlet), where the body is about to start. To that end a `Delivery` takes the place
of the request's way into the pool and of the pool's way back; Celery's tracer, and whatever guards a
task has, run inside. A task that was handed over under one term does not start under the next.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from celery.worker import state
from celery.worker.request import Request

from leader_jobs.clock import Clock
from leader_jobs.runs import Lost, Run, running
from leader_jobs.term import Term, held_terms

__all__ = ["Delivery", "Footing", "Order", "start_under"]

_log = logging.getLogger(__name__)
#: What the pool returns in place of a result when a body was not started.
_REFUSED: Final = "leader_jobs: not started"


class Order(NamedTuple):
    """What goes to the pool with a task from the queue of an election: under which term, and which."""

    election: str
    token: int
    task: str
    task_id: str
    attempt: int
    planned_at: datetime


def start_under(order: Order, target: Callable[..., Any], *args: Any) -> Any:
    """Call *target*, Celery's tracer, if the term of *order* holds; in the pool, just before the body."""
    term = held_terms.find(order.election)
    if term is None or term.token != order.token or not term.may_start:
        return _REFUSED
    run = Run(
        election=order.election,
        job=order.task,
        occurrence=order.task_id,
        planned_at=order.planned_at,
        token=order.token,
        attempt=order.attempt,
        lost=Lost(term),
    )
    with running(run):
        return target(*args)


class Footing(Protocol):
    """What a delivery has to know of its queue's election."""

    @property
    def election(self) -> str:
        """The election's name."""
        ...

    @property
    def term(self) -> Term | None:
        """The term that a body may be started under now, or None."""
        ...

    def holds(self, token: int) -> bool:
        """Whether term *token* goes on, in doubt or not."""
        ...


class Delivery:
    """
    One message of a leader's queue on its way through the worker.

    Args:
        request: Celery's request for it.
        following: the election of its queue.
        refused: called when a message was not let into the pool.
        clock: where instants come from.

    It is started or goes back, never both and neither twice, whoever asks first.
    """

    def __init__(
        self, request: Request, following: Footing, refused: Callable[[], None], clock: Clock
    ) -> None:
        self.request: Any = request
        self.following = following
        self.token: int | None = None
        self._refused = refused
        self._clock = clock
        self._pool: Any = None
        self._accepted = False
        self._returned = False
        self._lock = threading.Lock()

    def dispatch(self, pool: Any, **options: Any) -> Any:
        """Hand the task to *pool* if the term holds: takes the place of `execute_using_pool`."""
        term = self.following.term
        with self._lock:
            if term is not None and not self._returned:
                self.token, self._pool = term.token, pool
        if self.token is None:
            self.give_back()
            self._refused()
            return None
        # As the request's class has it before Celery binds it to the pool, which is us here.
        return Request.execute_using_pool(self.request, self, **options)  # type: ignore[arg-type]  # ours

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Sequence[Any],
        *,
        callback: Callable[..., Any],
        accept_callback: Callable[..., Any],
        **options: Any,
    ) -> Any:
        """Have the pool look at the term before it calls *target*."""

        def accepted(pid: int, moment: float) -> None:
            with self._lock:
                self._accepted = not self._returned
            if self._accepted:
                accept_callback(pid, moment)

        def finished(result: Any, **more: Any) -> None:
            if result == _REFUSED:
                self.give_back()
            else:
                callback(result, **more)

        return self._pool.apply_async(
            start_under,
            args=(self._order(), target, *args),
            callback=finished,
            accept_callback=accepted,
            **options,
        )

    def _order(self) -> Order:
        request = self.request
        return Order(
            election=self.following.election,
            token=self.token or 0,
            task=request.task_name,
            task_id=request.id,
            attempt=1 + int(request.request_dict.get("retries") or 0),
            planned_at=(request.eta or self._clock.utcnow()).astimezone(UTC),
        )

    def runs_under(self, token: int) -> bool:
        """Whether the body was started under term *token* and has not ended."""
        return self.token == token and self.request in state.active_requests

    def withdraw(self, *, in_process: bool) -> bool:
        """
        Give the message back if it is known not to have started and no longer may.

        Args:
            in_process: whether the pool shares this process, so that what it has accepted is known.

        Returns:
            Whether it was given back by this call.
        """
        with self._lock:
            over = (
                self.following.term is None
                if self.token is None
                else in_process and not self._accepted and not self.following.holds(self.token)
            )
            if self._returned or not over or not self._is_kept():
                return False
            self._returned = True
        self._return()
        return True

    def abandon(self) -> None:
        """Give the message back if it has not gone to the pool; the event loop has ended."""
        if self.token is None and not self._returned and self._is_kept():
            self._returned = True
            # The request's own way to the broker leads through the event loop.
            self.request.message.reject_log_error(
                _log, self.request.connection_errors, requeue=True
            )
            self.request.acknowledged = True

    def _is_kept(self) -> bool:
        """Whether the worker still has the message, which it loses with its connection."""
        return self.request in state.reserved_requests

    def give_back(self) -> bool:
        """
        Give the message back to the broker; the body did not start.

        Returns:
            False if that was done before.
        """
        with self._lock:
            if self._returned:
                return False
            self._returned = True
        self._return()
        return True

    def _return(self) -> None:
        request = self.request
        _log.info(
            "task %s[%s] goes back to the broker: this node does not lead election %r now",
            request.name,
            request.id,
            self.following.election,
        )
        state.task_ready(request)
        if request.acknowledged:
            _publish_again(request)
        else:
            request.reject(requeue=True)


def _publish_again(request: Any) -> None:
    """Publish the message of *request*, which was acknowledged, as it came."""
    message = request.message
    # It was decompressed when it came in.
    headers = {key: value for key, value in message.headers.items() if key != "compression"}
    names = ("correlation_id", "reply_to", "priority", "delivery_mode", "expiration")
    kept = {name: message.properties[name] for name in names if message.properties.get(name)}
    if "expiration" in kept:
        kept["expiration"] = int(kept["expiration"]) / 1000  # came in milliseconds, goes in seconds
    try:
        with request.app.producer_or_acquire() as producer:
            producer.publish(
                message.body,
                exchange=request.delivery_info["exchange"] or "",
                routing_key=request.delivery_info["routing_key"],
                headers=headers,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                retry=True,
                retry_policy={"max_retries": 3},
                **kept,
            )
    except Exception as error:  # noqa: BLE001  in a callback of the pool, which must go on
        msg = "task %s[%s] was acknowledged, not started, and could not be given back: %r"
        _log.critical(msg, request.name, request.id, error)
