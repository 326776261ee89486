"""How frames reach a client: straight onto its transport under uvicorn, else through ASGI.

uvicorn's ``ws=`` takes a class. RawProtocol is its own protocol, which hands itself to the application
in the scope, so that one frame, encoded once, is written to a thousand transports without a coroutine
each (docs/bench.md). Everything of uvicorn that its documentation does not promise is in this file;
tests/realtime/test_wire.py holds it to give the same bytes on both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from starlette.types import Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request

from realtime.frames import WINDOW_BITS
from realtime.protocol import MAX_FRAME

#: Where the application finds the protocol.
EXTENSION = "muster.raw"
PATH = "/ws"
#: How long a client that was told to go may take to say goodbye.
_GOODBYE_S = 3.0


class Wire(Protocol):
    """One client's line. ``on_drained`` is called when a line that was full can be written to again."""

    on_drained: Callable[[], None] | None

    @property
    def is_full(self) -> bool:
        """The client does not read what was written: write nothing more for now."""
        ...

    @property
    def takes_deflate(self) -> bool:
        """The client can read compressed frames."""
        ...

    async def room(self) -> None:
        """Wait until it is not full, or has ended."""
        ...

    def write(self, frame: bytes) -> None:
        """Write whole frames. Never blocks, never raises; after the end nothing happens."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye and end the line."""
        ...


class RawProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which for /ws keeps to our limits and lets itself be written to."""

    on_drained: Callable[[], None] | None = None
    takes_deflate = False
    _is_ours = False

    def handle_connect(self, event: Request) -> None:
        """The handshake: with permessage-deflate for /ws only, without context, which costs no memory."""
        path = event.path.partition("?")[0]
        if path == PATH:
            self._is_ours = True
            self.conn.max_message_size = MAX_FRAME
            self.conn.available_extensions = [
                ServerPerMessageDeflateFactory(
                    server_no_context_takeover=True, client_no_context_takeover=True
                )
            ]
        super().handle_connect(event)
        if self._is_ours and hasattr(self, "scope"):
            self.takes_deflate = any(
                isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits >= WINDOW_BITS
                for extension in self.conn.extensions
            )
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    def send_receive_event_to_app(self) -> None:
        """A whole message has come. Bytes that are no text end the connection; for uvicorn that is an error."""
        if self._is_ours and self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(1007)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer, but write nothing more to one who does not read."""
        answer = self.conn.data_to_send()
        if not self.is_full:
            self.transport.write(b"".join(answer))

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        if self.on_drained is not None:
            self.on_drained()

    @property
    def is_full(self) -> bool:
        """More than 64 KiB wait for the client."""
        return not self.writable.is_set()

    async def room(self) -> None:
        """Wait until the client has read on, or the line has ended."""
        await self.writable.wait()

    def write(self, frame: bytes) -> None:
        """Write whole frames."""
        if not (self.close_sent or self.disconnected or self.transport.is_closing()):
            self.transport.write(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye; a client that does not answer, or does not even read, is cut off."""
        if self.close_sent or self.disconnected or not self.handshake_complete:
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.writable.set()  # nothing more is written, so nobody waits for room
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_GOODBYE_S, self.transport.abort)


class PlainWire:
    """A line through ASGI's send, for servers that are not ours. Its task belongs to the connection."""

    takes_deflate = False

    def __init__(self, send: Send, *, most_bytes: int) -> None:
        self._send = send
        self._most = most_bytes
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._has_some = asyncio.Event()
        self._goodbye: tuple[int, str] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.on_drained: Callable[[], None] | None = None

    @property
    def is_full(self) -> bool:
        """More waits than a client may leave unread."""
        return not self._has_room.is_set()

    async def room(self) -> None:
        """Wait until the client has read on, or the line has ended."""
        await self._has_room.wait()

    def write(self, frame: bytes) -> None:
        """Queue whole frames."""
        if self._goodbye is None:
            self._waiting.append(frame)
            self._size += len(frame)
            if self._size > self._most:
                self._has_room.clear()
            self._has_some.set()

    def close(self, code: int, reason: str = "") -> None:
        """Send what waits, then say goodbye."""
        self._goodbye = self._goodbye or (code, reason)
        self._has_room.set()
        self._has_some.set()

    async def run(self) -> None:
        """Send until the goodbye."""
        with contextlib.suppress(OSError, RuntimeError):  # the client is gone: the reader learns of it
            while True:
                await self._has_some.wait()
                self._has_some.clear()
                while self._waiting:
                    frames = self._waiting.popleft()
                    for text in texts(frames):
                        await self._send({"type": "websocket.send", "text": text})
                    self._size -= len(frames)
                    if self.is_full and self._size < self._most // 4:
                        self._has_room.set()
                        if self.on_drained is not None:
                            self.on_drained()
                if self._goodbye is not None:
                    code, reason = self._goodbye
                    await self._send({"type": "websocket.close", "code": code, "reason": reason})
                    return


def texts(frames: bytes) -> list[str]:
    """The messages in a run of uncompressed text frames."""
    found, place = [], 0
    while place < len(frames):
        length, place = frames[place + 1], place + 2
        if length == 126:
            length, place = int.from_bytes(frames[place : place + 2]), place + 2
        elif length == 127:
            length, place = int.from_bytes(frames[place : place + 8]), place + 8
        found.append(frames[place : place + length].decode())
        place += length
    return found
