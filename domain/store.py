"""The database: many readers, one writer, the same plain functions on both.

A domain function takes a Core ``Connection`` and returns a value; it neither opens nor commits. Here
it is given one: a read transaction (one consistent snapshot) or the write transaction, each on a
thread of its own so that nothing blocks the event loop. One writer thread is the rule: SQLite has
one write lock, and queueing for it in order is quicker and fairer than contending for it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from domain.events import Event, take_appended
from domain.settings import Settings

T = TypeVar("T")
Work = Callable[[Connection], T]

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
READER_THREADS = 4


class StoreError(RuntimeError):
    """The database cannot be used; the message says why and what to do."""


class Store:
    """SQLite in WAL mode with synchronous=FULL: what was committed survives a power cut."""

    def __init__(self, url: URL) -> None:
        self._writing = _engine(url, begin="BEGIN IMMEDIATE", connections=1)
        self._reading = _engine(url, begin="BEGIN", connections=READER_THREADS)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="muster-write")
        self._is_current = False
        self._tell: Callable[[Sequence[Event]], None] | None = None
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="muster-read")

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in one read transaction: everything it sees is of one moment."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, work)

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in the write transaction: durable on return, undone if it raises."""
        result, appended = await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)
        if appended and self._tell is not None:
            self._tell(appended)
        return result

    def read_now(self, work: Work[T]) -> T:
        """As ``read``, blocking: for the command line and tests."""
        with self._reading.connect() as conn, conn.begin() as transaction:
            result = work(conn)
            transaction.rollback()
            return result

    def write_now(self, work: Work[T]) -> T:
        """As ``write``, blocking and telling nobody: for the command line and tests."""
        return self._write(work)[0]

    def on_appended(self, tell: Callable[[Sequence[Event]], None]) -> None:
        """Have events that a write appended told after its commit, on the event loop."""
        self._tell = tell

    def _write(self, work: Work[T]) -> tuple[T, list[Event]]:
        with self._writing.begin() as conn:
            take_appended(conn)  # of a transaction that was undone
            result = work(conn)
            return result, take_appended(conn)

    def migrate(self) -> None:
        """Bring the tables to the newest version. Raises StoreError for a database newer than this program."""
        config = _alembic()
        with self._writing.connect() as conn:
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            found = MigrationContext.configure(conn).get_current_heads()
            conn.rollback()
            if unknown := set(found) - known:
                raise StoreError(
                    f"the database is of a newer version ({', '.join(sorted(unknown))}) than this program knows: update Muster"
                )
            config.attributes["connection"] = conn
            command.upgrade(config, "head")
        self._is_current = True

    @property
    def is_current(self) -> bool:
        """As found at the last migration or look: cheap enough for a health check."""
        if not self._is_current:
            self._is_current = self.is_migrated()
        return self._is_current

    def is_migrated(self) -> bool:
        """Whether the tables are of the version that this program was written for."""
        heads = set(ScriptDirectory.from_config(_alembic()).get_heads())
        return heads == self.read_now(lambda conn: set(MigrationContext.configure(conn).get_current_heads()))

    def close(self) -> None:
        """Finish what is running and close every connection."""
        self._readers.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._reading.dispose()
        self._writing.dispose()


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Raises StoreError when its folder cannot be written."""
    url = make_url(settings.database_url or f"sqlite:///{settings.sqlite_path}")
    path = Path(url.database or settings.sqlite_path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise StoreError(
            f"cannot write the database {path.absolute()}: {error.strerror}. "
            "Set MUSTER_DATA to a folder that this user may write"
        ) from error
    return Store(url)


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _engine(url: URL, *, begin: str, connections: int) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 10},
        query_cache_size=1200,
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
