"""SQLite in WAL mode with synchronous=FULL: one process, no server, nothing lost by a power cut."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from domain.store import Store, T, Work, carried_out

READER_THREADS = 4


class SqliteStore(Store):
    """One writer thread, since SQLite has one write lock, and a few readers beside it."""

    def __init__(self, url: URL) -> None:
        super().__init__()
        self._writing = _engine(url, begin="BEGIN IMMEDIATE", connections=1)
        self._reading = _engine(url, begin="BEGIN", connections=READER_THREADS)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="muster-write")
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="muster-read")

    async def read(self, work: Work[T]) -> T:
        """One read transaction, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, work)

    async def write(self, work: Work[T]) -> T:
        """The write transaction, in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._write, work, loop)

    def read_now(self, work: Work[T]) -> T:
        """One read transaction, here."""
        with self._reading.connect() as conn, conn.begin() as transaction:
            result = work(conn)
            transaction.rollback()
            return result

    def write_now(self, work: Work[T]) -> T:
        """The write transaction, here."""
        return self._write(work, None)

    def _write(self, work: Work[T], loop: asyncio.AbstractEventLoop | None) -> T:
        with self._writing.begin() as conn:
            result, appended = carried_out(conn, work)
        self._told(loop, appended)
        return result

    def close(self) -> None:
        """Finish what is running; the last connection merges the write-ahead log into the file."""
        self._readers.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._reading.dispose()
        self._writing.dispose()


def _engine(url: URL, *, begin: str, connections: int) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 10},
        query_cache_size=1200,
        hide_parameters=True,  # an error ends up in the log, what people are called must not
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # almost free once grouped: docs/bench.md
            "foreign_keys=ON",
            "busy_timeout=10000",
            "recursive_triggers=ON",  # so that REPLACE meets the delete triggers
            "cache_size=-32000",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine
