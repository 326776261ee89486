"""Whatever comes in, a clear error goes out: problem details with a code, no trace in the data, no 500."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

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
)


def contents(muster: Muster) -> dict[str, int]:
    """How many rows each table holds."""
    return muster.store.read_now(
        lambda conn: {
            name: conn.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in TABLES
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


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_operations = st.dictionaries(st.sampled_from(list(Operation.__dataclass_fields__)), _json, max_size=8)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=_json | st.builds(lambda ops: {"operations": ops}, st.lists(_operations | _json, max_size=5)))
async def test_no_json_ever_gives_a_500_or_changes_anything(client_as: As, muster: Muster, body: Any) -> None:
    client = await _fuzzing_client(client_as)
    before = contents(muster)

    answer = await client.post(
        "/api/v1/operations", content=json.dumps(body).encode("utf-8", "surrogatepass")
    )

    assert answer.status_code in (200, 400, 422)
    assert contents(muster) == before


_clients: dict[int, httpx.AsyncClient] = {}


async def _fuzzing_client(client_as: As) -> httpx.AsyncClient:
    if id(client_as) not in _clients:
        _clients.clear()
        _clients[id(client_as)] = await client_as("teacher")
    return _clients[id(client_as)]
