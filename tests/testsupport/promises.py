"""What no commit and no body of a fleet may ever do: promises P2, P3 and P4, as a model checks them."""

from collections.abc import Mapping
from datetime import datetime

from leader_jobs.jobs import Job
from leader_jobs.occurrences import occurrence_id
from leader_jobs.records import JOBS_PREFIX, JobRecord, OccurrenceRecord, State, history_prefix
from leader_jobs.runs import Run
from leader_jobs.schedules import Schedule
from leader_jobs.stores.base import Record
from testsupport.fleet import Commit, Node
from testsupport.place import ELECTION

__all__ = ["Promises", "check_accounting", "closed_by"]

_OPEN = (State.CLAIMED, State.STARTED)


class Promises:
    """
    What is checked of every commit and of every body that begins.

    Args:
        jobs: the jobs of the fleet by name.
        schedules: all schedules they ever have, by fingerprint.

    Attributes:
        records: the record of each job as it stands in the store.
        broken: what was found wrong, oldest first.
    """

    def __init__(self, jobs: Mapping[str, Job], schedules: Mapping[str, Schedule]) -> None:
        self._jobs = jobs
        self._schedules = schedules
        self.records: dict[str, JobRecord] = {}
        self._claimed: set[tuple[str, datetime]] = set()
        self._begun: set[tuple[str, datetime, int]] = set()
        #: What a leader took from a process that no longer stood: it may have been about to start.
        self._taken: set[tuple[str, datetime, int]] = set()
        self.broken: list[AssertionError] = []

    def seen(self, commit: Commit) -> None:
        """Check a commit; a thread of the pool would swallow what it raises."""
        try:
            self._check(commit)
        except AssertionError as error:
            self.broken.append(error)

    def begins(self, node: Node, run: Run) -> None:
        """Check a body that begins, likewise."""
        try:
            self._check_body(node, run)
        except AssertionError as error:
            self.broken.append(error)

    def _check(self, commit: Commit) -> None:
        """Compare what a commit did to each job with what was allowed at that moment."""
        for key, row in commit.after.items():
            if key.startswith(JOBS_PREFIX) and commit.before.get(key) != row:
                new = JobRecord.decode(row.value)
                old, self.records[new.job] = self.records.get(new.job), new
                self._check_job(commit, old, new, closed_by(commit, new.job))

    def _check_job(
        self,
        commit: Commit,
        old: JobRecord | None,
        new: JobRecord,
        closed: Mapping[int, OccurrenceRecord],
    ) -> None:
        leads = commit.actor == commit.leader
        known = {entry.sequence: entry for entry in old.open} if old else {}
        added = [entry for entry in new.open if entry.sequence not in known]
        if old is None or new.cursor != old.cursor or added:
            assert leads, f"{commit.actor} accounts for {new.job}, but {commit.leader} leads"
        if old is not None and old.schedule == new.schedule:
            passed = [entry for number, entry in closed.items() if number not in known]
            check_accounting(self._schedules[new.schedule], old, new, added, passed)
        for entry in added:
            assert entry.state is State.CLAIMED
            assert (new.job, entry.planned_at) not in self._claimed, "an occurrence claimed twice"
            self._claimed.add((new.job, entry.planned_at))
        for number, before in known.items():
            after = closed.get(number) or new.find(number)
            assert after is not None, f"occurrence {number} of {new.job} has vanished"
            assert (number in closed) == (new.find(number) is None), f"{number} closed and open"
            self._check_entry(commit, new.job, before, after)
        if not self._jobs[new.job].policy.overlap:
            assert sum(entry.state is State.STARTED for entry in new.open) <= 1, "they overlap"

    def _check_entry(
        self, commit: Commit, name: str, old: OccurrenceRecord, new: OccurrenceRecord
    ) -> None:
        """Check the step one open occurrence took."""
        leads, own = commit.actor == commit.leader, commit.actor == old.owner
        dead = old.owner not in commit.living
        this = (name, old.planned_at, old.attempt)
        begun = this in self._begun
        if old.state is State.STARTED and new != old and not own:
            self._taken.add(this)
        again = new.attempt - old.attempt
        assert new.planned_at == old.planned_at, f"{old} has become {new}"
        assert again in (0, 1), f"{old} has become {new}"
        assert not again or self._jobs[name].rerun_on_crash, f"{old} has become {new}"
        match (old.state, new.state):
            case (State.CLAIMED, State.STARTED):
                allowed = leads and new.owner == commit.actor
            case (State.CLAIMED, State.SKIPPED):
                allowed = leads and new.reason == "window"
            case (State.STARTED, State.SUCCEEDED | State.FAILED):
                allowed = own and begun
            case (State.STARTED, State.INTERRUPTED):
                allowed = (own and begun) or (leads and dead)
            case (State.STARTED, State.CLAIMED):
                allowed = (own and begun == bool(again)) or (leads and dead)
            case _:
                allowed = old == new
        assert allowed, f"{commit.actor}, {commit.leader} leading, made {new} of {old}"

    def _check_body(self, node: Node, run: Run) -> None:
        """Check that this body may begin here and now."""
        this = (run.job, run.planned_at, run.attempt)
        ours = any(
            (entry.planned_at, entry.attempt) == this[1:]
            and (entry.state, entry.owner) == (State.STARTED, node.owner)
            for entry in self.records[run.job].open
        )
        assert ours or this in self._taken, f"{node} runs {run}, which is not its to run"
        assert run.occurrence == occurrence_id(ELECTION, run.job, run.planned_at)
        assert not run.lost.is_set(), f"{node} starts {run} when its term is over"
        assert this not in self._begun, f"{node} starts {run} again"
        self._begun.add(this)
        if not self._jobs[run.job].policy.overlap:
            assert sum(body.run.job == run.job for body in node.bodies) == 1, "they overlap"


def closed_by(commit: Commit, name: str) -> dict[int, OccurrenceRecord]:
    """Return what a commit added to the history of a job, by sequence."""
    prefix = history_prefix(name)
    rows: list[Record] = [
        row
        for key, row in commit.after.items()
        if key.startswith(prefix) and commit.before.get(key) != row
    ]
    entries = [OccurrenceRecord.decode(row.value) for row in rows]
    assert all(entry.state not in _OPEN for entry in entries)
    return {entry.sequence: entry for entry in entries}


def check_accounting(
    schedule: Schedule,
    old: JobRecord,
    new: JobRecord,
    added: list[OccurrenceRecord],
    passed: list[OccurrenceRecord],
) -> None:
    """Check that every instant the cursor moved over is claimed or passed over, once."""
    assert new.cursor >= old.cursor, "the cursor went back"
    accounted = [entry.planned_at for entry in added]
    for entry in passed:
        assert entry.first is not None
        instants = _instants_between(schedule, entry.first, entry.planned_at)
        assert len(instants) == entry.count, f"{entry} counts wrong"
        accounted += instants
    first = schedule.next_after(old.cursor)
    assert first is not None
    due = _instants_between(schedule, first, new.cursor)
    assert sorted(accounted) == due, f"{new.job}: {due} are accounted for by {accounted}"


def _instants_between(schedule: Schedule, first: datetime, last: datetime) -> list[datetime]:
    """Return the planned instants from *first*, which is one, up to *last*."""
    found: list[datetime] = []
    instant: datetime | None = first
    while instant is not None and instant <= last:
        found.append(instant)
        instant = schedule.next_after(instant)
    return found
