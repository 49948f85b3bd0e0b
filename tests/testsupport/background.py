"""A call that runs in a thread of its own while the test goes on."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

_T = TypeVar("_T")


class Background(Generic[_T]):
    """
    Runs *call* at once in a daemon thread, so that a call that hangs fails one test only.

    Args:
        call: what to run.
    """

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:  # noqa: BLE001  it is raised again in `result`
            self._error = error
        finally:
            self._over.set()

    def over(self, within: float) -> bool:
        """Wait up to *within* seconds for the end; return whether it came."""
        return self._over.wait(within)

    def result(self, within: float = 10.0) -> _T:
        """Return what the call returned, or raise what it raised; fail after *within* seconds."""
        assert self._over.wait(within), f"{self._call} is still running after {within} s"
        if self._error is not None:
            raise self._error
        return self._results[0]
