"""
What a leader asks of a beat scheduler beyond what Celery does.

The answers here are right for a scheduler that has no more to say than Celery knows; one that keeps
its schedule where people edit it has others.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from celery.beat import ScheduleEntry

from leader_jobs.adapters.celery_entries import BeatJob

__all__ = ["Keeper"]


class Keeper:
    """
    A beat scheduler, as a leader sees it.

    Attributes:
        lasting: whether the schedule outlives the process, so that a new leader may go by what it
            finds, and set up what the configuration adds to it a moment later.
    """

    lasting: bool = False

    def preload(self) -> Mapping[str, ScheduleEntry]:
        """Return entries that are likely to be needed; nothing is written, and nothing is due."""
        return {}

    def start_over(self) -> None:
        """Go by nothing that was read in a former term."""

    def job(self, job: BeatJob, entry: ScheduleEntry) -> BeatJob:
        """Return *job*, which was made of *entry*, with what only the scheduler knows of it."""
        del entry
        return job

    def changed_at(self, name: str) -> datetime | None:
        """Return when somebody wrote or enabled the entry *name*, if it was not sent since."""
        del name
        return None

    def switched_off(self) -> Collection[str]:
        """Return the names of the entries that are kept, and not wanted to be run."""
        return ()

    def switch_off(self, finished: Collection[str]) -> Collection[str]:
        """Switch off what is not to be run any more, of the *finished* entries and all; say which."""
        del finished
        return ()

    def forget_books(self) -> None:
        """Write nothing of what was noted as sent: another leader keeps the books now."""

    def rest(self) -> None:
        """Let go of what is not needed while others lead."""
