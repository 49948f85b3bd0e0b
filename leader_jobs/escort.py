"""
What goes along with a process that stands in elections: probes, metrics, hooks, as its settings say;
and what systemd is told, where it listens.

Every entry point puts it together here, so that all of them know the same settings and options::

    with Escort(settings) as escort:
        part = job_part(…, observers=escort.observers)
        Service([part], grace=settings.grace, leaving=escort.leave).run()
"""

import os
from argparse import ArgumentParser
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.events import Observer

if TYPE_CHECKING:
    from leader_jobs.hooks import Hooks
    from leader_jobs.metrics import Metrics
    from leader_jobs.probe_server import ProbeServer
    from leader_jobs.probes import Probes
    from leader_jobs.systemd import Notifier

__all__ = ["OPTIONS", "Escort", "add_options", "observe_everywhere"]

#: The settings that `add_options` has options for, by their names among the parsed ones.
OPTIONS: Final = (
    "probe_port",
    "probe_host",
    "metrics",
    "on_elected",
    "on_stepped_down",
    "hook_timeout",
)
_everywhere: Final[list[Observer]] = []


def observe_everywhere(observer: Observer) -> None:
    """
    Have *observer* told of the events of every candidate of this process that an entry point makes.

    For what a framework has of its own, such as Django's signals; a second call changes nothing.
    """
    if observer not in _everywhere:
        _everywhere.append(observer)


def add_options(parser: ArgumentParser) -> None:
    """Declare the options that override settings of this kind; None where they are not given."""
    parser.add_argument(
        "--probe-port",
        type=int,
        metavar="PORT",
        help="answer /livez, /readyz, /leader and /status on this port (0: any that is free)",
    )
    parser.add_argument(
        "--probe-host", metavar="HOST", help="the address to do so on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--metrics",
        action="store_true",
        default=None,
        help="answer /metrics as well; needs the extra 'metrics'",
    )
    parser.add_argument("--on-elected", metavar="COMMAND", help="run this when a term begins")
    parser.add_argument("--on-stepped-down", metavar="COMMAND", help="run this when one has ended")
    parser.add_argument(
        "--hook-timeout",
        type=float,
        metavar="SECONDS",
        help="kill such a command after so long (default: 30)",
    )


class Escort:
    """
    Probes, metrics and hooks of one process, and its word to systemd; a context manager.

    Args:
        settings: what is wanted.
        serve: whether this process speaks for itself: answers probes, where the settings name a port,
            and tells systemd, where that listens (``NOTIFY_SOCKET``).
        notify: False if it is not for this process to tell systemd, though it answers probes.
        clock: where moments and instants come from.

    Raises:
        ConfigurationError: a hook's command is not there, or ``prometheus_client`` is not installed.

    Attributes:
        observers: who is to be told of the events of this process's candidates.
        pid: the process it was made in.

    In the child of a fork it does nothing. Where systemd listens, what this process starts is not to
    know of it: ``NOTIFY_SOCKET`` is removed from the environment.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        serve: bool = True,
        notify: bool = True,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.pid: Final = os.getpid()
        metrics = _metrics_of(settings)
        self._hooks = _hooks_of(settings, clock)
        self._server = _server_of(settings, metrics, clock) if serve else None
        self._notifier = _notifier_of(settings, clock) if serve and notify else None
        own = (each for each in (metrics, self._hooks, self._notifier) if each is not None)
        self.observers: Final[tuple[Observer, ...]] = (*_everywhere, *own)

    @property
    def port(self) -> int | None:
        """The port that probes are answered on, or None."""
        return None if self._server is None else self._server.port

    def start(self) -> None:
        """
        Answer probes, and tell systemd, from now on.

        Raises:
            ConfigurationError: the port is taken, or can not be listened on for another reason.
        """
        if self._server is not None:
            self._server.start()
        if self._notifier is not None:
            self._notifier.start()

    def leave(self) -> None:
        """Have systemd know that this process was asked to end; a signal handler may call it."""
        if self._notifier is not None:
            self._notifier.leave()

    def close(self) -> None:
        """Answer no more, and wait, for a limited time, for hooks; candidates have to be stopped before."""
        if self.pid != os.getpid():
            return
        if self._notifier is not None:
            self._notifier.close()
        if self._hooks is not None:
            self._hooks.close()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _metrics_of(settings: Settings) -> "Metrics | None":
    if not settings.metrics:
        return None
    from leader_jobs.metrics import metrics_of_process

    return metrics_of_process()


def _hooks_of(settings: Settings, clock: Clock) -> "Hooks | None":
    if settings.on_elected is None and settings.on_stepped_down is None:
        return None
    from leader_jobs.hooks import Hooks

    return Hooks.of(settings, clock=clock)


def _server_of(settings: Settings, metrics: "Metrics | None", clock: Clock) -> "ProbeServer | None":
    if settings.probe_port is None:
        return None
    from leader_jobs.probe_server import ProbeServer

    probes = _probes_of(settings, metrics, clock)
    return ProbeServer(probes, host=settings.probe_host, port=settings.probe_port, clock=clock)


def _notifier_of(settings: Settings, clock: Clock) -> "Notifier | None":
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from leader_jobs.systemd import Notifier

    probes = _probes_of(settings, None, clock)
    return Notifier.of_environment(os.environ, livez=lambda: probes.answer("/livez"), clock=clock)


def _probes_of(settings: Settings, metrics: "Metrics | None", clock: Clock) -> "Probes":
    from leader_jobs.probes import Probes

    exposition = None if metrics is None else metrics.exposition
    return Probes(lambda: settings, metrics=exposition, clock=clock)
