"""Announcements: in order, on a thread of their own, and never at the leader's cost."""

import logging
import threading

import pytest

from leader_jobs.events import Announcer, ElectionWon, Event, Resumed, TermEnded
from testsupport.background import Background

WON = ElectionWon("mail", "web-1", token=7)
ENDED = TermEnded("mail", "web-1", token=7, reason="lost")


def test_events_arrive_in_order_and_elsewhere() -> None:
    """Each observer gets each event in the order of the announcements, on another thread."""
    seen: list[tuple[str, Event, bool]] = []

    def observer(name: str, event: Event) -> None:
        seen.append((name, event, threading.current_thread() is threading.main_thread()))

    announcer = Announcer([lambda e: observer("first", e), lambda e: observer("second", e)])
    announcer(WON)
    announcer(ENDED)
    announcer.close()

    assert seen == [
        ("first", WON, False),
        ("second", WON, False),
        ("first", ENDED, False),
        ("second", ENDED, False),
    ]


def test_many_events_keep_their_order() -> None:
    """Hundreds of events come out as they went in."""
    seen: list[Event] = []
    events = [Resumed("mail", "web-1", token=token) for token in range(500)]
    announcer = Announcer([seen.append])

    for event in events:
        announcer(event)
    announcer.close(timeout=5.0)

    assert seen == events


def test_without_observers_there_is_no_thread() -> None:
    """Nobody listens, so nothing is started."""
    before = threading.active_count()
    announcer = Announcer()

    announcer(WON)

    assert threading.active_count() == before
    announcer.close()


def test_construction_starts_nothing() -> None:
    """The thread begins with the first event, not with the object."""
    before = threading.active_count()

    announcer = Announcer([lambda _event: None])

    assert threading.active_count() == before
    announcer.close()


def test_an_observer_that_raises_is_logged_and_harmless(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the other observers nor later events suffer from a broken observer."""
    seen: list[Event] = []

    def broken(_event: Event) -> None:
        msg = "no route to the pager"
        raise RuntimeError(msg)

    announcer = Announcer([broken, seen.append])
    with caplog.at_level(logging.ERROR, logger="leader_jobs.events"):
        announcer(WON)
        announcer(ENDED)
        announcer.close()

    assert seen == [WON, ENDED]
    assert len(caplog.records) == 2
    assert "no route to the pager" in caplog.text
    assert "ElectionWon" in caplog.text


def test_an_observer_that_blocks_costs_announcements_only(caplog: pytest.LogCaptureFixture) -> None:
    """While an observer hangs, announcing returns at once and says what it drops."""
    entered, release, caught_up = threading.Event(), threading.Event(), threading.Event()
    seen: list[Event] = []

    def slow(event: Event) -> None:
        entered.set()
        release.wait()
        seen.append(event)
        if len(seen) == 1001:
            caught_up.set()

    announcer = Announcer([slow])
    announcer(WON)
    assert entered.wait(10.0)

    def announce_more() -> None:
        for token in range(1001):
            announcer(Resumed("mail", "web-1", token=token))

    with caplog.at_level(logging.WARNING, logger="leader_jobs.events"):
        Background(announce_more).result()
    release.set()
    assert caught_up.wait(10.0)
    announcer(ENDED)
    announcer.close(timeout=5.0)

    (record,) = caplog.records
    dropped = "dropped Resumed(election='mail', node='web-1', token=1000)"
    assert record.getMessage().endswith(dropped)
    assert seen == [WON, *(Resumed("mail", "web-1", token=t) for t in range(1000)), ENDED]


def test_close_does_not_wait_for_a_blocked_observer() -> None:
    """The end of a process is not in the hands of an observer."""
    entered, release = threading.Event(), threading.Event()

    def stuck(_event: Event) -> None:
        entered.set()
        release.wait()

    announcer = Announcer([stuck])
    announcer(WON)
    assert entered.wait(10.0)
    closing = Background(lambda: announcer.close(timeout=0.05))

    try:
        closing.result()
    finally:
        release.set()


def test_it_can_be_used_again_after_close() -> None:
    """A candidate that starts again announces again."""
    seen: list[Event] = []
    announcer = Announcer([seen.append])

    announcer(WON)
    announcer.close()
    announcer(ENDED)
    announcer.close()

    assert seen == [WON, ENDED]
