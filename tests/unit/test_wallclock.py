"""Jumps of the wall clock: noticed, and answered for by the store before anybody goes on."""

from collections.abc import Iterator

import pytest

from leader_jobs.candidate import Candidate
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from leader_jobs.wallclock import WallClock
from testsupport.ledgers import passing


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture(name="candidate")
def _candidate(store: MemoryStore, clock: ManualClock) -> Iterator[Candidate]:
    """Return a candidate that leads."""
    candidate = Candidate("e", store=store, node="n", ttl=15.0, clock=clock)
    candidate.campaign()
    yield candidate
    store.restore()
    with passing(clock):  # its thread may be waiting to look again
        candidate.stop()


@pytest.fixture(name="wall")
def _wall(candidate: Candidate, clock: ManualClock) -> WallClock:
    return WallClock(candidate, clock)


def test_time_that_passes_is_no_jump(wall: WallClock, clock: ManualClock) -> None:
    """Both clocks move alike, and nobody is asked."""
    clock.advance(2.0)

    assert not wall.jumped
    assert wall.settle() == 0.0


@pytest.mark.parametrize("seconds", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_jump_is_told_once(wall: WallClock, clock: ManualClock, seconds: float) -> None:
    """In either direction, from a second on; when the store says that we lead, it is settled."""
    clock.step_wall(seconds)

    seen = [wall.jumped, wall.settle(), wall.jumped, wall.settle()]
    assert seen == [True, pytest.approx(seconds), False, 0.0]


def test_a_jump_is_logged(
    wall: WallClock, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With how far it went."""
    clock.step_wall(-90)
    wall.settle()

    assert "jumped by -90.0 s" in caplog.text


def test_small_steps_never_add_up_to_a_jump(wall: WallClock, clock: ManualClock) -> None:
    """NTP slews a clock all the time, and in a week that is more than a second."""
    for _ in range(10):
        clock.step_wall(0.4)
        assert not wall.jumped
        assert wall.settle() == 0.0


def test_a_jump_is_not_settled_while_the_store_is_away(
    wall: WallClock, clock: ManualClock, store: MemoryStore
) -> None:
    """Whoever can not say that it still leads does nothing; asked again, it is told how far."""
    clock.step_wall(30)
    store.cut()
    assert wall.settle() is None
    assert wall.settle() is None
    assert wall.jumped

    store.restore()
    clock.step_wall(12)
    assert wall.settle() == pytest.approx(42.0)


def test_a_jump_is_not_settled_by_who_does_not_lead_any_more(
    wall: WallClock, clock: ManualClock, store: MemoryStore, candidate: Candidate
) -> None:
    """After a suspend the lease is gone, and the store knows it before the process does."""
    term = candidate.term
    assert term is not None
    store.enrol("e", b"the next one", 100.0, deadline=clock.now() + 1)
    store.expire(term.candidacy)
    clock.step_wall(30)

    assert wall.settle() is None
    assert not term.active
