"""Who stands, who leads and who follows: the same on every store."""

import threading
from collections.abc import Callable

import pytest

from leader_jobs.exceptions import CandidacyLost, Fenced, StoreUnavailable
from leader_jobs.stores.base import Candidacy, Write
from testsupport.forking import in_forked_child
from testsupport.place import ELECTION, Place

# -- order ------------------------------------------------------------------------------------------


def test_the_first_to_enrol_leads(place: Place) -> None:
    """Nobody is ahead of the only candidate."""
    first = place.enrol()

    standing = place.store.standing(first, deadline=place.within())

    assert standing.leads
    assert standing.predecessor is None


def test_each_sees_exactly_its_predecessor(place: Place) -> None:
    """The second waits for the first, the third for the second."""
    candidacies = [place.enrol() for _ in range(4)]

    ahead = [place.store.standing(c, deadline=place.within()).predecessor for c in candidacies]

    assert ahead == [None, *(c.id for c in candidacies[:3])]


def test_another_process_sees_the_same(place: Place) -> None:
    """Two store objects on the same data hold one election."""
    first = place.enrol()
    elsewhere = place.open()
    second = place.enrol(store=elsewhere)

    standing = elsewhere.standing(second, deadline=place.within())

    assert standing.predecessor == first.id
    assert place.leads(first)


def test_a_candidate_that_leaves_the_middle_changes_its_successor_alone(place: Place) -> None:
    """The leader stays, and the one behind the gap moves up."""
    first, second, third = (place.enrol() for _ in range(3))

    place.store.withdraw(second, deadline=place.within())

    assert place.leads(first)
    assert place.store.standing(third, deadline=place.within()).predecessor == first.id


def test_ids_differ_and_tokens_only_grow(place: Place) -> None:
    """Withdrawals, new store objects and an empty electorate never bring a token back."""
    candidacies: list[Candidacy] = []
    for _ in range(3):
        store = place.open()
        candidacies += [place.enrol(store=store), place.enrol(store=store)]
        for candidacy in candidacies[-2:]:
            store.withdraw(candidacy, deadline=place.within())
        store.close()

    tokens = [candidacy.token for candidacy in candidacies]
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0
    assert len({candidacy.id for candidacy in candidacies}) == len(candidacies)


def test_elections_do_not_disturb_each_other(place: Place) -> None:
    """Each election has its own leader, however alike the names."""
    names = ["mail", "mail2", "mail-x", "mai", "mail.x", "Mail"]
    leaders = {name: place.enrol(election=name) for name in names}
    waiter = place.enrol(election="mail")

    assert all(place.leads(candidacy) for candidacy in leaders.values())
    place.store.withdraw(leaders["mai"], deadline=place.within())
    assert not place.leads(waiter)
    assert len(place.store.candidates("mail", deadline=place.within())) == 2
    assert place.store.candidates("mai", deadline=place.within()) == ()


# -- leases -----------------------------------------------------------------------------------------


def test_the_granted_ttl_is_reported(place: Place) -> None:
    """A store may grant more than was asked, never less, and says so."""
    short, long = place.enrol(ttl=0.1), place.enrol(ttl=30.0)

    assert short.ttl >= 0.1
    assert long.ttl >= 30.0
    assert place.store.renew(long, leading=False, deadline=place.within()) == long.ttl


def test_an_expired_candidate_is_over(place: Place) -> None:
    """Its successor leads, and nothing it may still ask for is granted."""
    frozen = place.enrol(ttl=place.ttl)
    successor = place.enrol()

    place.wait_gone(frozen, ahead_of=successor)

    assert place.leads(successor)
    for leading in (True, False):
        with pytest.raises(CandidacyLost):
            place.store.renew(frozen, leading=leading, deadline=place.within())
    with pytest.raises(CandidacyLost):
        place.store.standing(frozen, deadline=place.within())
    with pytest.raises(Fenced):
        place.commit(Write("job", b"late"), under=frozen)


@pytest.mark.parametrize("leading", [True, False])
def test_renewing_keeps_it_alive(place: Place, leading: bool) -> None:
    """A renewed leader still leads long after its first lease would have run out."""
    leader = place.enrol(ttl=place.ttl)
    waiter = place.enrol()
    never, over = threading.Event(), place.within(2 * leader.ttl)

    while place.clock.now() < over:
        place.clock.wait(never, leader.ttl / 5)
        assert place.store.renew(leader, leading=leading, deadline=place.within()) == leader.ttl

    assert place.leads(leader)
    assert not place.leads(waiter)


# -- withdrawal -------------------------------------------------------------------------------------


def test_withdrawing_hands_over_at_once(place: Place) -> None:
    """The next in line leads the moment the call returns."""
    first, second = place.enrol(), place.enrol()

    place.store.withdraw(first, deadline=place.within())

    assert place.leads(second)
    with pytest.raises(CandidacyLost):
        place.store.standing(first, deadline=place.within())


def test_withdrawing_twice_is_harmless(place: Place) -> None:
    """Neither the second call nor its effect on others is felt."""
    first, second = place.enrol(), place.enrol()

    place.store.withdraw(first, deadline=place.within())
    place.store.withdraw(first, deadline=place.within())

    assert place.leads(second)


def test_withdrawing_late_takes_nothing_from_others(place: Place) -> None:
    """One whose lease ran out long ago withdraws, and those who came after stay."""
    frozen, successor = place.enrol(ttl=place.ttl), place.enrol()
    place.wait_gone(frozen, ahead_of=successor)
    last = place.enrol()

    place.store.withdraw(frozen, deadline=place.within())

    assert place.leads(successor)
    assert place.store.standing(last, deadline=place.within()).predecessor == successor.id


def test_closing_a_store_takes_nothing_from_other_stores(place: Place) -> None:
    """A process that ends does not disturb the candidates of another; closing twice is harmless."""
    leader = place.enrol()
    elsewhere = place.open()
    elsewhere.candidates(ELECTION, deadline=place.within())

    elsewhere.close()
    elsewhere.close()

    assert place.leads(leader)


# -- the list ---------------------------------------------------------------------------------------


def test_the_list_is_in_order_of_succession(place: Place) -> None:
    """The first leads; whoever leaves drops out; whoever comes is last."""
    first, second, third = (place.enrol(b"proposal %d" % i) for i in range(3))
    place.store.withdraw(second, deadline=place.within())
    fourth = place.enrol(b"proposal 3")

    entrants = place.store.candidates(ELECTION, deadline=place.within())

    assert [(e.id, e.token) for e in entrants] == [(c.id, c.token) for c in (first, third, fourth)]
    assert [e.proposal for e in entrants] == [b"proposal 0", b"proposal 2", b"proposal 3"]


def test_nobody_stands(place: Place) -> None:
    """An election nobody ever heard of has no candidates."""
    assert place.store.candidates("unheard-of", deadline=place.within()) == ()


@pytest.mark.parametrize(
    "proposal",
    [b"", bytes(range(256)), b"\xff\xfe", b"x" * 10_000],
    ids=["empty", "all", "bad", "long"],
)
def test_a_proposal_may_be_any_bytes(place: Place, proposal: bytes) -> None:
    """What a candidate says about itself comes back as it was, text or not."""
    place.enrol(proposal)

    (entrant,) = place.open().candidates(ELECTION, deadline=place.within())

    assert entrant.proposal == proposal


def test_the_list_shows_leases_when_asked(place: Place) -> None:
    """Granted and remaining time of each lease, as another process sees them."""
    first, second = place.enrol(ttl=30.0), place.enrol(ttl=60.0)
    elsewhere = place.open()

    shown = elsewhere.candidates(ELECTION, deadline=place.within(), leases=True)

    assert [entrant.ttl for entrant in shown] == [first.ttl, second.ttl]
    for entrant in shown:
        assert entrant.ttl is not None
        assert entrant.remaining is not None
        assert entrant.ttl - 10.0 < entrant.remaining <= entrant.ttl


def test_the_list_drops_the_expired(place: Place) -> None:
    """An entry whose lease ran out is not shown, though nobody removed it."""
    frozen, successor = place.enrol(ttl=place.ttl), place.enrol()
    place.wait_gone(frozen, ahead_of=successor)

    entrants = place.open().candidates(ELECTION, deadline=place.within())

    assert [entrant.id for entrant in entrants] == [successor.id]


# -- trouble ----------------------------------------------------------------------------------------


def test_a_call_past_its_deadline_fails(place: Place) -> None:
    """No call hangs on when its time is over."""
    candidacy, late = place.enrol(), place.within(-1.0)
    store = place.store
    calls: list[Callable[[], object]] = [
        lambda: store.enrol(ELECTION, b"", 30.0, deadline=late),
        lambda: store.renew(candidacy, leading=True, deadline=late),
        lambda: store.standing(candidacy, deadline=late),
        lambda: store.withdraw(candidacy, deadline=late),
        lambda: store.candidates(ELECTION, deadline=late),
        lambda: store.read(ELECTION, "", deadline=late),
        lambda: store.commit(ELECTION, [Write("job", b"")], candidacy=candidacy, deadline=late),
    ]

    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()


def test_the_child_of_a_fork_leaves_its_parents_candidacy_alone(place: Place) -> None:
    """It can neither renew nor withdraw it, and closing its copy of the store changes nothing."""
    leader = place.enrol()

    def child() -> str:
        try:
            place.store.renew(leader, leading=False, deadline=place.within())
        except CandidacyLost:
            renewed = False
        else:
            renewed = True
        try:
            place.store.withdraw(leader, deadline=place.within())
        finally:
            place.store.close()
        return f"renewed: {renewed}"

    assert in_forked_child(child) == "'renewed: False'"
    assert place.leads(leader)
    assert place.store.renew(leader, leading=True, deadline=place.within()) == leader.ttl


def test_the_child_of_a_fork_can_stand_itself(place: Place) -> None:
    """The copied store object enrols a candidate of the child's own."""
    place.ask_for_forks()
    leader = place.enrol()

    def child() -> int:
        return place.enrol(b"child").token

    assert in_forked_child(child).isdigit()
    assert place.leads(leader)
