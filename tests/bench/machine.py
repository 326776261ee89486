"""What it was measured on, and how figures are summed up."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path


def describe() -> str:
    """Processor, cores, memory and versions, in one line."""
    model, memory = platform.processor() or platform.machine(), ""
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    if (info := Path("/proc/meminfo")).is_file():
        memory = f", {int(info.read_text().split()[1]) / 1024 / 1024:.0f} GiB"
    return (
        f"{model}, {os.cpu_count()} cores{memory}; {platform.system()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of all lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values: Sequence[float], unit: str = "ms") -> str:
    """p50, p99 and the largest."""
    return f"p50 {percentile(values, 0.5):.1f} · p99 {percentile(values, 0.99):.1f} · max {max(values):.1f} {unit}"


def pin(core: int) -> None:
    """Keep this process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(0, {core})
