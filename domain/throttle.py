"""How often something may be tried: token buckets in memory, on the injected clock.

A bucket holds ``capacity`` tokens and gains ``refill_per_s`` a second; what is tried takes a token or
waits. Over any time t no more than capacity + refill_per_s * t is let through. Each process counts
for itself, and a restart forgets: the limits slow guessing down, they are no record of anything.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from domain.clock import Clock

MAX_BUCKETS_PER_RULE = 20_000  # about 4 MB; the longest untouched go first
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit. ``name`` keeps the buckets of one rule apart from those of all others."""

    name: str
    capacity: float
    refill_per_s: float


# Log-in failures of one account from one address: 5 at once, then one in 10 s, after 20 one a minute,
# after 60 one in 5 min. All three must let it through, so the wait grows with the failures.
LOGIN_FAILURES = (
    Rule("login/quick", 5, 1 / 10),
    Rule("login/slow", 20, 1 / 60),
    Rule("login/slowest", 60, 1 / 300),
)
# ... of one account from anywhere. More than one address can ever use up, so that no stranger locks
# an account from home, and few enough that a thousand addresses guess no faster than 2,400 a day.
LOGIN_FAILURES_OF_ACCOUNT = Rule("login/account", 150, 1 / 36)
# ... from one address, whatever the account. A school of 1,000 sits behind one address.
LOGIN_FAILURES_FROM_ADDRESS = Rule("login/address", 500, 2)

# Wrong check-in codes of one student. There are a million codes and about three are right at a time:
# at five a minute a lesson's guessing finds one with a chance below one in a thousand. While the
# bucket is empty a right code waits as well, else guessing would go on.
WRONG_CODES = Rule("code/student", 5, 5 / 60)
WRONG_CODES_FROM_ADDRESS = Rule("code/address", 300, 3)
CHECK_INS = Rule("check-in/student", 60, 1)


class Throttle:
    """The buckets of one process. Safe to call from any thread; never blocks for long."""

    def __init__(self, clock: Clock, *, max_buckets: int = MAX_BUCKETS_PER_RULE) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: dict[Rule, OrderedDict[str, tuple[float, float]]] = {}  # key: (tokens, at)
        self._lock = threading.Lock()

    def take(self, rule: Rule, key: str, cost: float = 1) -> float | None:
        """Take tokens. None: allowed; else nothing was taken and the seconds to wait are returned."""
        return self.take_all([(rule, key)], cost)

    def take_all(self, claims: Iterable[tuple[Rule, str]], cost: float = 1) -> float | None:
        """Take tokens from every bucket named, or from none: then the longest wait is returned."""
        claims = list(claims)
        with self._lock:
            now = self._clock.now().timestamp()
            wait = self._wait(claims, cost, now)
            if wait is None:
                for rule, key in claims:
                    self._keep(rule, key, self._tokens(rule, key, now) - cost, now)
            return wait

    def peek(self, rule: Rule, key: str, cost: float = 1) -> float | None:
        """As ``take``, without taking."""
        return self.peek_all([(rule, key)], cost)

    def peek_all(self, claims: Iterable[tuple[Rule, str]], cost: float = 1) -> float | None:
        """As ``take_all``, without taking."""
        with self._lock:
            return self._wait(list(claims), cost, self._clock.now().timestamp())

    def give_back(self, rule: Rule, key: str, cost: float = 1) -> None:
        """Return tokens that were taken for something that turned out not to count."""
        with self._lock:
            now = self._clock.now().timestamp()
            self._keep(rule, key, self._tokens(rule, key, now) + cost, now)

    def forget(self, rule: Rule, key: str) -> None:
        """Fill one bucket up."""
        with self._lock:
            self._buckets.get(rule, OrderedDict()).pop(key, None)

    def __len__(self) -> int:
        """How many buckets are kept at the moment; a full bucket needs no keeping."""
        return sum(len(buckets) for buckets in self._buckets.values())

    def _wait(self, claims: list[tuple[Rule, str]], cost: float, now: float) -> float | None:
        missing = 0.0
        for rule, key in claims:
            if not 0 < cost <= rule.capacity:
                raise ValueError(
                    f"cost must be above 0 and at most {rule.name}'s capacity {rule.capacity}, got {cost}"
                )
            tokens = self._tokens(rule, key, now)
            if tokens + _ROUNDING < cost:
                missing = max(missing, (cost - tokens) / rule.refill_per_s)
        return math.ceil(missing * 1000) / 1000 if missing else None

    def _tokens(self, rule: Rule, key: str, now: float) -> float:
        buckets = self._buckets.get(rule)
        if buckets is None or key not in buckets:
            return rule.capacity
        tokens, at = buckets[key]
        if now < at:  # the clock was set back: that gives nothing, and nobody waits for it to catch up
            buckets[key] = (tokens, now)
            return tokens
        return min(rule.capacity, tokens + (now - at) * rule.refill_per_s)

    def _keep(self, rule: Rule, key: str, tokens: float, now: float) -> None:
        buckets = self._buckets.setdefault(rule, OrderedDict())
        if tokens >= rule.capacity:
            buckets.pop(key, None)
            return
        buckets[key] = (max(0.0, tokens), now)
        buckets.move_to_end(key)
        for _ in range(2):  # two out for each one in: full ones at the old end never pile up
            oldest = next(iter(buckets))
            if oldest == key or (
                len(buckets) <= self._max_buckets and self._tokens(rule, oldest, now) < rule.capacity
            ):
                break
            del buckets[oldest]


def address_key(address: str) -> str:
    """Whom an address stands for: IPv6 customers get a whole /64 (RFC 6177), so it counts as one."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)
