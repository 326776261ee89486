"""How the process is doing: looked at, judged, told; and /metrics, for those who may read it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text

from domain.clock import ManualClock
from domain.muster import Muster
from realtime.metrics import CONTENT_TYPE
from realtime.realtime import Realtime
from realtime.vitals import THRESHOLDS, Look, Vitals
from tests.factories import NOW
from tests.looks import a_look
from tests.realtime.conftest import As, problem
from tests.realtime.sockets import PASSWORD, Served

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "realtime.md"
#: What is there only on PostgreSQL, and what only with pages.
SOMETIMES = {"muster_log_position", "muster_log_reads", "muster_redis_up", "muster_pages"}


@pytest_asyncio.fixture
async def vitals(realtime: Realtime) -> Vitals:
    """The looks of a running process, taken by hand."""
    await realtime.vitals.stop()
    return realtime.vitals


async def look(vitals: Vitals, times: int) -> None:
    for _ in range(times):
        await vitals.look()


def alerts(vitals: Vitals) -> list[str]:
    return [threshold.name for threshold, _since in vitals.alerts]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "muster.health"]


# --- Alerts ---


async def test_an_alert_is_raised_after_three_bad_looks_and_over_after_five_good_ones(
    vitals: Vitals,
    realtime: Realtime,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_there = False

    async def has_database() -> bool:
        return is_there

    def gauge() -> float:
        assert f"muster_alert_database {value}\n" in realtime.metrics.text().decode()
        return realtime.metrics.value("muster_alert_database")

    monkeypatch.setattr(vitals, "has_database", has_database)

    value = 0.0
    await look(vitals, 2)
    assert (alerts(vitals), gauge(), told(caplog)) == ([], 0, [])

    value = 1.0
    clock.advance(minutes=1)
    await look(vitals, 1)
    assert (alerts(vitals), gauge()) == (["database"], 1)
    assert vitals.alerts[0][1] == NOW + timedelta(minutes=1)
    assert told(caplog) == [
        "alert database: The database cannot be reached: nothing is recorded. Look at its service and its disk."
    ]

    clock.advance(minutes=1)
    await look(vitals, 4)
    is_there = True
    await look(vitals, 4)
    assert (alerts(vitals), gauge()) == (["database"], 1)
    assert vitals.alerts[0][1] == NOW + timedelta(minutes=1)

    value = 0.0
    await look(vitals, 1)
    assert (alerts(vitals), gauge()) == ([], 0)
    assert told(caplog)[1:] == ["alert database is over"]


async def test_a_look_of_the_other_kind_begins_the_count_anew(
    vitals: Vitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True, False, False, True, *[False] * 3, *[True] * 4, False, *[True] * 4])

    async def has_database() -> bool:
        return next(answers)

    monkeypatch.setattr(vitals, "has_database", has_database)

    await look(vitals, 6)
    assert alerts(vitals) == []

    await look(vitals, 12)
    assert alerts(vitals) == ["database"]


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("database", {"has_database": False}, {"has_database": True}),
        ("recorder", {"is_recording": False}, {"is_recording": True}),
        ("bus", {"is_bus_healthy": False}, {"is_bus_healthy": True}),
        ("redis", {"has_redis": False}, {"has_redis": None}),
        ("loop_lag", {"loop_lag_ms": 101.0}, {"loop_lag_ms": 100.0}),
        ("queue", {"queue_depth": 5001}, {"queue_depth": 5000}),
    ],
)
def test_each_threshold_is_crossed_by_its_own_fault_alone(
    name: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    def crossed(seen: Look) -> list[str]:
        return [threshold.name for threshold in THRESHOLDS if threshold.is_crossed(seen)]

    assert crossed(a_look(**bad)) == [name]
    assert crossed(a_look(**good)) == []
    assert {threshold.name for threshold in THRESHOLDS} >= {name}


async def test_a_process_that_writes_no_more_is_found_out(vitals: Vitals, muster: Muster) -> None:
    await look(vitals, 5)
    assert alerts(vitals) == []

    await muster.recorder.stop()
    await look(vitals, 3)

    assert alerts(vitals) == ["recorder"]


async def test_who_watches_is_told_after_each_look_until_the_end_whatever_others_do(vitals: Vitals) -> None:
    seen: list[int] = []

    def fail() -> None:
        raise RuntimeError("a page that is broken")

    vitals.watch(fail)
    end = vitals.watch(lambda: seen.append(len(vitals.looks)))
    await look(vitals, 2)
    end()
    end()
    await look(vitals, 1)

    assert seen == [1, 2]


async def test_a_look_counts_what_was_done_since_the_one_before(served: Served, realtime: Realtime) -> None:
    vitals = realtime.vitals
    await vitals.stop()
    before = await vitals.look()

    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        await socket.subscribe(served.topic)
        await served.record(served.marking())
        await socket.get("event")
        during = await vitals.look()
    after = await vitals.look()

    assert (before.operation_count, before.operations, before.connections) == (0, 0, 0)
    assert (during.operation_count, during.connections) == (2, 1)
    assert during.operations > 0 and during.frames_in > 0 and during.writes > 0
    assert (during.commits[-1], during.fan_out[-1]) == (2, 1)
    assert (after.operation_count, after.operations) == (2, 0)


# --- /metrics ---


@pytest_asyncio.fixture
async def elsewhere(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client on another machine."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=("203.0.113.7", 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://muster.test") as client:
        yield client


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer ", "Bearer \xe9", "Basic let-me-see"])
@pytest.mark.parametrize("token", ["", "let-me-see"])
async def test_other_machines_without_the_token_get_no_metrics(
    elsewhere: httpx.AsyncClient, muster: Muster, monkeypatch: pytest.MonkeyPatch, token: str, header: str
) -> None:
    monkeypatch.setattr(muster, "settings", replace(muster.settings, metrics_token=token))

    answer = await elsewhere.get("/metrics", headers={b"Authorization": header.encode("latin-1")})

    assert problem(answer) == (403, "forbidden")
    assert "muster_connections" not in answer.text


async def test_other_machines_with_the_token_get_the_metrics(
    elsewhere: httpx.AsyncClient, muster: Muster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muster, "settings", replace(muster.settings, metrics_token="let-me-see"))

    answer = await elsewhere.get("/metrics", headers={"Authorization": "Bearer let-me-see"})

    assert answer.status_code == 200
    assert "muster_connections 0.0" in answer.text


async def test_a_login_is_no_token_for_the_metrics(
    elsewhere: httpx.AsyncClient, served: Served, muster: Muster
) -> None:
    token = await served.token("admin")

    answer = await elsewhere.get("/metrics", headers={"Authorization": f"Bearer {token}"})

    assert problem(answer) == (403, "forbidden")


async def test_this_machine_gets_the_metrics_that_are_documented_and_no_others(client_as: As) -> None:
    answer = await (await client_as(None)).get("/metrics")

    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    given = set(re.findall(r"^# TYPE (muster_\w+) (?:counter|gauge|histogram)$", answer.text, re.MULTILINE))
    given = {name for name in given if not name.endswith("_created")}
    documented = set(
        re.findall(r"^\| `(muster_\w+)` \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert given - documented == set()
    assert documented - given - SOMETIMES == set()
    assert {f"muster_alert_{threshold.name}" for threshold in THRESHOLDS} <= documented


async def test_a_class_is_taken_and_the_metrics_tell_nothing_of_a_person(
    served: Served, muster: Muster, client_as: As
) -> None:
    await served.record(served.opening())
    async with served.socket("teacher") as socket:
        await socket.subscribe(served.topic)
        await socket.send({"type": "operations", "id": 2, "operations": [served.marking()]})
        await socket.get("outcomes")
        await socket.send({"type": "Ada Lovelace", "name": "Ada"})  # a label is never what a client said
        await socket.get("error")
        metrics = (await (await client_as("teacher")).get("/metrics")).text

    assert "muster_operations_total 2.0" in metrics and "muster_connections 1.0" in metrics
    assert re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-|@|\d+\.\d+\.\d+\.\d+", metrics) == []
    rows = muster.store.read_now(
        lambda conn: conn.execute(text("SELECT id, given_name, family_name FROM people")).all()
    )
    personal = {str(value) for row in rows for value in row if value}
    personal |= {
        await served.token("teacher"),
        PASSWORD,
        served.klass.meeting_id,
        served.klass.section_id,
        "Lovelace",
    }
    assert [value for value in personal if value in metrics] == []
