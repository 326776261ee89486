"""Presence as connections are told of it: written out once for all who follow a topic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from realtime.connection import Connection
from realtime.frames import text_frame
from realtime.presence import Here, Presence


@dataclass(slots=True)
class _Room:
    name: str
    listed: bytes
    end: Callable[[], None]
    connections: set[Connection] = field(default_factory=set)


class PresenceFrames:
    """The followers of topics that have presence."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._rooms: dict[str, _Room] = {}

    def follow(self, connection: Connection, topic: str, name: str, role: str) -> bytes:
        """Be present, and be told who comes and goes from now on; who is there, as a JSON array."""
        connection.be_here(self._presence, topic, role)
        room = self._rooms.get(topic)
        if room is None:
            end = self._presence.watch(topic, lambda joined, left: self._tell(topic, joined, left))
            room = self._rooms[topic] = _Room(name, self._listed(topic), end)
        room.connections.add(connection)
        return room.listed

    def leave(self, connection: Connection, topic: str) -> None:
        """Be told no longer."""
        room = self._rooms.get(topic)
        if room is None:
            return
        room.connections.discard(connection)
        if not room.connections:
            room.end()
            del self._rooms[topic]

    def _listed(self, topic: str) -> bytes:
        return orjson.dumps([entry.as_dict() for entry in self._presence.told(topic)])

    def _tell(self, topic: str, joined: list[Here], left: list[Here]) -> None:
        room = self._rooms[topic]
        room.listed = self._listed(topic)
        frame = text_frame(
            orjson.dumps(
                {
                    "type": "presence",
                    "topic": room.name,
                    "joined": [entry.as_dict() for entry in joined],
                    "left": [entry.as_dict() for entry in left],
                }
            )
        )
        for connection in tuple(room.connections):
            if not connection.wire.is_full:  # not numbered, not replayed: the next beginning has them all
                connection.wire.write(frame)
