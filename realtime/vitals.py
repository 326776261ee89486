"""How this process is doing: looked at once a second, shown on the admins' page, and told when it is not well."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from domain.muster import Muster
from domain.school import read_school
from domain.store import StoreError
from realtime.bus import Bus, LogBus
from realtime.gateway import Gateway
from realtime.metrics import Buckets, Metrics
from realtime.presence import Presence

log = logging.getLogger("muster.health")

LOOK_EVERY_S = 1.0
#: Looks that are kept: five minutes, for the small charts.
KEPT = 300
#: Garbage is collected by hand, in a quiet second (main.tame_collector): what died young every half minute,
#: everything every minute while that is quick, else every ten, by which time a busy hour's pages have come
#: and gone.
_COLLECT_YOUNG_EVERY, _COLLECT_ALL_EVERY, _COLLECT_SLOW_EVERY = 30, 60, 600
_QUICK_S, _QUIET_LAG_MS = 0.02, 20.0
#: Something is told when it lasts for so many looks, and is over after so many good ones.
_RAISE_AFTER, _CLEAR_AFTER = 3, 5
_DATABASE_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment; rates are per second since the look before."""

    at: datetime
    connections: int  # of the gateway
    pages: int  # open in browsers; they have a socket of their own
    frames_in: float
    writes: float
    operations: float
    operation_count: int  # since the start of this process
    queue_depth: int
    loop_lag_ms: float  # the worst of the second
    fan_out: Buckets  # so far; between two looks lies what was quick and what was slow meanwhile
    commits: Buckets
    bus_gaps: int
    is_recording: bool
    has_database: bool
    is_bus_healthy: bool
    has_redis: bool | None  # None: not used


@dataclass(frozen=True, slots=True)
class Threshold:
    """When something is wrong, and what to do about it."""

    name: str
    text: str
    remedy: str
    is_crossed: Callable[[Look], bool]


THRESHOLDS = (
    Threshold(
        "database",
        "The database cannot be reached: nothing is recorded.",
        "Look at its service and its disk.",
        lambda look: not look.has_database,
    ),
    Threshold(
        "recorder",
        "What is sent in is not being written: nothing is recorded.",
        "Restart this process.",
        lambda look: not look.is_recording,
    ),
    Threshold(
        "bus",
        "The event log is not being followed: screens may be behind.",
        "Restart this process if it lasts.",
        lambda look: not look.is_bus_healthy,
    ),
    Threshold(
        "redis",
        "Redis is away: changes by other processes arrive a quarter of a second later.",
        "Look at its service.",
        lambda look: look.has_redis is False,
    ),
    Threshold(
        "loop_lag",
        "The event loop is late by more than 100 ms: this process has too much to do.",
        "Give it a processor core of its own, or add another process.",
        lambda look: look.loop_lag_ms > 100,
    ),
    Threshold(
        "queue",
        "More than 5,000 events or operations wait: more comes in than can be written or sent.",
        "Look at the database and the network: one of them is too slow.",
        lambda look: look.queue_depth > 5000,
    ),
)


@dataclass(slots=True)
class _Judgement:
    count: int = 0  # looks in a row that differ from what is told
    since: datetime | None = None  # it was crossed; None: all is well


class Vitals:
    """The looks of one process. Its tasks are owned here until ``stop``."""

    def __init__(
        self, muster: Muster, bus: Bus, gateway: Gateway, metrics: Metrics, presence: Presence
    ) -> None:
        self._muster, self._bus, self._gateway = muster, bus, gateway
        self._metrics, self._presence = metrics, presence
        self.looks: deque[Look] = deque(maxlen=KEPT)
        self._judgements = {threshold.name: _Judgement() for threshold in THRESHOLDS}
        self._watchers: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._worst_lag = 0.0
        self._uncollected = self._since_all = 0  # looks since garbage was collected
        self._all_every = _COLLECT_ALL_EVERY
        self._totals = (0.0, 0.0, 0.0)
        self._looked_at = time.monotonic()
        for threshold in THRESHOLDS:
            self._gauge(threshold.name)

    def _gauge(self, name: str) -> None:
        judgement = self._judgements[name]
        self._metrics.gauge(
            f"muster_alert_{name}",
            f"1 while the alert {name} is raised",
            lambda: float(judgement.since is not None),
        )

    @property
    def alerts(self) -> list[tuple[Threshold, datetime]]:
        """What is wrong at the moment, and since when."""
        return [
            (threshold, since)
            for threshold in THRESHOLDS
            if (since := self._judgements[threshold.name].since) is not None
        ]

    @property
    def nodes(self) -> dict[str, float]:
        """Other processes that are heard of, and how many seconds ago."""
        return self._presence.nodes

    def watch(self, looked: Callable[[], None]) -> Callable[[], None]:
        """Call back after each look; returns how to stop that."""
        self._watchers.append(looked)

        def end() -> None:
            if looked in self._watchers:
                self._watchers.remove(looked)

        return end

    async def start(self) -> None:
        """Begin to look."""
        self._tasks = [
            asyncio.create_task(self._feel_lag(), name="muster-loop-lag"),
            asyncio.create_task(self._run(), name="muster-vitals"),
        ]

    async def stop(self) -> None:
        """Look no longer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def has_database(self) -> bool:
        """Whether the database answers, in the version that this program was written for."""
        store = self._muster.store
        try:
            # A transaction alone opens no file: something has to be read.
            async with asyncio.timeout(_DATABASE_WITHIN_S):
                await store.read(read_school)
                return store.is_current or await store.look_at_version()
        except (StoreError, TimeoutError):
            return False
        except Exception:  # whatever is wrong with the database, the answer is no
            log.exception("the database could not be read")
            return False

    @property
    def checks(self) -> dict[str, bool]:
        """What has to hold for work to be sent here, but for the database."""
        return {
            "recorder": self._muster.recorder.is_running,
            "bus": self._bus.is_healthy,
            "not_draining": not self._gateway.is_draining,
        }

    async def _feel_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            await asyncio.sleep(0.05)
            lag = max(0.0, loop.time() - asked - 0.05)
            self._worst_lag = max(self._worst_lag, lag)
            self._metrics.loop_lagged(lag)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(StoreError):
                self._collect(await self.look())

    async def look(self) -> Look:
        """Look once, judge, and tell."""
        value, bus = self._metrics.value, self._bus
        totals = (
            self._metrics.frames_in_count,
            value("muster_frames_out_total"),
            value("muster_operations_total"),
        )
        passed = max(0.001, time.monotonic() - self._looked_at)  # a look at a slow database takes its time
        rates = tuple((now - before) / passed for now, before in zip(totals, self._totals, strict=True))
        self._looked_at = time.monotonic()
        self._totals, worst, self._worst_lag = totals, self._worst_lag, 0.0
        log_bus = bus if isinstance(bus, LogBus) else None
        seen = Look(
            at=self._muster.clock.now(),
            connections=self._gateway.connection_count,
            pages=int(value("muster_pages")),  # counted where there are pages (ui.app)
            frames_in=rates[0],
            writes=rates[1],
            operations=rates[2],
            operation_count=int(totals[2]),
            queue_depth=int(value("muster_queue_depth")),
            loop_lag_ms=worst * 1000,
            fan_out=self._metrics.buckets("muster_fan_out_seconds"),
            commits=self._metrics.buckets("muster_commit_seconds"),
            bus_gaps=log_bus.gap_count if log_bus else 0,
            is_recording=self._muster.recorder.is_running,
            has_database=await self.has_database(),
            is_bus_healthy=bus.is_healthy,
            has_redis=log_bus.has_fast_path if log_bus and self._muster.settings.redis_url else None,
        )
        self.looks.append(seen)
        for threshold in THRESHOLDS:
            self._judge(threshold, seen)
        for watcher in tuple(self._watchers):
            try:
                watcher()
            except Exception:  # one page's fault is not the others'
                log.exception("a page could not be told how this process is doing")
        return seen

    def _collect(self, seen: Look) -> None:
        self._uncollected += 1
        self._since_all += 1
        is_quiet = seen.loop_lag_ms < _QUIET_LAG_MS and not seen.queue_depth
        if self._since_all >= self._all_every * (1 if is_quiet else 3):
            began = time.perf_counter()
            gc.collect()
            is_quick = time.perf_counter() - began < _QUICK_S
            self._all_every = _COLLECT_ALL_EVERY if is_quick else _COLLECT_SLOW_EVERY
            self._since_all = self._uncollected = 0
        elif self._uncollected >= _COLLECT_YOUNG_EVERY and is_quiet:
            gc.collect(1)
            self._uncollected = 0

    def _judge(self, threshold: Threshold, seen: Look) -> None:
        judgement = self._judgements[threshold.name]
        is_raised = judgement.since is not None
        if threshold.is_crossed(seen) == is_raised:
            judgement.count = 0
            return
        judgement.count += 1
        if not is_raised and judgement.count >= _RAISE_AFTER:
            judgement.since, judgement.count = seen.at, 0
            log.warning("alert %s: %s %s", threshold.name, threshold.text, threshold.remedy)
        elif is_raised and judgement.count >= _CLEAR_AFTER:
            judgement.since, judgement.count = None, 0
            log.warning("alert %s is over", threshold.name)
