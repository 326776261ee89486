"""The gateway's pulse: heartbeats with heads and digests, and what comes to an end by the clock.

Once a second it looks after a part of the connections, so that each gets its heartbeat every 25 s and
never all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import Protocol

import orjson
from sqlalchemy import Connection as Database

from domain import events, register
from domain.muster import Muster
from domain.store import StoreError
from domain.watching import MEETING
from realtime.connection import Connection, Following
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.protocol import Close
from realtime.snapshots import digest

log = logging.getLogger("muster.gateway")

#: An open connection keeps its login from expiring: it is asked for so often.
_FIND_LOGIN_EVERY_S = 300.0
_TICK_S = 1.0
_READ_WITHIN_S = 1.5


class Sockets(Protocol):
    """What is needed of the gateway."""

    def connections(self) -> Iterable[Connection]:
        """Everybody who is connected."""
        ...

    def end(self, connection: Connection, code: Close, reason: str, *, retry_ms: int | None = None) -> None:
        """Close a connection."""
        ...

    def doubt(self, followings: Iterable[Following]) -> None:
        """Ask the domain again whether these may go on."""
        ...


class Heartbeat:
    """The pulse of one process's connections. Its tasks are owned here until ``stop``."""

    def __init__(
        self, muster: Muster, sockets: Sockets, metrics: Metrics, limits: Limits, *, every_s: int
    ) -> None:
        self._muster, self._sockets, self._metrics, self._limits = muster, sockets, metrics, limits
        self._every = every_s
        self._digests: dict[str, tuple[int, str]] = {}  # topic: (seq, digest)
        self._task: asyncio.Task[None] | None = None
        self._finding: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="muster-heartbeat")

    async def stop(self) -> None:
        """End."""
        tasks = [*self._finding, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        turn, due_at = 0, loop.time()
        while True:
            due_at += _TICK_S
            await asyncio.sleep(max(0.0, due_at - loop.time()))
            turn += 1
            try:
                self._end_what_is_over()
                await self._beat(
                    [c for c in self._sockets.connections() if c.id % self._every == turn % self._every]
                )
            except Exception:  # the rim of the task: the next beat tries again
                log.exception("a heartbeat failed")

    def _end_what_is_over(self) -> None:
        now, passed = self._muster.clock.now(), time.monotonic()
        doubted: list[Following] = []
        for connection in self._sockets.connections():
            if connection.slow_since is not None and passed - connection.slow_since > self._limits.slow_s:
                self._sockets.end(connection, Close.TOO_SLOW, "too slow")
            elif connection.login.expires_at <= now or passed - connection.found_at > _FIND_LOGIN_EVERY_S:
                connection.found_at = passed
                task = asyncio.create_task(self._find_login(connection), name="muster-socket-login")
                self._finding.add(task)
                task.add_done_callback(self._finding.discard)
            for following in connection.followings.values():
                grant = following.grant
                if grant is not None and grant.until is not None and grant.until <= now:
                    doubted.append(following)
        if doubted:
            self._sockets.doubt(doubted)

    async def _find_login(self, connection: Connection) -> None:
        try:
            login = await self._muster.logins.find(connection.token)
        except StoreError:
            return
        if login is None:
            self._sockets.end(connection, Close.UNAUTHENTICATED, "the login has ended")
        else:
            connection.login = login

    async def _beat(self, due: list[Connection]) -> None:
        if not due:
            return
        topics = {f.channel.topic for c in due for f in c.followings.values() if f.is_joined}
        known = self._digests
        heads: dict[str, int] = {}
        digests: dict[str, tuple[int, str]] = {}
        # While the database is away clients hear that we are here, without heads; rights still end meanwhile.
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_READ_WITHIN_S):
                heads, digests = await self._muster.store.read(lambda conn: _heads(conn, topics, known))
        # Kept for topics that are followed; a topic nobody asks for any more is dropped by and by.
        self._digests = {t: pair for t, pair in (known | digests).items() if t in topics or len(known) < 5000}
        written: dict[tuple[str, ...], bytes] = {}
        for place, connection in enumerate(due, 1):
            names = tuple(sorted(n for n, f in connection.followings.items() if f.is_joined))
            key = tuple(connection.followings[name].channel.topic for name in names)
            if key not in written:
                told = {
                    name: (heads[topic], digests[topic][1] if topic in digests else "")
                    for name, topic in zip(names, key, strict=True)
                    if topic in heads
                }
                frame = {"type": "heartbeat", "server_time": connection.server_time(), "heads": told}
                written[key] = orjson.dumps(frame)
            if not connection.wire.is_full:
                connection.send_payload(written[key])
            if place % 100 == 0:
                await asyncio.sleep(0)


def _heads(
    conn: Database, topics: set[str], known: dict[str, tuple[int, str]]
) -> tuple[dict[str, int], dict[str, tuple[int, str]]]:
    """Where each topic stands, and of meetings the digest there; computed anew only where something changed."""
    heads = events.heads(conn, topics)
    meetings = [topic for topic in topics if topic.startswith(MEETING)]
    digests = {t: known[t] for t in meetings if t in known and known[t][0] == heads[t]}
    stale = [t.removeprefix(MEETING) for t in meetings if t not in digests]
    for meeting_id, records in register.record_states(conn, stale).items():
        topic = MEETING + meeting_id
        digests[topic] = (heads[topic], digest(records))
    return heads, digests
