"""Threads that take turns: one runs at a time, and the test says which and until where."""

import threading
from collections.abc import Callable

__all__ = ["Killed", "Task", "actor", "park"]

#: Seconds a turn may take; it takes longer only if two threads wait for each other.
_TOO_LONG = 20.0
_current = threading.local()


class Killed(BaseException):
    """Raised inside a task that was killed, so that it ends without doing anything more."""


def _at_once() -> bool:
    return True


class Task:
    """
    A thread that runs only while its `resume` is being called.

    Args:
        call: what it runs.
        actor: on whose behalf.
    """

    def __init__(self, call: Callable[[], object], *, actor: str) -> None:
        self.actor = actor
        self._call = call
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._killed = False
        self._ready: Callable[[], bool] = _at_once
        self.over = False

    @property
    def ready(self) -> bool:
        """Whether it has something to do: it has not ended, and what it waits for is there."""
        return not self.over and self._ready()

    def resume(self) -> None:
        """Let it run until it parks or ends; raises what it raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._go.release()
        assert self._back.acquire(timeout=_TOO_LONG), "the task waits for what can not happen"
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def kill(self) -> None:
        """End it where it is; nothing that it still wants to do is done."""
        self._killed = True
        if self._thread is None:
            self.over = True
        if not self.over:
            self.resume()

    def pause(self, ready: Callable[[], bool]) -> None:
        """Hand the turn back until somebody resumes the task; called by the task itself."""
        if not self._killed:
            self._ready = ready
            self._back.release()
            self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        _current.task = self
        try:
            self._call()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  it is raised again in `resume`
            self._error = error
        finally:
            self.over = True
            self._back.release()


def actor() -> str:
    """Return on whose behalf the running code acts; empty in the test itself."""
    task: Task | None = getattr(_current, "task", None)
    return task.actor if task is not None else ""


def park(ready: Callable[[], bool] = _at_once) -> None:
    """Pause the task this code is part of until *ready* and resumed; elsewhere do nothing."""
    task: Task | None = getattr(_current, "task", None)
    if task is not None:
        task.pause(ready)
