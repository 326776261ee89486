"""What goes in and out as files: rosters in, attendance out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection
from starlette.datastructures import UploadFile

from domain import export, roster_import, school
from domain.muster import Muster
from domain.roster_import import ImportPlan
from realtime.api import shapes, wire
from realtime.auth import Admin, TheMuster, Visitor
from realtime.problems import Problem

router = APIRouter(prefix=wire.PREFIX, tags=["files"])


class Csv(Response):
    """A table for spreadsheets."""

    media_type = "text/csv; charset=utf-8"


@router.get(
    "/export/attendance.csv",
    summary="Attendance as CSV, of what I may see",
    response_class=Csv,
    responses={403: {}},
)
async def export_attendance(
    visitor: Visitor,
    muster: TheMuster,
    begin_on: Annotated[date, Query(description="local date, inclusive")],
    end_on: Annotated[date, Query(description="local date, inclusive")],
    section_id: str | None = None,
    student_id: str | None = None,
) -> Response:
    """UTF-8 with a byte order mark; cells that a spreadsheet would run as a formula are disarmed."""

    def work(conn: Connection) -> str:
        found = school.read_school(conn)
        rows = export.attendance_rows(
            conn,
            section_id=section_id,
            student_id=student_id,
            begin_on=begin_on,
            end_on=end_on,
            zone=found.zone if found else "UTC",
            viewer=visitor.author,
            now=muster.clock.now(),
        )
        lines: Iterator[str] = export.to_csv(rows)
        return "".join(lines)

    text = await muster.store.read(work)
    name = f"attendance-{begin_on}-{end_on}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Csv(text.encode(), headers=headers)


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": shapes.ImportReport},
    400: {},
    403: {},
    409: {},
    413: {},
    422: {},
}
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/import/roster",
    summary="Import people and classes from one CSV",
    openapi_extra=_UPLOAD,
    responses=_ANSWERS,
)
@router.post(
    "/import/oneroster", summary="Import a OneRoster CSV zip", openapi_extra=_UPLOAD, responses=_ANSWERS
)
async def import_roster(
    request: Request,
    visitor: Admin,
    muster: TheMuster,
    dry_run: Annotated[bool, Query(description="only say what would be done")] = True,
    skip_bad_rows: bool = False,
) -> Response:
    """Every problem by file and line, and what changes. Writes only with ``dry_run=false``; 409 when there
    are errors and ``skip_bad_rows`` is not set."""
    data, filename = await _uploaded(request)
    now = muster.clock.now()
    plan = await muster.store.read(
        lambda conn: roster_import.plan_import(conn, visitor.author, data, filename=filename, now=now)
    )
    if dry_run:
        return wire.Json(_shown(plan, is_applied=False))
    return await _apply(muster, visitor, plan, skip_bad_rows)


async def _apply(muster: Muster, visitor: Admin, plan: ImportPlan, skip_bad_rows: bool) -> Response:
    now = muster.clock.now()
    try:
        result = await muster.store.write(
            lambda conn: roster_import.apply_import(
                conn, visitor.author, plan, now=now, skip_bad_rows=skip_bad_rows
            )
        )
    except roster_import.ImportRefused as refused:
        raise Problem(
            409, refused.message, code=refused.code, problems=wire.plain(plan.problems)
        ) from refused
    muster.logins.tell_ended(result.ended_logins)
    return wire.Json(_shown(plan, is_applied=True) | {"skipped_count": result.skipped_count})


def _shown(plan: ImportPlan, *, is_applied: bool) -> dict[str, Any]:
    return {
        "is_applied": is_applied,
        "form": plan.form,
        "error_count": plan.error_count,
        "warning_count": plan.warning_count,
        "problems": wire.plain(plan.problems),
        "counts": wire.plain(plan.counts),
        "changes": wire.plain(plan.changes[:1000]),
    }


async def _uploaded(request: Request) -> tuple[bytes, str]:
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=5) as form:
            file = next((value for value in form.values() if isinstance(value, UploadFile)), None)
            if file is None:
                raise Problem(422, "The form has no file in it.", code="invalid")
            return await file.read(), file.filename or "upload"
    name = "upload.zip" if request.url.path.endswith("/oneroster") else "upload.csv"
    return await request.body(), name
