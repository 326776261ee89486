"""The device that operations are made on: their ids, their numbers, and its clock against the server's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The time of this machine, in UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562 §5.7)."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def format_instant(instant: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant, aware. Raises ValueError, TypeError."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"an instant needs its offset from UTC, got {text!r}")
    return instant.astimezone(UTC)


class Device:
    """Numbers operations from ``last_seq`` + 1, and knows how far its clock is from the server's."""

    def __init__(self, device_id: str | None, *, last_seq: int, clock: Clock) -> None:
        self.id = device_id or new_id()
        self.last_seq = last_seq
        self._clock = clock
        self.offset: timedelta | None = None

    def learn(self, server_time: str) -> None:
        """Take the offset from an instant that the server has just told; the way here counts as none."""
        self.offset = parse_instant(server_time) - self._clock()

    def complete(self, operation: Mapping[str, Any]) -> tuple[dict[str, Any], datetime | None]:
        """A copy with its id and number, and the device's own time of it unless the caller gave one.

        That time is corrected when the operation is sent: by then the offset is known.
        """
        whole = dict(operation)
        whole.setdefault("id", new_id())
        if "device_id" not in whole:
            whole["device_id"] = self.id
        if whole["device_id"] == self.id:
            self.last_seq = max(self.last_seq, whole.setdefault("device_seq", self.last_seq + 1))
        return whole, None if "captured_at" in whole else self._clock()

    def correct(self, operation: dict[str, Any], captured: datetime) -> None:
        """Write when it was captured, by the server's clock if the offset is known."""
        if self.offset is None:
            operation |= {"captured_at": format_instant(captured), "clock_offset_ms": None}
            return
        offset_ms = round(self.offset / timedelta(milliseconds=1))
        operation["captured_at"] = format_instant(captured + timedelta(milliseconds=offset_ms))
        operation["clock_offset_ms"] = offset_ms
