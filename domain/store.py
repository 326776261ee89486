"""The database: many readers, one writer, the same plain functions on both.

A domain function takes a Core ``Connection`` and returns a value; it neither opens nor commits. Here
it is given one: a read transaction (one consistent snapshot) or the write transaction, away from the
event loop so that nothing blocks it. Writes come one after the other, in all processes together: that
is what numbers the event log without gaps, and with group commit it is quicker than contending.

Two databases, one contract: sqlite_store.py for one process, postgres_store.py for several.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from domain.events import Event, take_appended
from domain.leadership import Leadership, SoleLeader
from domain.settings import Settings

T = TypeVar("T")
Work = Callable[[Connection], T]
Tell = Callable[[Sequence[Event]], None]

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
log = logging.getLogger("muster.store")


class StoreError(RuntimeError):
    """The database cannot be used; the message says why and what to do."""


class StoreUnavailable(StoreError):
    """The database could not be reached, or was lost on the way: try again after ``retry_after`` seconds.

    ``is_unknown``: it was lost while committing, so what was written may or may not be there.
    """

    code = "busy"
    retry_after = 1.0

    def __init__(self, message: str, *, is_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_unknown = is_unknown


class Store(ABC):
    """What both databases promise. What a write has returned survives a power cut."""

    #: Whether other processes may write to this database too.
    is_shared = False

    def __init__(self) -> None:
        self._is_current = False
        self._tell: Tell | None = None

    @abstractmethod
    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in one read transaction: everything it sees is of one moment."""

    @abstractmethod
    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in the write transaction: durable on return, undone if it raises.

        Cancelling the caller does not undo what is under way. Raises StoreUnavailable.
        """

    @abstractmethod
    def read_now(self, work: Work[T]) -> T:
        """As ``read``, blocking: for the command line and tests."""

    @abstractmethod
    def write_now(self, work: Work[T]) -> T:
        """As ``write``, blocking and telling nobody: for the command line and tests."""

    @abstractmethod
    def close(self) -> None:
        """Finish what is running and close every connection."""

    def leadership(self) -> Leadership:
        """Which of the processes on this database runs what is due by the clock."""
        return SoleLeader()

    def on_appended(self, tell: Tell) -> None:
        """Have events that a write appended told after its commit, in the order of the commits, on the
        event loop that wrote, before the writer is answered."""
        self._tell = tell

    def migrate(self) -> None:
        """Bring the tables to the newest version, whole or not at all, however many processes try at once.

        Raises StoreError for a database newer than this program.
        """
        self.write_now(_upgrade)
        self._is_current = True

    @property
    def is_current(self) -> bool:
        """As found at the last migration or look: cheap enough for a health check."""
        return self._is_current

    async def look_at_version(self) -> bool:
        """Whether the tables are of the version that this program was written for."""
        self._is_current = await self.read(_found_heads) == _wanted_heads()
        return self._is_current

    def is_migrated(self) -> bool:
        """As ``look_at_version``, blocking."""
        return self.read_now(_found_heads) == _wanted_heads()

    def _told(self, loop: asyncio.AbstractEventLoop | None, appended: Sequence[Event]) -> None:
        """To be called in the writer's thread, right after the commit: keeps the order of the commits."""
        if appended and loop is not None and self._tell is not None:
            loop.call_soon_threadsafe(self._say, appended)

    def _say(self, appended: Sequence[Event]) -> None:
        assert self._tell is not None
        try:
            self._tell(appended)
        except Exception:  # the rim between rooms: the log has them, and whoever missed them reads it
            log.exception("committed events could not be told")


def carried_out(conn: Connection, work: Work[T]) -> tuple[T, list[Event]]:
    """Run ``work`` in a write transaction; what it returns, and what it appended to the log."""
    take_appended(conn)  # of a transaction that was undone
    result = work(conn)
    return result, take_appended(conn)


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Raises StoreError when its folder cannot be written."""
    from domain.postgres_store import PostgresStore  # imports this module
    from domain.sqlite_store import SqliteStore

    url = make_url(settings.database_url or f"sqlite:///{settings.sqlite_path}")
    if url.get_backend_name() == "postgresql":
        return PostgresStore(url)
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
    return SqliteStore(url)


def _upgrade(conn: Connection) -> None:
    config = _alembic()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if unknown := _found_heads(conn) - known:
        raise StoreError(
            f"the database is of a newer version ({', '.join(sorted(unknown))}) than this program knows: update Muster"
        )
    config.attributes["connection"] = conn
    command.upgrade(config, "head")


def _found_heads(conn: Connection) -> set[str]:
    return set(MigrationContext.configure(conn).get_current_heads())


def _wanted_heads() -> set[str]:
    return set(ScriptDirectory.from_config(_alembic()).get_heads())


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
