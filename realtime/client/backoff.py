"""How long to wait before the next try, so that thousands of clients do not come back at once."""

from __future__ import annotations

from collections.abc import Callable

FIRST_S = 0.2
LONGEST_S = 20.0
_DOUBLINGS = 7  # 0.2 s x 2^7 is beyond the longest wait already


class Backoff:
    """Exponential back-off with full jitter: anything from nothing up to 0.2 s, 0.4 s, … 20 s."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    @property
    def failures(self) -> int:
        """How often it was asked since it was last reset."""
        return self._failures

    def reset(self) -> None:
        """It worked: begin again with short waits."""
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait now."""
        ceiling = min(LONGEST_S, FIRST_S * 2.0 ** min(self._failures, _DOUBLINGS))
        self._failures += 1
        return ceiling * self._random()
