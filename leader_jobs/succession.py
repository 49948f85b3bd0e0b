"""
Who steps back for whom: a candidate whose turn has come lets an heir go first.

An operator may hand leadership over to a candidate that is not next in line (`leader_jobs.control`).
The others need not be told: each sees it when its turn comes, and queues again behind the heir. The
heir is named by its candidacy, so one that died, withdrew or led already binds nobody, no clock has to
be agreed on, and each candidate ahead steps back once at most.
"""

from leader_jobs.jsonrecords import UnreadableRecord
from leader_jobs.orders import HEIR_KEY, Heir
from leader_jobs.stores.base import Candidacy, Store

__all__ = ["heir_behind"]


def heir_behind(store: Store, candidacy: Candidacy, *, deadline: float) -> Heir | None:
    """
    Return the living candidate that *candidacy*, whose turn it is, has to step back for; None: nobody.

    Raises:
        StoreError: that could not be found out.
    """
    row = store.read(candidacy.election, HEIR_KEY, deadline=deadline).get(HEIR_KEY)
    if row is None:
        return None
    try:
        heir = Heir.decode(row.value)
    except UnreadableRecord:
        return None
    if heir.token <= candidacy.token:
        return None
    standing = store.candidates(candidacy.election, deadline=deadline)
    alive = any((entrant.id, entrant.token) == (heir.candidate, heir.token) for entrant in standing)
    return heir if alive else None
