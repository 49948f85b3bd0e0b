"""The state of an election in a sentence, and whatever else somebody has to know before reading on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from leader_jobs.overview import ElectionView, JobView, Member, Summary

__all__ = ["Headline", "Level", "headline_of", "headline_of_all", "notices_of"]


class Level(StrEnum):
    """How much it matters; a word for style sheets."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Headline:
    """
    A sentence, and what follows from it.

    Attributes:
        level: how much it matters.
        text: the sentence; nothing in it changes from second to second.
        detail: what it means.
        jobs: the jobs it is about.
    """

    level: Level
    text: str
    detail: str = ""
    jobs: tuple[JobView, ...] = ()


def headline_of(view: ElectionView) -> Headline:
    """Say who leads, and how well."""
    leader = view.leader
    if leader is None:
        return _vacancy(view)
    if leader.suspended:
        return Headline(
            Level.BAD,
            f"{leader.node} leads, but is suspended",
            "Its renewals fail, so nothing new starts. Unless one works, its term ends with its lease.",
        )
    if leader.foreign:
        return Headline(
            Level.WARNING,
            f"{leader.node} leads, a candidate of another program",
            "It runs no jobs of this library and obeys no orders: it can be neither asked to resign "
            "nor to hand over. Use that program's own means.",
        )
    return Headline(Level.GOOD, f"{leader.node} leads", _succession(view.candidates[1:]))


def notices_of(view: ElectionView) -> Iterator[Headline]:
    """Yield what else has to be known: jobs that are late, or that nobody can make out."""
    late = tuple(job for job in view.jobs if job.overdue)
    if late:
        yield Headline(Level.BAD, f"{_count(late)} overdue", jobs=late)
    odd = tuple(job for job in view.jobs if job.unreadable)
    if odd:
        text = f"{_count(odd)} left alone"
        yield Headline(Level.BAD, text, "Their records can not be read:", odd)


def headline_of_all(summaries: Sequence[Summary]) -> Headline:
    """Say how the elections are, taken together."""
    troubles = [
        f"nobody leads {summary.election}"
        if summary.leader is None
        else f"{summary.leader.node} is suspended in {summary.election}"
        for summary in summaries
        if summary.leader is None or summary.leader.suspended
    ]
    troubles += [
        f"{summary.overdue} overdue in {summary.election}"
        for summary in summaries
        if summary.overdue
    ]
    if troubles:
        text = "; ".join(troubles)
        return Headline(Level.BAD, f"{text[0].upper()}{text[1:]}")
    if not summaries:
        return Headline(Level.WARNING, "There are no elections yet", _START)
    number = "The election has" if len(summaries) == 1 else f"All {len(summaries)} elections have"
    return Headline(Level.GOOD, f"{number} a leader, and nothing is overdue")


_START = "Start a candidate: 'manage.py runleader', a beat or a scheduler of this library."


def _vacancy(view: ElectionView) -> Headline:
    if not (view.terms or view.jobs or view.members):
        return Headline(Level.WARNING, "Nobody has stood in this election yet", _START)
    return Headline(Level.BAD, "Nobody leads", f"No candidate stands, so nothing starts. {_START}")


def _count(jobs: Sequence[JobView]) -> str:
    return "1 job is" if len(jobs) == 1 else f"{len(jobs)} jobs are"


def _succession(standbys: Sequence[Member]) -> str:
    if not standbys:
        return "Nobody stands by: if it dies, nobody takes over."
    first = standbys[0].node
    if len(standbys) == 1:
        return f"{first} stands by."
    return f"{len(standbys)} stand by; {first} is next."
