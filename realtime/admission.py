"""Who is at the door: found by cookie, bearer token or the first frame, greeted or sent away."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

import orjson
from starlette.types import Receive

from domain.login_rows import LoginView
from domain.muster import Muster
from domain.store import StoreError
from realtime.connection import Connection
from realtime.frames import text_frame
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.protocol import (
    AUTH_WITHIN_S,
    MAX_FRAME,
    MAX_OPERATIONS,
    PROTOCOL,
    Auth,
    BadFrame,
    Close,
    read_message,
)
from realtime.rights import Rights
from realtime.wire import Wire


class Admission:
    """The door of one process's gateway. ``is_closed``: nobody is let in any more."""

    def __init__(
        self,
        muster: Muster,
        rights: Rights,
        metrics: Metrics,
        limits: Limits,
        *,
        heartbeat_s: int,
        is_closed: Callable[[], bool],
    ) -> None:
        self._muster, self._rights = muster, rights
        self._metrics, self._limits = metrics, limits
        self._heartbeat_s, self._is_closed = heartbeat_s, is_closed
        self._strangers = 0  # connections that have not said yet who they are
        self._ids = itertools.count(1)
        self._random = random.Random()  # noqa: S311  # spreads returns, keeps no secret
        told = {
            "frame_bytes": MAX_FRAME,
            "topics": limits.topics,
            "operations_per_frame": MAX_OPERATIONS,
            "operations_per_s": limits.operations_per_s,
            "frames_per_s": limits.frames_per_s,
            "connections_per_person": limits.connections_per_person,
        }
        self._limits_told = orjson.Fragment(orjson.dumps(told))

    async def admit(self, wire: Wire, receive: Receive, token: str | None, address: str) -> Connection | None:
        """Find out who it is; None when the connection was closed instead."""
        if token is None:
            self._strangers += 1
            try:
                token = await self._introduced(wire, receive)
            finally:
                self._strangers -= 1
            if token is None:
                return None
        try:
            login = await self._rights.find_login(token)
        except StoreError:  # nobody can be found at the moment
            await self.send_away(wire, receive, 1.0, is_restarting=True)
            return None
        if self._is_closed():
            await self.send_away(wire, receive, 1.0)
            return None
        if login is None:
            await self._refuse(wire, receive, "not logged in")
            return None
        return self._connection(wire, login, token, address)

    def greet(self, connection: Connection) -> None:
        """Say hello: who the client is taken for, and what it must keep to."""
        login = connection.login
        connection.send(
            {
                "type": "hello",
                "protocol": PROTOCOL,
                "user": {
                    "id": login.person_id,
                    "name": login.name,
                    "role": login.role.value,
                    "language": login.language,
                },
                "server_time": connection.server_time(),
                "heartbeat_s": self._heartbeat_s,
                "limits": self._limits_told,
            }
        )

    async def send_away(
        self, wire: Wire, receive: Receive, wait: float, *, is_restarting: bool = False
    ) -> None:
        """Ask to come back after ``wait`` seconds or up to twice as long, and close."""
        code = Close.RESTARTING if is_restarting or self._is_closed() else Close.TOO_MANY
        self._metrics.closed(code)
        retry_ms = int(wait * 1000 * self._random.uniform(1, 2))
        wire.write(text_frame(orjson.dumps({"type": "bye", "retry_ms": retry_ms})))
        wire.close(code, "come back later")
        await _gone(receive)

    def _connection(self, wire: Wire, login: LoginView, token: str, address: str) -> Connection:
        return Connection(
            next(self._ids),
            wire,
            login,
            token,
            address,
            limits=self._limits,
            clock=self._muster.clock,
            metrics=self._metrics,
        )

    async def _introduced(self, wire: Wire, receive: Receive) -> str | None:
        """The token of the auth frame; None when none came in time and the connection was closed."""
        if self._strangers > self._limits.waiting_for_auth:
            self._metrics.limited("connection")
            await self.send_away(wire, receive, 2.0)
            return None
        reason = "no auth frame came in time"
        try:
            async with asyncio.timeout(AUTH_WITHIN_S):
                message = await receive()
        except TimeoutError:
            pass
        else:
            if message["type"] == "websocket.disconnect":
                return None
            try:
                frame = read_message(message)
                if isinstance(frame, Auth):
                    return frame.token
            except BadFrame:
                pass
            reason = "the first frame must be an auth frame"
        await self._refuse(wire, receive, reason)
        return None

    async def _refuse(self, wire: Wire, receive: Receive, reason: str) -> None:
        self._metrics.closed(Close.UNAUTHENTICATED)
        wire.close(Close.UNAUTHENTICATED, reason)
        await _gone(receive)


async def _gone(receive: Receive) -> None:
    """Wait until a connection that was told to go has gone."""
    while (await receive())["type"] != "websocket.disconnect":
        pass
