"""
The small pictures on the pages, as SVG: what is left of a lease, and a strip of occurrences.

No colour, size or text is written into a style: a page under a strict Content-Security-Policy would
lose it. Marks have a shape each, so that colour says nothing that is not said otherwise. Everything
that comes from the store goes through `format_html` or `escape`.
"""

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from django_leader_jobs.words import at, zone
from leader_jobs.durations import how_long
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.report import took

__all__ = ["lease_bar", "mark", "strip", "tell"]

_WIDE: Final = 8
_HIGH: Final = 24
#: For how many occurrences it is remembered what is told of them; each takes some 600 bytes.
_MOST: Final = 10_000


def lease_bar(remaining: float, ttl: float) -> SafeString:
    """Return the bar of a lease: how much of its *ttl* is *remaining*, both in seconds."""
    width = 100 * min(1.0, max(0.0, remaining / ttl)) if ttl > 0 else 0.0
    return format_html(
        '<svg class="lj-bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="lj-track" width="100" height="8"></rect>'
        '<rect class="lj-left" width="{}" height="8"></rect></svg>',
        f"{width:.1f}",
    )


# -- occurrences ----------------------------------------------------------------------------------


def mark(state: State) -> SafeString:
    """Return the mark of a state, to stand before its name."""
    return format_html(
        '<svg class="lj-mark" viewBox="0 0 8 24" aria-hidden="true"><use href="#lj-{}"></use></svg>',
        state.value,
    )


def strip(entries: Sequence[OccurrenceRecord], now: datetime, *, slots: int = 0) -> SafeString:
    """
    Return occurrences as a row of marks, the newest at the right end.

    Args:
        entries: the occurrences, oldest first.
        now: the instant of the look.
        slots: for how many there is to be room, if that is more.
    """
    room = max(slots, len(entries), 1)
    first = room - len(entries)
    # Whatever the time, all that is said on one day is the same, and need not be put together anew.
    noon = timezone.localtime(now).replace(hour=12, minute=0, second=0, microsecond=0)
    here = zone()
    marks = "".join(
        _mark_at(first + n, entry, _title(entry, noon, here)) for n, entry in enumerate(entries)
    )
    width = room * _WIDE
    return mark_safe(  # noqa: S308  numbers, and what _mark_at escaped
        f'<svg class="lj-marks" viewBox="0 0 {width} {_HIGH}" width="{width}" height="{_HIGH}"'
        f' role="img" aria-label="{escape(_sum(entries))}">{marks}</svg>'
    )


def tell(entry: OccurrenceRecord, now: datetime) -> str:
    """Return an occurrence in a sentence or two: what became of it, when, where, and why."""
    times = [f"planned {at(entry.planned_at, now)}"]
    if entry.first is not None and entry.count > 1:
        more = "" if entry.exact else "at least "
        times = [
            f"{more}{entry.count} planned {at(entry.first, now)} to {at(entry.planned_at, now)}"
        ]
    for verb, instant in (
        ("claimed", entry.claimed_at),
        ("sent", entry.dispatched_at),
        ("started", entry.started_at),
        ("ended", entry.ended_at),
    ):
        if instant is not None:
            after = (instant - entry.planned_at).total_seconds()
            times.append(f"{verb} {'+' if after >= 0 else '-'}{how_long(abs(after))}")
    seconds = took(entry)
    if seconds is not None:
        times.append(f"took {how_long(seconds)}")
    text = f"{entry.state.value}: {', '.join(times)}; node {entry.node}, token {entry.token}"
    if entry.attempt > 1:
        text += f", attempt {entry.attempt}"
    if entry.asked_by:
        text += f"; asked for by {entry.asked_by}"
    said = entry.reason in ("", entry.state.value)
    return text if said else f"{text}; {entry.reason}"


def _mark_at(slot: int, entry: OccurrenceRecord, title: str) -> str:
    x = slot * _WIDE
    asked = f'<use href="#lj-asked" x="{x}"></use>' if entry.asked_by else ""
    return f'<g>{title}<use href="#lj-{entry.state.value}" x="{x}"></use>{asked}</g>'


@functools.lru_cache(maxsize=_MOST)
def _title(entry: OccurrenceRecord, noon: datetime, _zone: str) -> str:
    """Return what is told of an occurrence on the day of *noon*, in a time zone."""
    return f"<title>{escape(tell(entry, noon))}</title>"


def _sum(entries: Iterable[OccurrenceRecord]) -> str:
    """Return how many occurrences are in which state."""
    counts: dict[State, int] = {}
    for entry in entries:
        counts[entry.state] = counts.get(entry.state, 0) + 1
    said = [f"{counts[state]} {state.value}" for state in State if state in counts]
    return f"Recent occurrences: {', '.join(said) or 'none'}"
