"""Real sockets to a real server in the test's own event loop: the gateway from outside, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import orjson
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from domain.events import meeting_topic
from domain.ids import new_id
from domain.muster import Muster
from domain.operations import parse
from domain.outcomes import Outcome
from realtime.protocol import SUBPROTOCOL, outgoing
from realtime.server import Server, listen
from tests.factories import AClass

#: Longer than anything takes that happens at all; waiting ends as soon as it has happened.
PATIENCE_S = 20.0
Frame = dict[str, Any]
PASSWORD = "correct horse battery"


class Ended(Exception):
    """The server closed the connection."""

    def __init__(self, code: int, frames: list[Frame]) -> None:
        super().__init__(f"closed with {code}")
        self.code, self.frames = code, frames


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application as the product does; gives its http:// address."""
    listener = listen("127.0.0.1", 0)
    server = Server(app, sockets=app.state.realtime.gateway, drain=app.state.realtime.drain)
    server.config.lifespan = "off"  # the fixtures start and stop the parts
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0)
        if task.done():
            task.result()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


class Socket:
    """One WebSocket client that speaks muster.v1 by hand. Every frame it gets is held to the protocol."""

    def __init__(
        self,
        base: str,
        token: str | None = None,
        *,
        cookie: str | None = None,
        origin: str | None = None,
        subprotocols: tuple[str, ...] = (SUBPROTOCOL,),
        compression: str | None = "deflate",
    ) -> None:
        headers = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if cookie is not None:
            headers["Cookie"] = f"muster_login={cookie}"
        if origin is not None:
            headers["Origin"] = origin
        self._connecting = connect(
            base.replace("http", "ws", 1) + "/ws",
            additional_headers=headers,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=compression,
            max_size=None,
            max_queue=None,  # else one that is full cannot be closed for a while
            ping_interval=None,
            proxy=None,
        )
        self._ws: ClientConnection | None = None
        self._unread: list[Frame] = []
        self.hello: Frame = {}

    async def __aenter__(self) -> Self:
        self._ws = await self._connecting
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.ws.close()

    @property
    def ws(self) -> ClientConnection:
        """The connection."""
        assert self._ws is not None
        return self._ws

    async def greeted(self) -> Self:
        """Wait for the hello."""
        self.hello = await self.get("hello")
        return self

    async def send(self, frame: object) -> None:
        """Send one frame: a dict as JSON, else as it is."""
        await self.ws.send(orjson.dumps(frame).decode() if isinstance(frame, dict) else frame)  # type: ignore[arg-type]

    async def next(self) -> Frame:
        """The next frame. Raises Ended."""
        if self._unread:
            return self._unread.pop(0)
        return await self._received()

    async def get(self, kind: str, matching: Callable[[Frame], bool] = lambda frame: True) -> Frame:
        """The next frame of a type (that matches); others are kept for later. Raises Ended."""
        for place, frame in enumerate(self._unread):
            if frame["type"] == kind and matching(frame):
                return self._unread.pop(place)
        async with asyncio.timeout(PATIENCE_S):  # heartbeats would go on for ever
            while True:
                frame = await self._received()
                if frame["type"] == kind and matching(frame):
                    return frame
                self._unread.append(frame)

    async def subscribe(self, topic: str, cursor: Frame | None = None, number: int = 1) -> Frame:
        """Follow a topic; the subscribed frame, or the error."""
        await self.send({"type": "subscribe", "id": number, "topics": {topic: cursor}})
        async with asyncio.timeout(PATIENCE_S):
            while True:
                frame = await self._received()
                if frame["type"] in ("subscribed", "error") and frame["id"] == number:
                    return frame
                self._unread.append(frame)

    async def ended(self) -> int:
        """Read until the server closes; its code."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    self._unread.append(await self._received())
        except Ended as end:
            return end.code

    @property
    def unread(self) -> list[Frame]:
        """Frames that came and were not asked for."""
        return self._unread

    async def _received(self) -> Frame:
        try:
            async with asyncio.timeout(PATIENCE_S):
                text = await self.ws.recv(decode=False)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
            raise Ended(code, self._unread) from None
        frame: Frame = orjson.loads(text)
        outgoing.validate_python(frame)
        return frame


class Served:
    """A class on a running server, and its people's sockets and operations."""

    def __init__(self, base: str, muster: Muster, klass: AClass, email_of: Callable[[str], str]) -> None:
        self.base, self.muster, self.klass = base, muster, klass
        self._email_of = email_of
        self._tokens: dict[str, str] = {}

    @property
    def topic(self) -> str:
        """The class's meeting."""
        return meeting_topic(self.klass.meeting_id)

    async def token(self, who: str) -> str:
        """Somebody's token, the same one each time."""
        if who not in self._tokens:
            granted = await self.muster.logins.log_in(self._email_of(who), PASSWORD, address="127.0.0.1")
            self._tokens[who] = granted.token
        return self._tokens[who]

    @asynccontextmanager
    async def socket(self, who: str, **how: Any) -> AsyncIterator[Socket]:
        """Somebody's connection, greeted."""
        async with Socket(self.base, await self.token(who), **how) as socket:
            yield await socket.greeted()

    def opening(self) -> Frame:
        """An operation that opens the meeting."""
        return {"id": new_id(), "kind": "open_meeting", "meeting_id": self.klass.meeting_id}

    def marking(self, student: int = 0, status: str = "present", **values: Any) -> Frame:
        """An operation that marks one student."""
        marked = {"meeting_id": self.klass.meeting_id, "student_id": self.klass.students[student]}
        return {"id": new_id(), "kind": "mark", "status": status, **marked, **values}

    async def record(self, *operations: Frame, who: str = "teacher") -> list[Outcome]:
        """Record operations as somebody, past the gateway."""
        login = await self.muster.logins.find(await self.token(who))
        assert login is not None
        outcomes = await self.muster.recorder.record([parse(o) for o in operations], login.author)
        assert {outcome.outcome for outcome in outcomes} == {"accepted"}, outcomes
        return outcomes
