"""Thousands of WebSocket clients in one thread: epoll, frames parsed by hand, every message checked.

A benchmark message is JSON that holds ``"n"``, counted from 1 in each room, and ``"t"``, the
server's ``time.monotonic_ns()`` when it was sent; where in the JSON does not matter. Both ends run
on one machine, so that one clock measures both.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gc
import hashlib
import re
import select
import socket
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

# Quotes may be escaped: a message that travels as a string inside JSON is found as well.
N = re.compile(rb'"n\\*":\s*(\d+)')
T = re.compile(rb'"t\\*":\s*(\d+)')

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA  # RFC 6455 §5.2
KEY = base64.b64encode(b"0123456789abcdef").decode()  # any 16 bytes do; one key makes one answer to expect
ACCEPT = base64.b64encode(
    hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
).decode()  # RFC 6455 §4.2.2
READ_BYTES = 65536
CHUNKS_KEPT = 1024  # of 64 KiB at most each
LINGER_S = 0.2  # after the last message that was expected: a duplicate would come now

Stamp = tuple[int, int]  # n and t of a message
Frame = tuple[int, bool, bytes]  # opcode, whether it is the last of its message, payload


@dataclass(frozen=True, slots=True)
class ConnectReport:
    """How a crowd came in. `seconds` until all were ready, or had failed."""

    ready: int
    seconds: float
    failures: Mapping[str, int]  # reason: how often


@dataclass(frozen=True, slots=True)
class ReceiveReport:
    """What all connections together received."""

    latencies_ms: Sequence[float]  # of each delivery, in the order of arrival
    received: int
    lost: int  # a later one came, or the connection went; this one did not come
    outstanding: int  # not come when the time was over
    duplicated: int
    out_of_order: int
    dropped: int  # connections that went meanwhile
    span_s: float  # from the first sent to the last received
    client_cpu_percent: float  # near 100, it is this client that is measured


class State(Enum):
    """The life of a connection."""

    HANDSHAKE = auto()
    JOINING = auto()
    READY = auto()
    GONE = auto()


class Swarm:
    """Many connections to one server; not thread-safe.

    `path`, `headers` and `first_frames` are asked with the number of the connection, from 0. A
    connection is ready with the first message of which `is_ready` says so. With `engine_io`, it
    speaks Engine.IO 4 below Socket.IO 5, and sends its first frames once its namespace is open.
    """

    def __init__(
        self,
        host: str,
        port: int,
        path: str | Callable[[int], str] = "/ws",
        *,
        subprotocol: str | None = None,
        headers: Callable[[int], Mapping[str, str]] = lambda i: {},
        first_frames: Callable[[int], Sequence[str]] = lambda i: (),
        is_ready: Callable[[bytes], bool] = lambda payload: b'"subscribed"' in payload,
        engine_io: bool = False,
    ) -> None:
        self._address = (host, port)
        self._path = path
        self._subprotocol = subprotocol
        self._headers = headers
        self._first_frames = first_frames
        self._is_ready = is_ready
        self._engine_io = engine_io
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}  # by file descriptor; those that are not gone
        self._crowd: list[_Connection] = []  # all that were ready once, and must receive everything
        self._opened = 0
        self._failures: Counter[str] = Counter()
        # What a chunk holds, as all members of a room receive the same bytes: parsed once, not 1,000 times.
        self._chunks: dict[bytes, tuple[Stamp, ...]] = {}

    # -- coming in -------------------------------------------------------------------------------

    def connect(self, count: int, in_flight: int = 128, timeout_s: float = 60.0) -> ConnectReport:
        """Open `count` connections, at most `in_flight` of them at a time on their way to being ready."""
        begun, ready_before = time.perf_counter(), len(self._crowd)
        self._failures = Counter()
        goal = self._opened + count
        settled_before = self._opened
        while (settled := settled_before + len(self._crowd) - ready_before + self._failures.total()) < goal:
            if time.perf_counter() - begun > timeout_s:
                self._give_up(f"not ready within {timeout_s:g} s")
                self._failures["not begun in time"] += goal - self._opened
                break
            while self._opened < goal and self._opened - settled < in_flight:
                self._open(self._opened)
                self._opened += 1
            for fd, mask in self._epoll.poll(0.1, 1024):
                if (connection := self._connections.get(fd)) is not None:
                    self._attend(connection, mask)
        self._failures = +self._failures
        return ConnectReport(
            len(self._crowd) - ready_before, time.perf_counter() - begun, dict(self._failures)
        )

    def close(self) -> None:
        """Say goodbye (1000) and leave."""
        goodbye = _frame(CLOSE, (1000).to_bytes(2, "big"))
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sock.send(goodbye)
            connection.sock.close()
        self._connections.clear()
        self._epoll.close()

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, i: int) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(i, sock, self._request(i))
        self._connections[connection.fd] = connection
        if (code := sock.connect_ex(self._address)) not in (0, errno.EINPROGRESS):
            self._drop(connection, errno.errorcode[code])
            return
        self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def _request(self, i: int) -> bytes:
        path = self._path if isinstance(self._path, str) else self._path(i)
        lines = {
            "Host": f"{self._address[0]}:{self._address[1]}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": KEY,
        }
        if self._subprotocol is not None:
            lines["Sec-WebSocket-Protocol"] = self._subprotocol
        head = "".join(f"{name}: {value}\r\n" for name, value in {**lines, **self._headers(i)}.items())
        return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()

    def _attend(self, connection: _Connection, mask: int) -> None:
        """Write what waits, read what came, and act on all that is not a benchmark message."""
        if mask & select.EPOLLOUT:
            self._flush(connection)
        if mask & ~select.EPOLLOUT and connection.state is not State.GONE:
            try:
                data = connection.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError as problem:
                self._drop(connection, problem.strerror or "broken")
                return
            if not data:
                self._drop(connection, "closed without a word")
                return
            self._read(connection, connection.rest + data)

    def _give_up(self, reason: str) -> None:
        for connection in [*self._connections.values()]:
            if connection.state is not State.READY:
                self._drop(connection, reason)

    def _drop(self, connection: _Connection, reason: str) -> None:
        """The connection is gone; a failure if it never was ready."""
        if connection.state is not State.GONE:
            if connection.state is not State.READY:
                self._failures[reason] += 1
            connection.state = State.GONE
            self._connections.pop(connection.fd, None)
            connection.sock.close()  # epoll forgets it as well

    # -- what comes ------------------------------------------------------------------------------

    def _read(self, connection: _Connection, data: bytes) -> tuple[Stamp, ...]:
        """All stamps in the data; keeps what is not whole yet, and answers what wants an answer."""
        if connection.state is State.HANDSHAKE:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                connection.rest = head
                return ()
            if problem := self._objection(head):
                self._drop(connection, problem)
                return ()
            connection.state = State.JOINING
            if not self._engine_io:
                self._introduce(connection)
        frames, connection.rest = split(data)
        found: list[Stamp] = []
        is_plain = not connection.rest
        for opcode, is_last, payload in frames:
            if connection.state is State.GONE:
                break
            if opcode >= CLOSE:
                is_plain = False
                self._control(connection, opcode, payload)
                continue
            if opcode == CONTINUATION or not is_last:
                is_plain = False
                connection.fragments.append(payload)
                if not is_last:
                    continue
                payload = b"".join(connection.fragments)
                connection.fragments.clear()
            if connection.state is State.READY and (stamps_of_it := read_stamps(payload)):
                found += stamps_of_it
            else:
                is_plain = False
                self._message(connection, payload)
        stamps = tuple(found)
        if is_plain and stamps:
            if len(self._chunks) >= CHUNKS_KEPT:
                self._chunks.clear()
            self._chunks[data] = stamps
        return stamps

    def _objection(self, head: bytes) -> str | None:
        """What is wrong with the answer to the handshake."""
        status, *lines = head.decode("latin-1").split("\r\n")
        if status.split(" ")[1:2] != ["101"]:
            return f"expected 101 Switching Protocols, got {status}"
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("sec-websocket-accept") != ACCEPT:
            return "the key was not accepted"
        if (chosen := headers.get("sec-websocket-protocol")) != self._subprotocol:
            return f"expected subprotocol {self._subprotocol}, got {chosen}"
        if "sec-websocket-extensions" in headers:
            return "an extension nobody asked for"
        return None

    def _introduce(self, connection: _Connection) -> None:
        for text in self._first_frames(connection.i):
            self._send(connection, _frame(TEXT, text.encode()))

    def _control(self, connection: _Connection, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._send(connection, _frame(PONG, payload))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            self._drop(connection, f"closed with {code} {payload[2:].decode(errors='replace')}".strip())

    def _message(self, connection: _Connection, payload: bytes) -> None:
        """A message that is no benchmark message: Engine.IO's own, or the one that says ready."""
        if self._engine_io:
            match payload[:2]:
                case b"0{":  # open
                    self._send(connection, _frame(TEXT, b"40"))
                case b"2":  # ping
                    self._send(connection, _frame(TEXT, b"3"))
                case b"40":  # the namespace is open
                    self._introduce(connection)
                case b"44":
                    self._drop(connection, f"refused: {payload[2:].decode(errors='replace')}")
                    return
        if connection.state is State.JOINING and self._is_ready(payload):
            connection.state = State.READY
            self._crowd.append(connection)

    # -- what goes out ---------------------------------------------------------------------------

    def _send(self, connection: _Connection, data: bytes) -> None:
        if connection.state is State.GONE:
            return
        was_empty = not connection.outbox
        connection.outbox += data
        if was_empty:
            self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        """Write as much as goes; the rest when epoll says so."""
        try:
            sent = connection.sock.send(connection.outbox) if connection.outbox else 0
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            self._drop(connection, problem.strerror or "broken")
            return
        connection.outbox = connection.outbox[sent:]
        wanted = select.EPOLLIN | (select.EPOLLOUT if connection.outbox else 0)
        if wanted != connection.wanted:
            connection.wanted = wanted
            self._epoll.modify(connection.fd, wanted)

    # -- measuring -------------------------------------------------------------------------------

    def receive(self, seconds: float, *, expected: int | None = None) -> ReceiveReport:
        """Receive for so long, or until each connection has its `expected` messages, and check every one.

        `n` starts with 1 in each call.
        """
        crowd = self._crowd
        for connection in crowd:
            connection.last = 0
            connection.missing.clear()
        goal = None if expected is None else expected * len(crowd)
        tally = _Tally(limit=expected)
        cpu, begun = time.process_time(), time.perf_counter()
        with _collector_paused():
            self._receive(tally, deadline=begun + seconds, goal=goal)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - begun

        gone = [c for c in crowd if c.state is State.GONE]
        lost = sum(len(c.missing) for c in crowd)
        outstanding = 0
        if expected is not None:
            lost += sum(expected - c.last for c in gone)
            outstanding = sum(expected - c.last for c in crowd if c.state is not State.GONE)
        return ReceiveReport(
            latencies_ms=[ns / 1e6 for ns in tally.latencies],
            received=len(tally.latencies),
            lost=lost,
            outstanding=outstanding,
            duplicated=tally.duplicated,
            out_of_order=tally.out_of_order,
            dropped=len(gone),
            span_s=(tally.last_at - tally.first_sent_at) / 1e9 if tally.latencies else 0.0,
            client_cpu_percent=100 * cpu / wall,
        )

    def _receive(self, tally: _Tally, *, deadline: float, goal: int | None) -> None:
        """The hot path: everything here runs once for each delivery, 50,000 times a second and more."""
        poll, connections, chunks = self._epoll.poll, self._connections, self._chunks
        clock, arrived, only_in = time.monotonic_ns, tally.latencies.append, select.EPOLLIN
        latencies = tally.latencies
        while (left := deadline - time.perf_counter()) > 0:
            if goal is not None and len(latencies) - tally.duplicated >= goal:
                deadline, goal = min(deadline, time.perf_counter() + LINGER_S), None
            for fd, mask in poll(min(left, 0.05), 1024):
                connection = connections.get(fd)
                if connection is None:
                    continue
                if mask != only_in:
                    if mask & select.EPOLLOUT:
                        self._flush(connection)
                    if not mask & ~select.EPOLLOUT or connection.state is State.GONE:
                        continue
                try:
                    data = connection.recv(READ_BYTES)
                except BlockingIOError:
                    continue
                except OSError as problem:
                    self._drop(connection, problem.strerror or "broken")
                    continue
                now = clock()
                if not data:
                    self._drop(connection, "closed without a word")
                    continue
                if connection.rest:
                    data = connection.rest + data
                    connection.rest = b""
                stamps = chunks.get(data)
                if stamps is None:
                    stamps = self._read(connection, data)
                for n, t in stamps:
                    arrived(now - t)
                    if n == connection.last + 1:
                        connection.last = n
                    else:
                        tally.irregular(connection, n)
                if stamps:
                    tally.last_at = now
                    if not tally.first_sent_at:
                        tally.first_sent_at = stamps[0][1]


class _Connection:
    """One socket, and what it has received."""

    __slots__ = (
        "fd",
        "fragments",
        "i",
        "last",
        "missing",
        "outbox",
        "recv",
        "rest",
        "sock",
        "state",
        "wanted",
    )

    def __init__(self, i: int, sock: socket.socket, request: bytes) -> None:
        self.i = i
        self.sock = sock
        self.fd = sock.fileno()
        self.recv: Callable[[int], bytes] = sock.recv
        self.state = State.HANDSHAKE
        self.outbox = request
        self.wanted = select.EPOLLIN | select.EPOLLOUT
        self.rest = b""  # the beginning of a frame
        self.fragments: list[bytes] = []  # of a message that is not whole yet
        self.last = 0  # the highest n
        self.missing: set[int] = set()  # below it


class _Tally:
    """What is counted while receiving."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.latencies = array("q")  # ns
        self.duplicated = 0
        self.out_of_order = 0
        self.first_sent_at = 0
        self.last_at = 0

    def irregular(self, connection: _Connection, n: int) -> None:
        """Not the next one: a gap before it, one that fills a gap, or one that was here before."""
        if self.limit is not None and n > self.limit:
            raise ValueError(f"n must be at most {self.limit}, got {n}")
        if n > connection.last:
            connection.missing.update(range(connection.last + 1, n))
            connection.last = n
        elif n in connection.missing:
            connection.missing.remove(n)
            self.out_of_order += 1
        else:
            self.duplicated += 1


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection in between: a pause of this client would count as one of the server."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def read_stamps(payload: bytes) -> list[Stamp]:
    """n and t of each benchmark message in the payload; several, where the server gathers them."""
    numbers, times = N.findall(payload), T.findall(payload)
    if not numbers or not times:
        return []
    if len(times) != len(numbers):
        raise ValueError(f"expected as many t as n, got {len(times)} and {len(numbers)} in {payload[:200]!r}")
    return [(int(n), int(t)) for n, t in zip(numbers, times, strict=True)]


def split(data: bytes) -> tuple[list[Frame], bytes]:
    """All whole frames of a server, which does not mask, and the rest (RFC 6455 §5.2)."""
    frames: list[Frame] = []
    at, end = 0, len(data)
    while end - at >= 2:
        first, length = data[at], data[at + 1]
        start = at + 2
        if first & 0x70 or length & 0x80:
            raise ValueError(f"expected a frame without extensions and mask, got {data[at : at + 2].hex()}")
        if length == 126:
            start += 2
            if start > end:
                break
            length = int.from_bytes(data[at + 2 : start], "big")
        elif length == 127:
            start += 8
            if start > end:
                break
            length = int.from_bytes(data[at + 2 : start], "big")
        if start + length > end:
            break
        frames.append((first & 0x0F, bool(first & 0x80), data[start : start + length]))
        at = start + length
    return frames, data[at:]


def _frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame: masked as it must be, with a mask of zeros, which leaves the payload as it is."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + bytes(4) + payload
