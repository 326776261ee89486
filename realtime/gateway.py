"""The gateway: WebSocket clients at /ws, from the handshake to the goodbye (protocol §5, docs/realtime.md).

A bare ASGI application, served by the guard on the pages' port: who connects is found by the same
log-ins as pages and API use, what may be seen is asked of the domain, what is sent comes from the
channels. Nothing a client sends ends in an unhandled error.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from domain.ids import parse_id
from domain.muster import Muster
from domain.watching import INBOX, MEETING, STUDENT
from realtime.admission import Admission
from realtime.connection import Connection, Following
from realtime.fanout import Fanout
from realtime.heartbeat import Heartbeat
from realtime.hub import Hub
from realtime.joins import Join, Joins
from realtime.limits import Doors, Limits
from realtime.metrics import Metrics
from realtime.operation_frames import OperationFrames
from realtime.presence import Presence
from realtime.presence_frames import PresenceFrames
from realtime.protocol import (
    HEARTBEAT_S,
    SUBPROTOCOL,
    BadFrame,
    Close,
    Code,
    Cursor,
    Incoming,
    Operations,
    Ping,
    Seen,
    Subscribe,
    Unsubscribe,
    read_message,
)
from realtime.rights import Rights
from realtime.security import address_of, host_of, is_own_origin, token_of
from realtime.seen import SeenFrames
from realtime.wire import EXTENSION, PlainWire, Wire

log = logging.getLogger("muster.gateway")

#: Goodbyes are said to so many connections at a time, so many milliseconds apart; they come back within this.
_BYES_AT_ONCE, _BYE_EVERY_S, _BACK_WITHIN_MS = 100, 0.01, 1_000
_SINGLE = ("wall", INBOX[:-1])


class Gateway:
    """All WebSocket clients of this process."""

    def __init__(
        self,
        muster: Muster,
        hub: Hub,
        presence: Presence,
        metrics: Metrics,
        limits: Limits | None = None,
        *,
        heartbeat_s: int = HEARTBEAT_S,
    ) -> None:
        self._muster, self._presence, self._metrics = muster, presence, metrics
        self._limits = limits or Limits()
        self._fanout = Fanout(hub, metrics)
        self._connections: dict[int, Connection] = {}
        self._of_person: dict[str, dict[int, Connection]] = {}
        self._doors = Doors(self._limits)
        self._random = random.Random()  # noqa: S311  # spreads returns, keeps no secret
        self.is_draining = False
        self._public = host_of(muster.settings.public_url)
        self._presence_frames = PresenceFrames(presence)
        self._joins = Joins(muster.store, muster.clock, self._presence_frames, metrics, forget=self.forget)
        self._operations = OperationFrames(muster, metrics, self._limits)
        self._seen = SeenFrames(muster, presence)
        self._rights = Rights(muster, hub, self)
        self._admission = Admission(
            muster,
            self._rights,
            metrics,
            self._limits,
            heartbeat_s=heartbeat_s,
            is_closed=lambda: self.is_draining,
        )
        self._heartbeat = Heartbeat(muster, self, metrics, self._limits, every_s=heartbeat_s)
        self._measure()

    def _measure(self) -> None:
        gauge = self._metrics.gauge
        gauge("muster_connections", "WebSocket connections", lambda: len(self._connections))
        gauge("muster_channels", "Topics that are followed", lambda: len(self._fanout.channels()))
        gauge(
            "muster_queue_depth",
            "Events that wait to be written, joins and operations that wait for the database",
            lambda: (
                sum(channel.waiting_count for channel in self._fanout.channels())
                + self._joins.waiting_count
                + self._muster.recorder.waiting_count
            ),
        )
        gauge(
            "muster_slow_connections",
            "Clients that do not read at the moment",
            lambda: sum(c.slow_since is not None for c in self._connections.values()),
        )

    # -- what the parts need of each other

    def connections(self) -> Iterable[Connection]:
        """Everybody who is connected and logged in."""
        return tuple(self._connections.values())

    @property
    def connection_count(self) -> int:
        """How many are connected and logged in."""
        return len(self._connections)

    def forget(self, connection: Connection, name: str) -> None:
        """Follow a topic no longer."""
        following = connection.followings.pop(name, None)
        if following is None:
            return
        following.channel.remove(following)
        self._fanout.leave(following.channel)
        topic, person_id = following.channel.topic, connection.login.person_id
        self._presence_frames.leave(connection, topic)
        if following.grant is not None:
            self._presence.leave(topic, person_id, following.grant.role, connection.id, at_once=True)

    def end(self, connection: Connection, code: Close, reason: str, *, retry_ms: int | None = None) -> None:
        """Close a connection; its task cleans up behind it."""
        if retry_ms is not None:
            connection.send({"type": "bye", "retry_ms": retry_ms})
        self._metrics.closed(code)
        connection.wire.close(code, reason)

    def doubt(self, followings: Iterable[Following]) -> None:
        """Ask the domain again whether these may go on."""
        self._rights.doubt(followings)

    def begin_anew(self, following: Following, *, is_whole: bool = False) -> None:
        """Catch a follower up from the log, since the ring holds too little; with ``is_whole`` by a snapshot."""
        following.channel.remove(following)
        following.is_joined = False
        cursor = None if is_whole else Cursor(seq=following.sent)
        self._joins.add(Join(following, following.channel.name, cursor, None))

    # -- starting and stopping

    async def start(self) -> None:
        """Begin to beat and to watch over rights."""
        self._rights.start()
        self._heartbeat.start()

    async def drain(self) -> None:
        """Let everybody go, a few at a time, each told when to come back; finish what they asked for."""
        self.is_draining = True
        for place, connection in enumerate(self.connections(), 1):
            self.end(
                connection,
                Close.RESTARTING,
                "restarting",
                retry_ms=self._random.randint(50, _BACK_WITHIN_MS),
            )
            if place % _BYES_AT_ONCE == 0:
                await asyncio.sleep(_BYE_EVERY_S)
        await self._operations.finish()

    async def stop(self) -> None:
        """After the drain: end what is owned here."""
        await self._heartbeat.stop()
        await self._joins.stop()
        await self._seen.stop()
        await self._rights.stop()
        for connection in self.connections():
            connection.wire.close(Close.RESTARTING, "restarting")
        self._fanout.close()

    # -- one connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket connection."""
        await receive()  # websocket.connect
        if not is_own_origin(Headers(scope=scope), self._public, must=False):
            await send({"type": "websocket.close", "code": Close.FORBIDDEN, "reason": "foreign origin"})
            return
        offered = scope.get("subprotocols", [])
        if offered and SUBPROTOCOL not in offered:
            await send({"type": "websocket.close", "code": 1002, "reason": f"only {SUBPROTOCOL} is spoken"})
            return
        chosen = SUBPROTOCOL if offered else None
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
        wire: Wire | None = scope.get("extensions", {}).pop(
            EXTENSION, None
        )  # else a cycle that only a collection ends
        if wire is not None:
            await self._serve(scope, receive, wire)
            return
        plain = PlainWire(send, most_bytes=self._limits.unread_bytes)
        sending = asyncio.create_task(plain.run(), name="muster-socket-send")
        try:
            await self._serve(scope, receive, plain)
        finally:
            plain.close(1000)
            await asyncio.wait([sending], timeout=1)
            sending.cancel()

    async def _serve(self, scope: Scope, receive: Receive, wire: Wire) -> None:
        http = HTTPConnection(scope)
        address, token = address_of(http), token_of(http)
        scope["headers"] = []  # not needed any more, and kept for as long as the connection
        del http
        wait = 1.0 if self.is_draining else self._doors.enter(address, time.monotonic())
        if wait:
            self._metrics.limited("connection")
            await self._admission.send_away(wire, receive, wait)
            return
        try:
            connection = await self._admission.admit(wire, receive, token, address)
            if connection is not None:
                try:
                    self._register(connection)
                    await self._converse(connection, receive)
                finally:
                    self._clear_up(connection)
        finally:
            self._doors.leave(address)

    def _register(self, connection: Connection) -> None:
        connection.wire.on_drained = connection.drained
        self._connections[connection.id] = connection
        own = self._of_person.setdefault(connection.login.person_id, {})
        own[connection.id] = connection
        self._admission.greet(connection)
        while len(own) > self._limits.connections_per_person:
            oldest = own.pop(next(iter(own)))
            self._metrics.limited("connection")
            self.end(oldest, Close.REPLACED, "replaced by a newer connection")

    async def _converse(self, connection: Connection, receive: Receive) -> None:
        while True:
            if connection.wire.is_full:  # who does not read the answers is not heard
                connection.is_behind()
                await connection.wire.room()
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            wait = connection.frames.take(1, time.monotonic())
            try:
                frame = read_message(message)
                if wait:
                    self._metrics.limited("frame")
                    raise BadFrame(Code.RATE_LIMITED, "too many frames", getattr(frame, "id", None), wait)
                self._metrics.frame_in(frame.type)
                self._handle(connection, frame)
            except BadFrame as bad:
                self._metrics.frame_in("bad")
                self._refuse_frame(connection, bad)
            except Exception:  # the rim of a frame: this client is told, the connection goes on
                log.exception("a frame could not be handled", extra={"connection": connection.id})
                self._refuse_frame(
                    connection, BadFrame(Code.UNAVAILABLE, "this did not work", retry_after=1.0)
                )

    def _refuse_frame(self, connection: Connection, bad: BadFrame) -> None:
        connection.bad_count += 1
        if connection.bad_count == self._limits.bad_frames:
            self.end(connection, Close.TOO_MANY, "too many frames that cannot be taken", retry_ms=10_000)
        elif connection.bad_count < self._limits.bad_frames:
            connection.refuse(bad.code, bad.message, request_id=bad.request_id, retry_after=bad.retry_after)

    def _handle(self, connection: Connection, frame: Incoming) -> None:
        if isinstance(frame, Subscribe):
            self._subscribe(connection, frame)
        elif isinstance(frame, Unsubscribe):
            name = canonical(frame.topic) or frame.topic
            self.forget(connection, name)
            connection.send({"type": "unsubscribed", "id": frame.id, "topic": name})
        elif isinstance(frame, Operations):
            self._operations.take(connection, frame)
        elif isinstance(frame, Ping):
            connection.send({"type": "pong", "id": frame.id, "server_time": connection.server_time()})
        elif isinstance(frame, Seen):
            self._seen.take(connection, frame)
        # A second auth frame changes nothing: one who is somebody already stays that.

    def _subscribe(self, connection: Connection, frame: Subscribe) -> None:
        for asked, cursor in frame.topics.items():
            name = canonical(asked)
            if name is None:
                connection.refuse(
                    Code.UNKNOWN_TOPIC,
                    'a topic is "meeting:<id>", "student:<id>", "inbox" or "wall"',
                    request_id=frame.id,
                    topic=asked,
                )
                continue
            if name not in connection.followings and len(connection.followings) >= self._limits.topics:
                self._metrics.limited("topic")
                connection.refuse(
                    Code.TOO_MANY_TOPICS,
                    f"at most {self._limits.topics} topics on one connection",
                    request_id=frame.id,
                    topic=name,
                )
                continue
            self.forget(connection, name)
            channel = self._fanout.open(connection.topic_of(name), name)
            following = Following(connection, channel, self.begin_anew)
            connection.followings[name] = following
            self._joins.add(Join(following, name, cursor, frame.id))

    def _clear_up(self, connection: Connection) -> None:
        connection.wire.on_drained = None
        for name, following in tuple(connection.followings.items()):
            grant, following.grant = following.grant, None  # its presence ends with grace, below
            self.forget(connection, name)
            if grant is not None:
                topic, person_id = following.channel.topic, connection.login.person_id
                self._presence.leave(topic, person_id, grant.role, connection.id)
        self._seen.forget(connection)
        del self._connections[connection.id]
        own = self._of_person.get(connection.login.person_id, {})
        own.pop(connection.id, None)  # not there if a newer one has replaced it
        if not own:
            self._of_person.pop(connection.login.person_id, None)


def canonical(name: str) -> str | None:
    """A topic's name as the log writes it; None when there is no such kind."""
    if name in _SINGLE:
        return name
    for kind in (MEETING, STUDENT):
        if name.startswith(kind) and (identifier := parse_id(name.removeprefix(kind))):
            return kind + identifier
    return None
