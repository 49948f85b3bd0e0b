"""
Compare beats: ``python -m benchmarks.beat [--peer NAME…] [--scenario NAME…] [--rounds N]``.

Run it with ``tests`` on the path, and with ``BEAT_PYTHON`` naming the interpreter of the
environment that has the peers (``make bench-celery`` sees to both). It prints a table for each
scenario. Each fleet has a Redis server, and an etcd cluster if it needs one, of its own; scenarios
in which moments do not matter run the fleets of all peers at the same time.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.beat.peers import PEERS, Peer
from benchmarks.beat.rig import Rows
from benchmarks.beat.scenarios import SCENARIOS, measure
from benchmarks.figures import machine


def _tables(name: str, peers: Sequence[Peer], rounds: int) -> Iterator[str]:
    """Return the lines of the table of one scenario as they come to be known."""
    scenario = SCENARIOS[name]
    yield f"\n### {name}: {scenario.title}\n"
    yield f"{time.strftime('%F %T')}, {machine()}\n"
    yield f"| peer | settings | {scenario.columns} |"
    yield "|---" * (scenario.columns.count("|") + 3) + "|"
    began = time.monotonic()
    with ProcessPoolExecutor(
        min(scenario.at_once, len(peers)), mp_context=get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        jobs = [(peer, pool.submit(measure, name, peer.name, rounds)) for peer in peers]
        for peer, job in jobs:
            for cells in _rows(job):
                yield f"| {peer.name} | {peer.settings} | {' | '.join(cells)} |"
    yield f"\ntook {time.monotonic() - began:.0f} s, then: {machine()}"


def _rows(job: "Future[Rows]") -> Rows:
    error = job.exception()
    return job.result() if error is None else [[f"failed: {type(error).__name__}: {error}"]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beat")
    parser.add_argument("--peer", nargs="+", choices=PEERS, help="only these")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, help="only these")
    parser.add_argument("--rounds", type=int, help="how many times, instead of the default")
    options = parser.parse_args()
    chosen = [PEERS[name] for name in options.peer or PEERS]
    for name in options.scenario or SCENARIOS:
        scenario = SCENARIOS[name]
        peers = [peer for peer in chosen if options.peer or scenario.suits(peer)]
        for line in _tables(name, peers, options.rounds or scenario.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
