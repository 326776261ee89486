"""The fast path between processes: a Redis Stream that carries committed events as they are committed.

Nothing rests on it. What is lost with it, or while it is away, each process reads from the log
(bus.py); it only makes news arrive within a millisecond instead of a quarter of a second. Streams and
not Pub/Sub, since a reader that was cut off goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from domain.events import Event
from realtime.bus import Receiver

log = logging.getLogger("muster.redis")

#: Entries that a stream keeps: a second or so of the busiest school. Who is further behind reads the log.
KEEP = 5000
_BLOCK_MS = 2000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 1.0
#: Batches that wait to be sent; older ones are forgotten first, since everybody can read them in the log.
_MAX_WAITING = 1000
_LOST = (RedisError, OSError, TimeoutError)


class RedisLine:
    """One stream of small JSON messages among processes, sent and received for ever, whatever Redis does.

    ``receive`` is given everybody's messages but the own; ``resumed`` is called after each (re)connect.
    """

    def __init__(self, url: str, key: str) -> None:
        self._key = key
        self._own = secrets.token_hex(4).encode()
        self._redis = Redis.from_url(
            url,
            socket_connect_timeout=2,
            socket_timeout=_BLOCK_MS / 1000 + 3,  # a connection that died silently is found out
            retry=Retry(NoBackoff(), 0),  # the loops below try again, for ever
            health_check_interval=0,
        )
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)
        self._has_some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_reading = False
        self._was_told = False
        self._is_over = False

    @property
    def is_up(self) -> bool:
        """Whether messages arrive at the moment."""
        return self._is_reading

    def send(self, message: bytes) -> None:
        """Send when possible; while Redis is away the newest wait and older ones are forgotten."""
        if self._is_reading:
            self._waiting.append(message)
            self._has_some.set()

    async def start(self, receive: Callable[[bytes], None], resumed: Callable[[], None]) -> None:
        """Begin to send and to receive."""
        self._is_over = False
        self._tasks = [
            asyncio.create_task(self._read(receive, resumed), name=f"muster-redis-read {self._key}"),
            asyncio.create_task(self._write(), name=f"muster-redis-write {self._key}"),
        ]

    async def stop(self) -> None:
        """Send what waits, if that is quick, and end."""
        self._is_over = True
        self._has_some.set()
        reading, *writing = self._tasks
        await asyncio.wait(writing, timeout=0.5)
        # redis-py can swallow a cancellation while it closes a connection: ask until it is heard.
        while left := [task for task in (reading, *writing) if not task.done()]:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.2)
        self._tasks = []
        self._is_reading = False
        with contextlib.suppress(*_LOST):
            await self._redis.aclose()

    async def _read(self, receive: Callable[[bytes], None], resumed: Callable[[], None]) -> None:
        wait = _FIRST_WAIT_S
        while not self._is_over:
            try:
                newest: Any = await self._redis.xrevrange(self._key, count=1)
                last = newest[0][0] if newest else b"0-0"
                self._is_reading, self._was_told, wait = True, False, _FIRST_WAIT_S
                resumed()
                while not self._is_over:
                    last = await self._read_once(last, receive)
            except _LOST as error:
                self._is_reading = False
                if not self._was_told:
                    self._was_told = True
                    log.warning(
                        "Redis is away (%s): news come from the database meanwhile", type(error).__name__
                    )
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)

    async def _read_once(self, last: bytes, receive: Callable[[bytes], None]) -> bytes:
        found: Any = await self._redis.xread({self._key: last}, count=500, block=_BLOCK_MS)
        # A list of (stream, entries) or, in the newer protocol, a dict of them.
        pairs = found.items() if isinstance(found, dict) else found or ()
        for _stream, entries in pairs:
            for part in entries:
                rows = part if part and isinstance(part[0], list | tuple) else [part]
                for identifier, fields in rows:
                    last = identifier
                    if fields.get(b"n") != self._own:
                        receive(fields[b"m"])
        return last

    async def _write(self) -> None:
        while not self._is_over:
            await self._has_some.wait()
            self._has_some.clear()
            try:
                await self._send_waiting()
            except _LOST:
                self._waiting.clear()  # the reader tells of it, and the log has them
                await asyncio.sleep(_FIRST_WAIT_S)

    async def _send_waiting(self) -> None:
        while self._waiting:
            pipe = self._redis.pipeline(transaction=False)
            for message in tuple(self._waiting):
                pipe.xadd(self._key, {b"n": self._own, b"m": message}, maxlen=KEEP, approximate=True)
            count = len(self._waiting)
            await pipe.execute()
            for _ in range(min(count, len(self._waiting))):
                self._waiting.popleft()


class RedisEvents:
    """Committed events on a RedisLine. ``epoch`` keeps schools that share a Redis apart."""

    def __init__(self, url: str, epoch: str) -> None:
        self._line = RedisLine(url, f"muster:{epoch}:events")

    @property
    def is_up(self) -> bool:
        """Whether batches travel at the moment."""
        return self._line.is_up

    def send(self, events: Sequence[Event]) -> None:
        """Send one commit's events."""
        self._line.send(packed(events))

    async def start(self, receive: Receiver, resumed: Callable[[], None]) -> None:
        """Give the others' commits to ``receive``."""

        def unpack(message: bytes) -> None:
            try:
                batch = unpacked(message)
            except (ValueError, TypeError, KeyError):
                log.exception("a message on the stream cannot be read: it is left to the log")
                resumed()
            else:
                receive(batch)

        await self._line.start(unpack, resumed)

    async def stop(self) -> None:
        """End."""
        await self._line.stop()


def packed(events: Sequence[Event]) -> bytes:
    """A batch of events as one message."""
    return orjson.dumps(
        [[e.topic, e.seq, e.name, e.at.timestamp(), e.data, e.operation_id, e.position] for e in events]
    )


def unpacked(message: bytes) -> list[Event]:
    """The batch that a message holds. Raises ValueError, TypeError for anything else."""
    return [
        Event(topic, seq, name, datetime.fromtimestamp(at, UTC), data, operation_id, position)
        for topic, seq, name, at, data, operation_id, position in orjson.loads(message)
    ]
