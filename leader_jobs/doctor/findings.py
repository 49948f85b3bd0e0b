"""What a doctor finds."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Level", "fine", "problem", "refused", "warning"]


class Level(StrEnum):
    """How bad it is: ``ok``; ``warning``: works, and may not always; ``problem``: does not work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One finding.

    Attributes:
        check: what was looked at, in a word or two.
        level: how bad it is.
        message: what was found, in a sentence.
        remedy: what to do, in a sentence; empty if there is nothing to.
        fatal: whether the store is out of reach, so that nothing else could be looked at.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""
    fatal: bool = False


def fine(check: str, message: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check=check, level=Level.OK, message=message)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Return a finding that something works, and may not always."""
    return Finding(check=check, level=Level.WARNING, message=message, remedy=remedy)


def refused(check: str, error: Exception, *, fatal: bool = False) -> Finding:
    """Return the finding that *error* is, whose message ends with the remedy as all such do."""
    what, _, remedy = str(error).rpartition("; ")
    return problem(
        check, what or remedy, remedy if what else "see to it, then look again", fatal=fatal
    )


def problem(check: str, message: str, remedy: str, *, fatal: bool = False) -> Finding:
    """Return a finding that something does not work."""
    return Finding(check=check, level=Level.PROBLEM, message=message, remedy=remedy, fatal=fatal)
