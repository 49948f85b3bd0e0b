"""
The log of terms: who led when, why each term ended, and how long the next one was in coming.

A ring of the last `KEPT` terms in the election's register, written by those who led. The record of a
term begins fenced, at its beginning. Its end is written by whoever held it, as soon as the store hears
it; a leader that was killed writes nothing, so its successor closes its record as ``gone``, with the
moment of the succession for want of a better one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

from leader_jobs.jsonrecords import UnreadableRecord, dump, plain, restore
from leader_jobs.stores.base import Record

__all__ = ["GONE", "KEPT", "TERMS_PREFIX", "TermRecord", "read_terms", "term_key"]

TERMS_PREFIX: Final = "terms/"
#: How many terms are kept of an election.
KEPT: Final = 50
#: The reason of an end that was not witnessed: the process died, or its host did.
GONE: Final = "gone"


def term_key(number: int) -> str:
    """Return the key of the record of term number *number*; terms a full ring apart share it."""
    return f"{TERMS_PREFIX}{number % KEPT:03d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TermRecord:
    """
    One term.

    Attributes:
        number: which one of the election it was, counted from 0 by those who led.
        token: its token.
        node: label of the node that led.
        host: its host.
        pid: its process id there.
        version: its version of this library.
        began_at: when it began.
        ended_at: when it ended, or None while it goes on as far as anybody knows.
        reason: why it ended: ``resigned``, ``lost`` or ``deadline`` by its own word, or ``gone`` by
            that of its successor, who found it ended; *ended_at* is then when that was.
        took: seconds from the end of the term before to the beginning of this one, as far as known;
            not kept, but found by whoever reads.
        exact: whether *took* is exact, or the most it can have been; likewise.
    """

    number: int
    token: int
    node: str
    host: str
    pid: int
    version: str
    began_at: datetime
    ended_at: datetime | None = None
    reason: str = ""
    took: float | None = None
    exact: bool = True

    def ended(self, reason: str, at: datetime) -> Self:
        """Return the record of this term as it ended, not before it began."""
        return replace(self, reason=reason, ended_at=max(at, self.began_at))

    def encode(self) -> bytes:
        """Return the bytes to keep."""
        return dump(plain(replace(self, took=None, exact=True)))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read it back; raise `UnreadableRecord` if that is not certain."""
        return restore(cls, raw, instants=("began_at", "ended_at"))


def read_terms(rows: Mapping[str, Record]) -> list[tuple[TermRecord, int]]:
    """
    Return the terms among the records under `TERMS_PREFIX`, with their versions, oldest first.

    ``took`` is filled in where the end of the term before is known.
    """
    found: list[tuple[TermRecord, int]] = []
    for row in rows.values():
        try:
            found.append((TermRecord.decode(row.value), row.version))
        except UnreadableRecord:
            continue
    found.sort(key=lambda entry: entry[0].token)
    for place in range(1, len(found)):
        former, (record, version) = found[place - 1][0], found[place]
        if former.ended_at is not None and former.reason != GONE:
            took = max(0.0, (record.began_at - former.ended_at).total_seconds())
            found[place] = replace(record, took=took), version
    return found
