"""The clock that tests move by hand."""

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from leader_jobs.clock import Clock
from leader_jobs.testing import ManualClock
from testsupport.background import Background

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_it_stands_still_until_moved() -> None:
    """Both clocks begin where the constructor says and wait for the test."""
    clock: Clock = ManualClock()

    assert (clock.now(), clock.utcnow()) == (1000.0, START)
    assert (clock.now(), clock.utcnow()) == (1000.0, START)


def test_the_start_may_be_in_any_zone_and_is_shown_in_utc() -> None:
    """An aware start of another zone is the same instant."""
    clock = ManualClock(datetime(2026, 3, 1, 2, tzinfo=timezone(timedelta(hours=2))), moment=5.0)

    assert clock.utcnow() == datetime(2026, 3, 1, tzinfo=UTC)
    assert clock.utcnow().tzinfo is UTC
    assert clock.now() == 5.0


def test_advance_moves_both_clocks() -> None:
    """Time that passes is seen by leases and schedules alike."""
    clock = ManualClock()

    clock.advance(2.5)

    assert clock.now() == 1002.5
    assert clock.utcnow() == START + timedelta(seconds=2.5)


def test_step_wall_leaves_leases_alone() -> None:
    """A step of NTP moves the wall clock only, forward or back."""
    clock = ManualClock()

    clock.step_wall(-3600)

    assert clock.now() == 1000.0
    assert clock.utcnow() == START - timedelta(hours=1)


def test_moments_never_go_back() -> None:
    """A negative advance is refused and says what to use."""
    clock = ManualClock()

    with pytest.raises(ValueError, match="step_wall"):
        clock.advance(-1)
    assert clock.now() == 1000.0


def test_wait_returns_when_manual_time_is_reached() -> None:
    """A waiting thread goes on once the clock was moved far enough, and not before."""
    clock, event = ManualClock(), threading.Event()
    waiting = Background(lambda: clock.wait(event, 10.0))

    clock.advance(9.9)
    early = waiting.over(within=0.05)
    clock.advance(0.1)

    assert not early
    assert waiting.result() is False


def test_wait_returns_when_the_event_is_set() -> None:
    """An event ends the wait though no time passes."""
    clock, event = ManualClock(), threading.Event()
    waiting = Background(lambda: clock.wait(event, 10.0))

    event.set()

    assert waiting.result() is True


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_wait_without_time_only_looks(timeout: float) -> None:
    """A timeout that is over does not block."""
    assert ManualClock().wait(threading.Event(), timeout) is False


def test_step_wall_does_not_end_a_wait() -> None:
    """Waiting is measured in moments, which a step of the wall clock does not move."""
    clock, event = ManualClock(), threading.Event()
    waiting = Background(lambda: clock.wait(event, 10.0))

    clock.step_wall(3600)
    early = waiting.over(within=0.05)
    event.set()

    assert not early
    assert waiting.result() is True


def test_many_threads_may_move_it() -> None:
    """Advances from several threads add up."""
    clock = ManualClock(moment=0.0)

    def advance_often() -> None:
        for _ in range(500):
            clock.advance(1.0)

    threads = [Background(advance_often) for _ in range(4)]
    for thread in threads:
        thread.result()

    assert clock.now() == 2000.0
    assert clock.utcnow() == START + timedelta(seconds=2000)
