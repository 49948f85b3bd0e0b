"""The table of scenarios: what is done to which peers, how often, and how many at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from benchmarks.beat import costs, faults, outages
from benchmarks.beat.peers import PEERS, Peer
from benchmarks.beat.rig import Rows

__all__ = ["SCENARIOS", "Scenario", "measure"]

_LONGEST_LEASE: Final = 60.0
_ALL: Final = 99


@dataclass(frozen=True)
class Scenario:
    """
    What is done to each peer.

    Attributes:
        title: what the table shows; "a / b" in a cell is the median and the largest.
        columns: what the cells of a row mean.
        run: does it, so many times over.
        rounds: how many times by default.
        at_once: how many fleets at the same time.
        suits: which peers it is done to by default.
    """

    title: str
    columns: str
    run: Callable[[Peer, int], Rows]
    rounds: int
    at_once: int
    suits: Callable[[Peer], bool]


def _elects(peer: Peer) -> bool:
    return peer.elects


def _fails_over(peer: Peer) -> bool:
    return 0 < peer.lease < _LONGEST_LEASE


def _is_burst_worthy(peer: Peer) -> bool:
    """Leave out those whose tick is stock beat's, and locks that are shorter than a burst."""
    return peer.name in {"stock", "redbeat", "ours-sqlite", "ours-etcd-5s"}


_FAILOVER: Final = "n | → next message, s | next tick late, s | lost | second ids | same id again"
#: Every scenario by its name, in the order of the tables.
SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "kill": Scenario(
            "kill -9 of the leading node, 3 nodes, 5 entries at 1 s",
            _FAILOVER,
            faults.kill,
            rounds=8,
            at_once=2,
            suits=_elects,
        ),
        "stop": Scenario(
            "SIGTERM to the leading node, 3 nodes, 5 entries at 1 s",
            _FAILOVER,
            faults.stop,
            rounds=8,
            at_once=2,
            suits=_elects,
        ),
        "crontab": Scenario(
            "kill -9 around a minute's tick, 3 nodes, 5 entries of every minute",
            "killed | occurrences | second ids | same id again | missed | first message late, s",
            faults.crontabs,
            rounds=2,
            at_once=_ALL,
            suits=_fails_over,
        ),
        "freeze": Scenario(
            "leader frozen until 3 s after its successor began, then woken; 8 s",
            "frozen | n | its messages since | most | of them under a successor's id | it exited",
            faults.freeze,
            rounds=3,
            at_once=_ALL,
            suits=_fails_over,
        ),
        "outage": Scenario(
            "broker or store away, 3 nodes, 5 entries at 1 s, nobody restarts beats",
            "away | n | beats dead | back → next message, s | lost | second ids | same id again",
            outages.outage,
            rounds=2,
            at_once=_ALL,
            suits=_fails_over,
        ),
        "burst": Scenario(
            "crontab entries due in one minute, 1 node",
            "entries | n | first message late, s | last message, s | messages/s (median / least) | MB",
            costs.burst,
            rounds=1,
            at_once=1,
            suits=_is_burst_worthy,
        ),
        "idle": Scenario(
            "5 hourly entries, 3 nodes, 90 s: leading / standing by",
            "resident MB | processor ms per minute",
            costs.idle,
            rounds=1,
            at_once=_ALL,
            suits=lambda _: True,
        ),
        "rate": Scenario(
            "undisturbed, 3 nodes, 5 entries at 1 s, 60 s",
            "messages per entry and second | longest gap, s",
            costs.rate,
            rounds=1,
            at_once=_ALL,
            suits=lambda _: True,
        ),
    }
)


def measure(scenario: str, peer: str, rounds: int) -> Rows:
    """Do a scenario to a peer, both given by name; this much can be sent to another process."""
    return SCENARIOS[scenario].run(PEERS[peer], rounds)
