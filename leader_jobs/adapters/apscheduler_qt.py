"""
A scheduler on Qt's event loop, woken by threads that have none.

Qt's timers fire only in a thread with an event loop: a ``wakeup`` from any other never comes true. A
signal whose receiver lives in the scheduler's thread is delivered there.
"""

from collections.abc import Callable
from typing import Any

from apscheduler.schedulers.qt import qtcore

from leader_jobs.adapters.apscheduler_mixin import LeaderMixin

__all__ = ["LeaderQtMixin"]

_Signal = getattr(qtcore, "Signal", None) or qtcore.pyqtSignal


class _Bell(qtcore.QObject):  # type: ignore[misc]  # whichever binding is installed, it is not typed
    """Has *answer* called in the thread that made it, whoever rings."""

    rung = _Signal()

    def __init__(self, answer: Callable[[], None]) -> None:
        super().__init__()
        self._answer = answer
        self.rung.connect(self._on_rung, qtcore.Qt.ConnectionType.QueuedConnection)

    def _on_rung(self) -> None:
        self._answer()


class LeaderQtMixin(LeaderMixin):
    """`LeaderMixin` for schedulers on Qt's event loop; `start` it in the thread that runs the loop."""

    _bell: _Bell | None = None

    def start(self, *args: Any, **kwargs: Any) -> Any:
        """Start the scheduler as `LeaderMixin.start` does."""
        self._bell = _Bell(super().wakeup)
        return super().start(*args, **kwargs)

    def wakeup(self) -> None:
        """Have the scheduler's own thread look for what was claimed; any thread may call it."""
        if self._bell is not None:
            self._bell.rung.emit()
