"""What beats can carry and what they cost: bursts, idleness, and the rate they keep."""

import statistics
import time
from functools import partial
from typing import Final

from benchmarks.beat.broker import Recorder
from benchmarks.beat.fleet import awaited, wait_until
from benchmarks.beat.peers import Peer
from benchmarks.beat.rig import Rows, assembled
from benchmarks.beat.verdicts import by_entry, gap, spread

__all__ = ["burst", "idle", "rate"]

_SIZES: Final = (1_000, 10_000)
_STARTS_BY: Final = 15.0
_BURST_WITHIN: Final = 50.0
_SETTLED: Final = 10.0
_SPELL: Final = 90.0
_RATE_SPELL: Final = 60.0


def burst(peer: Peer, rounds: int) -> Rows:
    """Have many crontab entries come due in the same minute, on one beat."""
    return [_burst(peer, size, rounds) for size in _SIZES]


def _burst(peer: Peer, size: int, rounds: int) -> list[str]:
    if time.time() % 60 > _STARTS_BY:  # or else the first burst could come during the start
        wait_until(_next_minute() + 1)
    bursts: list[list[float]] = []
    with assembled(peer, {"minute": size}, nodes=1) as rig:
        while len(bursts) < rounds and (not bursts or len(bursts[-1]) == size):
            minute = _next_minute()
            wait_until(minute - 1)
            before = rig.recorder.count
            wait_until(minute)
            awaited(partial(_has, rig.recorder, before + size), _BURST_WITHIN)
            bursts.append([message.at - minute for message in rig.recorder.messages()[before:]])
        memory = rig.fleet.nodes[0].memory()
    sent = min(map(len, bursts))
    total = f"{size:,}" if sent == size else f"{size:,}, sent {sent:,}"
    if not sent:
        return [total, str(len(bursts)), "none", "none", "0", f"{memory:.0f}"]
    rates = [(len(times) - 1) / (times[-1] - times[0]) for times in bursts]
    pace = f"{statistics.median(rates):.0f} / {min(rates):.0f}"
    ends = (spread([times[place] for times in bursts]) for place in (0, -1))
    return [total, str(len(bursts)), *ends, pace, f"{memory:.0f}"]


def _has(recorder: Recorder, count: int) -> bool:
    return recorder.count >= count


def _next_minute() -> float:
    return (time.time() // 60 + 1) * 60


def idle(peer: Peer, rounds: int) -> Rows:
    """Leave three nodes alone with five hourly entries; the first to start leads."""
    with assembled(peer, {"hour": 5}, nodes=3) as rig:
        time.sleep(_SETTLED)
        nodes = rig.fleet.nodes
        before = [node.processor_time() for node in nodes]
        time.sleep(_SPELL)
        spent = [node.processor_time() - a for node, a in zip(nodes, before, strict=True)]
        memory = [node.memory() for node in nodes]
    used = [1000 * seconds * 60 / _SPELL for seconds in spent]
    pairs = (f"{found[0]:.0f} / {max(found[1:]):.0f}" for found in (memory, used))
    return [[*pairs]]


def rate(peer: Peer, rounds: int) -> Rows:
    """Let three nodes tick undisturbed with five entries of every second."""
    with assembled(peer, {"second": 5}, nodes=3) as rig:
        time.sleep(3.0)
        began = time.time()
        wait_until(began + _RATE_SPELL)
        messages = rig.recorder.since(began)
    rates = [
        (len(found) - 1) / (found[-1].at - found[0].at) for found in by_entry(messages).values()
    ]
    return [[f"{statistics.median(rates):.3f}", f"{gap(messages):.3f}"]]
