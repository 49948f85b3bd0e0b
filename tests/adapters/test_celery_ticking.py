"""What a leading beat does at each tick: what is due, what comes and goes, what can not be sent."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.beat import BeatLazyFunc, Scheduler
from celery.schedules import BaseSchedule, crontab, schedstate, schedule, solar

from leader_jobs.records import State
from testsupport.beat_rig import START, BeatRig
from testsupport.brokers import FilesystemBroker, RabbitServer, RedisServer

_ALL = {"leader_jobs": {"catch_up": "all", "max_burst": 100}}


# -- what is due --------------------------------------------------------------------------------------


def test_what_is_due_at_the_hour(filesystem_broker: FilesystemBroker) -> None:
    """Over the hour and into a new day each entry has its planned instants, to the microsecond."""
    entries = {
        "second": {"task": "any", "schedule": 10.0, "options": _ALL},
        "minute": {"task": "any", "schedule": crontab()},
        "hour": {"task": "any", "schedule": crontab(minute="0")},
        "day": {"task": "any", "schedule": crontab(minute="0", hour="0")},
        "never": {"task": "any", "schedule": crontab(minute="30")},
    }
    with BeatRig.running(filesystem_broker, entries) as rig:
        rig.pass_time(91.0, step=0.7)
        found = rig.planned()

    midnight = START + timedelta(seconds=30)
    assert sorted(found) == sorted(
        [("second", START + timedelta(seconds=10 * n)) for n in range(1, 10)]
        + [("minute", midnight), ("minute", midnight + timedelta(minutes=1))]
        + [("hour", midnight), ("day", midnight)]
    )


def test_what_is_due_together_is_one_transaction(filesystem_broker: FilesystemBroker) -> None:
    """Claims of all entries are one commit, and so are the marks once all messages are out."""
    entries = {f"job{n}": {"task": "any", "schedule": crontab()} for n in range(50)}
    with BeatRig.running(filesystem_broker, entries) as rig:
        before = _version(rig)
        rig.pass_time(30.0, step=30.0)

        assert len(rig.messages()) == 50
        assert _version(rig) == before + 2


def _version(rig: BeatRig) -> int:
    """Return the store's count of commits."""
    rows = rig.store.read(rig.candidate.election, "", deadline=rig.clock.now() + 1)
    return max(row.version for row in rows.values())


def test_a_clock_that_jumps_over_the_hour(filesystem_broker: FilesystemBroker) -> None:
    """Set forward, what was jumped over is caught up on; set back, nothing is sent again."""
    entries = {"minute": {"task": "any", "schedule": crontab(), "options": _ALL}}
    with BeatRig.running(filesystem_broker, entries) as rig:
        rig.clock.step_wall(150.0)
        rig.pass_time(2.0)
        forward = rig.planned()
        rig.clock.step_wall(-150.0)
        rig.pass_time(140.0, step=5.0)

        midnight = START + timedelta(seconds=30)
        assert forward == [("minute", midnight + timedelta(minutes=n)) for n in range(3)]
        assert rig.planned() == forward


def test_a_relative_interval_is_rounded(filesystem_broker: FilesystemBroker) -> None:
    """It is due at whole units of the clock."""
    relative = schedule(timedelta(minutes=1), relative=True)
    with BeatRig.running(filesystem_broker, {"job": {"task": "any", "schedule": relative}}) as rig:
        rig.pass_time(100.0)
        instants = [instant for _, instant in rig.planned()]

    assert instants
    assert {instant.second for instant in instants} == {0}


def test_the_sun_is_due_once_a_day(filesystem_broker: FilesystemBroker) -> None:
    """A solar entry is sent at its event, and its next one is the day after."""
    dawn = solar("dawn_civil", 52.5, 13.4)
    with BeatRig.running(filesystem_broker, {"job": {"task": "any", "schedule": dawn}}) as rig:
        for _ in range(48):
            rig.clock.step_wall(3600.0)
            rig.beat.tick()
        first, second = (instant for _, instant in rig.planned())

    assert abs(second - first - timedelta(days=1)) < timedelta(minutes=5)


class OddSchedule(BaseSchedule):
    """Can tell that it is due, and nothing else."""

    asked = 0

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Know nothing."""
        raise NotImplementedError

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Be due once in five times."""
        OddSchedule.asked += 1
        return schedstate(OddSchedule.asked % 5 == 0, 1.0)

    def __eq__(self, other: object) -> bool:
        """Be equal to itself alone."""
        return self is other

    __hash__ = BaseSchedule.__hash__


def test_a_schedule_that_can_not_tell_its_instants(
    filesystem_broker: FilesystemBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent when it says that it is due, with one warning that names the entry."""
    OddSchedule.asked = 0
    entries = {"odd": {"task": "any", "schedule": OddSchedule(app=None)}}
    with BeatRig.running(filesystem_broker, entries) as rig:
        rig.pass_time(30.0)
        found = rig.planned()

    assert found
    assert len({instant for _, instant in found}) == len(found)
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len([message for message in warnings if "'odd'" in message]) == 1


# -- entries that come and go -------------------------------------------------------------------------


class Editable(Scheduler):
    """Has its schedule from a dict that a test edits."""

    entries: dict[str, Any]

    def setup_schedule(self) -> None:
        """Begin with nothing."""
        self.entries = {}

    def get_schedule(self) -> dict[str, Any]:
        """Make entries anew at each look, as schedulers on a database do."""
        return {n: self.Entry(name=n, app=self.app, **given) for n, given in self.entries.items()}

    schedule = property(get_schedule)


def test_entries_that_come_change_and_go(filesystem_broker: FilesystemBroker) -> None:
    """A custom scheduler's edits count from the next look on: new and changed ones begin with now."""
    with BeatRig.running(filesystem_broker, {}, scheduler=Editable) as rig:
        scheduler: Any = rig.scheduler
        rig.pass_time(6.0)
        scheduler.entries["job"] = {"task": "any", "schedule": 10.0}
        rig.pass_time(30.0)
        added = len(rig.messages())
        scheduler.entries["job"] = {"task": "any", "schedule": 60.0}
        rig.pass_time(20.0)
        changed = len(rig.messages())
        rig.pass_time(60.0)
        slower = len(rig.messages())
        del scheduler.entries["job"]
        rig.pass_time(130.0)

        assert 2 <= added <= 3
        assert changed <= added + 1
        assert slower == changed + 1
        assert len(rig.messages()) == slower


def test_an_entry_that_is_removed_with_a_message_in_hand(
    filesystem_broker: FilesystemBroker, tmp_path: Path
) -> None:
    """What was claimed of it is not sent any more, and the ledger says why."""
    with BeatRig.running(filesystem_broker, {}, scheduler=Editable) as rig:
        scheduler: Any = rig.scheduler
        scheduler.entries["job"] = {"task": "any", "schedule": 10.0}
        rig.pass_time(9.0)
        with _broken(tmp_path):
            rig.pass_time(12.0)
            assert rig.beat.stuck
            del scheduler.entries["job"]
            rig.pass_time(6.0)
        rig.pass_time(2.0)

        assert rig.messages() == []
        (entry,) = rig.history("job")
        assert (entry.state, "removed" in entry.reason) == (State.FAILED, True)


class _broken:  # noqa: N801  a context manager
    """Has the folder of the filesystem transport away: that broker is not reachable."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._away = folder / "broker", folder / "away"

    def __enter__(self) -> None:
        self._folder.rename(self._away)

    def __exit__(self, *_: object) -> None:
        self._away.rename(self._folder)


# -- messages that can not be sent --------------------------------------------------------------------


def _fails() -> None:
    msg = "the server that has the numbers does not answer"
    raise ConnectionError(msg)


@pytest.mark.parametrize(
    "bad", [{"args": (object(),)}, {"kwargs": {"x": BeatLazyFunc(_fails)}}], ids=["type", "lazy"]
)
def test_an_entry_without_a_message_does_not_hold_up_others(
    filesystem_broker: FilesystemBroker, bad: dict[str, Any]
) -> None:
    """It is recorded as failed, each time, and the others are sent."""
    entries = {
        "bad": {"task": "any", "schedule": 10.0, **bad},
        "good": {"task": "any", "schedule": 10.0},
    }
    with BeatRig.running(filesystem_broker, entries) as rig:
        rig.pass_time(30.0)

        assert [job for job, _ in rig.planned()] == ["good"] * 3
        assert [entry.state for entry in rig.history("bad")] == [State.FAILED] * 3
        assert "no message could be made" in rig.history("bad")[0].reason
        assert not rig.beat.stuck


def test_a_broker_that_is_away(
    filesystem_broker: FilesystemBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; nothing more is claimed; afterwards it is caught up on by each policy, once."""
    entries = {
        "latest": {"task": "any", "schedule": 10.0},
        "all": {"task": "any", "schedule": 10.0, "options": _ALL},
    }
    with BeatRig.running(filesystem_broker, entries) as rig:
        rig.pass_time(10.0)
        with _broken(tmp_path):
            rig.pass_time(40.0)
            assert rig.beat.stuck
        rig.pass_time(10.0)
        found = rig.planned()

    assert _seconds(found) == {"all": [10, 20, 30, 40, 50, 60], "latest": [10, 20, 50, 60]}
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len([m for m in warnings if "the broker is away" in m]) == 1


def _seconds(found: list[tuple[str, datetime]]) -> dict[str, list[int]]:
    """Return of each job the planned seconds since the start."""
    jobs = {job for job, _ in found}
    return {job: sorted((i - START).seconds for j, i in found if j == job) for job in jobs}


def _confuse_redis(rig: BeatRig) -> Callable[[], None]:
    """Have something in the place of a queue that is none."""
    broker = rig.broker
    assert isinstance(broker, RedisServer)
    client = broker._client()
    client.set("odd", "no list")

    def mend() -> None:
        client.delete("odd")
        client.close()

    return mend


def _confuse_rabbit(rig: BeatRig) -> Callable[[], None]:
    """Have a queue that was declared with other arguments."""
    connection = rig.broker.connect()
    channel: Any = connection.channel()
    channel.queue_declare("odd", durable=False, auto_delete=True)

    def mend() -> None:
        channel.queue_delete("odd")
        connection.release()

    return mend


@pytest.mark.parametrize(
    ("broker_name", "confuse"),
    [
        pytest.param("redis_broker", _confuse_redis, marks=pytest.mark.redis, id="redis"),
        pytest.param("rabbit_broker", _confuse_rabbit, marks=pytest.mark.rabbitmq, id="rabbitmq"),
    ],
)
def test_a_queue_that_is_broken_holds_up_its_own_entries_alone(
    request: pytest.FixtureRequest,
    broker_name: str,
    confuse: Callable[[BeatRig], Callable[[], None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is reported once and tried again; the entry's policy says what it catches up on."""
    broker: RedisServer | RabbitServer = request.getfixturevalue(broker_name)
    entries = {
        "odd": {"task": "any", "schedule": 10.0, "options": {"queue": "odd"}},
        "other": {"task": "any", "schedule": 10.0, "options": {"queue": "odd", **_ALL}},
        "good": {"task": "any", "schedule": 10.0},
    }
    with BeatRig.running(broker, entries) as rig:
        mend = confuse(rig)
        rig.pass_time(40.0)
        assert [job for job, _ in rig.planned()] == ["good"] * 4
        assert not rig.beat.stuck
        mend()
        rig.pass_time(10.0)
        found = rig.planned("odd")

    assert _seconds(found) == {"odd": [10, 40, 50], "other": [10, 20, 30, 40, 50]}
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len([m for m in warnings if "does not take messages of job odd" in m]) == 1


def test_a_task_that_is_in_trouble_of_its_own_does_not_hold_up_others(
    redis_broker: RedisServer,
) -> None:
    """What its ``apply_async`` raises looks like trouble with the broker; the broker answers."""
    entries = {
        "cursed": {"task": "cursed", "schedule": 1.0},
        "good": {"task": "any", "schedule": 1.0},
    }
    with BeatRig.running(redis_broker, entries) as rig:

        def apply_async(*_: Any, **__: Any) -> Any:
            raise FileNotFoundError

        task = type("Cursed", (rig.app.Task,), {"name": "cursed", "apply_async": apply_async})
        rig.app.register_task(task())
        rig.pass_time(20.0)

        assert not rig.beat.stuck
        assert {job for job, _ in rig.planned()} == {"good"}
        assert len(rig.planned()) >= 5


def test_a_broker_of_an_unknown_kind_is_not_there(filesystem_broker: FilesystemBroker) -> None:
    """A careless deploy on one host: its occurrences wait for a node that has it right."""
    with BeatRig.running(filesystem_broker, {"job": {"task": "any", "schedule": 10.0}}) as rig:
        rig.app.conf.update(broker_url="nosuch://")
        rig.pass_time(15.0)

        assert rig.beat.stuck
        (entry,) = rig.history("job")
        assert entry.state is State.CLAIMED
