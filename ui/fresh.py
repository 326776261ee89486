"""Small live views: read again when something they show has changed, and never faster than people read.

For pages that follow a few facts (a student's day, an admin's overview). A class's roster is not one
of them: it is one element fed with patches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from nicegui import Client, background_tasks, ui

from domain.events import Event
from realtime.hub import Hub

#: Least time between two readings: the first change shows at once, a burst as one.
PAUSE_S = 0.25


class Fresh:
    """Keeps one page's view current; ends with its client. Create it before the first reading."""

    def __init__(
        self,
        hub: Hub,
        refresh: Callable[[], Awaitable[None]],
        *,
        concerns: Callable[[Event], bool] | None = None,
    ) -> None:
        self._hub = hub
        self._refresh = refresh
        self._concerns = concerns
        self._client: Client = ui.context.client
        self._stops: dict[str, Callable[[], None]] = {}
        self._is_stale = False
        self._task: asyncio.Task[None] | None = None
        self._client.on_delete(self.close)

    def follow(self, topics: Iterable[str]) -> None:
        """Watch exactly these topics from now on."""
        wanted = set(topics)
        for topic in set(self._stops) - wanted:
            self._stops.pop(topic)()
        for topic in wanted - set(self._stops):
            self._stops[topic] = self._hub.watch(topic, self._on_event)

    def poke(self) -> None:
        """Read again soon."""
        self._is_stale = True
        if self._task is None or self._task.done():
            self._task = background_tasks.create(self._run(), name="fresh view")

    def close(self) -> None:
        """Watch nothing any more."""
        for stop in self._stops.values():
            stop()
        self._stops.clear()
        self._is_stale = False

    def _on_event(self, event: Event) -> None:
        if self._concerns is None or self._concerns(event):
            self.poke()

    async def _run(self) -> None:
        while self._is_stale and not self._client.is_deleted:
            self._is_stale = False
            with self._client:
                await self._refresh()
            await asyncio.sleep(PAUSE_S)
