"""Leaders that are killed, asked to end, killed around a minute's tick, or frozen and woken."""

import random
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Final

from benchmarks.beat.broker import Message
from benchmarks.beat.fleet import Fleet, Node, wait_until
from benchmarks.beat.peers import Peer
from benchmarks.beat.rig import Rig, Rows, assembled
from benchmarks.beat.verdicts import copies, doubled, gap, lost, of_minute, spread

__all__ = ["crontabs", "freeze", "kill", "stop"]

_ENTRIES: Final = 5
_PATIENCE: Final = 45.0
_SETTLED: Final = 2.2
_CHANCE: Final = random.Random()  # noqa: S311  it picks moments, not secrets


def kill(peer: Peer, rounds: int) -> Rows:
    """Kill all of the leading node, *rounds* times at a random moment."""
    return _failovers(peer, rounds, Node.kill)


def stop(peer: Peer, rounds: int) -> Rows:
    """Ask the leading node to end, *rounds* times at a random moment."""
    return _failovers(peer, rounds, Node.terminate)


def _failovers(peer: Peer, rounds: int, end: Callable[[Node], None]) -> Rows:
    waits, gaps = [], []
    windows: list[Sequence[Message]] = []
    with assembled(peer, {"second": _ENTRIES}, nodes=3) as rig:
        for _ in range(rounds):
            time.sleep(2.5 + _CHANCE.random())
            node = rig.fleet.leader()
            node.pids()
            began = time.time()
            end(node)
            first = _first_of_others(rig, node, since=began)
            if first is None:
                break
            wait_until(first.at + _SETTLED)
            windows.append(rig.recorder.since(began - _SETTLED))
            waits.append(first.at - began)
            gaps.append(gap(windows[-1]))
            rig.fleet.replace(node)
    if not waits:
        return [["1", f"> {_PATIENCE:g}", "", "", "", ""]]
    late = [max(0.0, gap - 1) for gap in gaps]
    counts = [str(sum(map(count, windows))) for count in (lost, doubled, copies)]
    return [[str(len(waits)), spread(waits), spread(late), *counts]]


def _first_of_others(rig: Rig, node: Node, *, since: float) -> Message | None:
    return rig.first(since, _PATIENCE, of=lambda message: message.pid not in node.pids())


def freeze(peer: Peer, rounds: int) -> Rows:
    """Freeze the leader past its lease and wake it, at random moments and right before a send."""
    rows = []
    with assembled(peer, {"second": _ENTRIES}, nodes=3) as rig:
        for when, how in (("at random", _at_random), ("before a send", _in_trap)):
            found = [_freeze(rig, how) for _ in range(rounds)]
            extra, same, exits = (list(column) for column in zip(*found, strict=True))
            cells = (rounds, sum(extra), max(extra), sum(same), sum(exits))
            rows.append([when, *map(str, cells)])
    return rows


def _at_random(fleet: Fleet, node: Node) -> None:
    time.sleep(_CHANCE.random())
    node.freeze()


def _in_trap(fleet: Fleet, node: Node) -> None:
    fleet.spring_trap(node, "second", 5.0)
    node.freeze()


def _freeze(rig: Rig, how: Callable[[Fleet, Node], None]) -> tuple[int, int, bool]:
    """Return how many messages the woken one sent, how many with others' ids; whether it ended."""
    time.sleep(1.5)
    node = rig.fleet.leader()
    node.pids()
    how(rig.fleet, node)
    began = time.time()
    first = _first_of_others(rig, node, since=began)
    assert first is not None, "there is no successor"
    time.sleep(3.0)
    node.thaw()
    woken = time.time()
    wait_until(woken + 8.0)
    others = {m.id for m in rig.recorder.since(began) if m.pid not in node.pids()}
    late = [m for m in rig.recorder.since(woken) if m.pid in node.pids()]
    ended = not node.alive
    rig.fleet.replace(node)
    return len(late), sum(message.id in others for message in late), ended


def crontabs(peer: Peer, rounds: int) -> Rows:
    """Kill the leader around a minute's tick: after it, before it, and between claim and send."""
    kinds = {"2-5 s after": _after_tick, "0.2-1.2 s before": _before_tick, "at a send": _at_send}
    minutes: dict[str, list[float]] = {kind: [] for kind in kinds}
    with assembled(peer, {"second": 1, "minute": _ENTRIES}, nodes=3) as rig:
        minute = (time.time() // 60 + 1) * 60
        for kind in islice(cycle(kinds), len(kinds) * rounds):
            wait_until(minute - 3)
            leader = rig.fleet.leader()
            kinds[kind](rig.fleet, leader, minute)
            leader.kill()
            wait_until(minute + _CHANCE.uniform(20, 30))  # so that not all fleets restart at once
            rig.fleet.replace(leader)
            minutes[kind].append(minute)
            minute += 60
        wait_until(minute - 5)
        messages = [m for m in rig.recorder.messages() if m.entry.startswith("minute")]
    return [[kind, *_of_minutes(messages, minutes[kind])] for kind in kinds]


def _of_minutes(messages: Sequence[Message], minutes: Sequence[float]) -> list[str]:
    occurrences = len(minutes) * _ENTRIES
    again = same = came = 0
    late = []
    for minute in minutes:
        for found in of_minute(messages, minute).values():
            came += 1
            same += copies(found)
            again += len({message.id for message in found}) - 1
            late.append(found[0].at - minute)
    return [*map(str, (occurrences, again, same, occurrences - came)), spread(late)]


def _after_tick(fleet: Fleet, node: Node, minute: float) -> None:
    wait_until(minute + _CHANCE.uniform(2, 5))


def _before_tick(fleet: Fleet, node: Node, minute: float) -> None:
    wait_until(minute - _CHANCE.uniform(0.2, 1.2))


def _at_send(fleet: Fleet, node: Node, minute: float) -> None:
    wait_until(minute - 2)
    fleet.spring_trap(node, "minute", 10.0)
