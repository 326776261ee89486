"""The bus: carries committed events to everything in this process that shows something.

What it is told is a hint that the log has grown; the log stays the truth. In a process that has the
database to itself a hint is all there is to know, and the bus is a function call. Where several
processes write, the bus follows the log: whatever it is told, by the own store at once, by the others
through Redis, is delivered in the order of the log and once; what it was not told it reads there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from domain import events
from domain.events import Event
from domain.store import Store, StoreError

log = logging.getLogger("muster.bus")

Receiver = Callable[[Sequence[Event]], None]

#: How often the log is asked for news that nobody told of: while there is a fast path, as a safety net,
#: and while there is none, as the only way (a question to an index, 0.3 ms).
ASK_EVERY_S, ASK_OFTEN_EVERY_S = 3.0, 0.25
#: How long a gap may close by itself, as what is missing is on its way, before it is read from the log.
GAP_CLOSES_IN_S = 0.01
_READ_AT_ONCE = 2000
#: The log is read at least as often as this, or the bus is not healthy.
HEALTHY_WITHIN_S = 12.0


class Bus(Protocol):
    """Publish committed events, receive everybody's, in order on each topic."""

    def publish(self, events: Sequence[Event]) -> None:
        """Pass on events that this process has committed. Never blocks, never raises."""
        ...

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        """Have events delivered on the event loop until the returned function is called."""
        ...

    async def start(self) -> None:
        """Begin where the log ends now."""
        ...

    async def stop(self) -> None:
        """Deliver nothing more."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether news arrive: what reads them is alive and was so recently."""
        ...


class FastPath(Protocol):
    """Brings batches of committed events from process to process, if it can."""

    @property
    def is_up(self) -> bool:
        """Whether batches travel at the moment."""
        ...

    def send(self, events: Sequence[Event]) -> None:
        """Send a batch if that is possible. Never blocks, never raises."""
        ...

    async def start(self, receive: Receiver, resumed: Callable[[], None]) -> None:
        """Give what others send to ``receive``; call ``resumed`` whenever something may have been missed."""
        ...

    async def stop(self) -> None:
        """Send and receive nothing more."""
        ...


class _Receivers:
    """Who is told, each kept from the others' faults."""

    def __init__(self) -> None:
        self._receivers: list[Receiver] = []

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        self._receivers.append(receiver)

        def end() -> None:
            if receiver in self._receivers:
                self._receivers.remove(receiver)

        return end

    def tell(self, batch: Sequence[Event]) -> None:
        for receiver in tuple(self._receivers):
            try:
                receiver(batch)
            except Exception:  # the rim between rooms: the others go on
                log.exception("a receiver of events failed")


class MemoryBus:
    """The bus of a process that has its database to itself."""

    is_healthy = True

    def __init__(self) -> None:
        self._receivers = _Receivers()

    def publish(self, events: Sequence[Event]) -> None:
        """Deliver at once. A receiver that fails is logged and does not keep the others from theirs."""
        self._receivers.tell(events)

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        """Receive from now on; the returned function ends it."""
        return self._receivers.subscribe(receiver)

    async def start(self) -> None:
        """There is nothing to begin."""

    async def stop(self) -> None:
        """There is nothing to end."""


class LogBus:
    """The bus of one process among several. Belongs to the event loop."""

    def __init__(self, store: Store, fast_path: FastPath | None = None) -> None:
        self._store = store
        self._fast_path = fast_path
        self._receivers = _Receivers()
        self._position: int | None = None  # of the last event that was delivered
        self._early: list[Sequence[Event]] = []  # batches beyond a gap
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._read_at = 0.0
        self._on_lag: Callable[[float], None] = lambda seconds: None
        self.gap_count = 0  # how often something had to be read from the log

    @property
    def position(self) -> int:
        """Of the last event that was delivered."""
        return self._position or 0

    @property
    def has_fast_path(self) -> bool:
        """Whether news from other processes come by themselves at the moment."""
        return self._fast_path is not None and self._fast_path.is_up

    @property
    def is_healthy(self) -> bool:
        """The log is being followed, with Redis or without."""
        is_alive = self._task is not None and not self._task.done()
        return is_alive and time.monotonic() - self._read_at < HEALTHY_WITHIN_S

    def on_lag(self, tell: Callable[[float], None]) -> None:
        """Have measured how old, in seconds, each batch of another process is when it arrives."""
        self._on_lag = tell

    def subscribe(self, receiver: Receiver) -> Callable[[], None]:
        """Receive from now on; the returned function ends it."""
        return self._receivers.subscribe(receiver)

    def publish(self, events: Sequence[Event]) -> None:
        """Deliver here, in the order of the log, and send to the others."""
        if self._fast_path is not None:
            self._fast_path.send(events)
        self._take(events)

    async def start(self) -> None:
        """Follow the log from its present end."""
        self._position = await self._store.read(events.last_position)
        self._read_at = time.monotonic()
        if self._fast_path is not None:
            await self._fast_path.start(self._receive, self._news.set)
        self._task = asyncio.create_task(self._follow(), name="muster-bus")

    async def stop(self) -> None:
        """Follow it no longer."""
        if self._fast_path is not None:
            await self._fast_path.stop()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _receive(self, batch: Sequence[Event]) -> None:
        if batch and batch[-1].position > self.position:
            self._on_lag(max(0.0, time.time() - batch[-1].at.timestamp()))
        self._take(batch)

    def _take(self, batch: Sequence[Event]) -> None:
        """Deliver what comes next in the log; keep what lies beyond a gap, drop what was delivered."""
        if self._position is None or not batch or batch[-1].position <= self._position:
            return
        if batch[0].position > self._position + 1:
            self._early.append(batch)
            self._news.set()
            return
        self._deliver(batch)
        while self._early and (held := self._next_held()):
            self._deliver(held)

    def _next_held(self) -> Sequence[Event] | None:
        self._early = [batch for batch in self._early if batch[-1].position > self.position]
        for place, batch in enumerate(self._early):
            if batch[0].position <= self.position + 1:
                return self._early.pop(place)
        return None

    def _deliver(self, batch: Sequence[Event]) -> None:
        fresh = (
            batch if batch[0].position > self.position else [e for e in batch if e.position > self.position]
        )
        self._position = fresh[-1].position
        self._receivers.tell(fresh)

    async def _follow(self) -> None:
        while True:
            wait = ASK_EVERY_S if self.has_fast_path else ASK_OFTEN_EVERY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), wait)
            self._news.clear()
            if self._early:
                await asyncio.sleep(GAP_CLOSES_IN_S)
            try:
                await self._catch_up()
            except StoreError as error:
                log.warning("the log cannot be read, so what others wrote is not shown yet: %s", error)
                await asyncio.sleep(ASK_OFTEN_EVERY_S)
                self._news.set()

    async def _catch_up(self) -> None:
        """Read what stands in the log after what was delivered."""
        while True:
            after = self.position
            missed = await self._store.read(partial(events.read_log, after=after, limit=_READ_AT_ONCE))
            self._read_at = time.monotonic()
            if missed and missed[-1].position > self.position:
                self.gap_count += 1
                self._take(missed)
            if len(missed) < _READ_AT_ONCE:
                return
