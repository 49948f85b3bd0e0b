"""The command that shows an election again at every change."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from leader_jobs.cli.front import DONE, Call
from leader_jobs.cli.pages import election_page
from leader_jobs.cli.show import RECENT
from leader_jobs.clock import Clock
from leader_jobs.durations import at
from leader_jobs.exceptions import StoreError
from leader_jobs.observatory import Observatory
from leader_jobs.orders import CONTROL_PREFIX
from leader_jobs.overview import ElectionView
from leader_jobs.records import JOBS_PREFIX
from leader_jobs.report import election_report
from leader_jobs.stores.base import Store
from leader_jobs.tables import Line, Page, Tone
from leader_jobs.terms import TERMS_PREFIX

__all__ = ["Changes", "lasting", "watch"]

#: Seconds between two looks, at least and at most. What nobody writes down shows at the latter only:
#: leases that are renewed, jobs that become overdue.
_SOONEST: Final = 0.25
_LATEST: Final = 1.0
#: What changes by itself from look to look.
_COUNTDOWNS: Final = frozenset({"at", "remaining"})
#: How long a thread waits in the store before it sees that it is not needed any more.
_WAIT: Final = 5.0


def watch(call: Call) -> int:
    """Show the election until Ctrl-C; a store that goes away meanwhile is waited for."""
    with call.store() as store, suppress(KeyboardInterrupt):
        observatory = Observatory(store, clock=call.clock, timeout=call.timeout)
        # A store that is out of reach from the beginning is an error.
        view = observatory.election(call.election, recent=RECENT)
        changes = Changes(store, call.election, clock=call.clock)
        try:
            changes.begin()
            _follow(call, observatory, changes, view)
        finally:
            changes.end()
    return DONE


class Changes:
    """
    Word of changes of one election: of its candidates, jobs, terms and orders.

    Args:
        store: where it is held.
        election: the election.
        clock: where moments come from.
    """

    def __init__(self, store: Store, election: str, *, clock: Clock) -> None:
        self._store = store
        self._election = election
        self._clock = clock
        self._changed = threading.Event()
        self._over = threading.Event()

    def begin(self) -> None:
        """Listen, on threads that do not keep the process from ending."""
        prefixes = (JOBS_PREFIX, TERMS_PREFIX, CONTROL_PREFIX)
        to_records = [partial(self._listen_to_records, prefix) for prefix in prefixes]
        listeners: list[Callable[[], None]] = [self._listen_to_candidates, *to_records]
        for listen in listeners:
            threading.Thread(target=listen, name="leader-jobs-watch", daemon=True).start()

    def end(self) -> None:
        """Listen no more."""
        self._over.set()

    def wait(self, timeout: float) -> None:
        """Wait until something may have changed since the last wait, or *timeout* seconds."""
        self._clock.wait(self._changed, timeout)
        self._changed.clear()

    def _listen_to_candidates(self) -> None:
        while not self._over.is_set():
            self._store.wait_for_change(self._election, timeout=_WAIT)
            self._changed.set()

    def _listen_to_records(self, prefix: str) -> None:
        watched, newest = self._store.watch(self._election, prefix), 0
        while not self._over.is_set():
            watched.wait(newest, timeout=_WAIT)
            try:
                deadline = self._clock.now() + _WAIT
                rows = self._store.read(self._election, prefix, deadline=deadline)
            except StoreError:
                self._clock.wait(self._over, _LATEST)
                continue
            seen = max((row.version for row in rows.values()), default=0)
            if seen != newest:
                newest = seen
                self._changed.set()


def lasting(report: Any) -> Any:
    """Return a report without its countdowns, to be compared with another."""
    if isinstance(report, Mapping):
        return {key: lasting(value) for key, value in report.items() if key not in _COUNTDOWNS}
    if isinstance(report, list):
        return [lasting(value) for value in report]
    return report


Show = Callable[[ElectionView, StoreError | None], None]


def _follow(call: Call, observatory: Observatory, changes: Changes, view: ElectionView) -> None:
    """Look again and again, for ever."""
    with _shower(call) as show:
        trouble: StoreError | None = None
        while True:
            show(view, trouble)
            call.clock.wait(threading.Event(), _SOONEST)
            changes.wait(_LATEST - _SOONEST)
            try:
                view, trouble = observatory.election(call.election, recent=RECENT), None
            except StoreError as error:
                trouble = error


@contextmanager
def _shower(call: Call) -> Iterator[Show]:
    """Lend what shows a look: in place on a terminal, else one below the other where they differ."""
    if call.options.json:
        yield _where_new(lambda view, trouble: _dump(call, view, trouble))
    elif call.screen.is_terminal:
        with call.screen.live() as replace:
            yield lambda view, trouble: replace(_page(view, trouble))
    else:
        yield _where_new(lambda view, trouble: call.screen.show([*_page(view, trouble), Line("")]))


def _where_new(show: Show) -> Show:
    """Return *show* without the looks that differ from the last one in countdowns alone."""
    last: Any = None

    def shown(view: ElectionView, trouble: StoreError | None) -> None:
        nonlocal last
        seen = "trouble" if trouble is not None else lasting(election_report(view))
        if seen != last:
            last = seen
            show(view, trouble)

    return shown


def _dump(call: Call, view: ElectionView, trouble: StoreError | None) -> None:
    if trouble is not None:
        call.complain(trouble)
    else:
        call.dump(election_report(view), indent=None)


def _page(view: ElectionView, trouble: StoreError | None) -> Page:
    if trouble is None:
        return election_page(view)
    seen = f"the store does not answer: {trouble}; this was so at {at(view.at)} UTC"
    return [Line(seen, Tone.BAD), Line(""), *election_page(view)]
