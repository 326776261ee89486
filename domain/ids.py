"""Identifiers: UUIDs as lower-case text; UUIDv7 (RFC 9562 §5.7) for everything made at a known time."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from uuid import UUID, uuid5

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
#: Namespace of the ids that Muster derives, so that doing a thing twice gives the same id twice.
NAMESPACE = UUID("6f5d6e1c-9a3b-5c52-8d0e-6d7573746572")


def new_id(at: datetime | None = None) -> str:
    """A fresh UUIDv7 whose time is ``at`` (now if omitted)."""
    milliseconds = time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)
    value = (milliseconds & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def derived_id(*parts: str) -> str:
    """The same id for the same parts, always (UUIDv5): makes repeated system work idempotent."""
    return str(uuid5(NAMESPACE, "|".join(parts)))


def parse_id(text: object) -> str | None:
    """The id in its one canonical spelling, or None if it is not a UUID."""
    if not isinstance(text, str):
        return None
    text = text.lower()
    return text if _UUID.fullmatch(text) else None


def made_at(identifier: str) -> datetime | None:
    """When a UUIDv7 was made; None for any other version."""
    if identifier[14] != "7":
        return None
    milliseconds = int(identifier[:8] + identifier[9:13], 16)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
