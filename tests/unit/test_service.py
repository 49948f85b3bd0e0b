"""A process's whole part: what ends it, in which order, and what is left as it was."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from types import FrameType

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.mailbox import NOTE, Mailbox
from leader_jobs.service import Part, Service
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.term import Term
from leader_jobs.testing import ManualClock
from testsupport.background import Background

_SOON = 10.0


class Errand:
    """
    Work that does *task* in each term, and notes what it is told.

    Args:
        task: given the errand and the term; returns whether there is more to do.
        drains: what `drain` returns.
    """

    def __init__(self, task: Callable[["Errand", Term], bool], *, drains: bool = True) -> None:
        self._task = task
        self._drains = drains
        self.told = threading.Event()
        self.stops: list[bool] = []
        self.graces: list[float] = []
        self.tokens: list[int] = []
        self.exit_status = 0

    def run(self, term: Term) -> bool:
        """Do the task."""
        self.tokens.append(term.token)
        return self._task(self, term)

    def stop(self, *, now: bool = False) -> None:
        """Note it."""
        self.stops.append(now)
        self.told.set()

    def drain(self, grace: float) -> bool:
        """Note how much time there is."""
        self.graces.append(grace)
        return self._drains

    def wait(self) -> None:
        """Work until told to stop."""
        assert self.told.wait(_SOON), "nobody stopped this work"


def done(errand: Errand, term: Term) -> bool:
    """Find nothing to do."""
    return False


def until_stopped(errand: Errand, term: Term) -> bool:
    """Work until told to stop, and be ready for more."""
    errand.wait()
    return True


class Moments(ManualClock):
    """A clock that is looked at only so many times, and shows these moments."""

    def __init__(self, *moments: float) -> None:
        super().__init__()
        self._moments = iter(moments)

    def now(self) -> float:
        """Return the next of the moments."""
        return next(self._moments)


@pytest.fixture(name="store")
def _store() -> MemoryStore:
    return MemoryStore(SystemClock())


@pytest.fixture(name="part")
def _part(store: MemoryStore) -> Callable[..., Part]:
    """Return what makes a part in an election out of its work."""

    def part(work: Errand, election: str = "mail") -> Part:
        return Part(Candidate(election, store=store, node="one"), work)

    return part


def standing(store: MemoryStore, election: str = "mail") -> int:
    """Return how many stand in an election."""
    return len(store.candidates(election, deadline=float("inf")))


# -- the end of work ----------------------------------------------------------------------------------


def test_it_ends_with_its_work(part: Callable[..., Part], store: MemoryStore) -> None:
    """Work that has nothing left to do is drained, its candidacy withdrawn, and `run` returns."""
    work = Errand(done)

    assert Service([part(work)], grace=3.0).run() is True
    assert work.graces == [3.0]
    assert standing(store) == 0


def test_work_that_can_not_be_drained_is_reported(part: Callable[..., Part]) -> None:
    """The caller learns that threads are left which it should not wait for."""
    parts = [part(Errand(done, drains=False), "mail"), part(Errand(done), "news")]

    assert Service(parts, grace=0.0).run() is False


def test_the_end_of_one_part_is_the_end_of_all(
    part: Callable[..., Part], store: MemoryStore
) -> None:
    """The other parts stop gracefully: one at work, and one that still waits for its turn."""
    leading, waiting = Errand(until_stopped), Errand(until_stopped)

    def wait_for_the_others(errand: Errand, term: Term) -> bool:
        clock = SystemClock()
        limit = clock.now() + _SOON
        while not (leading.tokens and standing(store, "held") == 2):
            assert clock.now() < limit, "the other parts did not begin"
            clock.wait(term.ended, 0.005)
        return False

    with Candidate("held", store=store, node="other") as holder:
        holder.campaign(_SOON)
        parts = [
            part(Errand(wait_for_the_others), "mail"),
            part(leading, "news"),
            part(waiting, "held"),
        ]
        assert Service(parts, grace=1.0).run() is True

        assert leading.stops == waiting.stops == [False]
        assert waiting.tokens == []
        assert leading.graces == waiting.graces == [1.0]
        assert [standing(store, election) for election in ("mail", "news", "held")] == [0, 0, 1]


def test_one_that_fails_stops_all_and_is_raised(
    part: Callable[..., Part], store: MemoryStore
) -> None:
    """The exception comes out of `run` when the other parts have ended."""
    other = Errand(until_stopped)

    def fail(errand: Errand, term: Term) -> bool:
        msg = "the disk is on fire"
        raise ZeroDivisionError(msg)

    with pytest.raises(ZeroDivisionError, match="on fire"):
        Service([part(Errand(fail), "mail"), part(other, "news")], grace=1.0).run()
    assert other.stops == [False]
    assert [standing(store, election) for election in ("mail", "news")] == [0, 0]


def test_a_lost_term_is_not_the_end(part: Callable[..., Part], store: MemoryStore) -> None:
    """The work goes on in the node's next term."""

    def lose_the_first(errand: Errand, term: Term) -> bool:
        if len(errand.tokens) == 1:
            store.expire(term.candidacy)
            assert term.ended.wait(_SOON)
            return True
        return False

    work = Errand(lose_the_first)

    assert Service([part(work)], grace=1.0).run()
    first, second = work.tokens
    assert second > first


def test_without_parts_there_is_nothing_to_wait_for() -> None:
    """`run` returns at once."""
    assert Service([], grace=1.0).run() is True


# -- signals and stops --------------------------------------------------------------------------------


def signals(*numbers: signal.Signals) -> Callable[[Errand, Term], bool]:
    """Return a task that gets these signals, one after the other, and stops when told to."""

    def get_signals(errand: Errand, term: Term) -> bool:
        for number in numbers:
            signal.raise_signal(number)
        errand.wait()
        return True

    return get_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(
    part: Callable[..., Part], store: MemoryStore, number: signal.Signals
) -> None:
    """The work is told to stop, gets its grace time, and the candidacy is withdrawn."""
    work = Errand(signals(number))

    assert Service([part(work)], grace=7.0).run() is True
    assert work.stops == [False]
    assert work.graces == [7.0]
    assert standing(store) == 0


@pytest.mark.parametrize(
    ("moments", "stops"),
    [
        ([100.0, 100.5], [False]),
        ([100.0, 100.501], [False, True]),
        ([100.0, 100.2, 100.4, 103.0], [False, True]),
        ([100.0, 100.2, 103.0, 103.1], [False, True, True]),
    ],
)
def test_only_a_later_signal_does_not_wait(
    part: Callable[..., Part], moments: list[float], stops: list[bool]
) -> None:
    """Signals within half a second of the first one are one with it; any later one is "now"."""
    numbers = [signal.SIGTERM, signal.SIGINT] * 2
    work = Errand(signals(*numbers[: len(moments)]))

    Service([part(work)], grace=1.0, clock=Moments(*moments)).run()
    assert work.stops == stops


def test_a_second_signal_reaches_work_that_is_being_drained(part: Callable[..., Part]) -> None:
    """Waiting for the grace time to pass can be cut short."""

    class Slow(Errand):
        def drain(self, grace: float) -> bool:
            self.told.clear()
            signal.raise_signal(signal.SIGTERM)
            self.wait()
            return super().drain(grace)

    work = Slow(signals(signal.SIGTERM))

    assert Service([part(work)], grace=60.0, clock=Moments(100.0, 101.0)).run() is True
    assert work.stops == [False, True]


def test_the_signals_of_others_are_left_to_them(part: Callable[..., Part]) -> None:
    """A signal that the application has a handler for is handled there and stops nothing."""
    heard = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        heard.set()

    def get_one(errand: Errand, term: Term) -> bool:
        signal.raise_signal(signal.SIGUSR1)
        assert heard.wait(_SOON)
        return False

    work = Errand(get_one)
    # Its clock is looked at once: at the end of the work, or else at the signal before.
    former = signal.signal(signal.SIGUSR1, hear)
    try:
        Service([part(work)], grace=1.0, clock=Moments(100.0)).run()
        with closing(Mailbox()) as mailbox, mailbox.open([signal.SIGTERM]):
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
            assert mailbox.get() == signal.SIGTERM
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_another_thread_can_stop_it(part: Callable[..., Part]) -> None:
    """`stop` does what the first signal does, and nothing once `run` has returned."""
    began = threading.Event()

    def begin(errand: Errand, term: Term) -> bool:
        began.set()
        return until_stopped(errand, term)

    work = Errand(begin)
    service = Service([part(work)], grace=1.0)

    def stop() -> None:
        assert began.wait(_SOON)
        service.stop()

    stopper = Background(stop)
    assert service.run() is True
    stopper.result()
    assert work.stops == [False]
    service.stop()
    assert work.stops == [False]


def test_a_stop_that_comes_before_the_candidate_stands_is_not_lost(store: MemoryStore) -> None:
    """The work is never begun, and `run` returns."""

    class Late(Candidate):
        released = threading.Event()

        def start(self) -> None:
            assert self.released.wait(_SOON)
            super().start()

        def release(self) -> None:
            super().release()
            self.released.set()

    work = Errand(until_stopped)
    service = Service([Part(Late("mail", store=store, node="one"), work)], grace=1.0)
    service.stop()

    assert service.run() is True
    assert work.stops == [False]
    assert work.tokens == []


# -- what it leaves behind ----------------------------------------------------------------------------


def wakeup_descriptor() -> int:
    """Return the descriptor that the interpreter writes signals to, or -1."""
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return descriptor


@pytest.fixture(name="before")
def _before() -> Iterator[list[object]]:
    """Put handlers and a wake-up descriptor in place, and return them."""

    def handle(number: int, frame: FrameType | None) -> None: ...

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handlers = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
    descriptor = signal.set_wakeup_fd(writer)
    yield [handle, handle, writer]
    signal.set_wakeup_fd(descriptor)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.close(reader)
    os.close(writer)


def in_place() -> list[object]:
    """Return the handlers and the wake-up descriptor that are in place."""
    return [
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        wakeup_descriptor(),
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_and_descriptor_are_put_back(
    part: Callable[..., Part], before: list[object], *, fails: bool
) -> None:
    """Whether it ends well or not, the process is as it was."""
    during: list[object] = []

    def look(errand: Errand, term: Term) -> bool:
        during.extend(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))
        if fails:
            raise ZeroDivisionError
        return False

    with suppress(ZeroDivisionError):
        Service([part(Errand(look))], grace=1.0).run()
    assert during != before[:2]
    assert in_place() == before


def test_elsewhere_than_in_the_main_thread_it_refuses(
    part: Callable[..., Part], store: MemoryStore, before: list[object]
) -> None:
    """Only the main thread can receive signals; nothing has begun when that is said."""
    service = Service([part(Errand(done))], grace=1.0)

    with pytest.raises(ValueError, match="main thread"):
        Background(service.run).result()
    assert standing(store) == 0
    assert in_place() == before


# -- the mailbox --------------------------------------------------------------------------------------


def test_the_mailbox_keeps_the_order() -> None:
    """Signals and notes come out as they went in, whoever put them there."""
    with closing(Mailbox()) as mailbox, mailbox.open([signal.SIGTERM, signal.SIGINT]):
        signal.raise_signal(signal.SIGINT)
        Background(mailbox.put).result()
        mailbox.put(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

        received = [mailbox.get() for _ in range(4)]
        assert received == [signal.SIGINT, NOTE, signal.SIGTERM, signal.SIGTERM]


def test_a_mailbox_that_is_full_refuses_rather_than_blocks() -> None:
    """Whoever puts something there never waits for the main thread."""

    def fill(mailbox: Mailbox) -> None:
        while True:
            mailbox.put()

    with closing(Mailbox()) as mailbox, pytest.raises(BlockingIOError):
        Background(lambda: fill(mailbox)).result()
