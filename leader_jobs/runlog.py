"""
Records starts and ends of runs, as many as there are in one transaction.

Bodies that run in many threads, or on an event loop, each need a word from the store before they may
start. One thread asks for all that wait, so that a burst costs a transaction for each round, not for
each body.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from leader_jobs.batches import Batches, Change
from leader_jobs.clock import Clock
from leader_jobs.exceptions import Fenced, StoreError
from leader_jobs.ledger import Claim, Edit, Ledger, Versioned
from leader_jobs.records import JobRecord, OccurrenceRecord, State
from leader_jobs.term import Term

__all__ = ["RunLog"]

_log = logging.getLogger(__name__)
_RETRY: Final = 0.2
_INSIST_EVERY: Final = 1.0
#: So long, in seconds, is waited for as many starts as came together the last time: a thread whose
#: body has ended is about to ask for the next one.
_COMPANY: Final = 0.002


@dataclass(eq=False, slots=True)
class _Entry:
    """Something to record: how, together with others and alone, and who is told when it is."""

    claim: Claim
    edit: Callable[[JobRecord], Edit]
    alone: Callable[[], bool]
    told: "Future[bool | None]" = field(default_factory=Future)
    term: Term | None = None
    #: Whether it may be recorded already, by a try whose reply was lost.
    tried: bool = False

    def __post_init__(self) -> None:
        self.told.set_running_or_notify_cancel()  # what is recorded is told, also if a task is cancelled

    def tell(self, *, recorded: bool | None) -> None:
        with suppress(InvalidStateError):  # whoever asked was cancelled
            self.told.set_result(recorded)


class RunLog:
    """
    What this process did with its claims, on its way into the ledger.

    Args:
        ledger: the election's.
        clock: where moments come from.
        fenced: called with a term under which the store refused a start.
    """

    def __init__(self, ledger: Ledger, *, clock: Clock, fenced: Callable[[Term], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._fenced = fenced
        self._changed = threading.Condition()
        self._waiting: list[_Entry] = []
        self._starts = 0
        self._crowd = 1
        self._busy = False
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._complained = False

    def start(self, claim: Claim, term: Term) -> "Future[bool | None]":
        """
        Record, fenced by *term*, that the body of *claim* is about to start; returns at once.

        Returns:
            What will be True if this process, and no other, is to start it, once, and False if it is
            not ours to start. None if that is not known and the term is over: `release` it.
        """
        return self._put(
            _Entry(
                claim,
                edit=lambda record: self._ledger.edits.starting(record, claim, token=term.token),
                alone=lambda: self._ledger.start(claim, term),
                term=term,
            )
        )

    def finish(self, claim: Claim, state: State, reason: str = "") -> "Future[bool | None]":
        """
        Record how the run of *claim* ended, however long that takes; returns at once.

        Returns:
            What will be True once it is recorded, and False if somebody closed it before.
        """
        return self._put(
            _Entry(
                claim,
                edit=lambda record: self._ledger.edits.finishing(record, claim, state, reason),
                alone=lambda: self._ledger.finish(claim, state, reason),
            )
        )

    def skip(self, claim: Claim, term: Term, reason: str) -> "Future[bool | None]":
        """
        Record, fenced by *term*, that *claim* is not run, for *reason*; returns at once.

        Returns:
            What will be True once it is recorded, False if it is started or closed, and None if that
            is not known and the term is over.
        """

        def skipping(record: JobRecord) -> Edit:
            return self._ledger.edits.skipping(record, claim, reason)

        return self._put(
            _Entry(
                claim,
                edit=skipping,
                alone=lambda: self._ledger.change(claim.job, skipping, term),
                term=term,
            )
        )

    def release(self, claim: Claim, *, again: bool = False) -> "Future[bool | None]":
        """Hand *claim* back, see `Ledger.release`, however long that takes; returns at once."""
        return self._put(
            _Entry(
                claim,
                edit=lambda record: self._ledger.edits.releasing(record, claim, again=again),
                alone=lambda: self._ledger.release(claim, again=again),
            )
        )

    def flush(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds until nothing is left; return whether nothing is."""
        limit = self._clock.now() + timeout
        with self._changed:
            while (self._waiting or self._busy) and self._clock.now() < limit:
                self._changed.wait(min(_RETRY, max(0.0, limit - self._clock.now())))
            return not (self._waiting or self._busy)

    def close(self) -> None:
        """Record nothing more: what is left is for the next leader to find, and told None."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    # -- the thread -------------------------------------------------------------------------------

    def _put(self, entry: _Entry) -> "Future[bool | None]":
        with self._changed:
            closed = self._closed.is_set()
            if not closed:
                self._waiting.append(entry)
            self._starts += entry.term is not None
            if not closed and self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="leader-jobs-runlog", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        if closed:
            entry.tell(recorded=None)
        return entry.told

    def _run(self) -> None:
        while not self._closed.is_set():
            with self._changed:
                while not self._waiting and not self._closed.is_set():
                    self._changed.wait()
                self._changed.wait_for(lambda: self._starts >= self._crowd, _COMPANY)
                entries, self._waiting = self._waiting, []
                self._crowd, self._starts = max(1, self._starts), 0
                self._busy = True
            left = self._record(entries)
            with self._changed:
                self._waiting = [*left, *self._waiting]
                self._busy = False
                self._changed.notify_all()
            if left:
                ends_only = all(entry.term is None for entry in left)
                self._clock.wait(self._closed, _INSIST_EVERY if ends_only else _RETRY)
        with self._changed:
            entries, self._waiting = self._waiting, []
        for entry in entries:  # a body may wait for the answer, and an exit for the body
            entry.tell(recorded=None)

    def _record(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Record what can be; return what is to be tried again."""
        try:
            left = list(self._together(entries))
        except StoreError:
            left = list(entries)  # each is tried by itself, and says what is the matter
        except Exception:  # noqa: BLE001  one run's trouble may not keep all others from being recorded
            _log.exception("what was run could not be recorded together; trying one by one")
            left = list(entries)
        behind: dict[Claim, list[_Entry]] = {}
        for entry in left:  # in order: a start may not come true after its claim was handed back
            if entry.claim in behind or not self._settle(entry):
                behind.setdefault(entry.claim, []).append(entry)
        return [entry for entries in behind.values() for entry in entries]

    def _together(self, entries: Sequence[_Entry]) -> Iterator[_Entry]:
        """Record in as few transactions as possible; yield what has to be looked at alone."""
        term = next((e.term for e in reversed(entries) if e.term is not None), None)
        if term is None or not term.may_start or len(entries) == 1:
            yield from entries
            return
        riders: dict[str, list[_Entry]] = {}
        for entry in entries:
            riders.setdefault(entry.claim.job, []).append(entry)
        known = self._ledger.load(riders)
        changes = []
        for job, group in riders.items():
            found = known[job]
            change = self._compose(found, group, term) if isinstance(found, Versioned) else None
            if change is not None:
                changes.append(change)
            else:
                yield from group
        try:
            yield from self._commit(changes, riders, term)
        except Fenced:
            yield from (e for change in changes for e in riders[change.record.job])

    def _commit(
        self, changes: list[Change], riders: dict[str, list[_Entry]], term: Term
    ) -> Iterator[_Entry]:
        standing: set[str] = set()
        for committed in Batches[Change](self._ledger, term, clock=self._clock).commit(changes):
            for change in committed:
                standing.add(change.record.job)
                for entry in riders[change.record.job]:
                    entry.tell(recorded=True)
        for change in changes:
            if change.record.job not in standing:
                for entry in riders[change.record.job]:
                    entry.tried = True
                    yield entry

    def _compose(self, found: Versioned, group: list[_Entry], term: Term) -> Change | None:
        """Return all changes of one job as one; None if any of them is not a plain one."""
        record, closed = found.record, list[OccurrenceRecord]()
        for entry in group:
            edit = entry.edit(record) if record is not None and entry.term in (None, term) else None
            if edit is None or edit[0] is record:
                return None
            record, more = edit
            closed.extend(more)
        return Change(record, found.version, closed) if record is not None else None

    def _settle(self, entry: _Entry) -> bool:
        """Record one; whether it is settled."""
        if entry.told.done():
            return True
        if entry.term is not None and not entry.term.active:
            entry.tell(recorded=None)
            return True
        if entry.term is not None and entry.term.suspended:
            return False
        try:
            recorded = entry.alone()
            entry.tell(recorded=recorded or (entry.tried and entry.term is None))
        except Fenced:
            if entry.term is not None:
                self._fenced(entry.term)
            return False  # the term is over by now
        except StoreError as error:
            level = logging.DEBUG if self._complained else logging.WARNING
            self._complained = entry.tried = True
            _log.log(level, "job %s: its record is behind: %s", entry.claim.job, error)
            return False
        except Exception as error:  # noqa: BLE001  one record's trouble may not end the thread of all
            _log.error("job %s: what it did can not be recorded: %s", entry.claim.job, error)
            entry.tell(recorded=False)
        self._complained = False
        return True
