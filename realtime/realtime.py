"""The real-time room of one process: bus, hub, presence, gateway, measurements, started and stopped in order."""

from __future__ import annotations

import asyncio

from domain import events
from domain.muster import Muster
from realtime.bus import Bus, LogBus, MemoryBus
from realtime.gateway import Gateway
from realtime.hub import Hub
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.presence import Presence
from realtime.protocol import HEARTBEAT_S
from realtime.streams import RedisEvents, RedisLine
from realtime.vitals import Vitals


class Realtime:
    """What brings committed events to whoever watches, in this process."""

    def __init__(
        self, muster: Muster, *, limits: Limits | None = None, heartbeat_s: int = HEARTBEAT_S
    ) -> None:
        self.muster = muster
        self.metrics = Metrics()
        redis_url, line = muster.settings.redis_url, None
        self.bus: Bus
        if muster.store.is_shared:
            fast_path = None
            if redis_url:
                epoch = muster.store.read_now(events.epoch)
                fast_path = RedisEvents(redis_url, epoch)
                line = RedisLine(redis_url, f"muster:{epoch}:presence")
            self.bus = LogBus(muster.store, fast_path)
            self.bus.on_lag(self.metrics.bus_lagged)
        else:
            self.bus = MemoryBus()
        muster.on_commit(self.bus.publish)
        muster.recorder.on_written(self.metrics.committed)
        self.hub = Hub(self.bus)
        self.presence = Presence(muster.clock, node=muster.settings.node, line=line)
        self.presence.on_change(self.metrics.presence_changed)
        self.gateway = Gateway(muster, self.hub, self.presence, self.metrics, limits, heartbeat_s=heartbeat_s)
        gauge = self.metrics.gauge
        gauge("muster_tasks", "Tasks of the event loop", lambda: len(asyncio.all_tasks()))
        gauge(
            "muster_is_leader",
            "1 in the process that runs what is due by the clock",
            lambda: float(muster.leadership.is_leader),
        )
        if isinstance(log_bus := self.bus, LogBus):
            gauge("muster_log_position", "Of the last event shown here", lambda: log_bus.position)
            gauge("muster_log_reads", "News that had to be read from the log", lambda: log_bus.gap_count)
            gauge("muster_redis_up", "1 while news come through Redis", lambda: float(log_bus.has_fast_path))
        self.vitals = Vitals(muster, self.bus, self.gateway, self.metrics, self.presence)

    async def start(self) -> None:
        """After the recorder: follow the log, then let clients in."""
        await self.bus.start()
        await self.presence.start()
        await self.gateway.start()
        await self.vitals.start()

    async def drain(self) -> None:
        """Not ready any more; everybody is told when to come back, what they asked for is finished."""
        await self.gateway.drain()

    async def stop(self) -> None:
        """Before the recorder."""
        await self.vitals.stop()
        await self.gateway.stop()
        await self.presence.stop()
        await self.bus.stop()
        self.hub.close()
