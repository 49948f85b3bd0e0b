"""
What a record of messages says: gaps, lost and doubled occurrences.

An occurrence is known by the instant that the message's ticket names. Peers that write no tickets
are judged by arrival: a message of an entry of every minute belongs to the minute in which it came;
an entry of every second has lost what its count falls short of, and has doubled what one node sent
within half a second of what another had sent.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from benchmarks.beat.broker import Message

__all__ = ["by_entry", "copies", "doubled", "gap", "lost", "of_minute", "spread"]

_HALF: Final = 0.5


def by_entry(messages: Sequence[Message]) -> Mapping[str, Sequence[Message]]:
    """Return the messages of each entry, in order of arrival."""
    found: dict[str, list[Message]] = defaultdict(list)
    for message in messages:
        found[message.entry].append(message)
    return found


def copies(messages: Sequence[Message]) -> int:
    """Count the messages that came again under the same id."""
    return len(messages) - len({message.id for message in messages})


def doubled(messages: Sequence[Message]) -> int:
    """Count the second ids under which occurrences of entries of every second were sent."""
    return sum(_doubled(found) for found in by_entry(messages).values())


def _doubled(messages: Sequence[Message]) -> int:
    first = {message.id: message for message in reversed(messages)}.values()
    planned = [message.planned for message in first if message.planned is not None]
    bare = sorted((message.at, message.pid) for message in first if message.planned is None)
    close = (b[0] - a[0] < _HALF and a[1] != b[1] for a, b in pairwise(bare))
    return len(planned) - len(set(planned)) + sum(close)


def lost(messages: Sequence[Message]) -> int:
    """Count the occurrences of entries of every second that are missing between others."""
    return sum(_lost(found) for found in by_entry(messages).values())


def _lost(messages: Sequence[Message]) -> int:
    planned = {message.planned for message in messages if message.planned is not None}
    if planned:
        return round(max(planned) - min(planned)) + 1 - len(planned)
    expected = round(messages[-1].at - messages[0].at) + 1
    return max(0, expected - len(messages) + copies(messages) + _doubled(messages))


def gap(messages: Sequence[Message]) -> float:
    """Return the longest time that any entry was silent between two messages, in seconds."""
    series = by_entry(messages).values()
    return max((b.at - a.at for found in series for a, b in pairwise(found)), default=0.0)


def of_minute(messages: Sequence[Message], minute: float) -> Mapping[str, Sequence[Message]]:
    """Return, by entry, the messages that belong to the *minute* that begins at that moment."""
    return by_entry([message for message in messages if _minute(message) == minute])


def _minute(message: Message) -> float:
    if message.planned is not None:
        return message.planned
    return (message.at + _HALF) // 60 * 60


def spread(values: Sequence[float]) -> str:
    """Return the median and the largest of *values*."""
    if not values:
        return "none"
    return f"{statistics.median(values):.3g} / {max(values):.3g}"
