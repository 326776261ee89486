"""A WebSocket client by hand, byte by byte: for what a well-behaved library would not send or not leave unread."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from realtime.protocol import SUBPROTOCOL
from tests.realtime.sockets import PATIENCE_S

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame as it came."""

    opcode: int
    is_compressed: bool
    payload: bytes

    @property
    def code(self) -> int:
        """Of a closing frame."""
        return int.from_bytes(self.payload[:2])

    @property
    def document(self) -> dict[str, Any]:
        """Of an uncompressed text frame."""
        document: dict[str, Any] = orjson.loads(self.payload)
        return document


def masked(opcode: int, payload: bytes, *, is_final: bool = True, is_compressed: bool = False) -> bytes:
    """One frame of a client (RFC 6455 §5.2)."""
    first = opcode | (0x80 if is_final else 0) | (0x40 if is_compressed else 0)
    length, mask = len(payload), os.urandom(4)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2)
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8)
    key = int.from_bytes((mask * (length // 4 + 1))[:length])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(length)


class Line:
    """A connection after its handshake. It reads only when it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader, self.writer, self.head = reader, writer, head

    def write(self, opcode: int, payload: bytes | dict[str, Any], **how: bool) -> None:
        """Write one frame; a dict as JSON."""
        data = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        self.writer.write(masked(opcode, data, **how))

    async def read(self) -> Seen:
        """The next frame. Raises IncompleteReadError or ConnectionError at the end."""
        async with asyncio.timeout(PATIENCE_S):
            first, second = await self.reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2))
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8))
            payload = await self.reader.readexactly(length)
        return Seen(first & 0x0F, bool(first & 0x40), payload)

    async def read_until(self, opcode: int) -> Seen:
        """The next frame of a kind; others are dropped."""
        async with asyncio.timeout(PATIENCE_S):
            while (frame := await self.read()).opcode != opcode:
                pass
        return frame

    async def code(self) -> int:
        """The code that the server closes with; 1006 if it ends without one."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            return (await self.read_until(CLOSE)).code
        return 1006


@asynccontextmanager
async def line(
    base: str, token: str, *, extensions: str = "", receive_buffer: int | None = None
) -> AsyncIterator[Line]:
    """A connection with a hand-made handshake. ``receive_buffer``: bytes that the kernel takes unread."""
    host, port = urlsplit(base).hostname, urlsplit(base).port
    plug = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    plug.setblocking(False)
    if receive_buffer is not None:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(plug, (host, port))
    reader, writer = await asyncio.open_connection(sock=plug, limit=1024)
    head = {
        "Host": f"{host}:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
        "Authorization": f"Bearer {token}",
    }
    if extensions:
        head["Sec-WebSocket-Extensions"] = extensions
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"GET /ws HTTP/1.1\r\n{lines}\r\n".encode())
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101 "), answer
        yield Line(reader, writer, answer)
    finally:
        writer.transport.abort()
