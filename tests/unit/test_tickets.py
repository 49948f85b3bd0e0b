"""Tickets: what a message carries comes back as it was, and anything else is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leader_jobs.occurrences import Policy, occurrence_id
from leader_jobs.tickets import BadTicket, Ticket

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
TICKET = Ticket(
    election="mail", job="send all (eu)", planned_at=NOW, sequence=4, attempt=1, token=17
)
#: Anything a serialiser may make of a header, with a bias to what a ticket says.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.sampled_from(["mail", NOW.isoformat(), "0001-01-01T00:00:00+14:00", "2026-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_a_ticket_comes_back_as_it_was() -> None:
    """Through the plainest of serialisers, to the microsecond."""
    assert Ticket.decode(json.loads(json.dumps(TICKET.encode()))) == TICKET


def test_a_ticket_names_its_occurrence() -> None:
    """The id that its messages have as their own."""
    assert TICKET.occurrence == occurrence_id("mail", "send all (eu)", NOW)


def test_the_instant_travels_in_utc() -> None:
    """Whatever zone it is told in."""
    there = NOW.astimezone(timezone(timedelta(hours=2)))
    plain = TICKET.encode() | {"planned_at": there.isoformat()}

    assert Ticket.decode(plain) == TICKET
    assert Ticket.decode(plain).planned_at.tzinfo is UTC


@given(ANYTHING)
def test_what_is_no_ticket_is_refused(found: object) -> None:
    """Headers are written by anybody who can reach the broker."""
    with pytest.raises(BadTicket) as caught:
        Ticket.decode(found)
    assert len(str(caught.value)) < 300


@given(st.sampled_from(sorted(TICKET.encode())), ANYTHING)
def test_a_ticket_that_was_edited_is_read_or_refused(key: str, value: object) -> None:
    """Nothing but `BadTicket` ever comes of it, and what is read can be used."""
    try:
        found = Ticket.decode(TICKET.encode() | {key: value})
    except BadTicket:
        return
    assert Ticket.decode(found.encode()) == found
    assert found.occurrence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v", 2),
        ("v", None),
        ("election", "a/b"),
        ("election", "mail.runners"),
        ("job", "line\n"),
        ("planned_at", "2026-03-01T12:00:00"),
        ("planned_at", "yesterday"),
        ("planned_at", 5),
        ("planned_at", "0001-01-01T00:00:00+14:00"),
        ("sequence", -1),
        ("sequence", "4"),
        ("attempt", True),
        ("attempt", 1.0),
        ("token", None),
    ],
)
def test_a_damaged_ticket_is_refused(key: str, value: object) -> None:
    """Also where the damage would only show later, as a record that no claim matches."""
    with pytest.raises(BadTicket):
        Ticket.decode(TICKET.encode() | {key: value})


@pytest.mark.parametrize("key", sorted(TICKET.encode()))
def test_a_ticket_that_lacks_something_is_refused(key: str) -> None:
    """Nothing is made up for it."""
    plain = TICKET.encode()
    del plain[key]

    with pytest.raises(BadTicket):
        Ticket.decode(plain)


def test_what_the_entry_says_of_its_occurrences_travels_with_the_ticket() -> None:
    """A worker goes by the policy under which the occurrence was dispatched, not by its own copy."""
    policy = Policy(catch_up="all", window=3600, max_burst=3, overlap=True)
    ticket = replace(TICKET, policy=policy, rerun_on_crash=True)
    assert Ticket.decode(json.loads(json.dumps(ticket.encode()))) == ticket


@pytest.mark.parametrize("policy", ["all", {"catch_up": "some"}, {"patience": 1}, [1]])
def test_a_policy_that_makes_no_sense_spoils_the_ticket(policy: object) -> None:
    """Nothing is guessed: what was meant to hold for the run is not known."""
    with pytest.raises(BadTicket):
        Ticket.decode({**TICKET.encode(), "policy": policy})
