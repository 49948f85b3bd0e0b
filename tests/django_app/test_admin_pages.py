"""What the admin pages show, to whom, and what they say when the store does not answer."""

import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models import Model
from pytest_django import Settings as DjangoSettings

from django_leader_jobs.models import Election
from leader_jobs.clock import SystemClock
from leader_jobs.names import runners_of
from leader_jobs.records import State
from testsupport.admin_desk import ELECTIONS, Desk, proposal

CLOCK = SystemClock()
HOSTILE = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
IMAGE = "<img src=x onerror=alert(1)>"


def text_of(response: Any) -> str:
    """Return the page of a response that went well."""
    assert response.status_code == 200, response
    return str(response.content.decode())


# -- what is shown ------------------------------------------------------------------------------------


def test_the_list_shows_every_election(desk: Desk) -> None:
    """With leader, lease, number of candidates and what is the matter; each name leads to its page."""
    desk.enrol("mail", proposal("web-1"))
    desk.enrol("mail", proposal("web-2"))
    desk.enrol(runners_of("mail"), proposal("worker-1"))
    desk.enrol("reports", b"etcdctl on ops-7")
    desk.control("reports", by="bob").pause(reason="quarter end")
    page = text_of(desk.onlooker().get(ELECTIONS))

    assert f'<a href="{ELECTIONS}mail/change/">mail</a>' in page
    for said in ("web-1", "etcdctl on ops-7", "another program", "quarter end", "by bob"):
        assert said in page
    assert "All 2 elections have a leader, and nothing is overdue" in page


def test_an_empty_store_says_how_to_begin(desk: Desk) -> None:
    """Nobody has to read a manual to find out why the list is empty."""
    page = text_of(desk.onlooker().get(ELECTIONS))
    assert "There are no elections yet" in page
    assert "manage.py runleader" in page


def test_an_election_shows_who_leads_and_who_is_next(desk: Desk) -> None:
    """Leader with host, process, version, token and lease; the others in order; workers apart."""
    desk.enrol("mail", proposal("web-1", "one.example.org", 4001))
    desk.enrol("mail", proposal("web-2", "two.example.org", 4002))
    desk.enrol(runners_of("mail"), proposal("worker-1"))
    page = text_of(desk.onlooker().get(f"{ELECTIONS}mail/change/"))

    assert "web-1 leads" in page
    assert "web-2 stands by." in page
    for said in ("one.example.org", "4001", "1.2.3", 'data-ttl="30.0"', "never leads", "worker-1"):
        assert said in page
    assert page.index("one.example.org") < page.index("two.example.org") < page.index("worker-1")


def test_a_job_is_shown_with_its_schedule_its_runs_and_their_reasons(desk: Desk) -> None:
    """In the election's page as a strip of marks; in its own page in a table too."""
    desk.job("mail", "send", State.SUCCEEDED, State.FAILED, words="every 60 s", reason="no route")
    client = desk.onlooker()
    page = text_of(client.get(f"{ELECTIONS}mail/change/"))
    assert "every 60 s" in page
    assert 'aria-label="Recent occurrences: 1 succeeded, 1 failed"' in page
    assert page.count('<use href="#lj-failed" ') == 1
    assert "claimed +4 ms, started +12 ms, ended +1.5 s, took 1.5 s; node web-1" in page

    page = text_of(client.get(f"{ELECTIONS}mail/jobs/send/"))
    assert "no route" in page
    assert page.count("<tr data-key=") == 2


def test_what_is_late_or_paused_or_unreadable_is_said_first(desk: Desk) -> None:
    """Each in a sentence above everything else, and where it belongs."""
    desk.enrol("mail", proposal("web-1"))
    desk.job("mail", "late", due=CLOCK.utcnow() - timedelta(minutes=2))
    desk.job("mail", "held")
    desk.nonsense("mail", "jobs/odd")
    desk.control("mail", by="bob").pause("held", reason="OPS-12")
    page = text_of(desk.onlooker().get(f"{ELECTIONS}mail/change/"))

    assert "1 job is overdue" in page
    assert f'<a href="{ELECTIONS}mail/jobs/late/">late</a>' in page
    assert "1 job is left alone" in page
    assert "by bob now, until somebody resumes: OPS-12" in page


def test_terms_are_drawn_and_told(desk: Desk) -> None:
    """Who led when, what came between, why each term ended, and how long the next was in coming."""
    leader = desk.enrol("mail", proposal("web-2"))
    began = CLOCK.utcnow() - timedelta(minutes=5)
    ended = began + timedelta(minutes=3)
    desk.term("mail", 0, "web-1", began_at=began, ended_at=ended, reason="deadline", token=0)
    desk.term("mail", 1, "web-2", began_at=ended + timedelta(seconds=7), token=leader.token)
    page = text_of(desk.onlooker().get(f"{ELECTIONS}mail/change/"))

    assert page.count('<rect class="lj-term"') == 1
    assert page.count('<rect class="lj-reign"') == 1
    assert page.count('<rect class="lj-gap"') == 1
    assert "nobody led for 7.0 s" in page
    assert "renewals failed" in page
    assert '<td data-label="Succession took">7.0 s</td>' in page
    assert "goes on" in page


@pytest.mark.parametrize("span", ["10min", "all"])
def test_the_stretch_of_time_can_be_chosen(desk: Desk, span: str) -> None:
    """And the part of the page that is fetched anew keeps to it."""
    desk.term("mail", 0, "web-1", began_at=CLOCK.utcnow() - timedelta(hours=2))
    page = text_of(desk.onlooker().get(f"{ELECTIONS}mail/change/?span={span}"))
    assert f'?span={span}" aria-current="true"' in page
    assert f'live/?span={span}"' in page


def test_a_stretch_of_time_that_nobody_offers_is_not_repeated(desk: Desk) -> None:
    """What stands in the address is no more to be trusted than what stands in the store."""
    desk.term("mail", 0, "web-1", began_at=CLOCK.utcnow() - timedelta(hours=2))
    page = text_of(desk.onlooker().get(f"{ELECTIONS}mail/change/", {"span": HOSTILE}))
    assert "alert" not in page


def test_nobody_leads(desk: Desk) -> None:
    """An election of which only records are left says so, in red; one that never was, says that."""
    desk.job("mail", "send")
    client = desk.onlooker()
    page = text_of(client.get(f"{ELECTIONS}mail/change/"))
    assert "Nobody leads" in page
    assert 'class="lj-card lj-hero lj-bad"' in page
    assert "Nobody has stood in this election yet" in text_of(client.get(f"{ELECTIONS}x/change/"))


@pytest.mark.parametrize(
    "place",
    ["-x/change/", "a.runners/change/", "mail/jobs/none/", "mail/jobs/_2F/", "mail/jobs/_3Cb_3E/"],
)
def test_what_can_not_be_is_not_found(desk: Desk, place: str) -> None:
    """Names that no election has, workers' electorates, jobs that are not there."""
    desk.job("mail", "send")
    assert desk.onlooker().get(ELECTIONS + place).status_code == 404


# -- hostile input ------------------------------------------------------------------------------------


def test_nothing_in_the_store_becomes_markup(desk: Desk) -> None:
    """Not what candidates call themselves, nor texts of jobs, terms, pauses, requests, occurrences."""
    desk.enrol("mail", HOSTILE.encode())
    desk.enrol("mail", proposal(HOSTILE, IMAGE))
    desk.enrol(runners_of("mail"), IMAGE.encode())
    desk.job("mail", "send", State.FAILED, words=HOSTILE, task=IMAGE, reason=HOSTILE)
    desk.nonsense("mail", f"jobs/{IMAGE}")
    desk.nonsense("mail", "jobs/")
    desk.term("mail", 1, HOSTILE, began_at=CLOCK.utcnow(), ended_at=CLOCK.utcnow(), reason=IMAGE)
    control = desk.control("mail", by=HOSTILE)
    control.pause(reason=IMAGE)
    control.pause("send", reason=HOSTILE)
    client = desk.operator()
    for place in ("", "mail/change/", "mail/live/", "mail/jobs/send/", "mail/transfer/", "live/"):
        page = text_of(client.get(ELECTIONS + place))
        assert HOSTILE not in page
        assert "<img" not in page
        if place != "mail/transfer/":
            assert ESCAPED in page


def test_a_text_that_turns_the_direction_of_what_follows_is_shown_without_doing_so(
    desk: Desk,
) -> None:
    """Neither control characters nor overrides of the writing direction reach a page."""
    desk.enrol("mail", "admin\u202e\u0007\x1b[2J".encode())
    page = text_of(desk.onlooker().get(f"{ELECTIONS}mail/change/"))
    for character in "\u202e\u0007\x1b":
        assert character not in page
    assert "admin" in page


# -- programs -----------------------------------------------------------------------------------------


def test_the_report_is_that_of_the_command_line(desk: Desk) -> None:
    """The same document, for programs that have a session."""
    desk.enrol("mail", proposal("web-1"))
    desk.job("mail", "send", State.SUCCEEDED)
    client = desk.onlooker()
    report = client.get(f"{ELECTIONS}mail/report.json").json()
    assert report["format"] == 1
    assert report["leader"]["node"] == "web-1"
    assert report["jobs"][0]["job"] == "send"
    report = client.get(f"{ELECTIONS}report.json").json()
    assert [entry["election"] for entry in report["elections"]] == ["mail"]


# -- the store is away --------------------------------------------------------------------------------


def test_what_was_last_known_is_shown_as_that(desk: Desk) -> None:
    """With the reason, since when, and no buttons that could not work; until the store is back."""
    desk.enrol("mail", proposal("web-1"))
    desk.job("mail", "send")
    client = desk.operator()
    place = f"{ELECTIONS}mail/change/"
    text_of(client.get(place))
    desk.store.cut()
    page = text_of(client.get(place))
    assert "The store does not answer" in page
    assert "What follows was last seen at" in page
    assert "web-1 leads" in page
    assert "lj-stale" in page
    assert 'class="lj-button" href' not in page
    assert "data-left" not in page

    answer = client.get(f"{ELECTIONS}mail/report.json")
    assert answer.status_code == 503
    assert answer.json()["error"]
    assert answer.json()["since"]

    desk.store.restore()
    assert "does not answer" not in text_of(client.get(place))


def test_what_was_never_seen_is_not_made_up(desk: Desk) -> None:
    """A process that starts while the store is away has nothing to show, and says that."""
    desk.store.cut()
    client = desk.operator()
    for place in ("", "mail/change/", "mail/jobs/send/", "mail/live/"):
        page = text_of(client.get(ELECTIONS + place))
        assert "The store does not answer" in page
        assert "has not seen it before" in page
        assert " leads" not in page


def test_settings_that_make_no_sense_are_said_too(desk: Desk, settings: DjangoSettings) -> None:
    """In the sentence that every other entry point says."""
    settings.LEADER_JOBS = {"STORE": "mysql://x"}
    page = text_of(desk.onlooker().get(ELECTIONS))
    assert "unknown kind of store" in page


@pytest.fixture(name="silent_store")
def _silent_store() -> Iterator[str]:
    """The URL of a server that accepts connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        yield f"etcd://127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.parametrize("place", ["", "mail/change/"])
def test_a_page_answers_in_two_seconds_whatever_the_store_does(
    desk: Desk, settings: DjangoSettings, silent_store: str, place: str
) -> None:
    """A server that is frozen is the worst case: it is connected to, and never answers."""
    settings.LEADER_JOBS = {"STORE": silent_store}
    client = desk.onlooker()
    began = CLOCK.now()
    client.get(ELECTIONS + place)
    assert CLOCK.now() - began < 2.0


# -- sites --------------------------------------------------------------------------------------------


def test_another_admin_site_has_pages_of_its_own(desk: Desk) -> None:
    """Every link on them stays on that site."""
    desk.enrol("mail", proposal("web-1"))
    desk.enrol("mail", proposal("web-2"))
    desk.job("mail", "send", State.SUCCEEDED)
    client = desk.operator()
    for place in ("", "mail/change/", "mail/jobs/send/", "mail/pause/", "mail/live/"):
        page = text_of(client.get(f"/other/leader_jobs/election/{place}"))
        assert "/other/leader_jobs/" in page
        assert "/admin/leader_jobs/" not in page


def test_the_index_leads_to_the_pages(desk: Desk) -> None:
    """As Leader Jobs, Elections: to look at, not to add."""
    page = text_of(desk.onlooker().get("/admin/"))
    assert "Leader Jobs" in page
    assert f'href="{ELECTIONS}"' in page
    assert f"{ELECTIONS}add/" not in page


def test_the_model_has_no_table_and_wants_no_migration(desk: Desk) -> None:
    """``migrate`` makes its permissions, and ``makemigrations`` finds nothing to do."""
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
    model: type[Model] = Election
    assert not model._meta.managed
    assert desk.onlooker().get(ELECTIONS).status_code == 200
