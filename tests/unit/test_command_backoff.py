"""How long a command that ended waits for its next start."""

from hypothesis import given
from hypothesis import strategies as st

from leader_jobs.command import Backoff


def test_each_failure_in_a_row_doubles_the_wait_up_to_the_ceiling() -> None:
    """Without jitter the waits are 1, 2, 4, 8, 16, 30, 30 seconds."""
    backoff = Backoff(jitter=lambda: 0.0)
    waits = [backoff.after(ran=0.1, failed=True) for _ in range(7)]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_run_of_a_minute_forgets_earlier_failures() -> None:
    """The failure that ends a steady run waits as little as a first one, and doubles from there."""
    backoff = Backoff(jitter=lambda: 0.0)
    for _ in range(4):
        backoff.after(ran=59.9, failed=True)
    assert backoff.after(ran=60.0, failed=True) == 1.0
    assert backoff.after(ran=0.0, failed=True) == 2.0


def test_success_forgets_failures_and_never_doubles() -> None:
    """A command that is always restarted waits one second after each success."""
    backoff = Backoff(jitter=lambda: 0.0)
    backoff.after(ran=0.0, failed=True)
    backoff.after(ran=0.0, failed=True)
    assert [backoff.after(ran=0.0, failed=False) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert backoff.after(ran=0.0, failed=True) == 1.0


@given(
    jitter=st.floats(0, 1),
    runs=st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=1, max_size=20),
)
def test_the_wait_stays_within_its_bounds(jitter: float, runs: list[tuple[float, bool]]) -> None:
    """Whatever happened before, no start comes sooner than 3/4 of the first wait or after the ceiling."""
    backoff = Backoff(jitter=lambda: jitter)
    for ran, failed in runs:
        assert 0.75 <= backoff.after(ran=ran, failed=failed) <= 30.0
