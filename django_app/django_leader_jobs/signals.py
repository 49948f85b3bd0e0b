"""
Django signals of what becomes of this process, and of others, in elections.

``elected`` and ``stepped_down`` are sent in the process that leads, or led: by ``runleader``, Celery's
beat and workers, and APScheduler's schedulers, in a project that has this application installed.
``leader_changed`` is sent in every process of ``runleader``, whoever leads, if it has receivers when
that starts.

They are sent on threads of their own. A receiver can not hurt the leader: what it raises is logged, and
while it takes its time, only signals wait. What was sent was true when it happened; a receiver that
acts on it should check the token, or `leader_jobs.assert_leader`, where it matters.
"""

from django.dispatch import Signal

from django_leader_jobs.wiring import fresh_connections
from leader_jobs.candidate import Candidate
from leader_jobs.events import ElectionWon, Event, TermEnded

__all__ = ["announce", "elected", "leader_changed", "stepped_down"]

#: A term of this process began; with ``election``, ``node`` and ``token``.
elected = Signal()
#: A term of this process is over; with ``election``, ``node``, ``token`` and ``reason``.
stepped_down = Signal()
#: Another process leads, or none; with ``election``, and ``leader``: a `leader_jobs.Leader` or None.
leader_changed = Signal()


def announce(event: Event) -> None:
    """Send the signal of *event*, if there is one; an observer."""
    if isinstance(event, ElectionWon):
        _send(elected, event, token=event.token)
    elif isinstance(event, TermEnded):
        _send(stepped_down, event, token=event.token, reason=event.reason)


def _send(signal: Signal, event: Event, **details: object) -> None:
    if signal.has_listeners(Candidate):
        with fresh_connections():
            signal.send_robust(Candidate, election=event.election, node=event.node, **details)
