"""Messages: their ids, tickets and expiry, what they share with nobody, and brokers that refuse."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.beat import BeatLazyFunc, ScheduleEntry, Scheduler
from kombu.exceptions import EncodeError

from leader_jobs.adapters.celery_entries import HEADER, job_of
from leader_jobs.adapters.celery_publisher import BrokerTrouble, NotTaken, Publisher
from leader_jobs.clock import SystemClock
from leader_jobs.ledger import Claim
from leader_jobs.occurrences import occurrence_id
from leader_jobs.tickets import Ticket
from testsupport.brokers import Broker, BrokerServer, FilesystemBroker, RabbitServer
from testsupport.place import ELECTION
from testsupport.ports import free_port

_PLANNED = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def claim(attempt: int = 1, retries: int = 0) -> Claim:
    """Return a claim of the entry called "job"."""
    return Claim(
        job="job",
        occurrence=occurrence_id(ELECTION, "job", _PLANNED),
        planned_at=_PLANNED,
        sequence=7,
        attempt=attempt,
        token=3,
        retries=retries,
    )


def nothing() -> None:
    """Do nothing."""


class Sender:
    """A publisher and what it publishes with."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._scheduler = Scheduler(app, lazy=True)
        self.publisher = Publisher(app, ELECTION, self._send)

    def _send(self, entry: ScheduleEntry, producer: Any) -> None:
        self._scheduler.apply_async(entry, producer=producer, advance=False)

    def entry(self, **fields: Any) -> ScheduleEntry:
        """Return an entry called "job"."""
        return ScheduleEntry(
            name="job", app=self.app, **{"task": "any", "schedule": 10.0, **fields}
        )

    def publish(self, entry: ScheduleEntry, what: Claim | None = None) -> None:
        """Publish a message for *entry*."""
        self.publisher.publish(what or claim(), job_of(entry, self.app), entry)


@contextmanager
def sending(settings: dict[str, Any], **conf: Any) -> Iterator[Sender]:
    """Make a sender, and have it let go of everything at the end."""
    app = Celery("sender", set_as_current=False)
    app.conf.update(settings, **conf)
    sender = Sender(app)
    try:
        yield sender
    finally:
        sender.publisher.close()
        app.close()


# -- what a message says ------------------------------------------------------------------------------


def test_a_message_names_its_occurrence(broker: Broker) -> None:
    """Its id is the occurrence's, its ticket says the rest, and the entry's own fields are there."""
    with sending(broker.settings) as sender:
        sender.publish(sender.entry(args=(1,), kwargs={"x": 2}, options={"queue": "jobs"}))
        (message,) = broker.wait_messages("jobs", 1)

    assert message.headers["id"] == claim().occurrence
    assert message.properties["correlation_id"] == claim().occurrence
    assert message.headers["celery_beat_task"] is True
    assert message.body[:2] == [[1], {"x": 2}]
    assert Ticket.decode(message.headers[HEADER]) == Ticket(
        election=ELECTION, job="job", planned_at=_PLANNED, sequence=7, attempt=1, token=3
    )


def test_a_message_that_is_sent_again_is_the_same(filesystem_broker: FilesystemBroker) -> None:
    """A retried run has the number of its try, so that the worker counts on."""
    with sending(filesystem_broker.settings) as sender:
        sender.publish(sender.entry())
        sender.publish(sender.entry(), claim(retries=2))
        messages = filesystem_broker.messages("celery")

    assert {message.headers["id"] for message in messages} == {claim().occurrence}
    assert sorted(message.headers["retries"] for message in messages) == [0, 2]


def test_a_registered_task_has_its_say(filesystem_broker: FilesystemBroker) -> None:
    """Options of a task that beat knows hold, as they do for Celery's own beat."""
    with sending(filesystem_broker.settings) as sender:
        app: Any = sender.app
        app.task(nothing, name="known", ignore_result=True, shared=False)
        sender.publish(sender.entry(task="known"))
        (message,) = filesystem_broker.messages("celery")

    assert message.headers["ignore_result"] is True


def test_messages_share_nothing(filesystem_broker: FilesystemBroker) -> None:
    """The user's headers arrive, and neither they nor the entry are changed by it."""
    headers = {"tenant": "a", HEADER: {"catch_up": "all"}}
    options = {"headers": headers, HEADER: {"catch_up": "skip"}}
    with sending(filesystem_broker.settings) as sender:
        one, other = sender.entry(options=options), sender.entry(options={"headers": headers})
        sender.publish(one)
        sender.publish(other)
        messages = filesystem_broker.messages("celery")

    assert headers == {"tenant": "a", HEADER: {"catch_up": "all"}}
    assert options == {"headers": headers, HEADER: {"catch_up": "skip"}}
    assert one.options is options
    assert (one.args, one.kwargs, one.total_run_count) == ((), {}, 0)
    for message in messages:
        assert message.headers["tenant"] == "a"
        assert Ticket.decode(message.headers[HEADER]).job == "job"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (90, _PLANNED + timedelta(seconds=90)),
        (0.5, _PLANNED + timedelta(seconds=0.5)),
        (_PLANNED + timedelta(days=1), _PLANNED + timedelta(days=1)),
        (None, None),
    ],
)
def test_a_message_expires_counted_from_its_instant(
    filesystem_broker: FilesystemBroker, given: object, expected: datetime | None
) -> None:
    """However late it is sent, and however often."""
    with sending(filesystem_broker.settings) as sender:
        sender.publish(sender.entry(options={"expires": given}))
        (message,) = filesystem_broker.messages("celery")

    found = message.headers["expires"]
    assert (None if found is None else datetime.fromisoformat(found)) == expected


def test_lazy_arguments_are_asked_for_each_message(filesystem_broker: FilesystemBroker) -> None:
    """What a `BeatLazyFunc` returns at that moment is sent."""
    numbers = iter((1, 2, 3, 4))
    lazy = BeatLazyFunc(lambda: next(numbers))
    with sending(filesystem_broker.settings) as sender:
        entry = sender.entry(args=(lazy,), kwargs={"x": lazy})
        sender.publish(entry)
        sender.publish(entry)
        bodies = [message.body[:2] for message in filesystem_broker.messages("celery")]

    assert sorted(bodies) == [[[1], {"x": 2}], [[3], {"x": 4}]]
    assert entry.args == (lazy,)


def test_a_message_that_can_not_be_is_no_trouble_of_the_broker(
    filesystem_broker: FilesystemBroker,
) -> None:
    """What the serialiser or the user's own function raises is raised as it is."""

    def fails() -> None:
        msg = "no such file"
        raise OSError(msg)

    with sending(filesystem_broker.settings) as sender:
        with pytest.raises(EncodeError):
            sender.publish(sender.entry(args=(object(),)))
        with pytest.raises(OSError, match="no such file"):
            sender.publish(sender.entry(args=(BeatLazyFunc(fails),)))
        sender.publish(sender.entry())

    assert len(filesystem_broker.messages("celery")) == 1


# -- brokers ------------------------------------------------------------------------------------------


def test_a_broker_that_comes_back(broker_server: BrokerServer) -> None:
    """Away, it is trouble at once and not after seconds of trying; back, the next message arrives."""
    with sending(broker_server.settings) as sender:
        sender.publish(sender.entry())
        broker_server.kill()
        for _ in range(3):
            with pytest.raises(BrokerTrouble) as found:
                sender.publish(sender.entry())
            assert not isinstance(found.value, NotTaken)
        broker_server.start()
        sender.publish(sender.entry())
        ids = [message.headers["id"] for message in broker_server.messages("celery")]

    assert ids == [claim().occurrence] * 2


def test_nothing_waits_while_nobody_listens() -> None:
    """Twenty tries at a port without a server take less than one of Kombu's own rounds."""
    clock = SystemClock()
    for scheme in ("redis", "amqp"):
        with sending({"broker_url": f"{scheme}://127.0.0.1:{free_port()}//"}) as sender:
            began = clock.now()
            for _ in range(20):
                with pytest.raises(BrokerTrouble, match="refused"):
                    sender.publish(sender.entry())
            assert clock.now() - began < 2.0


def test_each_of_several_brokers_is_tried(broker_server: BrokerServer) -> None:
    """The first one that answers gets the message."""
    dead = broker_server.url.replace(str(broker_server.port), str(free_port()))
    with sending({"broker_url": f"{dead};{broker_server.url}"}) as sender:
        sender.publish(sender.entry())

    assert len(broker_server.messages("celery")) == 1


@pytest.mark.rabbitmq
def test_a_wrong_password_is_trouble_with_the_broker(rabbit_broker: RabbitServer) -> None:
    """Nobody could publish: nothing more shall be claimed. The message does not hold the password."""
    url = rabbit_broker.url.replace("guest:guest", "guest:secret-word")
    with sending({"broker_url": url}) as sender, pytest.raises(BrokerTrouble) as found:
        sender.publish(sender.entry())

    assert not isinstance(found.value, NotTaken)
    assert "ACCESS_REFUSED" in str(found.value)
    assert "secret-word" not in str(found.value)


@pytest.mark.rabbitmq
def test_a_queue_that_can_not_be_declared_is_its_own_trouble(rabbit_broker: RabbitServer) -> None:
    """Others are taken right afterwards."""
    with rabbit_broker.connect() as connection:
        channel: Any = connection.channel()
        channel.queue_declare("odd", durable=False, auto_delete=False)
    with sending(rabbit_broker.settings) as sender:
        with pytest.raises(NotTaken, match="PRECONDITION_FAILED"):
            sender.publish(sender.entry(options={"queue": "odd"}))
        sender.publish(sender.entry())

    assert len(rabbit_broker.messages("celery")) == 1


def test_closing_twice_is_closing(broker: Broker) -> None:
    """And what is published afterwards opens another connection."""
    with sending(broker.settings) as sender:
        sender.publisher.close()
        sender.publish(sender.entry())
        sender.publisher.close()
        sender.publisher.close()
        sender.publish(sender.entry())

        assert len(broker.wait_messages("celery", 2)) == 2
