"""What this process does, in Prometheus' terms: counted where it happens, read by /metrics and the admin page.

Names follow Prometheus' conventions (base units, _total for counters). No label ever carries a person,
a meeting or an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from math import inf

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.samples import Sample

#: Seconds; from a quarter of a millisecond to what is plainly too slow.
_FAST = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
#: Of a histogram: how many values lie at or under each bound of _FAST and, last, infinity.
Buckets = tuple[float, ...]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one process; a registry of its own, so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, file handles, processor time
        self.frames_in_count = 0

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, registry=self.registry, buckets=_FAST)

        self._written = counter("muster_frames_out", "WebSocket writes, of one or more frames each")
        self._frames_in = counter("muster_frames_in", "WebSocket frames from clients", "type")
        self._fan_out = histogram("muster_fan_out_seconds", "From an event's arrival here to the last write")
        self._commits = histogram("muster_commit_seconds", "From the start of a group to its commit")
        self._operations = counter("muster_operations", "Operations committed")
        self._conflated = counter("muster_conflated", "Events left out as a newer one supersedes them")
        self._joins = counter("muster_joins", "Topics begun to be followed, and from what", "result")
        self._closed = counter("muster_closed", "Connections closed by us", "code")
        self._errors = counter("muster_error_frames", "Error frames sent", "code")
        self._limited = counter("muster_rate_limited", "What was refused as too much", "what")
        self._drifts = counter("muster_digest_mismatches", "Clients whose view had drifted: a fault of ours")
        self._presence = counter("muster_presence_changes", "People who came or left")
        self._bus_lag = histogram("muster_bus_lag_seconds", "Age of another process's events on arrival")
        self._loop_lag = histogram("muster_loop_lag_seconds", "How late the event loop comes back")
        for result in ("events", "snapshot"):
            self._joins.labels(result)

    # -- counted where it happens

    def written(self, count: int) -> None:
        """So many writes to clients."""
        self._written.inc(count)

    def frame_in(self, kind: str) -> None:
        """A frame of a client."""
        self.frames_in_count += 1
        self._frames_in.labels(kind).inc()

    def fanned_out(self, seconds: float) -> None:
        """An event has reached all who follow its topic and read."""
        self._fan_out.observe(seconds)

    def committed(self, count: int, seconds: float) -> None:
        """A group of operations is durable."""
        self._commits.observe(seconds)
        self._operations.inc(count)

    def conflated(self, count: int) -> None:
        """Events that a newer one superseded before they were sent."""
        self._conflated.inc(count)

    def joined(self, result: str) -> None:
        """A topic was begun to be followed, from ``events`` or a ``snapshot``."""
        self._joins.labels(result).inc()

    def closed(self, code: int) -> None:
        """We closed a connection."""
        self._closed.labels(str(int(code))).inc()

    def error(self, code: str) -> None:
        """An error frame was sent."""
        self._errors.labels(code).inc()

    def limited(self, what: str) -> None:
        """Refused as too much: ``connection``, ``frame``, ``operation``, ``topic``."""
        self._limited.labels(what).inc()

    def drifted(self) -> None:
        """A client's view was not what it should be at its seq."""
        self._drifts.inc()

    def presence_changed(self, count: int) -> None:
        """People came or left."""
        self._presence.inc(count)

    def bus_lagged(self, seconds: float) -> None:
        """Events of another process have arrived."""
        self._bus_lag.observe(seconds)

    def loop_lagged(self, seconds: float) -> None:
        """The event loop came back later than asked."""
        self._loop_lag.observe(seconds)

    # -- asked when somebody reads

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A value that is asked for when the metrics are read."""
        Gauge(name, text, registry=self.registry).set_function(read)

    def value(self, name: str, labels: dict[str, str] | None = None) -> float:
        """One sample's present value, 0.0 if there is none: for the admin page and tests.

        Asks only the metric it belongs to: the others may be costly, and this is done every second."""
        return next((s.value for s in self._samples(name) if s.labels == (labels or {})), 0.0)

    def buckets(self, name: str) -> Buckets:
        """How many of a histogram's values lie at or under each bound, the last one being infinity."""
        return tuple(sample.value for sample in self._samples(f"{name}_bucket"))

    def quantile(self, name: str, share: float) -> float | None:
        """The upper bound of the bucket in which this share of a histogram's values lies; None without values."""
        return quantile(self.buckets(name), share)

    def _samples(self, name: str) -> Iterator[Sample]:
        for metric in self.registry.restricted_registry([name]).collect():
            yield from metric.samples

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


def quantile(buckets: Buckets, share: float, *, since: Buckets = ()) -> float | None:
    """The upper bound of the bucket in which this share of the values lies, in seconds; None without values.

    ``since``: the same histogram's buckets earlier, whose values are left out."""
    counts = [now - before for now, before in zip_longest(buckets, since, fillvalue=0.0)]
    if not counts or counts[-1] <= 0:
        return None
    return next(
        bound for bound, count in zip((*_FAST, inf), counts, strict=True) if count >= share * counts[-1]
    )
