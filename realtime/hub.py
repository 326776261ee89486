"""The hub: from the bus to whoever watches a topic in this process.

Two ways to watch. ``watch`` calls a function for each event: for view models that keep a state of
their own. ``follow`` gives a bounded queue to read from: for connections, which may be slow. Both
see the events of a topic in the order of their numbers; neither is told what was before: subscribe
first, then read the log, then drop what was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from domain.events import Event
from realtime.bus import Bus

log = logging.getLogger("muster.hub")

Watcher = Callable[[Event], None]
#: Events that may wait for a follower; one that is further behind reads the log instead.
QUEUE = 256


class TooSlow(Exception):
    """The follower fell behind its queue: go back to the log."""


class Follower:
    """One bounded reader of a topic."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue(QUEUE)
        self._has_lost = False

    def offer(self, event: Event) -> None:
        """Queue an event, or remember that one was lost."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            self._has_lost = True

    async def next(self) -> Event:
        """The next event. Raises TooSlow once when events were lost; then the queue is empty again."""
        if self._has_lost:
            self._has_lost = False
            self._events = asyncio.Queue(QUEUE)
            raise TooSlow
        return await self._events.get()


class Hub:
    """Topics and who watches them. Lives on one event loop; every call is made there."""

    def __init__(self, bus: Bus) -> None:
        self._watchers: dict[str, list[Watcher]] = {}
        self._end = bus.subscribe(self._deliver)

    def close(self) -> None:
        """Leave the bus."""
        self._end()

    def watch(self, topic: str, watcher: Watcher) -> Callable[[], None]:
        """Call ``watcher`` for each event of a topic until the returned function is called (twice is fine)."""
        watchers = self._watchers.setdefault(topic, [])
        watchers.append(watcher)
        is_over = False

        def end() -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            watchers.remove(watcher)
            if not watchers and self._watchers.get(topic) is watchers:
                del self._watchers[topic]

        return end

    @asynccontextmanager
    async def follow(self, topic: str) -> AsyncIterator[Follower]:
        """A queue of a topic's events for as long as the block lasts."""
        follower = Follower()
        end = self.watch(topic, follower.offer)
        try:
            yield follower
        finally:
            end()

    @property
    def topic_count(self) -> int:
        """How many topics are watched."""
        return len(self._watchers)

    def watcher_count(self, topic: str) -> int:
        """How many watch a topic."""
        return len(self._watchers.get(topic, ()))

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            for watcher in tuple(self._watchers.get(event.topic, ())):
                try:
                    watcher(event)
                except Exception:  # one bad watcher never hurts the others
                    log.exception("a watcher of %s failed", event.topic)
