"""Renewals that a leader must not believe, replayed by a real HTTP server."""

from collections.abc import Callable

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import CandidacyLost, StoreUnavailable
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores.base import Candidacy
from testsupport.etcd_fixtures import MakeStore
from testsupport.odd_gateway import Answer, OddGateway, Question, reply

CLOCK = SystemClock()
HEADER = {"member_id": "1", "raft_term": "2", "revision": "7"}
CANDIDACY = Candidacy("mail", "1f", token=5, ttl=15.0)


def leases(
    *, terms: Callable[[], tuple[int, int]], created: int = 5
) -> Callable[[Question], Answer]:
    """Confirm every keepalive, in the first raft term given, and the key, in the second."""

    def answer(question: Question) -> Answer:
        lease_term, key_term = terms()
        if question.path == wire.KEEPALIVE:
            header = HEADER | {"raft_term": str(lease_term)}
            return reply({"result": {"header": header, "ID": "31", "TTL": "15"}})
        header = HEADER | {"raft_term": str(key_term)}
        return reply({"header": header, "kvs": [{"key": "aw==", "create_revision": str(created)}]})

    return answer


def test_a_lying_keepalive_does_not_extend_a_term(make_store: MakeStore) -> None:
    """A deposed etcd leader confirms keepalives for ever; a leader believes none of them."""
    with OddGateway(leases(terms=lambda: (2, 3))) as server:
        store = make_store([server.endpoint])

        with pytest.raises(StoreUnavailable):
            store.renew(CANDIDACY, leading=True, deadline=CLOCK.now() + 0.5)
        assert len(server.asked(wire.KEEPALIVE)) >= 3
        assert store.renew(CANDIDACY, leading=False, deadline=CLOCK.now() + 5) == 15.0


def test_a_change_of_term_makes_the_renewal_repeat(make_store: MakeStore) -> None:
    """Keepalive and read are repeated as a pair until one raft term saw both."""
    terms = iter([(2, 2), (2, 3), (2, 3), (3, 3), (3, 3)])
    next(terms)
    with OddGateway(leases(terms=lambda: next(terms))) as server:
        store = make_store([server.endpoint])

        assert store.renew(CANDIDACY, leading=True, deadline=CLOCK.now() + 5) == 15.0
        paths = [question.path for question in server.questions]
        assert paths == [wire.KEEPALIVE, wire.RANGE] * 2


def test_a_key_of_another_revision_is_not_ours(make_store: MakeStore) -> None:
    """A key that was removed and put again is somebody else's candidacy."""
    with (
        OddGateway(leases(terms=lambda: (2, 2), created=9)) as server,
        pytest.raises(CandidacyLost, match="key is gone"),
    ):
        make_store([server.endpoint]).renew(CANDIDACY, leading=True, deadline=CLOCK.now() + 5)


@pytest.mark.parametrize("leading", [True, False])
def test_a_keepalive_without_ttl(make_store: MakeStore, *, leading: bool) -> None:
    """The server says 200 and leaves the TTL out: the lease is gone."""
    gone = reply({"result": {"header": HEADER, "ID": "31"}})
    with (
        OddGateway(lambda _: gone) as server,
        pytest.raises(CandidacyLost, match="lease is gone"),
    ):
        make_store([server.endpoint]).renew(CANDIDACY, leading=leading, deadline=CLOCK.now() + 5)
