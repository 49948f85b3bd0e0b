"""An operator's desk: the admin pages of a site, by Django's test client, and the store behind them."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import Settings as DjangoSettings

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.control import Control
from leader_jobs.jsonrecords import dump
from leader_jobs.orders import Request, request_key
from leader_jobs.proposals import Proposal
from leader_jobs.records import JobRecord, OccurrenceRecord, State, history_key, job_key
from leader_jobs.standing import place_of
from leader_jobs.stores.base import Candidacy, Write
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.terms import TermRecord, term_key
from leader_jobs.vitals import Place

__all__ = ["ELECTIONS", "Desk", "proposal"]

#: Where the pages are.
ELECTIONS: Final = "/admin/leader_jobs/election/"
CLOCK: Final = SystemClock()
_PATIENCE: Final = 5.0
_TTL: Final = 30.0


def proposal(node: str, host: str = "web.example.org", pid: int = 4711) -> bytes:
    """Return what a candidate of this library enrols with."""
    return Proposal(node=node, host=host, pid=pid, version="1.2.3", incarnation=node).encode()


class Desk:
    """
    Users, and the store in memory that the site's settings name.

    Args:
        settings: those of the site.
        stack: what ends with the test.
    """

    def __init__(self, settings: DjangoSettings, stack: ExitStack) -> None:
        self.name = uuid4().hex
        settings.LEADER_JOBS = {"STORE": f"memory://{self.name}"}
        self.store = MemoryStore.named(self.name, CLOCK)
        self._stack = stack

    # -- who looks --------------------------------------------------------------------------------

    def client(self, *permissions: str, name: str = "ada") -> Client:
        """Return the browser of a member of staff with these permissions."""
        user = User.objects.create_user(name, is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    def operator(self) -> Client:
        """Return the browser of somebody who may look and operate."""
        return self.client("view_election", "operate_election")

    def onlooker(self) -> Client:
        """Return the browser of somebody who may only look."""
        return self.client("view_election", name="otto")

    def log(self) -> list[LogEntry]:
        """Return what the admin has on record, the newest last."""
        return list(LogEntry.objects.order_by("pk"))

    # -- what there is ----------------------------------------------------------------------------

    def enrol(self, election: str, proposal: bytes) -> Candidacy:
        """Have a candidate stand that does nothing."""
        return self.store.enrol(election, proposal, _TTL, deadline=CLOCK.now() + _PATIENCE)

    def lead(self, election: str, node: str) -> Place:
        """Have a node of this library stand, in this process, until the test ends."""
        settings = Settings(store="memory://", election=election, node=node, ttl=_TTL)
        place = place_of(settings, election, store=self.store, clock=CLOCK)
        self._stack.enter_context(place.candidate)
        while place.candidate.candidacy is None:
            self.store.wait_for_change(election, timeout=0.02)
        return place

    def control(self, election: str, by: str = "bob") -> Control:
        """Return where somebody else steers from."""
        return Control(self.store, election, by=by, clock=CLOCK)

    def write(self, election: str, *writes: Write) -> None:
        """Write records as they are."""
        self.store.commit(election, writes, candidacy=None, deadline=CLOCK.now() + _PATIENCE)

    def job(self, election: str, name: str, *states: State, reason: str = "", **given: Any) -> None:
        """Have a job with these occurrences in its history, one a minute, and perhaps one open."""
        now = CLOCK.utcnow()
        record = JobRecord(
            job=name,
            schedule="",
            words=given.pop("words", "every minute"),
            cursor=now,
            sequence=len(states),
            **{"due": now + timedelta(seconds=60), **given},
        )
        self.write(election, Write(job_key(name), record.encode()))
        for number, state in enumerate(states):
            planned = now - timedelta(minutes=len(states) - number)
            entry = OccurrenceRecord(
                sequence=number,
                planned_at=planned,
                state=state,
                token=1,
                node="web-1",
                claimed_at=planned + timedelta(milliseconds=4),
                started_at=planned + timedelta(milliseconds=12),
                ended_at=planned + timedelta(milliseconds=1512),
                reason=reason,
            )
            self.write(election, Write(history_key(name, number), entry.encode()))

    def term(self, election: str, number: int, node: str, **given: Any) -> None:
        """Have a term in the log of terms."""
        values = {"token": number, "host": "web.example.org", "pid": 1, "version": "1.2.3", **given}
        record = TermRecord(number=number, node=node, **values)
        self.write(election, Write(term_key(number), record.encode()))

    def request(self, election: str, request: Request) -> None:
        """Have a request among the orders."""
        self.write(election, Write(request_key(request.id), request.encode()))

    def nonsense(self, election: str, key: str) -> None:
        """Have a record that nobody can read."""
        self.write(election, Write(key, dump({"v": 99})))


@pytest.fixture(name="desk")
def _desk(settings: DjangoSettings, database: object) -> Iterator[Desk]:
    """A desk, with a database and a store of the test's own."""
    with ExitStack() as stack:
        yield Desk(settings, stack)
