"""Rights that end, felt at once: log-ins that are over close sockets, lost rights end what they let one see.

What one process takes away, the others read in the event log, so a log-out is felt in all of them within
a second. Rights that end by the clock are looked after by the heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Protocol

from domain import events
from domain.events import Event
from domain.login_rows import LoginView
from domain.muster import Muster
from domain.store import StoreError
from domain.watching import MEETING, Grant, grants
from realtime.connection import Connection, Following
from realtime.hub import Hub
from realtime.protocol import Close

log = logging.getLogger("muster.gateway")


class Sockets(Protocol):
    """What is needed of the gateway."""

    def connections(self) -> Iterable[Connection]:
        """Everybody who is connected."""
        ...

    def forget(self, connection: Connection, name: str) -> None:
        """Follow a topic no longer."""
        ...

    def end(self, connection: Connection, code: Close, reason: str, *, retry_ms: int | None = None) -> None:
        """Close a connection."""
        ...

    def begin_anew(self, following: Following, *, is_whole: bool = False) -> None:
        """Send what was missed, or with ``is_whole`` a snapshot."""
        ...


class Rights:
    """Watches over the rights that the connections of this process rest on."""

    def __init__(self, muster: Muster, hub: Hub, sockets: Sockets) -> None:
        self._muster, self._hub, self._sockets = muster, hub, sockets
        self._ends: list[Callable[[], None]] = []
        self._doubted: list[Following] = []
        self._outdated: set[Following] = set()  # those among them whose roster is another one now
        self._task: asyncio.Task[None] | None = None
        self._endings = 0  # how often log-ins have ended

    def start(self) -> None:
        """Begin to watch."""
        self._ends = [
            self._hub.watch(events.RIGHTS, self._on_rights),
            self._hub.watch(events.WALL, self._on_wall),
        ]

    async def stop(self) -> None:
        """Watch no longer."""
        for end in self._ends:
            end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def find_login(self, token: str) -> LoginView | None:
        """Whose token this is now: one that ended while it was read is nobody's, though it was found."""
        while True:
            endings = self._endings
            login = await self._muster.logins.find(token)
            if login is None or endings == self._endings:
                return login

    def doubt(self, followings: Iterable[Following]) -> None:
        """Ask the domain again whether these may go on."""
        self._doubted += followings
        if self._doubted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._ask(), name="muster-rights")

    def _on_rights(self, event: Event) -> None:
        if event.name == events.LOGINS_ENDED:
            self._endings += 1
            ended = set(event.data["login_ids"])
            is_role = event.data.get("why") == "role"
            for connection in self._sockets.connections():
                if connection.login.login_id in ended:
                    code = Close.FORBIDDEN if is_role else Close.UNAUTHENTICATED
                    self._sockets.end(connection, code, "the role has changed" if is_role else "logged out")
            self._muster.logins.tell_ended(ended)  # pages, and what is remembered of them
        elif event.name == events.GUARDIANS_CHANGED:
            topic = events.student_topic(event.data["student_id"])
            self.doubt(f for f in self._all() if f.channel.topic == topic)

    def _on_wall(self, event: Event) -> None:
        if event.name != events.ROSTER_CHANGED:
            return
        section_id = event.data["section_id"]
        touched = [
            following
            for following in self._all()
            if section_id is None
            or not following.channel.topic.startswith(MEETING)
            or following.grant is None
            or following.grant.section_id == section_id
        ]
        self._outdated.update(f for f in touched if f.channel.topic.startswith(MEETING))
        self.doubt(touched)

    def _all(self) -> list[Following]:
        return [f for connection in self._sockets.connections() for f in connection.followings.values()]

    async def _ask(self) -> None:
        while self._doubted:
            doubted, self._doubted = self._doubted, []
            now = self._muster.clock.now()
            pairs = [(f.connection.login.person_id, f.channel.topic) for f in doubted]
            try:
                found = await self._muster.store.read(partial(grants, pairs=pairs, now=now))
            except StoreError:
                self._doubted += doubted  # deny would cut everybody off whenever the database restarts
                await asyncio.sleep(0.5)
                continue
            except Exception:  # the rim of the task: whoever may be shown too much is shown nothing
                log.exception("rights could not be looked up")
                found = dict.fromkeys(pairs)
            for following, pair in zip(doubted, pairs, strict=True):
                self._judge(following, found[pair])

    def _judge(self, following: Following, grant: Grant | None) -> None:
        connection, name = following.connection, following.channel.name
        is_outdated = following in self._outdated
        self._outdated.discard(following)
        if connection.followings.get(name) is not following:
            return
        if grant is None:
            self._sockets.forget(connection, name)
            connection.send({"type": "unsubscribed", "id": None, "topic": name, "code": "forbidden"})
            return
        if following.is_joined:
            following.grant = replace(grant, role=following.grant.role) if following.grant else grant
        if is_outdated:  # another roster is no event of the meeting; one who joins may have read the old one
            self._sockets.begin_anew(following, is_whole=True)
