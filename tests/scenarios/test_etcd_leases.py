"""Leases and candidacies on real servers of every version there is."""

import re
from collections.abc import Callable

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import CandidacyLost, Fenced, StoreUnavailable
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores.base import ABSENT, Write
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeCluster, MakeStore
from testsupport.odd_gateway import Answer, OddGateway, Question, relay
from testsupport.proxy import Direction, TcpProxy

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()


def leases(cluster: EtcdCluster) -> set[str]:
    """Return the ids of all leases of the cluster, as candidacies spell them."""
    found = re.findall(r"\b[0-9a-f]{16}\b", cluster.etcdctl("lease", "list"))
    return {f"{int(lease, 16):x}" for lease in found}


def test_the_life_of_a_candidacy(
    each_etcd: EtcdCluster, make_store: MakeStore, within: Callable[[float], float]
) -> None:
    """Enrol, renew, lead, write, hand over: the same on every version of etcd."""
    store = make_store(each_etcd.endpoints)
    first = store.enrol("mail", b"one", 20, deadline=within(5))
    second = store.enrol("mail", b"two", 20, deadline=within(5))
    waiting = store.standing(second, deadline=within(5))
    assert store.renew(first, leading=True, deadline=within(5)) == 20.0
    assert store.renew(second, leading=False, deadline=within(5)) == 20.0
    assert waiting.predecessor == first.id
    listed = store.candidates("mail", deadline=within(5), leases=True)
    assert [(one.id, one.proposal, one.ttl) for one in listed] == [
        (first.id, b"one", 20.0),
        (second.id, b"two", 20.0),
    ]
    version = store.commit(
        "mail", [Write("job", b"1", ABSENT)], candidacy=first, deadline=within(5)
    )
    with pytest.raises(Fenced, match="does not lead"):
        store.commit("mail", [Write("job", b"2", version)], candidacy=second, deadline=within(5))

    wait = Background(lambda: store.wait(second, waiting, timeout=60.0))
    store.withdraw(first, deadline=within(5))

    wait.result(5.0)
    assert store.standing(second, deadline=within(5)).leads
    with pytest.raises(Fenced, match="is over"):
        store.commit("mail", [Write("job", b"2", version)], candidacy=first, deadline=within(5))
    assert store.read("mail", "", deadline=within(5))["job"].value == b"1"


def test_the_granted_ttl_counts(make_cluster: MakeCluster, make_store: MakeStore) -> None:
    """A server with the usual timers grants no less than 2 s, whatever is asked."""
    cluster = make_cluster(heartbeat=100, election=1000)
    store = make_store(cluster.endpoints)

    candidacy = store.enrol("mail", b"", 1.0, deadline=CLOCK.now() + 5)

    assert candidacy.ttl == 2.0
    assert store.renew(candidacy, leading=True, deadline=CLOCK.now() + 5) == 2.0


def test_a_fraction_of_a_second_is_rounded_up(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """Leases come in whole seconds; one gets at least what was asked for."""
    store = make_store(etcd.endpoints)

    assert store.enrol("mail", b"", 4.2, deadline=CLOCK.now() + 5).ttl == 5.0


def test_withdrawing_leaves_nothing_behind(each_etcd: EtcdCluster, make_store: MakeStore) -> None:
    """The key goes, and with it the lease, at once."""
    store = make_store(each_etcd.endpoints)
    candidacy = store.enrol("mail", b"", 60, deadline=CLOCK.now() + 5)
    assert candidacy.id in leases(each_etcd)

    began = CLOCK.now()
    store.withdraw(candidacy, deadline=began + 5)

    assert CLOCK.now() - began < 1.0
    assert candidacy.id not in leases(each_etcd)
    assert store.candidates("mail", deadline=CLOCK.now() + 5) == ()


def test_a_living_lease_that_is_revoked(each_etcd: EtcdCluster, make_store: MakeStore) -> None:
    """However well it is renewed: the leader is woken, learns that it lost, and may stand again."""
    store = make_store(each_etcd.endpoints)
    candidacy = store.enrol("mail", b"", 60, deadline=CLOCK.now() + 5)
    standing = store.standing(candidacy, deadline=CLOCK.now() + 5)
    wait = Background(lambda: store.wait(candidacy, standing, timeout=60.0))
    store.renew(candidacy, leading=True, deadline=CLOCK.now() + 5)

    each_etcd.etcdctl("lease", "revoke", candidacy.id)

    wait.result(5.0)
    with pytest.raises(CandidacyLost):
        store.standing(candidacy, deadline=CLOCK.now() + 5)
    for leading in (True, False):
        with pytest.raises(CandidacyLost, match="lease is gone"):
            store.renew(candidacy, leading=leading, deadline=CLOCK.now() + 5)
    store.withdraw(candidacy, deadline=CLOCK.now() + 5)
    again = store.enrol("mail", b"", 60, deadline=CLOCK.now() + 5)
    assert again.token > candidacy.token


def test_a_key_removed_under_a_living_lease(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """The keepalive goes on working; a leader's renewal notices all the same."""
    store = make_store(etcd.endpoints)
    candidacy = store.enrol("mail", b"", 60, deadline=CLOCK.now() + 5)

    etcd.etcdctl("del", store._keys.candidate(candidacy).decode())

    with pytest.raises(CandidacyLost, match="key is gone"):
        store.renew(candidacy, leading=True, deadline=CLOCK.now() + 5)
    # So that the lease does not outlive the test.
    etcd.etcdctl("lease", "revoke", candidacy.id)


def test_an_enrolment_whose_reply_was_lost(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """The second try finds the entry that the first one made, and it counts."""
    lost: list[Answer] = []

    def answer(question: Question) -> Answer | None:
        answer = relay(etcd.endpoints[0], question)
        if question.path == wire.TXN and not lost:
            lost.append(answer)
            return None
        return answer

    with OddGateway(answer) as gateway:
        store = make_store([gateway.endpoint])
        candidacy = store.enrol("mail", b"me", 20, deadline=CLOCK.now() + 5)

        (entrant,) = store.candidates("mail", deadline=CLOCK.now() + 5)
        assert (entrant.id, entrant.token) == (candidacy.id, candidacy.token)
        assert candidacy.token == int(wire.decode(lost[0].body)["header"]["revision"])
        assert len(gateway.asked(wire.TXN)) == 2


def test_a_grant_whose_reply_was_lost(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """The lease is not asked for twice: the orphan expires by itself, without a candidate."""
    before = leases(etcd)
    with TcpProxy(etcd.endpoints[0]) as proxy:
        proxy.stall(Direction.TO_CLIENT)
        store = make_store([proxy.endpoint], call_timeout=0.5)
        with pytest.raises(StoreUnavailable):
            store.enrol("mail", b"", 1.0, deadline=CLOCK.now() + 5)

    assert len(leases(etcd) - before) == 1
    assert make_store(etcd.endpoints).candidates("mail", deadline=CLOCK.now() + 5) == ()
    limit = CLOCK.now() + 10
    while leases(etcd) - before:
        assert CLOCK.now() < limit


def test_withdrawing_spares_what_is_no_longer_ours(
    etcd: EtcdCluster, make_store: MakeStore
) -> None:
    """A key that somebody removed and put again under our name belongs to that somebody."""
    store = make_store(etcd.endpoints)
    candidacy = store.enrol("mail", b"ours", 20, deadline=CLOCK.now() + 5)
    key = store._keys.candidate(candidacy).decode()
    etcd.etcdctl("del", key)
    etcd.etcdctl("put", key, "theirs")

    store.withdraw(candidacy, deadline=CLOCK.now() + 5)

    (entrant,) = store.candidates("mail", deadline=CLOCK.now() + 5)
    assert entrant.proposal == b"theirs"
