"""A server that speaks the protocol on a real socket, and misbehaves when it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

Frame = dict[str, Any]
NOW = "2026-11-23T09:00:00.000Z"
#: For conditions that come about by themselves; only a failing test ever waits so long.
PATIENCE_S = 20.0


@dataclass(eq=False)
class FakeTopic:
    """A log of values, one for each seq. A snapshot is all of them."""

    epoch: str = "epoch-1"
    values: list[str] = field(default_factory=list)
    presence: list[Any] = field(default_factory=list)
    #: With more missing than this, a snapshot comes.
    replays: int = 1000
    has_snapshot: bool = True
    refusal: Frame | None = None
    watchers: set[ServerConnection] = field(default_factory=set)

    @property
    def seq(self) -> int:
        return len(self.values)

    def event(self, seq: int, first_seq: int | None = None) -> Frame:
        """The event of a seq; from ``first_seq`` on if it stands for several."""
        frame = {"seq": seq, "name": "record.changed", "at": NOW}
        if first_seq is None:
            return {**frame, "data": {"values": [self.values[seq - 1]]}}
        return {**frame, "from": first_seq, "data": {"values": self.values[first_seq - 1 : seq]}}

    def answer(self, since: Frame | None) -> Frame:
        """What a subscription is answered with."""
        answer: Frame = {"epoch": self.epoch, "seq": self.seq, "presence": self.presence}
        is_known = since is not None and since["epoch"] == self.epoch and since["seq"] <= self.seq
        if since is not None and is_known and self.seq - since["seq"] <= self.replays:
            return {**answer, "events": [self.event(n) for n in range(since["seq"] + 1, self.seq + 1)]}
        if not self.has_snapshot:
            return {**answer, "events": []}
        return {**answer, "snapshot": {"values": list(self.values)}}


class FakeGateway:
    """Everything that it was sent is in ``frames``; what it should do wrong is set on it."""

    def __init__(self) -> None:
        self.topics: dict[str, FakeTopic] = {}
        self.frames: list[Frame] = []
        self.raw: list[bytes] = []
        self.requests: list[Request] = []
        self.connections: list[ServerConnection] = []
        self.connected_at: list[float] = []
        #: Operations by id, in the order in which they came first.
        self.log: dict[str, Frame] = {}
        #: Error frames (or None: no answer at all) that the next operations frames are answered with.
        self.refusals: deque[Frame | None] = deque()
        #: How many operations frames are recorded, but the connection is cut before the answer.
        self.cuts_before_answer = 0
        #: How many operations frames lead to a cut and to nothing else.
        self.cuts_before_record = 0
        #: How many subscribe frames lead to a cut.
        self.cuts_at_subscribe = 0
        #: HTTP statuses for the next attempts to connect.
        self.statuses: deque[int] = deque()
        self.hello: Frame = {
            "type": "hello",
            "protocol": 1,
            "user": {"id": "u", "name": "Teacher"},
            "server_time": NOW,
            "heartbeat_s": 25,
            "limits": {},
            "from_the_future": True,
        }
        self._server: Server | None = None
        self._changed = asyncio.Event()

    @property
    def base_url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeGateway]:
        async with serve(
            self._talk,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol("muster.v1")],
            process_request=self._open,
            close_timeout=0.1,
        ) as self._server:
            yield self

    def topic(self, name: str = "meeting:m", **members: Any) -> FakeTopic:
        """A topic of its own making."""
        return self.topics.setdefault(name, FakeTopic(**members))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to be sent to it that makes a condition true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def of_type(self, kind: str) -> list[Frame]:
        """What it was sent of a kind."""
        return [frame for frame in self.frames if frame.get("type") == kind]

    async def say(self, frame: Frame | bytes) -> None:
        """Send to every connection."""
        raw = frame if isinstance(frame, bytes) else orjson.dumps(frame)
        for connection in tuple(self.connections):
            await self._say(connection, raw)

    async def tell(self, topic: FakeTopic, frame: Frame, kind: str = "event") -> None:
        """Send something of a topic to who watches it."""
        name = next(name for name, known in self.topics.items() if known is topic)
        for watcher in tuple(topic.watchers):
            await self._say(watcher, orjson.dumps({"type": kind, "topic": name, **frame}))

    async def append(self, topic: FakeTopic, *values: str) -> None:
        """Let something happen, and tell of it."""
        for value in values:
            topic.values.append(value)
            await self.tell(topic, topic.event(topic.seq))

    async def beat(self) -> None:
        """A heartbeat with every head."""
        heads = {name: [topic.seq, "00000000"] for name, topic in self.topics.items()}
        await self.say({"type": "heartbeat", "server_time": NOW, "heads": heads})

    def cut(self) -> None:
        """End every connection without a word."""
        for connection in tuple(self.connections):
            self._cut(connection)

    async def close(self, code: int) -> None:
        """End every connection with a close code."""
        for connection in tuple(self.connections):
            self._forget(connection)
            await connection.close(code)

    def _open(self, _connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        self._changed.set()
        if not self.statuses:
            return None
        return _connection.respond(HTTPStatus(self.statuses.popleft()), "no\n")

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        self.connected_at.append(asyncio.get_running_loop().time())
        try:
            await self._say(connection, orjson.dumps(self.hello))
            self._changed.set()
            async for raw in connection:
                assert isinstance(raw, str)
                self.raw.append(raw.encode())
                frame: Frame = orjson.loads(raw)
                self.frames.append(frame)
                await self._take(connection, frame)
                self._changed.set()
        except ConnectionClosed:
            pass
        finally:
            self._forget(connection)
            self._changed.set()

    async def _take(self, connection: ServerConnection, frame: Frame) -> None:
        match frame["type"]:
            case "subscribe":
                await self._subscribe(connection, frame)
            case "unsubscribe":
                self.topics[frame["topic"]].watchers.discard(connection)
            case "operations":
                await self._record(connection, frame)

    async def _subscribe(self, connection: ServerConnection, frame: Frame) -> None:
        for name, since in frame["topics"].items():
            topic = self.topics.get(name)
            if topic is None or topic.refusal is not None:
                error = topic.refusal if topic and topic.refusal else {"code": "unknown_topic"}
                await self._say(connection, orjson.dumps({"type": "error", "id": frame["id"], **error}))
                continue
            answer = {"type": "subscribed", "id": frame["id"], "topic": name, **topic.answer(since)}
            if self.cuts_at_subscribe:
                self.cuts_at_subscribe -= 1
                self._cut(connection)
                return
            topic.watchers.add(connection)
            await self._say(connection, orjson.dumps(answer))

    async def _record(self, connection: ServerConnection, frame: Frame) -> None:
        if self.refusals:
            refusal = self.refusals.popleft()
            if refusal is not None:
                answer = {"type": "error", "id": frame["id"], **refusal}
                await self._say(connection, orjson.dumps(answer))
            return
        if self.cuts_before_record:
            self.cuts_before_record -= 1
            self._cut(connection)
            return
        outcomes = []
        for operation in frame["operations"]:
            outcome = "duplicate" if operation["id"] in self.log else "accepted"
            assert self.log.setdefault(operation["id"], operation) == operation, "same id, other content"
            outcomes.append({"id": operation["id"], "outcome": outcome})
        if self.cuts_before_answer:
            self.cuts_before_answer -= 1
            self._cut(connection)
            return
        answer = {"type": "outcomes", "id": frame["id"], "outcomes": outcomes, "server_time": NOW}
        await self._say(connection, orjson.dumps(answer))

    async def _say(self, connection: ServerConnection, raw: bytes) -> None:
        try:
            await connection.send(raw, text=True)
        except ConnectionClosed:
            self._forget(connection)

    def _cut(self, connection: ServerConnection) -> None:
        self._forget(connection)
        connection.transport.abort()

    def _forget(self, connection: ServerConnection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
        for topic in self.topics.values():
            topic.watchers.discard(connection)
