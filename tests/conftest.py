"""Fixtures of the whole suite: a clock moved by hand and a fresh, real database for each test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from domain.clock import ManualClock
from domain.muster import Muster
from domain.settings import Settings
from domain.store import Store, open_store
from tests.factories import NOW


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    store = open_store(Settings(data=folder))
    store.migrate()
    store.close()
    return folder / "muster.db"


@pytest.fixture
def settings(tmp_path: Path, migrated_database: Path) -> Settings:
    settings = Settings(data=tmp_path / "data", port=0)
    settings.data.mkdir()
    shutil.copy(migrated_database, settings.sqlite_path)
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = open_store(settings)
    yield store
    store.close()


@pytest_asyncio.fixture
async def muster(settings: Settings, store: Store, clock: ManualClock) -> AsyncIterator[Muster]:
    muster = Muster(settings, clock=clock, store=store)
    await muster.start()
    yield muster
    await muster.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests go last: Playwright's own loop runs on in this thread, and async tests need one of theirs."""
    items.sort(key=lambda item: "browser" in getattr(item, "fixturenames", ()))
