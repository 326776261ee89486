"""Rosters in and attendance out, as files."""

from __future__ import annotations

import csv
import io
import zipfile
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from domain.ids import new_id
from domain.muster import Muster
from tests.factories import AClass
from tests.realtime.conftest import As, problem

MONTH = {"begin_on": "2026-11-01", "end_on": "2026-11-30"}
ROSTER = (
    "role,given_name,family_name,email,source_id,section_code,section_title\n"
    "teacher,Grace,Hopper,grace@new.school,t-1,7A-IT,Computing 7A\n"
    "student,Zoë,Ångström,zoe@new.school,s-1,7A-IT,Computing 7A\n"
)


def people_count(muster: Muster) -> int:
    count: int = muster.store.read_now(
        lambda conn: conn.execute(text("SELECT count(*) FROM people")).scalar_one()
    )
    return count


async def send(client: httpx.AsyncClient, how: str, data: bytes, **query: Any) -> httpx.Response:
    """Send a roster as the raw body or as a form's file."""
    path = "/api/v1/import/roster"
    if how == "raw":
        return await client.post(path, content=data, params=query)
    return await client.post(path, files={"file": ("roster.csv", data, "text/csv")}, params=query)


# --- In ---


@pytest.mark.parametrize("how", ["raw", "form"])
async def test_a_dry_run_tells_what_would_be_done_and_does_nothing(
    client_as: As, muster: Muster, how: str
) -> None:
    admin = await client_as("admin")
    before = people_count(muster)

    answer = (await send(admin, how, ROSTER.encode())).json()

    assert (answer["is_applied"], answer["form"], answer["error_count"]) == (False, "table", 0)
    assert answer["counts"]["person"]["create"] == 2
    assert any("Zoë Ångström" in str(change) for change in answer["changes"])
    assert people_count(muster) == before


async def test_an_import_is_done_when_asked_and_only_once(client_as: As, muster: Muster) -> None:
    admin = await client_as("admin")
    before = people_count(muster)

    first = (await send(admin, "form", ROSTER.encode(), dry_run=False)).json()
    again = (await send(admin, "form", ROSTER.encode(), dry_run=False)).json()

    assert first["is_applied"] is again["is_applied"] is True
    assert people_count(muster) == before + 2
    assert again["counts"]["person"]["create"] == 0
    sections = (await admin.get("/api/v1/sections")).json()["sections"]
    assert "7A-IT" in {section["code"] for section in sections}


async def test_bad_rows_stop_an_import_and_are_listed_by_line(client_as: As, muster: Muster) -> None:
    admin = await client_as("admin")
    bad = ROSTER + "wizard,Merlin,,,w-1,7A-IT,Computing 7A\n"
    before = people_count(muster)

    refused = await send(admin, "raw", bad.encode(), dry_run=False)
    assert problem(refused) == (409, "roster_has_errors")
    assert [p["line"] for p in refused.json()["problems"] if p["severity"] == "error"] == [4]
    assert people_count(muster) == before

    skipped = (await send(admin, "raw", bad.encode(), dry_run=False, skip_bad_rows=True)).json()
    assert skipped["skipped_count"] == 1
    assert people_count(muster) == before + 2


async def test_an_import_that_deactivates_somebody_logs_them_out(
    client_as: As, muster: Muster, klass: AClass
) -> None:
    admin, teacher = await client_as("admin"), await client_as("teacher")
    muster.store.write_now(
        lambda conn: conn.execute(
            text("UPDATE people SET source_id = 't-9' WHERE id = :id"), {"id": klass.teachers[0]}
        )
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("classes.csv", "sourcedId,title,classCode\nc-1,Art,ART-1\n")
        zipped.writestr("enrollments.csv", "sourcedId,classSourcedId,userSourcedId,role\n")
        zipped.writestr(
            "users.csv",
            "sourcedId,status,dateLastModified,enabledUser,orgSourcedIds,role,username,givenName,familyName,email\n"
            "t-9,tobedeleted,,false,o,teacher,t,Teacher 1,Test,teacher@test.school\n",
        )

    answer = await admin.post(
        "/api/v1/import/oneroster",
        content=archive.getvalue(),
        params={"dry_run": False, "skip_bad_rows": True},
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["form"] == "oneroster"
    assert problem(await teacher.get("/api/v1/me")) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff\xfe", b"PK\x03\x04 not a zip", b'"' * 5000, b"a,b,c\n" * 3, "role\n\u202e".encode()],
    ids=["nothing", "no text", "no zip", "quotes", "unknown columns", "turned text"],
)
@pytest.mark.parametrize("how", ["raw", "form"])
async def test_a_file_that_is_no_roster_is_told_so_and_changes_nothing(
    client_as: As, muster: Muster, data: bytes, how: str
) -> None:
    admin = await client_as("admin")
    before = people_count(muster)

    dry = await send(admin, how, data)
    refused = await send(admin, how, data, dry_run=False)

    assert dry.status_code == 200
    assert dry.json()["error_count"] > 0 and dry.json()["problems"][0]["message"]
    assert problem(refused)[0] == 409
    assert people_count(muster) == before


async def test_a_form_without_a_file_or_a_torn_one_is_refused(client_as: As) -> None:
    admin = await client_as("admin")
    path = "/api/v1/import/roster"

    no_file = await admin.post(path, files={"note": (None, b"hello")})
    torn = await admin.post(
        path, content=b"--x\r\nContent-Dis", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    unbound = await admin.post(path, content=b"x", headers={"Content-Type": "multipart/form-data"})
    many = await admin.post(path, files=[("file", (f"{n}.csv", b"x")) for n in range(3)])

    assert problem(no_file) == (422, "invalid")
    for answer in (torn, unbound, many):
        assert problem(answer)[0] in (400, 422)


# --- Out ---


async def test_attendance_comes_out_as_a_file_without_formulas(
    client_as: As, muster: Muster, klass: AClass
) -> None:
    formula = '=HYPERLINK("https://evil.test")'
    muster.store.write_now(
        lambda conn: conn.execute(
            text("UPDATE people SET given_name = :n, family_name = '' WHERE id = :id"),
            {"n": formula, "id": klass.students[0]},
        )
    )
    teacher = await client_as("teacher")
    here = {"meeting_id": klass.meeting_id}
    operations = [
        {"id": new_id(), "kind": "open_meeting", **here},
        {
            "id": new_id(),
            "kind": "mark",
            **here,
            "student_id": klass.students[0],
            "status": "absent",
            "remark": "@SUM(1)",
        },
    ]
    await teacher.post("/api/v1/operations", json={"operations": operations})

    answer = await teacher.get("/api/v1/export/attendance.csv", params=MONTH)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="attendance-2026-11-01-2026-11-30.csv"' in answer.headers["content-disposition"]
    assert answer.content.startswith(b"\xef\xbb\xbf")
    [row] = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert (row["status"], row["start"]) == ("absent", "10:00")
    assert row["student_name"] == "'" + formula
    assert row["remark"] == "'@SUM(1)"


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"begin_on": "2026-11-30", "end_on": "2026-11-01"},
        {"begin_on": "x", "end_on": "2026-11-01"},
        MONTH | {"begin_on": "2026-02-30"},
    ],
)
async def test_a_span_that_is_none_is_refused(client_as: As, query: dict[str, str]) -> None:
    teacher = await client_as("teacher")

    assert problem(await teacher.get("/api/v1/export/attendance.csv", params=query)) == (422, "invalid")
