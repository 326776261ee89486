"""How much one client, one person, one address and all of them may ask of the gateway."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The gateway's limits. A whole school sits behind one address, so an address may do a lot."""

    connections: int = 12_000  # in this process; measured at 5,000 (docs/bench.md)
    connections_per_person: int = 24  # tabs and devices; the oldest makes room
    connections_per_address: int = 6_000
    connects_per_s: float = 1_000.0  # from one address
    connect_burst: int = 4_000  # everybody behind one router coming back at once
    waiting_for_auth: int = 2_000  # connections that have not said yet who they are
    topics: int = 250  # followed by one connection
    frames_per_s: float = 50.0  # of one connection
    frame_burst: int = 250
    bad_frames: int = 2_000  # of one connection in its whole life, before it is closed
    operations_per_s: float = 100.0  # of one connection, in the long run
    operation_burst: int = 2_000  # a class that was taken without a network comes in at once
    operation_frames: int = 8  # of one connection that wait for their commit
    slow_s: float = 10.0  # how long a client may leave unread what it was sent
    unread_bytes: int = 64 * 1024  # what is written ahead of a client that does not read


class Bucket:
    """A token bucket: ``rate`` tokens come back each second, up to ``burst``."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = float(burst), now

    def take(self, count: float, now: float) -> float:
        """Take tokens; 0.0 if they were there, else the seconds until they will be, and nothing is taken.

        More than the burst are never there."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if count <= self._level:
            self._level -= count
            return 0.0
        return (count - self._level) / self._rate


class Doors:
    """Counts who is connected, from where, and how quickly they come."""

    _KEPT_BUCKETS = 10_000

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_address: Counter[str] = Counter()
        self._arrivals: dict[str, Bucket] = {}
        self.count = 0

    def enter(self, address: str, now: float) -> float:
        """Let a connection in; 0.0 if there is room, else after how many seconds to come back."""
        limits = self._limits
        if self.count >= limits.connections or self._by_address[address] >= limits.connections_per_address:
            return 10.0
        bucket = self._arrivals.get(address)
        if bucket is None:
            if len(self._arrivals) >= self._KEPT_BUCKETS:
                self._arrivals.clear()
            bucket = self._arrivals[address] = Bucket(limits.connects_per_s, limits.connect_burst, now)
        if wait := bucket.take(1, now):
            return max(1.0, wait)
        self.count += 1
        self._by_address[address] += 1
        return 0.0

    def leave(self, address: str) -> None:
        """A connection is gone."""
        self.count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
