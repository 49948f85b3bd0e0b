"""
The picture of an election's terms: who led when, and when nobody did; as SVG, a row for each node.

The table of the terms says the same in words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from django_leader_jobs.words import at
from leader_jobs.durations import how_long
from leader_jobs.terms import TermRecord

__all__ = ["SPANS", "Lane", "Timeline", "timeline"]

#: The stretches of time that the picture of the terms may show, by name; None: all there is.
SPANS: Final = {
    "1min": timedelta(minutes=1),
    "10min": timedelta(minutes=10),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "all": None,
}
_AXIS: Final = 1000
_LEAST: Final = 3.0
_SECOND: Final = timedelta(seconds=1)
_LANES: Final = 6
#: How many terms make a picture worth looking at.
_ENOUGH: Final = 4


@dataclass(frozen=True, slots=True)
class Lane:
    """
    A row of the picture.

    Attributes:
        label: whose row it is.
        picture: what is in it.
        vacant: whether it is that of nobody.
    """

    label: str
    picture: SafeString
    vacant: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """
    Who led when.

    Attributes:
        span: the name of the stretch of time that is shown, one of `SPANS`.
        lanes: the rows.
        ticks: instants along the axis, evenly spaced, the first and the last included.
    """

    span: str
    lanes: tuple[Lane, ...]
    ticks: tuple[datetime, ...]


def timeline(
    terms: Sequence[TermRecord], now: datetime, *, token: int | None, span: str = ""
) -> Timeline | None:
    """
    Draw *terms*.

    Args:
        terms: the terms, oldest first.
        now: the instant of the look, at the right end of the axis.
        token: that of the term which goes on, or None if nobody leads.
        span: what to show, by a name of `SPANS`; if it is none, what shows a few successions.

    Returns:
        The picture; None if there is nothing to show.
    """
    if not terms:
        return None
    span = span if span in SPANS else _fitting(terms, now)
    reach = SPANS[span]
    start = terms[0].began_at if reach is None else now - reach
    picture = _Picture(min(start, now - _SECOND), now, _ends(terms, now), token)
    shown = [term for term in terms if picture.end_of(term) >= picture.start]
    nodes = list(dict.fromkeys(term.node for term in reversed(shown)))
    lanes = [Lane(n, picture.reigns(t for t in shown if t.node == n)) for n in nodes[:_LANES]]
    rest = [term for term in shown if term.node in nodes[_LANES:]]
    if rest:
        lanes.append(Lane(f"{len(nodes) - _LANES} more nodes", picture.reigns(rest)))
    lanes.append(Lane("nobody", picture.gaps(terms), vacant=True))
    step = (now - picture.start) / 4
    return Timeline(span, tuple(lanes), tuple(picture.start + n * step for n in range(5)))


def _fitting(terms: Sequence[TermRecord], now: datetime) -> str:
    """Return the shortest stretch with a few terms in it, or else all there is."""
    wanted = min(_ENOUGH, len(terms))
    for name, reach in SPANS.items():
        if reach is not None and sum(term.began_at >= now - reach for term in terms) >= wanted:
            return name
    return "all"


def _ends(terms: Sequence[TermRecord], now: datetime) -> dict[int, datetime]:
    """Return the end of each term by its token; at the latest, that is the beginning of the next."""
    followed = [*(term.began_at for term in terms[1:]), now]
    pairs = zip(terms, followed, strict=True)
    return {term.token: term.ended_at or next_began for term, next_began in pairs}


@dataclass(frozen=True, slots=True)
class _Picture:
    """
    Draws on one axis.

    Attributes:
        start: the instant at its left end.
        end: the instant at its right end.
        ends: when each term ended, by its token.
        token: that of the term which goes on, or None.
    """

    start: datetime
    end: datetime
    ends: Mapping[int, datetime]
    token: int | None

    def end_of(self, term: TermRecord) -> datetime:
        """Return when *term* ended, as far as is known."""
        return self.ends[term.token]

    def reigns(self, terms: Iterable[TermRecord]) -> SafeString:
        """Draw terms."""
        return _svg(
            self._rect(term.began_at, self.end_of(term), self._kind(term), self._tell(term))
            for term in terms
        )

    def gaps(self, terms: Sequence[TermRecord]) -> SafeString:
        """Draw the times between terms."""
        begins = [*(term.began_at for term in terms[1:]), self.end]
        found = [
            (self.end_of(term), begin)
            for term, begin in zip(terms, begins, strict=True)
            if max(self.end_of(term), self.start) < begin
        ]
        return _svg(
            self._rect(
                start,
                end,
                "gap",
                f"nobody led for {how_long((end - start).total_seconds())} "
                f"from {at(start, self.end)} on",
            )
            for start, end in found
        )

    def _kind(self, term: TermRecord) -> str:
        if term.ended_at is not None:
            return "term"
        return "reign" if term.token == self.token else "unknown"

    def _tell(self, term: TermRecord) -> str:
        lasted = how_long((self.end_of(term) - term.began_at).total_seconds())
        text = f"{term.node}, token {term.token}: from {at(term.began_at, self.end)} on"
        if term.ended_at is not None:
            return f"{text} for {lasted}, {term.reason}"
        if term.token == self.token:
            return f"{text}, for {lasted} so far"
        return f"{text}; when it ended is not known"

    def _rect(self, start: datetime, end: datetime, kind: str, text: str) -> SafeString:
        """Draw from *start* to *end*, never so thin that it can not be seen."""
        whole = (self.end - self.start).total_seconds()
        left = _AXIS * max(0.0, (start - self.start).total_seconds() / whole)
        right = _AXIS * min(1.0, (end - self.start).total_seconds() / whole)
        width = max(_LEAST, right - left)
        return format_html(
            '<rect class="lj-{}" x="{}" width="{}" height="10"><title>{}</title></rect>',
            kind,
            f"{min(left, _AXIS - width):.1f}",
            f"{width:.1f}",
            text,
        )


def _svg(rects: Iterable[SafeString]) -> SafeString:
    return mark_safe(  # noqa: S308  what `_rect` escaped
        f'<svg class="lj-lane" viewBox="0 0 {_AXIS} 10" preserveAspectRatio="none"'
        f' aria-hidden="true">{"".join(rects)}</svg>'
    )
