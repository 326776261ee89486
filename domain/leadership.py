"""One leader among the processes: the one that runs what is due by the clock.

Without other processes one leads by itself. On PostgreSQL the leader is whoever holds a session's
advisory lock: it is free again as soon as that session ends, however the process ended. Work by the
clock is idempotent all the same, since a leader that was cut off learns of it a moment late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import asyncpg

log = logging.getLogger("muster.leader")

#: Key of the advisory lock that the leader holds: "leader" in ASCII.
LEADER_LOCK = 0x6C6561646572
#: How often those who do not lead try to, and the leader makes sure that it still does.
_EVERY_S, _ANSWER_WITHIN_S = 0.5, 2.0
_FAULTS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

Connect = Callable[[], Awaitable["asyncpg.Connection"]]


class Leadership(Protocol):
    """Whether this process leads."""

    @property
    def is_leader(self) -> bool:
        """It does, as far as is known."""
        ...

    async def start(self) -> None:
        """Stand for it."""
        ...

    async def stop(self) -> None:
        """Step down."""
        ...


class SoleLeader:
    """There is no other process."""

    is_leader = True

    async def start(self) -> None:
        """There is nobody to ask."""

    async def stop(self) -> None:
        """There is nobody to hand over to."""


class PostgresLeadership:
    """Leads while its own session holds the lock. ``connect`` opens that session."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._task: asyncio.Task[None] | None = None
        self.is_leader = False

    async def start(self) -> None:
        """Try once, then go on trying."""
        first_try = asyncio.Event()
        self._task = asyncio.create_task(self._run(first_try), name="muster-leader")
        await first_try.wait()

    async def stop(self) -> None:
        """Let the lock go with its session."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.is_leader = False

    async def _run(self, first_try: asyncio.Event) -> None:
        while True:
            connection: asyncpg.Connection | None = None
            try:
                async with asyncio.timeout(_ANSWER_WITHIN_S):
                    connection = await self._connect()
                while True:
                    async with asyncio.timeout(_ANSWER_WITHIN_S):
                        await self._look(connection)
                    first_try.set()
                    await asyncio.sleep(_EVERY_S)
            except _FAULTS as error:
                if self.is_leader:
                    log.warning("this process leads no longer: %s", type(error).__name__)
            finally:
                self.is_leader = False
                if connection is not None:
                    with contextlib.suppress(*_FAULTS):
                        connection.terminate()
            first_try.set()
            await asyncio.sleep(_EVERY_S)

    async def _look(self, connection: asyncpg.Connection) -> None:
        if self.is_leader:
            await connection.fetchval("SELECT 1")
        elif await connection.fetchval(f"SELECT pg_try_advisory_lock({LEADER_LOCK})"):
            self.is_leader = True
            log.info("this process leads now")
