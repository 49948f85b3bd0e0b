"""
What operators ask for: pause, resume, resign, transfer, run a job now; for whoever can write the store.

Orders go through the store, so any node may ask, and the leader obeys as soon as its watch tells it.
Nothing here takes part in an election. What only a leader of this library can obey is refused, with the
reason, where a candidate of another program leads.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from leader_jobs.clock import Clock
from leader_jobs.jsonrecords import UnreadableRecord
from leader_jobs.leaders import Leader
from leader_jobs.names import check_job, nearest
from leader_jobs.orders import (
    CONTROL_PREFIX,
    PATIENCE,
    RECEIPT_KEY,
    Kind,
    Orders,
    Pause,
    Receipt,
    Refusal,
    Request,
    one_line,
    paused_key,
    request_key,
)
from leader_jobs.records import JOBS_PREFIX
from leader_jobs.stores.base import Entrant, Store, Write

__all__ = ["Control"]

_LOOK: Final = 1.0
T = TypeVar("T")


class Control:
    """
    Where one election is steered from.

    Args:
        store: where it is held.
        election: the election.
        by: who asks, for the record.
        clock: where moments and instants come from.
        timeout: seconds each call to the store may take.

    Every method raises `StoreError` if the store does not answer, and `Refusal` if what is asked for
    makes no sense as things are; the message says why.
    """

    def __init__(
        self, store: Store, election: str, *, by: str, clock: Clock, timeout: float = 5.0
    ) -> None:
        self.election: Final = election
        self._store = store
        self._by = one_line(by) or "?"
        self._clock = clock
        self._timeout = timeout

    # -- pauses -----------------------------------------------------------------------------------

    def pause(
        self, job: str | None = None, *, reason: str = "", until: datetime | None = None
    ) -> int:
        """
        Have nothing new started: in the whole election, or of one job. It holds through all terms.

        Args:
            job: the job; None for the election.
            reason: why, for people.
            until: when it ends by itself; None: when somebody resumes.

        Returns:
            The version of the order, for `wait_heard`.

        What was claimed before the leader hears of it goes on. What falls due meanwhile is caught up
        on, after that, by each job's own policy.
        """
        now = self._clock.utcnow()
        if until is not None and until <= now:
            msg = f"the pause would end at {until.isoformat()}, which is past; name a later instant"
            raise Refusal(msg)
        if job is not None:
            self._check_known(job)
        pause = Pause(by=self._by, reason=one_line(reason), since=now, until=until)
        return self._write(paused_key(job), pause.encode())

    def resume(self, job: str | None = None) -> int:
        """End the pause of the election, or of one job; return the order's version likewise."""
        now = self._clock.utcnow()
        pause = self.orders().pause_of(job, now)
        if pause is None:
            what = f"election {self.election!r}" if job is None else f"job {job!r}"
            msg = f"{what} is not paused"
            raise Refusal(msg)
        return self._write(paused_key(job), replace(pause, over=self._by, until=now).encode())

    def wait_heard(self, version: int, *, within: float) -> Receipt | None:
        """
        Wait up to *within* seconds until the leader has heard of an order.

        Returns:
            Its receipt; None if nobody has heard yet. The order stands all the same.
        """

        def heard(raw: bytes) -> Receipt | None:
            receipt = Receipt.decode(raw)
            return receipt if receipt.version >= version else None

        return self._await(RECEIPT_KEY, heard, within)

    # -- requests ---------------------------------------------------------------------------------

    def resign(self) -> Request:
        """Ask the leader to give up its term and queue behind everybody else."""
        entrants = self._entrants()
        leader = self._leader(entrants, "resign")
        return self._ask(Kind.RESIGN, token=leader.token)

    def transfer(self, heir: str) -> Request:
        """
        Ask the leader to hand over to a candidate; whoever is ahead of that one steps back.

        Args:
            heir: the candidate's id in the store, or its label if no other has the same.
        """
        entrants = self._entrants(leases=True)
        self._leader(entrants, "hand over")
        chosen = self._find(entrants, heir)
        if chosen is entrants[0]:
            msg = f"{heir!r} leads already"
            raise Refusal(msg)
        if chosen.ttl and chosen.remaining is not None and chosen.remaining < chosen.ttl / 2:
            msg = (
                f"{heir!r} has not renewed its lease for {chosen.ttl - chosen.remaining:.1f} s and may "
                "be frozen or gone; choose another candidate, or ask again when it has"
            )
            raise Refusal(msg)
        ahead = entrants[1 : entrants.index(chosen)]
        foreign = next((e for e in ahead if Leader.of(self.election, e).foreign), None)
        if Leader.of(self.election, chosen).foreign or foreign is not None:
            whom = Leader.of(self.election, foreign or chosen).node
            msg = (
                f"candidate {whom!r} is of another program, which steps back for nobody and obeys no "
                "orders; choose a candidate ahead of it"
            )
            raise Refusal(msg)
        return self._ask(Kind.TRANSFER, heir=chosen.id, token=chosen.token)

    def run_now(self, job: str) -> Request:
        """Ask the leader to run a job now: an occurrence of its own, beside those of its schedule."""
        self._check_known(job)
        pause = self.orders().pause_of(None, self._clock.utcnow())
        if pause is not None:
            msg = (
                f"election {self.election!r} is paused by {pause.by}"
                f"{f' ({pause.reason})' if pause.reason else ''}; resume it first"
            )
            raise Refusal(msg)
        entrants = self._entrants()
        if entrants:
            self._leader(entrants, "run jobs")
        return self._ask(Kind.RUN_NOW, job=job)

    def wait_answer(self, request: Request, *, within: float) -> Request:
        """
        Wait up to *within* seconds for the answer to a request.

        Returns:
            The request as it stands; its ``answer`` is None if nobody has answered yet. It stands
            until its ``until``, and may be obeyed after this returned.
        """

        def answered(raw: bytes) -> Request | None:
            found = Request.decode(raw)
            return found if found.answer is not None else None

        return self._await(request_key(request.id), answered, within) or request

    # -- looking ----------------------------------------------------------------------------------

    def orders(self) -> Orders:
        """Return all orders as they stand."""
        rows = self._store.read(self.election, CONTROL_PREFIX, deadline=self._limit())
        return Orders.read(rows, now=self._clock.utcnow())

    def _await(self, key: str, look: Callable[[bytes], T | None], within: float) -> T | None:
        """Return what *look* finds in a record as soon as it does, or None after *within* seconds."""
        limit = self._clock.now() + within
        watch = self._store.watch(self.election, key)
        while True:
            row = self._store.read(self.election, key, deadline=self._limit()).get(key)
            found = None
            with suppress(UnreadableRecord):
                found = None if row is None else look(row.value)
            left = limit - self._clock.now()
            if found is not None or left <= 0:
                return found
            watch.wait(0 if row is None else row.version, timeout=min(left, _LOOK))

    def _entrants(self, *, leases: bool = False) -> tuple[Entrant, ...]:
        return self._store.candidates(self.election, deadline=self._limit(), leases=leases)

    def _leader(self, entrants: tuple[Entrant, ...], to_do: str) -> Entrant:
        """Return the leader; refuse if there is none, or none that obeys."""
        if not entrants:
            msg = (
                f"nobody leads election {self.election!r}, so nobody can {to_do}; start a candidate"
            )
            raise Refusal(msg)
        leader = Leader.of(self.election, entrants[0])
        if leader.foreign:
            msg = (
                f"the leader of election {self.election!r}, {leader.node!r}, is of another program and "
                f"obeys no orders, so it will not {to_do}; use that program's own means"
            )
            raise Refusal(msg)
        return entrants[0]

    def _find(self, entrants: tuple[Entrant, ...], heir: str) -> Entrant:
        labels = {entrant.id: Leader.of(self.election, entrant).node for entrant in entrants}
        found = [e for e in entrants if e.id == heir] or [
            e for e in entrants if labels[e.id] == heir
        ]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(entrant.id for entrant in found)
            msg = f"{len(found)} candidates are called {heir!r}; name one by its id: {ids}"
            raise Refusal(msg)
        near = nearest(heir, labels.values())
        hint = f"; did you mean {near!r}?" if near else "; see who stands with: candidates"
        msg = f"no candidate {heir!r} stands in election {self.election!r}{hint}"
        raise Refusal(msg)

    def _check_known(self, job: str) -> None:
        check_job(job)
        rows = self._store.read(self.election, JOBS_PREFIX, deadline=self._limit())
        known = {key.removeprefix(JOBS_PREFIX) for key in rows}
        if job not in known:
            near = nearest(job, known)
            hint = f"; did you mean {near!r}?" if near else ""
            msg = f"election {self.election!r} has no job {job!r}{hint}"
            raise Refusal(msg)

    # -- writing ----------------------------------------------------------------------------------

    def _ask(self, kind: Kind, **details: Any) -> Request:
        now = self._clock.utcnow()
        until = now + timedelta(seconds=PATIENCE)
        request = Request.new(kind, by=self._by, at=now, until=until, **details)
        self._write(request_key(request.id), request.encode())
        return request

    def _write(self, key: str, value: bytes) -> int:
        return self._store.commit(
            self.election, [Write(key, value)], candidacy=None, deadline=self._limit()
        )

    def _limit(self) -> float:
        return self._clock.now() + self._timeout
