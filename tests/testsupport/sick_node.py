"""
A node of a fleet whose store is hurt: as `testsupport.job_node`, and it says when it believes to lead.

Run as ``python -m testsupport.sick_node --store URL --evidence FILE …``; user and password come from
the environment. Evidence lines of bodies end with the moment. Beside the evidence lies a file with a
line ``NODE TOKEN FIRST LAST`` for each stretch of time in which the node, asked every 10 ms, said that
its term was active.
"""

import os
import threading
from pathlib import Path
from typing import Final

from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.assembly import job_part
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.runs import Run
from leader_jobs.service import Service
from leader_jobs.stores.factory import open_store
from testsupport.job_node import Evidence, SkewedClock, declare_jobs, node_options

__all__ = ["beliefs_beside"]

_CLOCK: Final = SystemClock()
#: Seconds between two questions, and between two lines.
_ASK: Final = 0.01
_NOTE: Final = 0.05


def beliefs_beside(evidence: Path) -> Path:
    """Return the file that says who believed to lead when."""
    return evidence.with_name("beliefs")


class TimedEvidence(Evidence):
    """Evidence that says when."""

    def note(self, word: str, run: Run) -> None:
        """Write one line about *run*."""
        fields = (word, run.job, run.planned_at.isoformat(), run.token, run.attempt, self._node)
        os.write(self._file, (" ".join(map(str, fields)) + f" {_CLOCK.now():.4f}\n").encode())


def note_beliefs(candidate: Candidate, path: Path) -> None:
    """Ask *candidate* for its term again and again, and write down what it says."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    never = threading.Event()
    token, first, last, noted = 0, 0.0, 0.0, 0.0
    while True:
        # A term that is active after `before` was so then, too: once over, it stays over.
        before, term, after = _CLOCK.now(), candidate.term, _CLOCK.now()
        held = term.token if term is not None else 0
        if token and (held != token or before - noted >= _NOTE):
            os.write(file, f"{candidate.node} {token} {first:.4f} {last:.4f}\n".encode())
            noted = before
        if held != token:
            token, first, noted = held, after, before
        last = max(first, before)
        _CLOCK.wait(never, _ASK)


def main() -> None:
    """Run a node until a signal comes."""
    options = node_options()
    settings = Settings.load(
        store=options.store,
        namespace=options.namespace,
        node=options.node,
        ttl=options.ttl,
        grace=5.0,
    )
    clock = SkewedClock(options.skew)
    store = open_store(settings, clock=clock)
    jobs = declare_jobs(TimedEvidence(options.evidence, options.node))
    part = job_part(
        settings,
        settings.election,
        store=store,
        clock=clock,
        jobs=jobs.of(settings.election),
        timer=APSchedulerTimer,
    )
    watcher = (part.candidate, beliefs_beside(options.evidence))
    threading.Thread(target=note_beliefs, args=watcher, daemon=True).start()
    Service([part], grace=settings.grace).run()
    store.close()


if __name__ == "__main__":
    main()
