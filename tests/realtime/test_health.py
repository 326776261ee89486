"""Alive and ready are two questions."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from domain.muster import Muster
from tests.realtime.conftest import As


async def test_a_running_server_is_alive_and_ready(client_as: As) -> None:
    client = await client_as(None)

    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    checks = {"recorder": True, "bus": True, "not_draining": True, "database": True}
    assert ready.json() == {"status": "ok", "checks": checks}


async def test_without_its_recorder_a_server_is_alive_and_not_ready(client_as: As, muster: Muster) -> None:
    client = await client_as(None)
    await muster.recorder.stop()

    ready = await client.get("/readyz")

    assert (ready.status_code, ready.json()["checks"]["recorder"]) == (503, False)
    assert (await client.get("/healthz")).status_code == 200


async def test_a_database_of_another_version_is_not_ready(client_as: As, muster: Muster) -> None:
    client = await client_as(None)
    muster.store.write_now(
        lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    )

    ready = await client.get("/readyz")

    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, False)


async def test_a_database_that_cannot_be_read_is_not_ready_and_nothing_of_it_is_told(
    client_as: As, muster: Muster, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await client_as(None)

    async def fail(_work: Any) -> None:
        raise OSError("disk /secret/path is gone")

    monkeypatch.setattr(muster.store, "read", fail)
    ready = await client.get("/readyz")

    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, False)
    assert "secret" not in ready.text
