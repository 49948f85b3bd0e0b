"""What the templates of the admin pages are given."""

from typing import Any, Final

from django_leader_jobs.headline import headline_of, headline_of_all, notices_of
from django_leader_jobs.observing import Sight
from django_leader_jobs.steering import ORDERS, Order, heirs, obstacle, obstacles, warning
from django_leader_jobs.timeline import SPANS, timeline
from leader_jobs.overview import ElectionView, Summary
from leader_jobs.records import State

__all__ = ["Context", "election_context", "job_context", "list_context", "order_context"]

Context = dict[str, Any]

_AWAY: Final = "the store does not answer"
_STATES: Final = tuple(state.value for state in State)


def list_context(sight: Sight[tuple[Summary, ...]]) -> Context:
    """Return what the list of elections is made of."""
    elections = sight.found or ()
    return {
        "title": "Elections",
        "sight": sight,
        "elections": elections,
        "headline": headline_of_all(elections),
    }


def election_context(name: str, sight: Sight[ElectionView], span: str = "") -> Context:
    """
    Return what the page of an election is made of.

    Args:
        name: the election's.
        sight: what was seen of it.
        span: what stretch of time to show terms of; what fits if it is none.
    """
    view = sight.found
    context: Context = {"title": name, "name": name, "sight": sight, "view": view}
    context["away"] = _AWAY if sight.trouble else ""
    if view is None:
        return context
    token = view.leader.token if view.leader is not None else None
    return context | {
        "headline": headline_of(view),
        "notices": tuple(notices_of(view)),
        "obstacles": _obstacles(sight, view),
        "heirs": {member.id for member in heirs(view)},
        "reign": next((term for term in view.terms if term.token == token), None),
        "span": span if span in SPANS else "",
        "spans": tuple(SPANS),
        "states": _STATES,
        "timeline": timeline(view.terms, view.at, token=token, span=span),
    }


def job_context(name: str, job: str, sight: Sight[ElectionView]) -> Context:
    """Return what the page of a job is made of; its ``job`` is None if there is none."""
    view = sight.found
    found = next((j for j in view.jobs if j.name == job), None) if view is not None else None
    context: Context = {
        "title": job,
        "name": name,
        "job_name": job,
        "sight": sight,
        "view": view,
        "job": found,
        "away": _AWAY if sight.trouble else "",
    }
    if view is None:
        return context
    return context | {
        "headline": headline_of(view),
        "obstacles": _obstacles(sight, view),
        "states": _STATES,
    }


def order_context(name: str, job: str | None, order: Order, sight: Sight[ElectionView]) -> Context:
    """Return what the page is made of that asks whether an order is to be given."""
    context = {
        "title": f"{order.verb}: {name if job is None else job}",
        "name": name,
        "job_name": job,
        "order": order,
        "sight": sight,
        "view": sight.found,
    }
    if sight.trouble or sight.found is None:
        return context | {"why_not": _AWAY}
    return context | {
        "why_not": obstacle(sight.found, order.name, job),
        "warning": warning(sight.found, order.name),
        "heirs": heirs(sight.found),
    }


def _obstacles(sight: Sight[ElectionView], view: ElectionView) -> dict[str, str]:
    """Return why orders make no sense, under names that a template can use."""
    away = dict.fromkeys(ORDERS, _AWAY) if sight.trouble else {}
    return {name.replace("-", "_"): why for name, why in (obstacles(view) | away).items()}
