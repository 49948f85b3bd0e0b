"""
What this process does in its elections, in numbers, for Prometheus.

They are collected where they are asked for, by the setting ``metrics``, never merely because
``prometheus_client`` is importable. Gauges are read when somebody scrapes; what has to be counted is
counted by an observer of the candidates' events. The numbers are those of one process, so scrape every
process: a standby's are as telling as the leader's.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.events import ElectionWon, Event, Renewed, Resumed, Suspended, TermEnded
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.positions import Position
from leader_jobs.vitals import Place, vitals

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

__all__ = ["Metrics", "metrics_of_process", "publish"]

#: Upper bounds of the buckets of renewals, in seconds.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LABELS: Final = ("election", "node")


class Metrics:
    """
    Counts as an observer, and is read as a collector of ``prometheus_client``.

    Args:
        places: this process's places in elections.
        clock: where moments and instants come from.

    Raises:
        ConfigurationError: ``prometheus_client`` is not installed.
    """

    def __init__(
        self,
        *,
        places: Callable[[], tuple[Place, ...]] = vitals.places,
        clock: Clock | None = None,
    ) -> None:
        self._library = _library()
        self._places = places
        self._clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._terms: Counter[tuple[str, ...]] = Counter()
        self._suspended: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._suspended_at: dict[tuple[str, ...], float] = {}
        self._renewals = self._library.Histogram(
            "leader_jobs_renew_seconds",
            "How long renewals of the leader's lease took that worked.",
            _LABELS,
            buckets=_BUCKETS,
            registry=None,
        )

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        who = (event.election, event.node)
        with self._lock:
            if isinstance(event, ElectionWon):
                self._terms[who] += 1
            elif isinstance(event, Suspended):
                self._suspended_at[who] = self._clock.now()
            elif isinstance(event, Resumed | TermEnded):
                began = self._suspended_at.pop(who, None)
                if began is not None:
                    self._suspended[who] += self._clock.now() - began
        if isinstance(event, Renewed):
            self._renewals.labels(*who).observe(event.took)

    def collect(self) -> Iterator[Any]:
        """Yield every metric as it is at this moment; for ``prometheus_client``."""
        places = self._places()
        positions = [Position.of(place, clock=self._clock) for place in places]
        yield from self._of_positions(positions)
        yield from self._of_events(positions)
        yield from self._renewals.collect()
        yield from self._of_tallies(places)

    def _of_positions(self, positions: list[Position]) -> Iterator[Any]:
        leading = [p for p in positions if p.leads]
        yield self._gauge("leader", "1 on the leader, 0 on a standby.", positions, _leads)
        yield self._gauge("token", "The fencing token of the term.", leading, _token)
        yield self._gauge(
            "deadline_margin_seconds",
            "Seconds until the term ends unless its lease is renewed.",
            leading,
            lambda p: p.remaining or 0.0,
        )
        yield self._gauge(
            "jobs_overdue", "Jobs that are later than they should be.", leading, lambda p: p.overdue
        )
        yield self._gauge(
            "paused", "1 while the whole election is paused.", leading, lambda p: float(p.paused)
        )

    def _of_events(self, positions: list[Position]) -> Iterator[Any]:
        with self._lock:
            terms: dict[tuple[str, ...], float] = {**self._terms}
            now = self._clock.now()
            suspended: dict[tuple[str, ...], float] = {**self._suspended}
            for who, began in self._suspended_at.items():
                suspended[who] = suspended.get(who, 0.0) + now - began
        standing = [(p.election, p.node) for p in positions]
        yield self._counter(
            "terms", "Terms that this process began.", dict.fromkeys(standing, 0.0) | terms
        )
        yield self._counter(
            "suspended_seconds",
            "Seconds in which this process led and its renewals failed.",
            dict.fromkeys(standing, 0.0) | suspended,
        )

    def _of_tallies(self, places: Iterable[Place]) -> Iterator[Any]:
        core = self._library.core
        refused: dict[tuple[str, ...], float] = {}
        restored: dict[tuple[str, ...], float] = {}
        occurrences = core.CounterMetricFamily(
            "leader_jobs_occurrences",
            "Occurrences that this process closed, by the state they ended in.",
            labels=(*_LABELS, "state"),
        )
        lag = core.SummaryMetricFamily(
            "leader_jobs_dispatch_lag_seconds",
            "How long after their planned instants occurrences were dispatched or started.",
            labels=_LABELS,
        )
        for place in places:
            who, tally = (place.candidate.election, place.candidate.node), place.ledger.tally
            refused[who], restored[who] = tally.refused, tally.restored
            for state, number in tally.closed.items():
                occurrences.add_metric((*who, state.value), number)
            lag.add_metric(who, tally.lag.count, tally.lag.total)
        yield occurrences
        yield lag
        yield self._counter(
            "refused_claims",
            "Writes that the store refused because the term did not lead any more.",
            refused,
        )
        yield self._counter(
            "restores",
            "Times that this process noted that the ledger was taken back by a restored snapshot.",
            restored,
        )

    def _gauge(
        self,
        name: str,
        text: str,
        positions: Iterable[Position],
        value: Callable[[Position], float],
    ) -> Any:
        family = self._library.core.GaugeMetricFamily(f"leader_jobs_{name}", text, labels=_LABELS)
        for position in positions:
            family.add_metric((position.election, position.node), value(position))
        return family

    def _counter(self, name: str, text: str, values: Mapping[tuple[str, ...], float]) -> Any:
        family = self._library.core.CounterMetricFamily(f"leader_jobs_{name}", text, labels=_LABELS)
        for who, value in values.items():
            family.add_metric(who, value)
        return family

    def exposition(self) -> tuple[bytes, str]:
        """Return all metrics as text, and what kind of text that is; for ``/metrics``."""
        registry = self._library.CollectorRegistry()
        registry.register(self)
        return self._library.generate_latest(registry), self._library.CONTENT_TYPE_LATEST


def _leads(position: Position) -> float:
    return float(position.leads)


def _token(position: Position) -> float:
    return float(position.token or 0)


def _library() -> Any:
    try:
        import prometheus_client
        import prometheus_client.core
    except ImportError:
        msg = (
            "metrics are asked for, and prometheus_client is not installed: "
            'pip install "leader-jobs[metrics]", or set metrics to false'
        )
        raise ConfigurationError(msg) from None
    return prometheus_client


_guard: Final = threading.Lock()
_of_process: list[Metrics] = []
_registries: Final[WeakSet[Any]] = WeakSet()


def metrics_of_process() -> Metrics:
    """
    Return the metrics of this process, the same at each call.

    Raises:
        ConfigurationError: ``prometheus_client`` is not installed.
    """
    with _guard:
        if not _of_process:
            _of_process.append(Metrics())
        return _of_process[0]


def publish(registry: "CollectorRegistry | None" = None) -> None:
    """
    Have the metrics of this process in *registry* too, for a program that has a ``/metrics`` already.

    Args:
        registry: the registry; the default one of ``prometheus_client`` if None.

    Raises:
        ConfigurationError: ``prometheus_client`` is not installed.

    A second call changes nothing. What has to be counted is counted where the setting ``metrics`` is
    true.
    """
    metrics = metrics_of_process()
    found = _library().REGISTRY if registry is None else registry
    with _guard:
        if found not in _registries:
            found.register(metrics)
            _registries.add(found)
