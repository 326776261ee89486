"""The running domain: what main.py makes once and hands to the API, the pages and the jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.clock import Clock, SystemClock
from domain.events import Event
from domain.logins import Logins
from domain.record import Recorder
from domain.school import read_school
from domain.settings import Settings
from domain.store import Store, open_store
from domain.throttle import Throttle


class Muster:
    """Settings, clock, store, the one recorder, log-ins and limits of one process."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, store: Store | None = None) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.store = store or open_store(settings)
        self.throttle = Throttle(self.clock)
        self.logins = Logins(self.store, self.clock, self.throttle)
        self.leadership = self.store.leadership()
        self.is_demo = False  # the school is made up, and everybody may know its passwords
        self._watchers: list[Callable[[Sequence[Event]], None]] = []
        self.store.on_appended(self.tell)
        self.recorder = Recorder(self.store, self.clock, throttle=self.throttle)

    def on_commit(self, watcher: Callable[[Sequence[Event]], None]) -> None:
        """Have committed events told, in the order of the commits, on the event loop."""
        self._watchers.append(watcher)

    def tell(self, committed: Sequence[Event]) -> None:
        """Tell of events just committed: the store does, for whoever wrote them."""
        for watcher in self._watchers:
            watcher(committed)

    async def start(self) -> None:
        """Begin to write. The store must be migrated."""
        found = await self.store.read(read_school)
        self.is_demo = found is not None and found.is_demo
        await self.recorder.start()
        await self.leadership.start()

    async def stop(self) -> None:
        """Finish what is being written. The store stays open for its owner to close."""
        await self.leadership.stop()
        await self.recorder.stop()
        await self.logins.close()
