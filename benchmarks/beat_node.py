"""A node whose only job notes the moment of each start; for `benchmarks.takeover`."""

import os
import sys
from pathlib import Path

from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.assembly import job_part
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.jobs import JobRegistry, leader_only
from leader_jobs.runs import current_run
from leader_jobs.service import Service
from leader_jobs.stores.factory import open_store


def main() -> None:
    """Run a node: arguments are the store's URL, the namespace, ttl, the file to note in, guardian."""
    url, namespace, ttl, path, guardian = sys.argv[1:]
    clock = SystemClock()
    jobs = JobRegistry()
    notes = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @leader_only(every=0.1, name="beat", jobs=jobs)
    def beat() -> None:
        run = current_run()
        assert run is not None
        os.write(notes, f"{run.token} {clock.now()}\n".encode())

    settings = Settings(store=url, namespace=namespace, ttl=float(ttl), guardian=guardian == "True")
    store = open_store(settings, clock=clock)
    part = job_part(
        settings,
        settings.election,
        store=store,
        clock=clock,
        jobs=jobs.of(settings.election),
        timer=APSchedulerTimer,
    )
    Service([part], grace=2.0).run()
    store.close()


if __name__ == "__main__":
    main()
