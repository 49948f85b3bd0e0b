"""The pictures on the admin pages, and the words beside them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.utils import timezone

from django_leader_jobs.headline import Level, headline_of, headline_of_all
from django_leader_jobs.pictures import lease_bar, strip, tell
from django_leader_jobs.timeline import timeline
from leader_jobs.overview import ElectionView, Member, Summary
from leader_jobs.records import OccurrenceRecord, State
from leader_jobs.terms import TermRecord

NOW: Final = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)


def term(number: int, node: str, begins: timedelta, lasts: timedelta | None) -> TermRecord:
    """Return a term that began so long before now."""
    record = TermRecord(
        number=number,
        token=number,
        node=node,
        host="h",
        pid=1,
        version="1",
        began_at=NOW - begins,
    )
    return record if lasts is None else record.ended("resigned", record.began_at + lasts)


def rects(picture: str) -> list[tuple[str, float, float]]:
    """Return kind, beginning and width of each rectangle, in thousandths of the axis."""
    found = re.findall(r'<rect class="lj-(\w+)" x="([\d.]+)" width="([\d.]+)"', picture)
    return [(kind, float(x), float(width)) for kind, x, width in found]


# -- terms --------------------------------------------------------------------------------------------


def test_terms_lie_where_they_belong() -> None:
    """One row for each node, the newest first, and one for nobody."""
    terms = (
        term(1, "a", 10 * MINUTE, 4 * MINUTE),
        term(2, "b", 5 * MINUTE, 3 * MINUTE),
        term(3, "a", 2 * MINUTE, None),
    )
    picture = timeline(terms, NOW, token=3, span="10min")
    assert picture is not None
    assert [lane.label for lane in picture.lanes] == ["a", "b", "nobody"]
    a, b, nobody = (rects(lane.picture) for lane in picture.lanes)
    assert a == [("term", 0.0, 400.0), ("reign", 800.0, 200.0)]
    assert b == [("term", 500.0, 300.0)]
    assert nobody == [("gap", 400.0, 100.0)]
    assert picture.ticks == tuple(NOW - n * 2.5 * MINUTE for n in (4, 3, 2, 1, 0))


def test_the_shortest_gap_can_be_seen() -> None:
    """Some milliseconds in a day are wider than nothing, and within the picture."""
    terms = (
        term(1, "a", timedelta(hours=20), timedelta(hours=20) - timedelta(milliseconds=40)),
        term(2, "b", timedelta(0), None),
    )
    picture = timeline(terms, NOW, token=2, span="24h")
    assert picture is not None
    assert rects(picture.lanes[-1].picture) == [("gap", 997.0, 3.0)]
    assert rects(picture.lanes[0].picture) == [("reign", 997.0, 3.0)]


def test_what_is_not_known_is_not_drawn_as_known() -> None:
    """The last leader is gone and nobody has said so: neither a reign nor a vacancy."""
    picture = timeline((term(1, "a", 5 * MINUTE, None),), NOW, token=None, span="10min")
    assert picture is not None
    assert rects(picture.lanes[0].picture) == [("unknown", 500.0, 500.0)]
    assert rects(picture.lanes[1].picture) == []
    assert "when it ended is not known" in picture.lanes[0].picture


def test_nobody_leads_any_more() -> None:
    """The time since the last term ended is a vacancy."""
    picture = timeline((term(1, "a", 5 * MINUTE, 2 * MINUTE),), NOW, token=None, span="10min")
    assert picture is not None
    assert rects(picture.lanes[-1].picture) == [("gap", 700.0, 300.0)]


@pytest.mark.parametrize(
    ("ages", "span"),
    [([0.2], "1min"), ([90, 8, 5, 3, 1], "10min"), ([3000, 2000], "7d"), ([90_000], "all")],
)
def test_the_picture_shows_a_few_successions(ages: list[float], span: str) -> None:
    """The shortest stretch with four terms in it, or with all there are; *ages* are minutes."""
    terms = [term(n, "a", age * MINUTE, timedelta(seconds=1)) for n, age in enumerate(ages)]
    picture = timeline(terms, NOW, token=None, span="no such")
    assert picture is not None
    assert picture.span == span


def test_many_nodes_share_a_row() -> None:
    """A label of host and process id is another one after each restart."""
    terms = [term(n, f"web-{n}", (20 - n) * MINUTE, MINUTE) for n in range(20)]
    picture = timeline(terms, NOW, token=None, span="all")
    assert picture is not None
    labels = [lane.label for lane in picture.lanes]
    assert labels[0] == "web-19"
    assert labels[-2:] == ["14 more nodes", "nobody"]
    assert len(rects(picture.lanes[-2].picture)) == 14


# -- occurrences --------------------------------------------------------------------------------------


def entry(state: State, **given: Any) -> OccurrenceRecord:
    """Return an occurrence of a minute ago."""
    planned = NOW - MINUTE
    values = {"sequence": 1, "token": 7, "node": "web-1", "claimed_at": planned, **given}
    return OccurrenceRecord(planned_at=planned, state=state, **values)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (entry(State.SKIPPED, reason="too late"), "; too late"),
        (entry(State.COALESCED, reason="coalesced"), "token 7"),
        (entry(State.STARTED, attempt=2), "attempt 2"),
        (entry(State.CLAIMED, asked_by="<b>"), "asked for by <b>"),
        (
            entry(State.SKIPPED, first=NOW - 5 * MINUTE, count=5, exact=False),
            "at least 5 planned 11:55:00 to 11:59:00",
        ),
        (entry(State.CLAIMED, claimed_at=NOW - 2 * MINUTE), "claimed -1 min"),
    ],
)
def test_an_occurrence_is_told(record: OccurrenceRecord, said: str) -> None:
    """State, times, node, token; and the rest where there is any."""
    with timezone.override(UTC):
        told = tell(record, NOW)
    assert told.startswith(f"{record.state.value}: ")
    assert said in told


def test_a_strip_is_told_anew_on_another_day_and_in_another_zone() -> None:
    """What is remembered of a mark is only what is the same for everybody who looks."""
    entries = [entry(State.SUCCEEDED)]
    with timezone.override("Asia/Kathmandu"):
        assert "planned 17:44:00" in strip(entries, NOW)
        assert "planned Nov 27, 17:44:00" in strip(entries, NOW + timedelta(days=1))
    with timezone.override("Europe/Paris"):
        assert "planned 12:59:00" in strip(entries, NOW)


@pytest.mark.parametrize(("left", "width"), [(5.0, "50.0"), (-1.0, "0.0"), (11.0, "100.0")])
def test_a_lease_is_never_wider_than_it_can_be(left: float, width: str) -> None:
    """Nor narrower, whatever the store says."""
    assert f'class="lj-left" width="{width}"' in lease_bar(left, 10.0)
    assert 'class="lj-left" width="0.0"' in lease_bar(left, 0.0)


# -- headlines ----------------------------------------------------------------------------------------


def member(place: int, *, foreign: bool = False, remaining: float = 9.0) -> Member:
    """Return a candidate."""
    return Member(
        place=place,
        id=str(place),
        token=place,
        node=f"web-{place}",
        host=None if foreign else "h",
        pid=None,
        version=None,
        foreign=foreign,
        ttl=10.0,
        remaining=remaining,
    )


def view(*candidates: Member, **given: Any) -> ElectionView:
    """Return an election with these candidates and nothing else, unless it is given."""
    empty = dict.fromkeys(("members", "jobs", "terms", "requests"), ())
    values = {"election": "mail", "at": NOW, "pause": None, "receipt": None, **empty, **given}
    return ElectionView(candidates=candidates, **values)


@pytest.mark.parametrize(
    ("seen", "level", "said"),
    [
        (view(member(0), member(1)), Level.GOOD, "web-0 leads web-1 stands by."),
        (view(member(0), member(1), member(2)), Level.GOOD, "2 stand by; web-1 is next."),
        (view(member(0)), Level.GOOD, "Nobody stands by"),
        (view(member(0, remaining=4.9)), Level.BAD, "suspended"),
        (view(member(0, foreign=True)), Level.WARNING, "a candidate of another program"),
        (view(), Level.WARNING, "Nobody has stood"),
        (view(members=(member(1),)), Level.BAD, "Nobody leads"),
    ],
)
def test_an_election_has_a_headline(seen: ElectionView, level: Level, said: str) -> None:
    """Who leads and how well, in a sentence."""
    headline = headline_of(seen)
    assert headline.level is level
    assert said in f"{headline.text} {headline.detail}"


def test_all_elections_have_one_headline() -> None:
    """It names every trouble there is."""

    def summary(name: str, leader: Member | None, overdue: int = 0) -> Summary:
        return Summary(
            election=name,
            leader=leader,
            candidates=1,
            members=0,
            jobs=3,
            overdue=overdue,
            pause=None,
        )

    good = summary("a", member(0))
    assert headline_of_all([good]).level is Level.GOOD
    bad = headline_of_all(
        [
            good,
            summary("b", None),
            summary("c", member(0, remaining=1.0)),
            summary("d", member(0), 2),
        ]
    )
    assert bad.level is Level.BAD
    assert bad.text == "Nobody leads b; web-0 is suspended in c; 2 overdue in d"
