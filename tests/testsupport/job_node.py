"""
A node of a test fleet: stands in the election and, leading, runs jobs that write down what they do.

Run as ``python -m testsupport.job_node --store URL --evidence FILE …``. Every body appends a line
``begin JOB PLANNED TOKEN ATTEMPT NODE`` to the evidence when it starts and an ``end`` line when it
is through, each in one write, so that lines of several processes never mix.
"""

import argparse
import faulthandler
import logging
import os
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.assembly import job_part
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.jobs import JobRegistry, leader_only
from leader_jobs.runs import Run, current_run
from leader_jobs.service import Service
from leader_jobs.stores.factory import open_store

__all__ = ["JOBS", "Evidence", "SkewedClock", "node_options"]

#: The jobs of every node, by name, and how often they are due.
JOBS = {"all": 0.5, "latest": 0.5, "rerun": 1.0, "slow": 1.0}


class SkewedClock(SystemClock):
    """A wall clock that is wrong by *skew* seconds; moments are right, as they are in life."""

    def __init__(self, skew: float) -> None:
        self._skew = timedelta(seconds=skew)

    def utcnow(self) -> datetime:
        """Return the wrong time."""
        return super().utcnow() + self._skew


class Evidence:
    """Appends to the file that says what was really done."""

    def __init__(self, path: Path, node: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._node = node

    def note(self, word: str, run: Run) -> None:
        """Write one line about *run*."""
        fields = (word, run.job, run.planned_at.isoformat(), run.token, run.attempt, self._node)
        os.write(self._file, (" ".join(map(str, fields)) + "\n").encode())


def declare_jobs(evidence: Evidence) -> JobRegistry:
    """Return a registry with the jobs of a test node."""
    jobs = JobRegistry()

    def work() -> None:
        run = current_run()
        assert run is not None
        evidence.note("begin", run)
        if run.job == "slow":
            run.lost.wait(0.3)
        evidence.note("end", run)

    leader_only(every=JOBS["all"], name="all", catch_up="all", max_burst=100, jobs=jobs)(work)
    leader_only(every=JOBS["latest"], name="latest", jobs=jobs)(work)
    rerun = leader_only(
        every=JOBS["rerun"],
        name="rerun",
        catch_up="all",
        max_burst=100,
        on_crash="rerun",
        jobs=jobs,
    )
    rerun(work)
    leader_only(every=JOBS["slow"], name="slow", catch_up="all", max_burst=100, jobs=jobs)(work)
    return jobs


def node_options() -> argparse.Namespace:
    """Return what a fleet says to its nodes, and have it hear what goes on in this one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--evidence", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--ttl", type=float, required=True)
    parser.add_argument("--namespace", default="fleet")
    parser.add_argument("--skew", type=float, default=0.0)
    options = parser.parse_args()
    # A node that does not end when asked to is asked where its threads are.
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    return options


def main() -> None:
    """Run a node until a signal comes."""
    options = node_options()
    settings = Settings(
        store=options.store,
        namespace=options.namespace,
        node=options.node,
        ttl=options.ttl,
        grace=5.0,
    )
    clock = SkewedClock(options.skew)
    store = open_store(settings, clock=clock)
    jobs = declare_jobs(Evidence(options.evidence, options.node))
    part = job_part(
        settings,
        settings.election,
        store=store,
        clock=clock,
        jobs=jobs.of(settings.election),
        timer=APSchedulerTimer,
    )
    Service([part], grace=settings.grace).run()
    store.close()


if __name__ == "__main__":
    main()
