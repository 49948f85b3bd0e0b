"""
A process with a scheduler on a job store that others share, which does as it is told.

Run as ``python -m testsupport.apscheduler_store_node CONFIG`` with a JSON object, see `main`. Every
line on its input is a call of one of the scheduler's methods: a JSON array of its name, arguments and
keyword arguments. It answers each with a line: ``null``, or what went wrong.
"""

import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from apscheduler.jobstores.base import BaseJobStore

from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
from testsupport.apscheduler_store_jobs import EVIDENCE

__all__: list[str] = []

_log = logging.getLogger(__name__)


def open_store(about: Mapping[str, Any]) -> BaseJobStore:
    """Return the job store that *about* tells of."""
    if "url" in about:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

        return SQLAlchemyJobStore(about["url"], engine_options=about.get("engine_options"))
    from testsupport.django_apscheduler_site import job_store

    return job_store(about["database"])


def told(value: Any) -> Any:
    """Return an argument as it is meant: text that is an instant is one."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value


def serve(scheduler: LeaderBackgroundScheduler) -> None:
    """Do as the input says, until it ends."""
    for line in sys.stdin:
        name, args, kwargs = json.loads(line)
        answer = None
        try:
            getattr(scheduler, name)(*args, **{key: told(value) for key, value in kwargs.items()})
        except Exception as error:  # noqa: BLE001  whoever told us hears of it
            _log.exception("%s", line)
            answer = repr(error)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()


def main() -> None:
    """
    Run until a signal comes, or the input ends.

    The configuration has ``settings`` of the election, the ``jobstore``, ``jobs`` to add before the
    start (each the keyword arguments of ``add_job``), and the file for ``evidence``.
    """
    config = json.loads(sys.argv[1])
    os.environ[EVIDENCE] = config["evidence"]
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    scheduler = LeaderBackgroundScheduler(
        jobstores={"default": open_store(config["jobstore"]), "memory": {"type": "memory"}},
        leader_jobs=config["settings"],
        timezone="UTC",
    )
    for job in config["jobs"]:
        scheduler.add_job(**{key: told(value) for key, value in job.items()})
    scheduler.start()
    try:
        serve(scheduler)
    finally:
        scheduler.shutdown()
        for thread in set(threading.enumerate()) - {threading.current_thread()}:
            thread.join(2.0)
        _log.info("threads left: %s", [thread.name for thread in threading.enumerate()])


if __name__ == "__main__":
    main()
