"""
What the guard costs where it is used: `Term.active`, a `@leader_only` call, importing the core.

Run as ``python -m benchmarks.calls``.
"""

import subprocess
import sys
import timeit

from benchmarks.figures import machine, row
from leader_jobs.candidate import Candidate
from leader_jobs.clock import SystemClock
from leader_jobs.jobs import leader_only
from leader_jobs.stores.memory import MemoryStore

_CALLS = 20_000
_IMPORT = (
    "import time; t = time.perf_counter(); "
    "from leader_jobs import leader_only, current_run, assert_leader, Candidate, find_leader, "
    "watch_leader; print(time.perf_counter() - t)"
)


def _per_call(call: str, names: dict[str, object], unit: float) -> list[float]:
    runs = timeit.repeat(call, globals=names, number=_CALLS, repeat=30)
    return [seconds / _CALLS / unit for seconds in runs]


def _import_times() -> list[float]:
    found = []
    for _ in range(20):
        output = subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        ).stdout
        found.append(float(output) * 1000)
    return found


def main() -> None:
    """Print the table."""

    @leader_only
    def guarded() -> None:
        pass

    def plain() -> None:
        pass

    print(machine())
    print("| what | n | p50 | p99 | max | target |\n|---|---|---|---|---|---|")
    with Candidate("default", store=MemoryStore(SystemClock()), node="one") as candidate:
        term = candidate.wait_for_term(5)
        names: dict[str, object] = {"term": term, "guarded": guarded, "plain": plain}
        print(row("`Term.active`", _per_call("term.active", names, 1e-6), "µs", "≤ 1 µs"))
        bare = min(_per_call("plain()", names, 1e-6))
        cost = [found - bare for found in _per_call("guarded()", names, 1e-6)]
        print(row("`@leader_only` on the leader adds", cost, "µs", "≤ 10 µs"))
    print(row("import of the core", _import_times(), "ms", "≤ 60 ms"))


if __name__ == "__main__":
    main()
