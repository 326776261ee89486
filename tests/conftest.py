"""Fixtures of the whole suite: a clock moved by hand and a fresh, real database for each test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

from domain.clock import ManualClock
from domain.muster import Muster
from domain.settings import Settings
from domain.store import Store, open_store
from tests.factories import NOW
from tests.servers import Postgres

# How long an example takes is the machine's affair: speed is measured in tests/bench.
hypothesis.settings.register_profile("muster", deadline=None)
hypothesis.settings.load_profile("muster")


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this run's own, started when the first test asks for it."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = postgres.create_database("template")
    store = open_store(Settings(data=tmp_path_factory.mktemp("unused"), database_url=url))
    store.migrate()
    store.close()
    return url


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """sqlite, and postgresql as well for tests marked ``both_databases``."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def settings(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Settings]:
    settings = Settings(data=tmp_path / "data", port=0)
    settings.data.mkdir()
    if database == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_database"), settings.sqlite_path)
        yield settings
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database(like=request.getfixturevalue("postgres_template"))
    yield replace(settings, database_url=url)
    server.drop_database(url)


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("database", ["sqlite", "postgresql"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests go last: Playwright's own loop runs on in this thread, and async tests need one of theirs."""
    items.sort(key=lambda item: "browser" in getattr(item, "fixturenames", ()))
