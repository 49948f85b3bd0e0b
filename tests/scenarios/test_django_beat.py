"""Beats around django-celery-beat as real processes: killed, frozen, edited and locked out."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from django_celery_beat.models import PeriodicTask

from testsupport.brokers import RedisServer
from testsupport.django_beat_site.database import contents, locked
from testsupport.django_beat_site.fleet import BeatSite
from testsupport.django_beat_site.rows import clocked, crontab, edit, every, make

pytestmark = pytest.mark.redis

SECOND: Final = timedelta(seconds=1)
#: How late, in seconds, what is due at the moment of a succession may be; on a busy machine.
_SOON: Final = 1.5
MakeSite = Callable[..., BeatSite]


@pytest.fixture(name="make_site")
def _make_site(tmp_path: Path, database: Path, redis_broker: RedisServer) -> Iterator[MakeSite]:
    with ExitStack() as stack:

        def make_site(**settings: Any) -> BeatSite:
            site = BeatSite(tmp_path, database, redis_broker, settings)
            stack.enter_context(site.beating())
            return site

        yield make_site


@pytest.fixture(name="site")
def _site(make_site: MakeSite) -> BeatSite:
    return make_site()


def _kill_just_before_due(site: BeatSite, leader: str, standby: str) -> float:
    """Have *standby* lead after *leader*; return how late it sends what is due then, in seconds."""
    site.beat(standby)
    site.await_standby(standby)
    site.await_sent("busy 0", len(site.sent()["busy 0"]) + 2)
    due = max(site.sent()["busy 0"]) + SECOND
    site.await_that(lambda: datetime.now(UTC) > due - 0.1 * SECOND, "time stands still")
    site.kill(leader)
    return site.lateness(standby, "busy 0", due)


def gaps(instants: list[datetime]) -> set[timedelta]:
    """Return the distances of neighbours."""
    return {later - earlier for earlier, later in pairwise(sorted(instants))}


def test_a_killed_leader_of_a_thousand_rows_is_replaced_in_time(site: BeatSite) -> None:
    """Killed just before a second strikes, that second's messages are at most half a second late."""
    seconds, hours = every(1), [crontab("0", str(hour)) for hour in range(24)]
    PeriodicTask.objects.bulk_create(
        PeriodicTask(name=f"row {n}", task="add", crontab=hours[n % 24]) for n in range(1000)
    )
    for n in range(5):
        make(f"busy {n}", seconds)
    site.beat("0")
    site.await_sent("busy 4", 2)
    late = [_kill_just_before_due(site, str(n), str(n + 1)) for n in range(2)]

    assert max(late) < _SOON, late
    for n in range(5):
        sent = site.sent()[f"busy {n}"]
        assert gaps(list(sent)) == {SECOND}
        assert {len(set(ids)) for ids in sent.values()} == {1}


def test_a_standby_needs_to_write_nothing(site: BeatSite, database: Path) -> None:
    """One whose database is read-only stands by without a word, and leads with one about its books."""
    make("job", every(1))
    make("unreadable", every(1), args="no JSON")
    site.beat("0")
    site.await_sent("job")
    site.beat("1", database=f"file:{database}?mode=ro")
    site.await_standby("1")
    site.await_sent("job", len(site.sent()["job"]) + 1)
    standing_by = site.log("1").read_text()
    assert not [word for word in ("WARNING", "ERROR", "Traceback") if word in standing_by]
    site.kill("0")
    before = contents(database)
    complaint = "noted in the database later"
    site.await_that(lambda: complaint in site.log("1").read_text(), "it does not try")
    site.await_sent("job", len(site.sent()["job"]) + 2)

    assert gaps(list(site.sent()["job"])) == {SECOND}
    assert contents(database) == before
    assert site.log("1").read_text().count(complaint) == 1
    assert "Traceback" not in site.log("1").read_text()


def test_what_people_edit_holds_within_five_seconds(make_site: MakeSite) -> None:
    """Rows made, changed and switched off under a leader that the project's own dict configures."""
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_celery_beat"]
    site = make_site(CELERY_LEADER_JOBS_STORE=None, CELERY_LEADER_JOBS_TTL=None)
    site._settings |= {
        "INSTALLED_APPS": [*apps, "django_leader_jobs", "testsupport.django_beat_site"],
        "LEADER_JOBS": {"STORE": site.store, "ELECTION": "project", "TTL": 2.0},
    }
    make("old", every(1))
    site.beat("0")
    site.await_sent("old")
    make("new", every(1))
    edit("old", enabled=False)
    site.await_sent("new", within=7.0)
    last = max(site.sent()["old"])
    site.await_sent("new", 3)

    assert max(site.sent()["old"]) == last
    assert "'project'" in site.log("0").read_text()
    assert site.terminate("0") == 0
    assert PeriodicTask.objects.get(name="new").total_run_count == len(site.sent()["new"])


def test_one_offs_are_sent_once_by_a_leader_killed_right_after(site: BeatSite) -> None:
    """The next one does not send them again, and switches their rows off."""
    soon = datetime.now(UTC).replace(microsecond=0) + 6 * SECOND
    make("clocked", clocked(soon), one_off=True)
    make("interval", every(3600), one_off=True, start_time=soon)
    make("job", every(1))
    site.beat("0")
    site.await_sent("job")
    site.beat("1")
    site.await_standby("1")
    site.await_that(lambda: len({"clocked", "interval"} & site.sent().keys()) == 2, "not sent")
    site.kill("0")
    assert PeriodicTask.objects.get(name="clocked").enabled
    site.await_that(
        lambda: not PeriodicTask.objects.filter(one_off=True, enabled=True).exists(),
        "they are not switched off",
    )

    for name in ("clocked", "interval"):
        assert {at: len(set(ids)) for at, ids in site.sent()[name].items()} == {soon: 1}
    assert gaps(list(site.sent()["job"])) == {SECOND}


def test_a_database_locked_for_seconds_costs_nothing_but_time(
    site: BeatSite, database: Path
) -> None:
    """The leader lives on, says so once, sends nothing twice, and reads edits when it can again."""
    make("job", every(1))
    leader = site.beat("0", "--max-interval=1", patience=1.0)
    site.await_sent("job", 3)
    with locked(database):
        site.await_that(
            lambda: "schedule can not be read" in site.log("0").read_text(), "it says nothing"
        )
        count = len(site.sent()["job"])
        site.await_sent("job", count + 1)
    make("new", every(1))
    site.await_sent("new", 1)

    assert leader.poll() is None
    said = site.log("0").read_text()
    assert said.count("schedule can not be read") == 1
    assert "Traceback" not in said
    assert {len(ids) for ids in site.sent()["job"].values()} == {1}


def test_a_woken_leader_adds_nothing_to_its_successors_books(
    site: BeatSite, database: Path
) -> None:
    """Frozen past its lease with sent messages that it had not noted; they are noted by nobody."""
    make("job", every(1))
    leader = site.beat("0")
    site.await_sent("job", 2)
    site.beat("1")
    site.await_standby("1")
    leader.send_signal(signal.SIGSTOP)
    site.await_sent("job", len(site.sent()["job"]) + 2)
    assert site.terminate("1") == 0
    before = contents(database)
    leader.send_signal(signal.SIGCONT)
    site.await_that(lambda: "term" in site.log("0").read_text(), "it does not come back")
    sent = len(site.sent()["job"])
    site.await_sent("job", sent + 1)
    assert site.terminate("0") == 0

    assert contents(database) != before  # it leads again, and notes what it sends from then on
    assert PeriodicTask.objects.get(name="job").total_run_count <= len(site.sent()["job"])
    assert {len(set(ids)) for ids in site.sent()["job"].values()} == {1}
