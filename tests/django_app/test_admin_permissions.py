"""Who may do what on the admin pages, by which method; and that looking changes nothing."""

from collections.abc import Iterator
from typing import Final

import pytest
from django.contrib.auth.models import User
from django.test import Client

from leader_jobs.stores.base import Record
from testsupport.admin_desk import CLOCK, ELECTIONS, Desk, proposal

PAGES: Final = (
    "",
    "live/",
    "report.json",
    "mail/change/",
    "mail/live/",
    "mail/report.json",
    "mail/history/",
    "mail/jobs/send/",
    "mail/jobs/send/live/",
)
ORDERS: Final = (
    "mail/pause/",
    "mail/resume/",
    "mail/resign/",
    "mail/transfer/",
    "mail/jobs/send/pause/",
    "mail/jobs/send/resume/",
    "mail/jobs/send/run-now/",
)
UNSAFE: Final = ("post", "put", "patch", "delete", "options", "trace")


@pytest.fixture(autouse=True)
def _election(desk: Desk) -> Iterator[None]:
    """An election with a foreign leader, a paused job, and one of ours next in line."""
    desk.enrol("mail", b"etcdctl on ops-7")
    desk.enrol("mail", proposal("web-1"))
    desk.job("mail", "send")
    desk.control("mail").pause("send")
    before = register(desk)
    yield
    assert register(desk) == before


def register(desk: Desk) -> dict[str, Record]:
    """Return everything that is written in the election."""
    return dict(desk.store.read("mail", "", deadline=CLOCK.now() + 5.0))


def is_login(client: Client, place: str, method: str = "get") -> bool:
    """Whether somebody is sent to the login page instead."""
    response = getattr(client, method)(ELECTIONS + place)
    return bool(response.status_code == 302 and "/admin/login/?" in response["Location"])


@pytest.mark.parametrize("place", [*PAGES, *ORDERS])
def test_strangers_are_asked_to_log_in(place: str) -> None:
    """Nobody sees anything without an account on the staff, by whatever method."""
    User.objects.create_user("guest", password="guest")
    guest = Client()
    guest.login(username="guest", password="guest")
    for client in (Client(), guest):
        assert is_login(client, place)
        assert is_login(client, place, "post")


@pytest.mark.parametrize("place", [*PAGES, *ORDERS])
def test_staff_without_a_permission_sees_nothing(desk: Desk, place: str) -> None:
    """403, and Elections is not on the index."""
    client = desk.client()
    assert client.get(ELECTIONS + place).status_code == 403
    assert "Elections" not in client.get("/admin/").content.decode()


@pytest.mark.parametrize("place", PAGES)
def test_whoever_may_look_may_look_only(desk: Desk, place: str) -> None:
    """GET and HEAD are answered, nothing else is; no page offers an order."""
    client = desk.onlooker()
    response = client.get(ELECTIONS + place)
    assert response.status_code == 200
    assert b"lj-button" not in response.content
    assert client.head(ELECTIONS + place).status_code == 200
    for method in UNSAFE:
        assert getattr(client, method)(ELECTIONS + place).status_code == 405


@pytest.mark.parametrize("place", ORDERS)
def test_whoever_may_only_look_gives_no_order(desk: Desk, place: str) -> None:
    """Neither the question nor the order itself: 403, and nothing is on record."""
    client = desk.onlooker()
    assert client.get(ELECTIONS + place).status_code == 403
    assert client.post(ELECTIONS + place, {"heir": "x"}).status_code == 403
    assert desk.log() == []


@pytest.mark.parametrize("place", PAGES)
def test_whoever_may_operate_may_look(desk: Desk, place: str) -> None:
    """The permission to operate includes that to look."""
    response = desk.client("operate_election").get(ELECTIONS + place)
    assert response.status_code == 200
    if place.endswith(("change/", "send/")):
        assert b"lj-button" in response.content


@pytest.mark.parametrize("place", ORDERS)
def test_asking_is_not_doing(desk: Desk, place: str) -> None:
    """GET and HEAD show a form and change nothing; methods other than POST are refused."""
    client = desk.operator()
    response = client.get(ELECTIONS + place)
    assert response.status_code == 200
    assert b'<form method="post"' in response.content
    assert client.head(ELECTIONS + place).status_code == 200
    for method in UNSAFE[1:]:
        assert getattr(client, method)(ELECTIONS + place).status_code == 405
    assert desk.log() == []


@pytest.mark.parametrize("place", ORDERS)
def test_an_order_needs_the_token_of_a_form(desk: Desk, place: str) -> None:
    """A page of another site can not have somebody's browser give it."""
    client = desk.operator()
    forged = Client(enforce_csrf_checks=True)
    forged.cookies = client.cookies
    assert forged.post(ELECTIONS + place, {"heir": "x"}).status_code == 403
    assert desk.log() == []
