"""What clients say they have seen, and how much still waits on their devices: shown as presence.

Staff are present in a meeting by following it. A student, who may not follow it, is present by telling
that the own page of it is open.
"""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import Connection as Database

from domain import register
from domain.muster import Muster
from domain.watching import MEETING
from realtime.connection import Connection
from realtime.presence import Presence
from realtime.protocol import Seen

log = logging.getLogger("muster.gateway")
_MOST_TOPICS = 20


class SeenFrames:
    """The "seen" frames of this process."""

    def __init__(self, muster: Muster, presence: Presence) -> None:
        self._muster, self._presence = muster, presence
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, connection: Connection, frame: Seen) -> None:
        """Take note; what the client may not be present in is passed over in silence."""
        connection.unsent = frame.unsent
        for following in connection.followings.values():
            if following.grant is not None and following.channel.topic.startswith(MEETING):
                connection.be_here(self._presence, following.channel.topic, following.grant.role)
        unknown = []
        for topic in frame.topics:
            if not topic.startswith(MEETING) or topic in connection.followings:
                continue
            if topic in connection.seen:
                if (role := connection.seen[topic]) is not None:
                    connection.be_here(self._presence, topic, role)
            elif len(connection.seen) < _MOST_TOPICS:
                connection.seen[topic] = None
                unknown.append(topic)
        if unknown:
            task = asyncio.create_task(self._look(connection, unknown), name="muster-seen")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, connection: Connection) -> None:
        """The connection has ended."""
        for topic, role in connection.seen.items():
            if role is not None:
                self._presence.leave(topic, connection.login.person_id, role, connection.id)
        connection.seen.clear()

    async def stop(self) -> None:
        """Look nothing up any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look(self, connection: Connection, topics: list[str]) -> None:
        now, person_id = self._muster.clock.now(), connection.login.person_id

        def on_roster(conn: Database) -> list[str]:
            found = []
            for topic in topics:
                key = register.find_meeting(conn, topic.removeprefix(MEETING), now)
                if key is not None and register.is_on_roster(conn, key, person_id):
                    found.append(topic)
            return found

        try:
            own = await self._muster.store.read(on_roster)
        except Exception:  # the rim of the task: the next "seen" asks again
            log.exception("could not look up who is on a roster")
            own = []
            for topic in topics:
                connection.seen.pop(topic, None)
        for topic in own:
            if topic in connection.seen:  # not if the connection has ended meanwhile
                connection.seen[topic] = connection.login.role.value
                connection.be_here(self._presence, topic, connection.login.role.value)
