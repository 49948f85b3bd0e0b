"""Reading and printing figures: percentiles, the machine, its load."""

import os
import platform
from collections.abc import Sequence

__all__ = ["machine", "row"]


def machine() -> str:
    """Describe where and under what load the figures were taken."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that *share* of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(name: str, values: Sequence[float], unit: str, target: str) -> str:
    """Return a table row: name, count, p50, p99, maximum, and what was aimed at."""
    p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
    return (
        f"| {name} | {len(values)} | {p50:.3g} {unit} | {p99:.3g} {unit} "
        f"| {max(values):.3g} {unit} | {target} |"
    )
