"""Sends ``leader_changed``: watches elections, whoever leads them."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from django_leader_jobs.signals import leader_changed
from django_leader_jobs.wiring import fresh_connections
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.exceptions import StoreError
from leader_jobs.leaders import Leader, watch_leader

__all__ = ["watching_leaders"]

_log = logging.getLogger(__name__)
_PAUSE: Final = 5.0


@contextmanager
def watching_leaders(elections: Iterable[str]) -> Iterator[None]:
    """Have ``leader_changed`` sent while the block runs, on a thread for each of *elections*."""
    stop = threading.Event()
    if leader_changed.has_listeners(Leader):
        for election in elections:
            name = f"leader-jobs-watch-{election}"
            target = threading.Thread(target=_watch, args=(election, stop), name=name, daemon=True)
            target.start()
    try:
        yield
    finally:
        stop.set()  # noticed when the next change is seen, or after ten seconds: nobody waits for it


def _watch(election: str, stop: threading.Event) -> None:
    clock: Clock = SystemClock()
    while not stop.is_set():
        try:
            for leader in watch_leader(election, clock=clock, stop=stop):
                if stop.is_set():
                    return
                with fresh_connections():
                    leader_changed.send_robust(Leader, election=election, leader=leader)
        except StoreError as error:
            _log.warning("election %r: it is not watched for the moment: %s", election, error)
            clock.wait(stop, _PAUSE)
