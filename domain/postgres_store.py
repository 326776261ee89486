"""PostgreSQL through asyncpg, for several processes: the same promises as SQLite's store.

The domain's functions are plain and synchronous; SQLAlchemy's greenlet bridge runs them on asyncpg, in
a thread with an event loop of its own, so that what they compute does not hold up the live screens.

Every write transaction first takes one advisory lock, so that writes come one after the other in all
processes together, as they do under SQLite's write lock: whoever holds it sees everything committed
(READ COMMITTED, each statement anew) and nobody else changes anything meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from domain.leadership import Leadership, PostgresLeadership
from domain.store import Store, StoreUnavailable, T, Work, carried_out

log = logging.getLogger("muster.store")

#: Key of the advisory lock that every write takes: "muster" in ASCII.
WRITE_LOCK = 0x6D7573746572
READERS = 6
#: How long a transaction is tried again while the database cannot be reached, before its caller is told.
RETRY_FOR_S = 6.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
#: Refused, gone, starting up, shutting down (PostgreSQL's SQLSTATE classes 08, 57P and 53300).
_LOST: tuple[type[BaseException], ...] = (
    ConnectionError,
    TimeoutError,
    socket.gaierror,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)


class PostgresStore(Store):
    """One write connection and a few for reading, in a thread of their own."""

    is_shared = True

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._url = url
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="muster-postgres", daemon=True)
        self._writing = _engine(url, connections=1)
        self._reading = _engine(url, connections=READERS, isolation_level="REPEATABLE READ")
        self._reading = self._reading.execution_options(postgresql_readonly=True)
        self._thread.start()
        self._turn: asyncio.Lock = self._run(_made(asyncio.Lock))

    @property
    def url(self) -> URL:
        """Where the database is."""
        return self._url

    async def read(self, work: Work[T]) -> T:
        """One read transaction."""
        return await self._there(self._retried(lambda: self._read(work)))

    async def write(self, work: Work[T]) -> T:
        """The write transaction. Tried again while nothing was committed. Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        return await self._there(self._retried(lambda: self._write(work, loop)))

    def read_now(self, work: Work[T]) -> T:
        """One read transaction, blocking."""
        return self._run(self._retried(lambda: self._read(work)))

    def write_now(self, work: Work[T]) -> T:
        """The write transaction, blocking."""
        return self._run(self._retried(lambda: self._write(work, None)))

    def close(self) -> None:
        """Finish what is running, then close the connections and stop the thread."""
        if self._loop.is_closed():
            return
        self._run(self._dispose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def leadership(self) -> Leadership:
        """The leader holds an advisory lock, in a session of its own, on the caller's event loop."""
        parts = self._url.translate_connect_args(username="user")
        settings = {
            "application_name": "muster-leader",
            "tcp_keepalives_idle": "10",  # a leader whose machine vanished is given up in 25 s
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        }

        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(**parts, timeout=2, command_timeout=2, server_settings=settings)

        return PostgresLeadership(connect)

    async def _dispose(self) -> None:
        async with self._turn:
            await self._writing.dispose()
        await self._reading.dispose()

    async def _read(self, work: Work[T]) -> T:
        async with self._reading.connect() as conn, conn.begin() as transaction:
            result = await conn.run_sync(work)
            await transaction.rollback()
            return result

    async def _write(self, work: Work[T], loop: asyncio.AbstractEventLoop | None) -> T:
        async with self._turn, self._writing.connect() as conn:
            transaction = await conn.begin()
            try:
                await conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
                result, appended = await conn.run_sync(carried_out, work)
            except BaseException:
                await _undone(conn, transaction)
                raise
            try:
                await transaction.commit()
            except Exception as error:
                if not _is_lost(error):
                    raise
                raise StoreUnavailable("the database was lost during a commit", is_unknown=True) from error
            self._told(loop, appended)
            return result

    async def _retried(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Try until the database answers; nothing was committed by an attempt that failed on the way."""
        loop = asyncio.get_running_loop()
        give_up_at, wait = loop.time() + RETRY_FOR_S, _FIRST_WAIT_S
        while True:
            try:
                return await attempt()
            except StoreUnavailable:
                raise
            except Exception as error:
                if not _is_lost(error):
                    raise
                if loop.time() + wait > give_up_at:
                    log.warning("the database cannot be reached: %s", type(error).__name__)
                    raise StoreUnavailable(
                        "the database cannot be reached; nothing was changed. Try again in a moment"
                    ) from error
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the database's thread; a caller that is cancelled leaves it running there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return await asyncio.shield(asyncio.wrap_future(future))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a transaction cannot wait for another one inside itself")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _undone(conn: AsyncConnection, transaction: Any) -> None:
    try:
        await transaction.rollback()
    except Exception as error:
        if not _is_lost(error):
            raise
        await conn.invalidate()


async def _made(make: Callable[[], T]) -> T:
    return make()


def _is_lost(error: BaseException) -> bool:
    """Whether the connection failed, rather than the statement."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _is_lost_cause(error.orig)
    # asyncpg sums up what several addresses of a host answered in a plain OSError.
    return isinstance(error, _LOST) or type(error) is OSError


def _is_lost_cause(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, _LOST) or type(error) is OSError:
            return True
        error = error.__cause__
    return False


def _engine(url: URL, *, connections: int, isolation_level: str = "READ COMMITTED") -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=30,
        isolation_level=isolation_level,
        query_cache_size=1200,
        hide_parameters=True,  # an error ends up in the log, what people are called must not
        connect_args={
            "timeout": 5,
            "command_timeout": 60,
            "prepared_statement_cache_size": 500,
            "server_settings": {"jit": "off", "timezone": "UTC", "application_name": "muster"},
        },
    )


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # not on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
