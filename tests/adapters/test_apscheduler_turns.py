"""What waits for its turn: nothing is recorded as started that does not begin at once."""

import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from leader_jobs.records import State
from testsupport.apscheduler_rig import Rig


def take_a_moment() -> None:
    """Keep a process of a pool busy."""
    threading.Event().wait(0.05)


def test_a_pool_of_processes_is_sent_what_it_begins_at_once(rig: Rig) -> None:
    """Six run times of one job and one each of three others, in one process: one by one, all of them."""
    scheduler = rig.started(executors={"default": {"type": "processpool", "max_workers": 1}})
    missed = datetime.now(UTC) - timedelta(seconds=5.5)
    rig.add(scheduler, take_a_moment, seconds=1, next_run_time=missed, coalesce=False)
    for number in range(3):
        rig.add(scheduler, take_a_moment, id=f"other{number}")

    runs = [*rig.wait_closed("job", 6)]
    for number in range(3):
        runs += rig.wait_closed(f"other{number}")
    assert {run.state for run in runs} == {State.SUCCEEDED}
    spells = sorted((run.started_at or missed, run.ended_at or missed) for run in runs)
    assert all(ended <= started for (_, ended), (started, _) in pairwise(spells))
