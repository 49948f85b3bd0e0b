"""What is told of a candidate's terms at once, and in order; unlike observers it is part of the library."""

from typing import Protocol

from leader_jobs.term import Term

__all__ = ["Attendant"]


class Attendant(Protocol):
    """Serves the terms of one candidate; called on the thread that campaigns."""

    def began(self, term: Term) -> None:
        """Take note that *term* began; must return at once."""
        ...

    def making_way(self) -> None:
        """Do what is to be done before the next in line may lead; some seconds at most, never raises."""
        ...

    def ended(self, term: Term) -> None:
        """Take note that *term* is over and the candidacy it rested on is withdrawn; a second at most."""
        ...

    def forget(self) -> None:
        """Begin afresh, in the child of a fork: what was known belongs to the parent."""
        ...
