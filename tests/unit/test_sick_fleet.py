"""The measures of a fleet that is hurt see what they are for."""

import pytest

from testsupport.sick_fleet import Belief, longest_hole, overlap


@pytest.mark.parametrize(
    ("beliefs", "seconds"),
    [
        ([], 0.0),
        ([Belief("a", 1, 0.0, 5.0)], 0.0),
        ([Belief("a", 1, 0.0, 5.0), Belief("b", 2, 5.5, 9.0)], 0.0),
        ([Belief("a", 1, 0.0, 5.0), Belief("b", 2, 4.75, 9.0)], 0.25),
        ([Belief("a", 1, 0.0, 9.0), Belief("c", 3, 8.5, 9.5), Belief("b", 2, 4.0, 6.0)], 2.0),
    ],
    ids=["nobody", "one", "one after the other", "two for a moment", "within another"],
)
def test_two_who_believe_to_lead(beliefs: list[Belief], seconds: float) -> None:
    """The longest time in which two nodes did so at once, whoever they are."""
    assert overlap(beliefs) == seconds


def test_a_node_with_two_terms_is_one_node() -> None:
    """A process holds one term at a time, so its terms can not overlap but by rounding."""
    assert overlap([Belief("a", 1, 0.0, 5.0), Belief("a", 2, 4.9, 9.0)]) == 0.0


def test_the_longest_hole() -> None:
    """From the beginning on, between stretches in any order, but not after the last one."""
    assert longest_hole(10.0, []) == 0.0
    assert longest_hole(10.0, [(12.0, 13.0), (10.5, 11.0)]) == 1.0
    assert longest_hole(10.0, [(13.0, 14.0), (3.0, 4.0)]) == 3.0
    assert longest_hole(10.0, [(9.0, 20.0), (11.0, 12.0), (20.0, 21.0)]) == 0.0
