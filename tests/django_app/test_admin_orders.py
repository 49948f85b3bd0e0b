"""Orders given on the admin pages: what is written, what is put on record, what the user is told."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.admin.models import CHANGE
from django.test import Client
from pytest_django import Settings as DjangoSettings

from leader_jobs.names import runners_of
from leader_jobs.orders import Kind, Orders
from leader_jobs.vitals import Place
from testsupport.admin_desk import CLOCK, ELECTIONS, Desk, proposal

WITHIN = 5.0


def order(client: Client, place: str, **data: Any) -> str:
    """Give an order, follow to where it leads, and return that page."""
    response = client.post(ELECTIONS + place, data, follow=True)
    assert response.status_code == 200
    return str(response.content.decode())


def orders(desk: Desk) -> Orders:
    """Return what is ordered in the election."""
    return desk.control("mail").orders()


def leads(place: Place) -> bool:
    """Wait until a node leads."""
    return place.candidate.wait_for_term(WITHIN) is not None


@pytest.fixture(name="web_1")
def _web_1(desk: Desk) -> Place:
    """A node of this library that leads."""
    place = desk.lead("mail", "web-1")
    assert leads(place)
    return place


# -- obeyed -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("web_1")
def test_a_pause_is_given_with_its_reason_and_its_end(desk: Desk) -> None:
    """The user is told who obeyed; the log says what, why, and who."""
    client = desk.operator()
    page = order(client, "mail/pause/", reason="deploy\nof  v2", lasts="15")
    assert "obeyed by web-1 after" in page
    assert "The election is paused" in page
    assert "deploy of v2" in page

    pause = orders(desk).election
    assert pause is not None
    assert (pause.by, pause.reason) == ("ada", "deploy of v2")
    assert pause.until is not None
    assert pause.until - pause.since == pytest.approx(
        timedelta(minutes=15), abs=timedelta(seconds=2)
    )

    (entry,) = desk.log()
    assert (entry.action_flag, entry.object_id, entry.user.get_username()) == (
        CHANGE,
        "mail",
        "ada",
    )
    assert entry.change_message.startswith("Paused the election until ")
    assert "deploy" in entry.change_message
    assert entry.get_admin_url() == f"{ELECTIONS}mail/change/"
    assert "Paused the election" in client.get(f"{ELECTIONS}mail/history/").content.decode()


@pytest.mark.usefixtures("web_1")
@pytest.mark.parametrize("use_tz", [True, False])
def test_a_pause_may_end_at_a_time_of_day(
    desk: Desk, settings: DjangoSettings, *, use_tz: bool
) -> None:
    """As typed on the clock of the site's time zone, whether or not its database keeps zones."""
    settings.TIME_ZONE, settings.USE_TZ = "Asia/Kathmandu", use_tz
    order(desk.operator(), "mail/pause/", until="2099-12-24T18:00")
    pause = orders(desk).election
    assert pause is not None
    assert pause.until == datetime(2099, 12, 24, 12, 15, tzinfo=UTC)


@pytest.mark.usefixtures("web_1")
@pytest.mark.parametrize("job", ["", "jobs/send/"])
def test_what_is_paused_is_resumed(desk: Desk, job: str) -> None:
    """The whole election, or one job and no other."""
    desk.job("mail", "send")
    desk.job("mail", "other")
    client = desk.operator()
    order(client, f"mail/{job}pause/", reason="because")
    now = CLOCK.utcnow()
    assert (orders(desk).pause_of(None, now) is None) == bool(job)
    assert orders(desk).holds_back("send", now)
    assert orders(desk).holds_back("other", now) == (not job)
    assert "Resume" in client.get(f"{ELECTIONS}mail/change/").content.decode()

    page = order(client, f"mail/{job}resume/")
    assert "obeyed by web-1" in page
    assert not orders(desk).holds_back("send", CLOCK.utcnow())
    assert [entry.change_message for entry in desk.log()][1].startswith("Resumed ")


def test_the_leader_resigns(desk: Desk, web_1: Place) -> None:
    """And the page says who leads now."""
    web_2 = desk.lead("mail", "web-2")
    page = order(desk.operator(), "mail/resign/")
    assert "The request to resign was obeyed by web-1 after" in page
    assert leads(web_2)
    assert web_1.candidate.term is None
    assert desk.log()[0].change_message == "Asked the leader to resign."


def test_leadership_is_handed_to_whom_was_chosen(desk: Desk, web_1: Place) -> None:
    """Past the next in line; the form offers the candidates that it can be handed to."""
    web_2, web_3 = desk.lead("mail", "web-2"), desk.lead("mail", "web-3")
    desk.enrol("mail", b"etcdctl on ops-7")
    desk.enrol("mail", proposal("web-5"))
    desk.enrol(runners_of("mail"), proposal("worker-1"))
    assert web_3.candidate.candidacy is not None
    heir = web_3.candidate.candidacy.id
    client = desk.operator()
    form = client.get(f"{ELECTIONS}mail/transfer/?heir={quote(heir)}").content.decode()
    assert form.count('type="radio"') == 2
    assert f'value="{heir}" required checked' in form

    page = order(client, "mail/transfer/", heir=heir)
    assert "The request to hand over was obeyed by web-1" in page
    assert leads(web_3)
    assert (web_1.candidate.term, web_2.candidate.term) == (None, None)
    assert heir in desk.log()[0].change_message


# -- not obeyed ---------------------------------------------------------------------------------------


def test_an_order_that_nobody_hears_stands(desk: Desk) -> None:
    """No leader is there to hear it: the user is told that it holds as soon as one is."""
    desk.job("mail", "send")
    client = desk.operator()
    assert "No leader has heard it yet" in order(client, "mail/jobs/send/pause/?from=job")
    page = order(client, "mail/jobs/send/run-now/")
    assert "is not answered yet; it stands for another" in page
    (request,) = orders(desk).requests
    assert (request.kind, request.job, request.by) == (Kind.RUN_NOW, "send", "ada")
    assert len(desk.log()) == 2


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("mail/resign/", "obeys no orders"),
        ("mail/transfer/", "obeys no orders"),
        ("mail/jobs/send/run-now/", "obeys no orders"),
        ("mail/resume/", "is not paused"),
        ("mail/jobs/none/pause/", "has no job"),
        ("empty/resign/", "nobody leads"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(desk: Desk, place: str, said: str) -> None:
    """Nothing is written, nothing is on record; the question shows the reason beforehand."""
    desk.enrol("mail", b"etcdctl on ops-7")
    desk.enrol("mail", proposal("web-1"))
    desk.job("mail", "send")
    client = desk.operator()
    asked = client.get(ELECTIONS + place).content.decode()
    assert "This can not be done now" in asked
    assert said in order(client, place, heir="x")
    assert orders(desk) == Orders.none()
    assert desk.log() == []


def test_a_foreign_leader_is_said_to_obey_nothing(desk: Desk) -> None:
    """Buttons that could do nothing are disabled; a pause is kept for whoever leads next."""
    desk.enrol("mail", b"etcdctl on ops-7")
    desk.enrol("mail", proposal("web-1"))
    desk.job("mail", "send")
    client = desk.operator()
    page = client.get(f"{ELECTIONS}mail/change/").content.decode()
    assert "etcdctl on ops-7 leads, a candidate of another program" in page
    assert page.count("<button") >= 3
    assert page.count(" disabled ") == 3
    assert f'href="{ELECTIONS}mail/pause/"' in page
    assert "does not obey" in client.get(f"{ELECTIONS}mail/pause/").content.decode()


@pytest.mark.parametrize(
    "data",
    [
        {"until": "2020-01-01T00:00"},
        {"until": "soon"},
        {"lasts": "15", "until": "2099-01-01T00:00"},
        {"lasts": "-1"},
        {"reason": "x" * 501},
    ],
)
def test_a_form_that_makes_no_sense_is_shown_again(desk: Desk, data: dict[str, str]) -> None:
    """With what is wrong, and nothing is written."""
    desk.enrol("mail", proposal("web-1"))
    response = desk.operator().post(f"{ELECTIONS}mail/pause/", data)
    assert response.status_code == 200
    assert b"errorlist" in response.content
    assert orders(desk) == Orders.none()
    assert desk.log() == []


def test_nobody_is_chosen(desk: Desk) -> None:
    """A transfer to nobody is not asked for."""
    desk.enrol("mail", proposal("web-1"))
    desk.enrol("mail", proposal("web-2"))
    response = desk.operator().post(f"{ELECTIONS}mail/transfer/")
    assert b"Choose a candidate." in response.content
    assert orders(desk) == Orders.none()


def test_an_order_whose_fate_is_not_known_is_on_record(desk: Desk) -> None:
    """The store does not answer: it may have been written all the same, and somebody wanted it."""
    desk.enrol("mail", proposal("web-1"))
    desk.store.cut()
    client = desk.operator()
    assert "the store does not answer" in client.get(f"{ELECTIONS}mail/pause/").content.decode()
    page = order(client, "mail/pause/", reason="because")
    assert "it is not known whether that was done" in page
    (entry,) = desk.log()
    assert "it is not known" in entry.change_message


# -- where it leads -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("web_1")
@pytest.mark.parametrize(
    ("query", "back"),
    [("", "mail/change/"), ("?from=job", "mail/jobs/send/"), ("?from=//evil", "mail/change/")],
)
def test_an_order_leads_back_to_where_it_came_from(desk: Desk, query: str, back: str) -> None:
    """To the election or to the job, and nowhere else."""
    desk.job("mail", "send")
    client = desk.operator()
    place = f"{ELECTIONS}mail/jobs/send/pause/{query}"
    assert f'href="{ELECTIONS}{back}">Cancel' in client.get(place).content.decode()
    assert client.post(place)["Location"] == ELECTIONS + back


@pytest.mark.usefixtures("web_1")
def test_orders_on_another_site_stay_there(desk: Desk) -> None:
    """The redirect names the site that the order was given on."""
    response = desk.operator().post("/other/leader_jobs/election/mail/pause/")
    assert response["Location"] == "/other/leader_jobs/election/mail/change/"
