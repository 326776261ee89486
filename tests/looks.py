"""Looks at a process that is well, but for what a test says."""

from __future__ import annotations

from typing import Any

from realtime.vitals import Look
from tests.factories import NOW


def a_look(**values: Any) -> Look:
    """A look at a process with one open page and nothing to do."""
    idle = {"connections": 0, "pages": 1, "frames_in": 0.0, "writes": 0.0, "operations": 0.0}
    state = {"is_recording": True, "has_database": True, "is_bus_healthy": True, "has_redis": None}
    counts = {"operation_count": 0, "queue_depth": 0, "loop_lag_ms": 1.0, "bus_gaps": 0}
    return Look(**{"at": NOW, "fan_out": (), "commits": (), **idle, **state, **counts, **values})
