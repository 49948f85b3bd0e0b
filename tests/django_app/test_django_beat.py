"""
Beat around the database scheduler of django-celery-beat: a real database, a real broker, and turns.

Terms are begun and ended by hand, and time is the test's; only what django-celery-beat itself writes
down (when a row was changed or sent) is the time of the host, which is a moment earlier.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from celery import Celery
from celery.beat import Scheduler
from celery.schedules import crontab as crontab_entry
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import (
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from django_celery_beat.schedulers import DatabaseScheduler

from leader_jobs.adapters.celery_entries import HEADER, job_name
from leader_jobs.adapters.celery_settings import settings_of
from leader_jobs.records import State
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.testing import ManualClock
from testsupport.brokers import FilesystemBroker
from testsupport.django_beat_site.database import contents, locked
from testsupport.django_beat_site.desk import LOOK, Desk
from testsupport.django_beat_site.rows import clocked, crontab, edit, every, make, switch
from testsupport.ledgers import entries_of

SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

MakeDesk = Callable[..., Desk]

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    """Return a clock that shows the next whole minute, and 10 seconds."""
    now = datetime.now(UTC).replace(second=10, microsecond=0) + MINUTE
    return ManualClock(now)


@pytest.fixture(name="store")
def _store(clock: ManualClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture(name="make_desk")
def _make_desk(
    store: MemoryStore, clock: ManualClock, filesystem_broker: FilesystemBroker
) -> Iterator[MakeDesk]:
    """Return what makes desks: the first one leads, the next one when it has died."""
    with ExitStack() as stack:

        def make_desk(name: str = "a", **given: Any) -> Desk:
            desk = Desk(name, store, filesystem_broker, clock, **given)
            return stack.enter_context(closing(desk))

        yield make_desk


@pytest.fixture(name="desk")
def _desk(make_desk: MakeDesk) -> Desk:
    """Return a desk that may lead, and does not yet."""
    return make_desk()


def row_of(name: str) -> Any:
    """Read a row."""
    return PeriodicTask.objects.get(name=name)


def touched_at(instant: datetime, name: str) -> None:
    """Have a row say that it was changed at *instant*, which is not the host's time."""
    PeriodicTask.objects.filter(name=name).update(date_changed=instant)


# -- standing by --------------------------------------------------------------------------------------


def test_a_standby_writes_nothing(desk: Desk, database: Path) -> None:
    """Not even about rows that its own scheduler would switch off, nor by what the app configures."""
    desk.app.conf.beat_schedule = {"configured": {"task": "add", "schedule": 10.0}}
    make("sound", every(10))
    make("broken", every(10), args="no JSON")
    make("over", every(10), expires=datetime(2020, 1, 1, tzinfo=UTC))
    make("ran", every(10), one_off=True, total_run_count=1)
    before, said = database.read_bytes(), contents(database)

    desk.timetable.preload()
    desk.close()

    assert contents(database) == said
    assert database.read_bytes() == before
    assert desk.sent() == []


def test_the_leader_sets_the_configured_schedule_up_after_its_first_turn(desk: Desk) -> None:
    """What the database says comes first, for it is there; the rest is written a second later."""
    desk.app.conf.beat_schedule = {
        "configured": {"task": "add", "schedule": crontab_entry(minute="*"), "args": (1,)}
    }
    desk.lead()
    assert not PeriodicTask.objects.exists()

    desk.go_on(60)

    assert row_of("configured").args == "[1]"
    assert [one.message.body[0] for one in desk.sent("configured")] == [[1]]


def test_options_of_a_configured_entry_are_kept_in_its_row(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """django-celery-beat drops the options it does not know; ours go the way people's own do."""
    ours = {"catch_up": "all", "window": timedelta(minutes=5)}
    desk.app.conf.beat_schedule = {
        "configured": {"task": "add", "schedule": 1.0, "options": {"leader_jobs": ours}}
    }
    desk.lead()
    desk.go_on(3)
    assert json.loads(row_of("configured").headers) == {
        HEADER: {"catch_up": "all", "window": 300.0}
    }

    desk.clock.advance(20)
    desk.tick()

    assert len(desk.instants("configured")) >= 20
    assert not caplog.records


def test_a_preloaded_standby_leads_without_making_all_entries_anew(make_desk: MakeDesk) -> None:
    """Which takes a millisecond for each; only what was edited meanwhile is made."""
    schedule = crontab("0", "4")
    PeriodicTask.objects.bulk_create(
        PeriodicTask(name=f"row {n}", task="add", crontab=schedule) for n in range(50)
    )
    desk = make_desk()
    desk.timetable.preload()
    edit("row 7", args="[7]")
    made: list[str] = []
    kind = desk.scheduler.Entry

    class Counting(kind):  # type: ignore[misc, valid-type]  # made at run time
        def __init__(self, row: Any, app: Celery | None = None) -> None:
            made.append(row.name)
            super().__init__(row, app=app)

    desk.scheduler.Entry = Counting
    desk.lead()

    assert made == ["row 7"]


# -- what people edit ---------------------------------------------------------------------------------


def test_a_new_interval_starts_from_when_it_is_seen(desk: Desk, clock: ManualClock) -> None:
    """It is seen at the next look, and first due a period later."""
    desk.lead()
    desk.look()
    make("new", every(10))
    desk.look()
    seen = clock.utcnow()
    desk.go_on(20)

    assert desk.instants("new") == [seen + 10 * SECOND, seen + 20 * SECOND]


def test_a_new_crontab_misses_nothing_before_it_is_seen(desk: Desk, clock: ManualClock) -> None:
    """Written at :58 and seen at :03, it is sent for :00, as it would be by a beat that saw it."""
    desk.lead()
    desk.go_on(48 - LOOK)
    desk.go_on(LOOK)
    make("new", crontab())
    desk.go_on(LOOK)

    assert desk.instants("new") == [clock.utcnow().replace(second=0)]


def test_a_new_crontab_is_not_due_for_what_was_before_it(desk: Desk, clock: ManualClock) -> None:
    """Written at :01 and seen at :05, it waits for the next minute."""
    desk.lead()
    desk.go_on(50)
    assert clock.utcnow().second == 0
    clock.advance(1)
    make("new", crontab())
    touched_at(clock.utcnow(), "new")
    desk.go_on(50)
    assert desk.instants("new") == []
    desk.go_on(10)

    assert len(desk.instants("new")) == 1


def test_a_changed_interval_starts_from_now(desk: Desk, clock: ManualClock) -> None:
    """Although by its new period it is overdue since long; the row itself was not touched."""
    row = make("job", every(3600))
    desk.lead()
    desk.go_on(1800)
    IntervalSchedule.objects.get(pk=row.interval_id)
    schedule = row.interval
    schedule.every = 10
    schedule.save()
    desk.look()
    seen = clock.utcnow()
    assert desk.instants("job") == []
    desk.go_on(10)

    assert desk.instants("job") == [seen + 10 * SECOND]


def test_a_changed_crontab_starts_from_now(desk: Desk, clock: ManualClock) -> None:
    """A minute of the hour that has passed already is not made up for."""
    start = clock.utcnow().replace(second=0)
    row = make("job", crontab(str((start - 5 * MINUTE).minute)))
    desk.lead()
    desk.go_on(30)
    schedule = row.crontab
    schedule.minute = str(start.minute)
    schedule.save()
    desk.go_on(120)
    assert desk.instants("job") == []

    schedule.minute = str((clock.utcnow() + MINUTE).minute)
    schedule.save()
    desk.go_on(60)

    assert desk.instants("job") == [clock.utcnow().replace(second=0)]


OFF_AND_ON: Final = [
    pytest.param(
        lambda name: edit(name, enabled=False), lambda n: edit(n, enabled=True), id="form"
    ),
    pytest.param(lambda name: switch(name, on=False), lambda n: switch(n, on=True), id="action"),
]


@pytest.mark.parametrize(("off", "on"), OFF_AND_ON)
def test_what_is_switched_off_is_not_sent_and_not_made_up(
    desk: Desk, clock: ManualClock, off: Callable[[str], Any], on: Callable[[str], Any]
) -> None:
    """Switched on again, it starts from then; phase and past are forgotten."""
    make("job", every(7))
    make("cron", crontab())
    desk.lead()
    desk.go_on(60)
    count = len(desk.sent())
    off("job")
    off("cron")
    desk.look()
    desk.go_on(300)
    assert len(desk.sent()) == count

    on("job")
    on("cron")
    desk.look()
    seen = clock.utcnow()
    assert len(desk.sent()) == count
    desk.go_on(60)

    assert desk.instants("job")[-8:] == [seen + n * 7 * SECOND for n in range(1, 9)]
    assert desk.instants("cron")[-1] == clock.utcnow().replace(second=0)
    assert len(desk.sent()) == count + 9


@pytest.mark.parametrize(("off", "on"), OFF_AND_ON)
def test_what_was_switched_off_while_nobody_led_is_not_made_up(
    make_desk: MakeDesk, clock: ManualClock, off: Callable[[str], Any], on: Callable[[str], Any]
) -> None:
    """The next leader sees that it is off, and later that it is on again."""
    make("cron", crontab())
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    first.go_on(60)
    first.resign()
    off("cron")
    clock.advance(600)
    second.lead()
    second.go_on(600)
    on("cron")
    touched_at(clock.utcnow(), "cron")
    second.look()
    assert len(second.sent()) == 1
    second.go_on(60)

    assert len(second.sent()) == 2


def test_what_was_off_and_on_again_while_nobody_led_is_not_made_up(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """The row itself says since when it counts; what was missed since then is made up."""
    make("cron", crontab())
    make("other", crontab())
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    first.go_on(60)
    first.resign()
    edit("cron", enabled=False)
    clock.advance(600)
    edit("cron", enabled=True)
    touched_at(clock.utcnow(), "cron")
    clock.advance(20)
    second.lead()
    assert (len(second.sent("cron")), len(second.sent("other"))) == (1, 2)
    second.resign()
    third = make_desk("c")
    clock.advance(60)
    third.lead()

    assert (len(third.sent("cron")), len(third.sent("other"))) == (2, 3)


def test_a_claim_of_what_was_switched_off_is_not_sent_when_it_is_on_again(
    make_desk: MakeDesk, clock: ManualClock, store: MemoryStore
) -> None:
    """Claimed by a leader that died before it sent it, and switched off before the next one came."""
    make("cron", crontab())
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    claims = first.node.claims(*first.timetable.jobs())
    first.node.tick(claims)
    clock.advance(60)
    (claim,) = first.node.tick(claims)
    first.die()
    switch("cron", on=False)
    second.lead()
    second.go_on(300)
    switch("cron", on=True)
    second.look()

    assert second.sent() == []
    assert [e.state for e in entries_of(store, claim.job, clock)] == [State.SKIPPED]


def test_a_row_that_is_deleted_or_renamed_is_another_one(desk: Desk, clock: ManualClock) -> None:
    """Nothing is sent under the old name any more; a new row of that name starts from now."""
    make("gone", crontab())
    make("old", crontab())
    desk.lead()
    desk.go_on(60)
    row_of("gone").delete()
    edit("old", name="new")
    desk.look()
    desk.go_on(120)
    assert (len(desk.sent("gone")), len(desk.sent("old"))) == (1, 1)
    assert len(desk.sent("new")) == 2

    make("gone", crontab())
    touched_at(clock.utcnow(), "gone")
    desk.look()
    assert len(desk.sent("gone")) == 1
    desk.go_on(60)
    assert len(desk.sent("gone")) == 2


def test_a_leader_that_leads_again_goes_by_what_was_edited_meanwhile(desk: Desk) -> None:
    """Although nobody announced it, as ``QuerySet.update`` does not."""
    make("job", every(10), args="[1]")
    desk.lead()
    desk.go_on(10)
    desk.resign()
    PeriodicTask.objects.update(args="[2]")
    desk.node.stand()
    desk.lead()
    desk.go_on(10)

    assert [one.message.body[0] for one in desk.sent("job")] == [[1], [2]]


def test_a_look_that_fails_half_way_is_begun_anew(desk: Desk) -> None:
    """That the rows were changed is not forgotten because they could not be read."""
    make("job", every(10), args="[1]")
    desk.lead()
    desk.look()
    edit("job", args="[2]")
    read = desk.scheduler.enabled_models

    def fail() -> Any:
        msg = "gone away"
        raise OperationalError(msg)

    desk.scheduler.enabled_models = fail
    desk.look()
    desk.scheduler.enabled_models = read
    desk.look()
    desk.go_on(10)

    assert desk.sent("job")[-1].message.body[0] == [2]


def test_changes_that_nobody_announces_are_seen_after_five_minutes(desk: Desk) -> None:
    """``QuerySet.update`` alone does not say that it changed something."""
    make("job", every(60), args="[1]")
    desk.lead()
    desk.go_on(60)
    PeriodicTask.objects.update(args="[2]")
    desk.go_on(360)

    assert desk.sent("job")[-1].message.body[0] == [2]


def test_an_edit_by_a_host_whose_clock_is_behind_is_seen(desk: Desk) -> None:
    """When it was made is another time, and need not be a later one."""
    make("job", every(10), args="[1]")
    desk.lead()
    desk.look()
    edit("job", args="[2]")
    PeriodicTasks.objects.update(last_update=datetime(2020, 1, 1, tzinfo=UTC))
    desk.look()
    desk.go_on(10)

    assert desk.sent("job")[-1].message.body[0] == [2]


# -- kinds of schedules -------------------------------------------------------------------------------


def test_a_crontab_goes_by_its_own_time_zone(desk: Desk, clock: ManualClock) -> None:
    """Which is neither Django's nor Celery's."""
    in_minutes = (clock.utcnow() + timedelta(hours=5, minutes=47)).replace(second=0)  # Kathmandu's
    make("there", crontab(str(in_minutes.minute), str(in_minutes.hour), "Asia/Kathmandu"))
    make("here", crontab(str(in_minutes.minute), str(in_minutes.hour)))
    desk.lead()
    desk.go_on(180)

    assert desk.instants("here") == []
    assert desk.instants("there") == [in_minutes - timedelta(hours=5, minutes=45)]


def test_a_solar_event_is_sent_once_and_alike_on_all_nodes(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """Its next two instants are a day apart, and a succession between them changes nothing."""
    schedule = SolarSchedule.objects.create(
        event="solar_noon", latitude="48.137000", longitude="11.575000"
    )
    make("noon", schedule)
    first = make_desk("a")
    first.lead()
    clock.advance(DAY.total_seconds())
    first.tick()
    first.die()
    second = make_desk("b")
    second.lead()
    clock.advance(DAY.total_seconds())
    second.tick()
    one, other = second.instants("noon")

    assert DAY - MINUTE < other - one < DAY + MINUTE
    assert one.hour in (10, 11)


def test_a_clocked_row_is_sent_once_and_switched_off(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """Whatever dies: the future one on time, the past one at once, each under one id."""
    past, future = clock.utcnow() - DAY, clock.utcnow() + 30 * SECOND
    make("past", clocked(past), one_off=True)
    make("future", clocked(future), one_off=True)
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    assert first.instants("past") == [past]
    first.die()
    second.lead()
    second.go_on(40)

    assert second.instants("past") == [past]
    assert second.instants("future") == [future]
    for name in ("past", "future"):
        row = row_of(name)
        assert (row.enabled, row.last_run_at, row.total_run_count) == (False, None, 0)


def test_a_clocked_row_moved_to_another_time_is_sent_again(desk: Desk, clock: ManualClock) -> None:
    """And switched on again with its old one it is not: that instant was."""
    row = make("job", clocked(clock.utcnow() + 5 * SECOND), one_off=True)
    desk.lead()
    desk.go_on(20)
    edit("job", enabled=True)
    desk.go_on(20)
    assert len(desk.sent("job")) == 1
    assert not row_of("job").enabled

    schedule = row.clocked
    schedule.clocked_time = clock.utcnow() + 20 * SECOND
    schedule.save()
    edit("job", enabled=True)
    desk.go_on(30)

    assert len(desk.sent("job")) == 2


def test_a_clocked_row_further_away_than_five_minutes_is_on_time(
    desk: Desk, clock: ManualClock
) -> None:
    """Its own scheduler does not read it before, and then at the next of its five minutes."""
    instant = clock.utcnow() + 302 * SECOND
    make("job", clocked(instant), one_off=True)
    desk.lead()
    clock.advance(302)
    desk._beat.tick()  # type: ignore[union-attr]  # one turn, which has no time for a look

    assert desk.instants("job") == [instant]


# -- one-offs, and bounds -----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [lambda: every(10), crontab], ids=["interval", "crontab"])
def test_a_one_off_is_sent_once_and_switched_off(
    desk: Desk, clock: ManualClock, schedule: Callable[[], Any]
) -> None:
    """And once more if it is switched on again."""
    make("job", schedule(), one_off=True)
    desk.lead()
    desk.go_on(200)
    assert len(desk.sent("job")) == 1
    row = row_of("job")
    assert (row.enabled, row.last_run_at, row.total_run_count) == (False, None, 0)

    edit("job", enabled=True)
    desk.go_on(200)
    assert len(desk.sent("job")) == 2
    assert not row_of("job").enabled


def test_a_one_off_is_sent_once_if_the_leader_dies_before_it_is_switched_off(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """The ledger knows; the next leader switches it off."""
    make("job", every(10), one_off=True)
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    for _ in range(10):  # no look at the schedule after it is sent
        clock.advance(1)
        first.tick()
        if first.sent("job"):
            break
    first.die()
    assert row_of("job").enabled
    second.lead()
    second.go_on(60)

    assert len(second.sent("job")) == 1
    assert not row_of("job").enabled


def test_a_one_off_that_was_claimed_and_not_sent_is_sent_by_the_next_leader(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """Under its id, and switched off after."""
    make("job", every(10), one_off=True)
    first, second = make_desk("a"), make_desk("b")
    first.timetable.set_up()
    claims = first.node.claims(*first.timetable.jobs())
    first.node.tick(claims)
    clock.advance(10)
    (claim,) = first.node.tick(claims)
    first.die()
    second.lead()
    second.go_on(60)

    assert [one.message.headers["id"] for one in second.sent("job")] == [claim.occurrence]
    assert not row_of("job").enabled


def test_a_one_off_switched_on_again_at_once_is_sent_again(desk: Desk) -> None:
    """Between two looks it was off and on; that it was off is not overlooked."""
    make("job", every(10), one_off=True)
    desk.lead()
    desk.go_on(10)
    assert len(desk.sent("job")) == 1
    # As if between the switching off and the reading of one look.
    switch_off = desk.scheduler.switch_off

    def off_and_on(names: Any) -> Any:
        over = switch_off(names)
        if over:
            edit("job", enabled=True)
        return over

    desk.scheduler.switch_off = off_and_on
    desk.look()
    desk.scheduler.switch_off = switch_off
    assert row_of("job").enabled
    desk.go_on(30)

    assert len(desk.sent("job")) == 2


def test_a_guarded_one_off_is_switched_off_when_it_has_run(desk: Desk, clock: ManualClock) -> None:
    """As long as it may have to be sent again, the ledger has to know of it."""
    make("job", every(10), one_off=True, headers='{"leader_jobs": {"guarded": true}}')
    desk.lead()
    desk.go_on(80)
    assert len(desk.sent("job")) == 2  # nobody took the first copy
    assert len({one.message.headers["id"] for one in desk.sent("job")}) == 1

    assert row_of("job").enabled


def test_a_start_time_gives_an_interval_its_phase(desk: Desk, clock: ManualClock) -> None:
    """Nothing before it, the first one exactly then, the others from there."""
    start = clock.utcnow() + 95 * SECOND
    make("later", every(60), start_time=start)
    make("before", every(60), start_time=start - DAY)
    desk.lead()
    desk.go_on(160)

    assert desk.instants("later") == [start, start + MINUTE]
    assert desk.instants("before") == [start - MINUTE, start, start + MINUTE]


def test_a_one_off_with_a_start_time_is_sent_however_late_it_is_seen(
    desk: Desk, clock: ManualClock
) -> None:
    """That is how people say "once, at that time"; the interval means nothing then."""
    desk.lead()
    start = clock.utcnow() - 20 * SECOND
    make("job", every(86_400), one_off=True, start_time=start)
    desk.go_on(30)

    assert desk.instants("job") == [start]
    assert not row_of("job").enabled


def test_a_crontab_with_a_start_time_waits_for_its_first_minute_after_that(
    desk: Desk, clock: ManualClock
) -> None:
    """Its own scheduler would send it at the start time itself."""
    start = clock.utcnow() + 95 * SECOND
    make("job", crontab(), start_time=start)
    desk.lead()
    desk.go_on(120)

    assert desk.instants("job") == [start.replace(second=0) + MINUTE]


def test_nothing_is_sent_of_what_has_expired(desk: Desk, clock: ManualClock) -> None:
    """The row is switched off when the time has come; the last message says when that is."""
    expires = clock.utcnow() + 25 * SECOND
    make("job", every(10), expires=expires)
    desk.lead()
    desk.go_on(60)

    sent = desk.sent("job")
    assert len(sent) == 2
    assert datetime.fromisoformat(sent[-1].message.headers["expires"]) == expires


def test_a_row_that_has_expired_is_switched_off(desk: Desk) -> None:
    """Whether it expired while somebody led or before; by the clock of django-celery-beat."""
    make("before", every(10), expires=datetime.now(UTC) - SECOND)
    make("soon", every(10), expires=datetime.now(UTC) + timedelta(milliseconds=300))
    desk.lead()
    limit = datetime.now(UTC) + 10 * SECOND
    while PeriodicTask.objects.filter(enabled=True).exists():
        assert datetime.now(UTC) < limit
        desk.look()

    assert desk.sent() == []


def test_seconds_to_expiry_count_from_the_planned_instant(desk: Desk, clock: ManualClock) -> None:
    """A message that would have expired when it is sent is not sent, but skipped as late."""
    make("job", crontab(), expire_seconds=30)
    desk.lead()
    desk.go_on(60)
    (sent,) = desk.sent("job")
    assert datetime.fromisoformat(sent.message.headers["expires"]) == sent.planned_at + 30 * SECOND

    late = clock.utcnow().replace(second=0) + MINUTE
    clock.advance((late - clock.utcnow()).total_seconds() + 31)
    desk.tick()
    assert len(desk.sent("job")) == 1
    states = [e.state for e in entries_of(desk.node.store, "job", clock)]
    assert states[-1] is State.SKIPPED


# -- what a message carries ---------------------------------------------------------------------------


def test_a_message_carries_what_the_row_says(desk: Desk) -> None:
    """Arguments, queue, priority and headers; and a ticket, under the occurrence's id."""
    make(
        "job",
        every(10),
        args="[1, 2]",
        kwargs='{"key": "ß"}',
        priority=3,
        headers='{"tenant": "blue", "leader_jobs": {"catch_up": "all"}}',
    )
    desk.lead()
    desk.go_on(10)
    ((_, planned_at, message),) = desk.sent()

    assert message.body[:2] == [[1, 2], {"key": "ß"}]
    assert message.properties["priority"] == 3
    assert message.headers["tenant"] == "blue"
    ticket = message.headers[HEADER]
    assert (ticket["job"], ticket["planned_at"]) == ("job", planned_at.isoformat())
    assert "catch_up" not in ticket


def test_a_row_may_name_its_queue(desk: Desk, filesystem_broker: FilesystemBroker) -> None:
    """Another one than Celery's own."""
    make("job", every(10), queue="slow")
    desk.lead()
    desk.go_on(10)

    assert len(filesystem_broker.messages("slow")) == 1


def test_options_in_the_headers_of_a_row_are_ours(desk: Desk, clock: ManualClock) -> None:
    """Of ten missed minutes one row is sent for all, the other for the newest."""
    make("all", crontab(), headers='{"leader_jobs": {"catch_up": "all"}}')
    make("latest", crontab())
    desk.lead()
    clock.advance(600)
    desk.tick()

    assert (len(desk.sent("all")), len(desk.sent("latest"))) == (10, 1)


NAMES: Final = [
    "täglich / nightly: Übersicht 報告 №1",
    "/",
    " ",
    "x" * 200,
    "x" * 199 + "y",
    "a'b\"c\\d\n",
    "../../etc/passwd",
]


def test_names_may_be_any_text(desk: Desk) -> None:
    """Each is a job of its own, and its name comes back in the message."""
    for name in NAMES:
        make(name, every(10))
    desk.lead()
    desk.go_on(10)

    assert sorted(one.entry for one in desk.sent()) == sorted(NAMES)
    assert len({job_name(name) for name in NAMES}) == len(NAMES)


# -- rows that make no sense --------------------------------------------------------------------------

BROKEN: Final[dict[str, dict[str, Any]]] = {
    "args": {"args": "[1,"},
    "kwargs": {"kwargs": "[1]"},
    "headers": {"headers": "no JSON"},
    "list of headers": {"headers": "[]"},
    "our options": {"headers": '{"leader_jobs": {"catchup": "all"}}'},
    "our value": {"headers": '{"leader_jobs": "all"}'},
    "no schedule": {"interval": None},
    "schedule was deleted": {"interval": 4711},
    "interval of nothing": {"interval": "zero"},
    "crontab": {"interval": None, "crontab": "bad"},
}


def test_a_row_that_makes_no_sense_is_reported_and_does_not_hold_up_others(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named once, and left as it is: who corrects it need not find out that it is off."""
    bad = {
        "zero": every(0).pk,
        "bad": CrontabSchedule.objects.create(minute="99", timezone="UTC").pk,
    }
    for name, fields in BROKEN.items():
        make(name, every(10))
        values = {
            f"{key}_id" if key in ("interval", "crontab") else key: bad.get(str(value), value)
            for key, value in fields.items()
        }
        with connection.constraint_checks_disabled():
            PeriodicTask.objects.filter(name=name).update(**values)
    make("sound", every(10))
    desk.lead()
    desk.go_on(60)

    assert {one.entry for one in desk.sent()} == {"sound"}
    assert len(desk.sent()) == 6
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    for name in BROKEN:
        assert len([line for line in said if line.startswith(f"entry {name!r}")]) == 1, said
    assert len(said) == len(BROKEN)
    assert PeriodicTask.objects.filter(enabled=False).count() == 0

    edit("args", args="[1]")
    desk.look()
    desk.go_on(10)
    assert len(desk.sent("args")) == 1


# -- many rows, rows far away -------------------------------------------------------------------------


def test_a_crontab_hours_away_is_not_taken_for_one_that_was_switched_off(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """Missed while nobody led, it is made up for by a leader elected half a day later."""
    at = clock.utcnow() + 6 * HOUR
    make("job", crontab("0", str(at.hour)))
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    first.go_on(20)
    first.resign()
    clock.advance(12 * HOUR.total_seconds())
    second.lead()

    assert second.instants("job") == [at.replace(minute=0, second=0)]


def test_a_thousand_rows_are_read_with_as_many_queries_as_ten(desk: Desk) -> None:
    """And none is asked of the database for a message, or while nothing was edited but one."""
    schedules = [crontab("0", str(hour)) for hour in range(24)]
    PeriodicTask.objects.bulk_create(
        PeriodicTask(name=f"row {n}", task="add", crontab=schedules[n % 24]) for n in range(990)
    )
    seconds = every(1)
    for n in range(10):
        make(f"busy {n}", seconds)
    with CaptureQueriesContext(connection) as captured:
        desk.lead()
    assert len(captured) <= 8
    desk.go_on(6)
    with CaptureQueriesContext(connection) as captured:
        desk.go_on(3)
    assert (len(captured), len(desk.sent())) == (0, 90)
    with CaptureQueriesContext(connection) as captured:
        desk.scheduler.schedule  # noqa: B018  a look, and nothing else

    assert len(captured) == 1


# -- its books ----------------------------------------------------------------------------------------


def test_counts_and_times_are_right_after_a_succession(
    make_desk: MakeDesk, clock: ManualClock
) -> None:
    """Each leader adds what it sent itself, and nothing of it says that the row was edited."""
    make("job", every(1))
    changed = row_of("job").date_changed
    announced = PeriodicTasks.last_change()
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    first.go_on(10)
    first.resign()
    assert row_of("job").total_run_count == 10
    second.lead()
    second.go_on(10)
    second.resign()

    row = row_of("job")
    assert row.total_run_count == len(second.sent()) == 20
    assert datetime.now(UTC) - row.last_run_at < MINUTE
    assert (row.date_changed, PeriodicTasks.last_change()) == (changed, announced)


def test_a_deposed_node_writes_nothing(make_desk: MakeDesk, database: Path) -> None:
    """What it sent and had not written down is not known to the next leader's books; no harm."""
    make("job", every(1))
    first, second = make_desk("a"), make_desk("b")
    first.lead()
    first.go_on(10)
    assert row_of("job").total_run_count < 10  # the rest is written with the next five seconds
    first.depose()
    second.lead()
    second.resign()
    before = contents(database)

    first.close()
    first.scheduler.sync()

    assert contents(database) == before


def test_a_row_switched_off_meanwhile_keeps_no_time(desk: Desk) -> None:
    """As django-celery-beat has it: what is off has not run."""
    make("job", every(10))
    desk.lead()
    desk.go_on(10)
    switch("job", on=False)
    desk.resign()

    row = row_of("job")
    assert (row.last_run_at, row.total_run_count) == (None, 0)


# -- a database that is away --------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0.05])
def test_a_locked_database_stops_nothing(
    desk: Desk, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The leader goes on with what it knows, says so once, and writes its books when it can."""
    make("job", every(1))
    make("once", every(30), one_off=True)
    desk.lead()
    desk.go_on(10)
    with locked(database):
        desk.go_on(60)
        assert len(desk.sent("job")) == 70
        assert len(desk.sent("once")) == 1
    desk.go_on(10)

    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len([line for line in said if "schedule can not be read" in line]) == 1
    assert len(said) <= 2
    assert not row_of("once").enabled
    desk.resign()
    assert row_of("job").total_run_count == len(desk.sent("job"))


@pytest.mark.parametrize("patience", [0.05])
def test_a_database_locked_at_the_election_is_waited_for(
    desk: Desk, database: Path, clock: ManualClock
) -> None:
    """Each try begins anew, and the one that succeeds misses nothing of the schedule."""
    make("job", every(10))
    desk.lead()
    desk.go_on(10)
    desk.resign()
    desk.node.stand()
    with locked(database):
        desk.timetable.preload()
        for _ in range(2):
            with pytest.raises(Exception, match="locked"):
                desk.lead()
    clock.advance(10)
    desk.lead()

    assert len(desk.sent("job")) == 2


def test_a_node_that_does_not_lead_holds_no_connection(desk: Desk) -> None:
    """Neither one that stands by nor one that led."""
    make("job", every(10))
    desk.timetable.preload()
    assert connections["default"].connection is None
    desk.lead()
    desk.go_on(10)
    desk.resign()

    assert connections["default"].connection is None


# -- around subclasses, and beside the admin ----------------------------------------------------------


class OnlyBlue(DatabaseScheduler):  # type: ignore[misc]  # it has no types
    """A scheduler as people make them: it reads some of the rows, and keeps books of its own."""

    noted: Final[list[str]] = []

    def enabled_models_qs(self) -> Any:
        """Return the rows of one tenant."""
        return super().enabled_models_qs().filter(name__startswith="blue")

    def reserve(self, entry: Any) -> Any:
        """Note what is sent."""
        self.noted.append(entry.name)
        return super().reserve(entry)


def test_a_subclass_keeps_its_ways(make_desk: MakeDesk) -> None:
    """Its own query and its own books hold; django-celery-beat's totals are written by it."""
    OnlyBlue.noted.clear()
    make("blue", every(10))
    make("red", every(10))
    desk = make_desk(scheduler=f"{__name__}:OnlyBlue")
    desk.lead()
    desk.go_on(20)
    desk.resign()

    assert [one.entry for one in desk.sent()] == ["blue", "blue"] == OnlyBlue.noted
    assert row_of("blue").total_run_count == 2


class Failing(Scheduler):
    """A scheduler that can not write its books."""

    def sync(self) -> None:
        """Fail, in its own way."""
        msg = "no space left"
        raise RuntimeError(msg)


def test_books_that_can_not_be_written_do_not_make_a_message_look_unsent(
    make_desk: MakeDesk, store: MemoryStore, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery writes them in the middle of sending, where whatever fails is about the message."""
    headers = {"periodic_task_name": "job"}
    entry = {"task": "add", "schedule": 10.0, "options": {"headers": headers}}
    conf = {"beat_schedule": {"job": entry}, "beat_sync_every": 1}
    desk = make_desk(scheduler=f"{__name__}:Failing", conf=conf)
    desk.lead()
    desk.go_on(30)

    assert len(desk.sent("job")) == 3
    assert State.FAILED not in [found.state for found in entries_of(store, "job", clock)]
    assert "what was sent could not be noted" in caplog.text
    desk.scheduler.sync = lambda: None


def test_run_selected_tasks_sends_a_message_without_a_ticket(
    desk: Desk, filesystem_broker: FilesystemBroker
) -> None:
    """The admin's action has nothing to do with beat: a guarded task takes it for a stray one."""
    from django.contrib.admin import AdminSite
    from django_celery_beat.admin import PeriodicTaskAdmin

    @desk.app.task(name="add", shared=False)
    def add() -> None:
        """Do nothing."""

    make("job", every(10))
    admin = PeriodicTaskAdmin(PeriodicTask, AdminSite())
    admin.celery_app = desk.app
    admin.message_user = lambda *_: None
    admin.run_tasks(SimpleNamespace(), PeriodicTask.objects.all())

    (message,) = filesystem_broker.messages("celery")
    assert HEADER not in message.headers


# -- settings -----------------------------------------------------------------------------------------


def test_settings_come_from_django_under_celerys_namespace() -> None:
    """``CELERY_LEADER_JOBS_STORE`` and the like, as all of Celery's own."""
    app = Celery("site", fixups=[], set_as_current=False)
    app.config_from_object(
        SimpleNamespace(
            CELERY_LEADER_JOBS_STORE="sqlite:////var/lib/site/leader.sqlite3",
            CELERY_LEADER_JOBS_ELECTION="beats",
            CELERY_LEADER_JOBS_TTL=7,
            LEADER_JOBS={"STORE": "memory://not-this"},
        ),
        namespace="CELERY",
    )
    found = settings_of(app)

    assert (found.election, found.ttl) == ("beats", 7.0)
    assert found.store == "sqlite:////var/lib/site/leader.sqlite3"


def test_an_application_without_settings_of_its_own_takes_the_projects(settings: Any) -> None:
    """The dict that the rest of the Django project goes by."""
    settings.LEADER_JOBS = {"STORE": "memory://project", "ELECTION": "project"}
    app = Celery("site", fixups=[], set_as_current=False)
    app.config_from_object(SimpleNamespace(CELERY_TIMEZONE="UTC"), namespace="CELERY")
    found = settings_of(app)

    assert (found.election, found.store) == ("project", "memory://project")
