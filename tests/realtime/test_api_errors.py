"""Whatever comes in, a clear error goes out: problem details with a code, no trace in the data, no 500."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from domain.ids import new_id
from domain.model import Kind, Status, Via
from domain.muster import Muster
from domain.operations import Operation
from tests.factories import AClass
from tests.realtime.conftest import As, problem

TABLES = (
    "operations",
    "records",
    "events",
    "meetings",
    "parked_operations",
    "people",
    "sections",
    "enrolments",
    "register_taken",
)


def contents(muster: Muster, tables: Iterable[str] = TABLES) -> dict[str, list[Any]]:
    """Every row of each table."""
    return muster.store.read_now(
        lambda conn: {
            name: list(conn.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2"))) for name in tables
        }
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "bad_json")),
        (b"{", (400, "bad_json")),
        (b"\xff\xfe\x00", (400, "bad_json")),
        (b"NaN", (400, "bad_json")),
        (b"[" * 100_000, (400, "bad_json")),
        (b"[]", (422, "invalid")),
        (b'"operations"', (422, "invalid")),
        (b'{"operations": 7}', (422, "invalid")),
        (b'{"operations": [' + b",".join([b"{}"] * 501) + b"]}", (422, "too_many_operations")),
        (b"x" * 10_000_000, (413, "too_large")),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_body_that_is_no_batch_is_refused_whole(
    client_as: As, muster: Muster, body: bytes, expected: tuple[int, str]
) -> None:
    client = await client_as("teacher")
    before = contents(muster)

    answer = await client.post("/api/v1/operations", content=body)

    assert problem(answer) == expected
    assert contents(muster) == before


async def test_a_body_that_grows_without_saying_so_is_cut_off(client_as: As) -> None:
    client = await client_as("teacher")

    async def endless() -> Any:
        for _ in range(100):
            yield b"x" * 65536

    assert problem(await client.post("/api/v1/operations", content=endless())) == (413, "too_large")


async def test_gzip_is_taken_and_a_bomb_is_not(client_as: As) -> None:
    client = await client_as("teacher")
    packed = {"Content-Encoding": "gzip"}

    good = await client.post(
        "/api/v1/operations", content=gzip.compress(b'{"operations": []}'), headers=packed
    )
    bomb = await client.post("/api/v1/operations", content=gzip.compress(b" " * 50_000_000), headers=packed)
    cut = await client.post("/api/v1/operations", content=gzip.compress(b"{}")[:-4], headers=packed)
    nonsense = await client.post("/api/v1/operations", content=b"nonsense", headers=packed)
    other = await client.post("/api/v1/operations", content=b"{}", headers={"Content-Encoding": "br"})

    assert good.json()["outcomes"] == []
    assert [problem(a)[0] for a in (bomb, cut, nonsense, other)] == [413, 400, 400, 415]


async def test_a_bad_operation_is_answered_by_itself_and_names_its_fault(
    client_as: As, klass: AClass
) -> None:
    client = await client_as("teacher")
    good = {
        "id": "01939f2e-7c00-7000-8000-000000000001",
        "kind": "open_meeting",
        "meeting_id": klass.meeting_id,
    }
    bad = [
        7,
        {},
        {"id": "x"},
        good | {"id": "01939f2e-7c00-7000-8000-000000000002", "kind": "explode"},
        good | {"id": "01939f2e-7c00-7000-8000-000000000003", "late_after_min": 900},
        good | {"id": "01939f2e-7c00-7000-8000-000000000004", "captured_at": "yesterday"},
        good | {"id": "01939f2e-7c00-7000-8000-000000000005", "meeting_id": ["a"]},
    ]

    answer = await client.post("/api/v1/operations", json={"operations": [*bad, good]})

    outcomes = answer.json()["outcomes"]
    assert [o["outcome"] for o in outcomes] == ["rejected"] * 7 + ["accepted"]
    assert {o["code"] for o in outcomes[:7]} == {"invalid"}
    assert "late_after_min must be 0-240, got 900" in outcomes[4]["hint"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/nothing", (404, "not_found")),
        ("GET", "/api/v1/push/key", (404, "not_found")),
        ("PATCH", "/api/v1/operations", (405, "method_not_allowed")),
        ("GET", "/api/v1/meetings/not-a-uuid", (404, "not_found")),
        ("GET", "/api/v1/meetings/00000000-0000-4000-8000-000000000000", (404, "not_found")),
        ("GET", "/api/v1/meetings?on=tomorrow", (422, "invalid")),
        ("GET", "/api/v1/meetings?on=99999-01-01", (422, "invalid")),
        ("GET", "/api/v1/sections/'%20OR%201=1--/meetings", (404, "not_found")),
        ("GET", "/api/v1/export/attendance.csv", (422, "invalid")),
        ("DELETE", "/api/v1/me/logins/nobody", (404, "not_found")),
    ],
)
async def test_a_wrong_address_or_query_is_answered_as_a_problem(
    client_as: As, method: str, path: str, expected: tuple[int, str]
) -> None:
    client = await client_as("teacher")

    assert problem(await client.request(method, path)) == expected


async def test_login_bodies_of_any_shape_are_answered_as_problems(client_as: As) -> None:
    client = await client_as(None)
    statuses = []
    for body in (b"", b"{", b"[]", b'{"email": 7, "password": []}', b'{"email": "a@b.c"}'):
        answer = await client.post(
            "/api/v1/login", content=body, headers={"Content-Type": "application/json"}
        )
        statuses.append(problem(answer)[0])

    assert statuses == [422] * 5


async def test_sql_and_html_in_names_stay_what_they_are(client_as: As, klass: AClass, muster: Muster) -> None:
    nasty = "Robert'); DROP TABLE people;-- <script>alert(1)</script>"
    muster.store.write_now(
        lambda conn: conn.execute(
            text("UPDATE people SET given_name = :n WHERE id = :id"), {"n": nasty, "id": klass.students[0]}
        )
    )
    client = await client_as("teacher")

    roster = (await client.get(f"/api/v1/meetings/{klass.meeting_id}")).json()["roster"]

    assert nasty in [row["name"].removesuffix(" Test") for row in roster]


async def test_an_unforeseen_error_tells_nothing_but_its_number(
    client_as: As, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await client_as("teacher")

    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("realtime.api.meetings.register.meetings_on", explode)

    answer = await client.get("/api/v1/meetings")

    assert problem(answer) == (500, "internal")
    assert "hunter2" not in answer.text


# --- Whatever can be thought of ---

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_operations = st.dictionaries(st.sampled_from(list(Operation.__dataclass_fields__)), _json, max_size=8)
fuzz = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(body=_json | st.builds(lambda ops: {"operations": ops}, st.lists(_operations | _json, max_size=5)))
async def test_no_json_ever_gives_a_500_or_changes_anything(client_as: As, muster: Muster, body: Any) -> None:
    client = await _kept(client_as, "teacher")
    before = contents(muster)

    answer = await client.post(
        "/api/v1/operations", content=json.dumps(body).encode("utf-8", "surrogatepass")
    )

    assert answer.status_code in (200, 400, 422)
    assert contents(muster) == before


@fuzz
@given(
    body=st.binary(max_size=200) | st.binary(max_size=200).map(gzip.compress),
    encoding=st.sampled_from(["identity", "gzip", "GZIP", "gzip, gzip", "br", ""]),
)
async def test_no_bytes_ever_give_a_500_or_change_anything(
    client_as: As, muster: Muster, body: bytes, encoding: str
) -> None:
    client = await _kept(client_as, "teacher")
    before = contents(muster)

    answer = await client.post("/api/v1/operations", content=body, headers={"Content-Encoding": encoding})

    assert answer.status_code in (200, 400, 413, 415, 422)
    assert contents(muster) == before


_NAMES = ("meeting", "section", "student", "own", "nobody")
_fields = st.fixed_dictionaries(
    {"kind": st.sampled_from(list(Kind)), "meeting_id": st.sampled_from(_NAMES)},
    optional={
        "student_id": st.sampled_from(_NAMES),
        "section_id": st.sampled_from(_NAMES),
        "reverts": st.sampled_from(_NAMES),
        "status": st.sampled_from(list(Status)),
        "via": st.sampled_from(list(Via)),
        "proof": st.text(min_size=1, max_size=40),
        "code": st.sampled_from(["P", "A", "L", "?"]),
        "remark": st.text(min_size=1, max_size=40),
        "minutes_late": st.integers(0, 600),
        "final": st.booleans(),
        "captured_at": st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2099, 12, 31)).map(
            lambda at: at.isoformat() + "Z"
        ),
        "scheduled_start": st.just("2026-11-23T10:00:00Z"),
        "scheduled_end": st.just("2026-11-23T11:00:00Z"),
        "late_after_min": st.integers(0, 240),
        "seen_seq": st.integers(0, 2**53),
        "device_seq": st.integers(0, 2**53),
        "clock_offset_ms": st.integers(-(2**53), 2**53),
    },
)


@fuzz
@given(
    operations=st.lists(_fields, min_size=1, max_size=6), who=st.sampled_from(["stranger", "foreign student"])
)
async def test_no_operation_of_a_stranger_changes_attendance(
    client_as: As, muster: Muster, klass: AClass, operations: list[dict[str, Any]], who: str
) -> None:
    client = await _kept(client_as, who)
    ids = {
        "meeting": klass.meeting_id,
        "section": klass.section_id,
        "student": klass.students[0],
        "own": klass.extra[who],
        "nobody": "00000000-0000-4000-8000-000000000000",
    }
    named = [{"id": new_id()} | {k: ids.get(v, v) for k, v in op.items()} for op in operations]
    # Failed check-ins are told to the teacher, and an id that is no meeting's may yet become one's.
    attendance = [name for name in TABLES if name not in ("events", "parked_operations")]
    before = contents(muster, attendance)

    answer = await client.post("/api/v1/operations", json={"operations": named})

    assert answer.status_code == 200
    assert {outcome["outcome"] for outcome in answer.json()["outcomes"]} <= {"rejected", "parked"}
    assert contents(muster, attendance) == before


@fuzz
@given(
    template=st.sampled_from(
        [
            "/meetings/{}",
            "/meetings/{}/codes",
            "/meetings/{}/events",
            "/meetings/{}/records/{}",
            "/meetings?on={}",
            "/sections/{}/meetings?begin_on={}&days={}",
            "/me/record?student_id={}&days={}",
            "/export/attendance.csv?begin_on={}&end_on={}",
            "/export/attendance.csv?begin_on=2026-11-01&end_on=2026-11-02&section_id={}&student_id={}",
            "/{}",
        ]
    ),
    value=st.text(max_size=40) | st.dates().map(str) | st.integers().map(str) | st.uuids().map(str),
    method=st.sampled_from(["GET", "GET", "GET", "DELETE", "PUT"]),
)
async def test_no_address_ever_gives_a_500(client_as: As, template: str, value: str, method: str) -> None:
    client = await _kept(client_as, "teacher")
    filled = quote(value, safe="")

    answer = await client.request(method, "/api/v1" + template.format(filled, filled, filled))

    assert answer.status_code < 500
    if answer.status_code >= 400:
        problem(answer)


_clients: dict[tuple[int, str], httpx.AsyncClient] = {}


async def _kept(client_as: As, who: str) -> httpx.AsyncClient:
    """One client for all examples of a test: logging in takes longer than they do."""
    key = (id(client_as), who)
    if key not in _clients:
        for other in [kept for kept in _clients if kept[0] != id(client_as)]:
            del _clients[other]
        _clients[key] = await client_as(who)
    return _clients[key]
