"""POST /operations: the one door for every change to attendance, from outside (protocol §1)."""

from __future__ import annotations

import zlib
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from domain.clock import format_instant
from domain.operations import InvalidOperation, Operation, parse
from realtime.api import shapes, wire
from realtime.api.shapes import MAX_OPERATIONS
from realtime.auth import TheMuster, Visitor
from realtime.problems import Problem
from realtime.security import address_of

router = APIRouter(prefix=wire.PREFIX, tags=["operations"])
MAX_INFLATED = 4 * 1024 * 1024
_MEETING = "019ab69f-0000-7000-8000-000000000001"


def _an_example(summary: str, **operation: Any) -> dict[str, Any]:
    said = {"id": "019ab6a0-5f2a-7c11-9d7e-1f0b6d1c2a33", "meeting_id": _MEETING}
    return {"summary": summary, "value": {"operations": [said | operation]}}


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Operations"},
                "examples": {
                    "open": _an_example("Open a meeting that is in the timetable", kind="open_meeting"),
                    "check_in": _an_example(
                        "Check in by QR",
                        kind="check_in",
                        captured_at="2026-11-23T09:01:02.345Z",
                        clock_offset_ms=0,
                        via="qr",
                        proof=f"{_MEETING}.119695560.6NXQ9AOazkSA7K6eJH84pw",
                    ),
                    "mark": _an_example(
                        "Mark a student late",
                        kind="mark",
                        student_id="019ab69e-0000-7000-8000-000000000007",
                        status="late",
                        minutes_late=7,
                        seen_seq=41,
                    ),
                    "close": _an_example(
                        "Close; the unmarked become absent", kind="close_meeting", final=True
                    ),
                },
            }
        },
    }
}


@router.post(
    "/operations",
    summary="Record operations; each is answered by itself",
    openapi_extra=_BODY,
    responses={
        200: {"model": shapes.Outcomes, "description": "One outcome each, in order, when they are durable"},
        400: {},
        403: {},
        413: {},
        415: {},
        422: {},
        503: {},
    },
)
async def record(request: Request, visitor: Visitor, muster: TheMuster) -> Response:
    """At most 500 a call, also gzipped (Content-Encoding). One bad operation never spoils its neighbours."""
    document = _parsed(await _inflated(request))
    if not isinstance(document, dict) or not isinstance(document.get("operations"), list):
        raise Problem(422, 'The body must be {"operations": [...]}.', code="invalid")
    raw = document["operations"]
    if len(raw) > MAX_OPERATIONS:
        raise Problem(
            422,
            f"At most {MAX_OPERATIONS} operations at a time, got {len(raw)}.",
            code="too_many_operations",
            hint="Send them in several calls.",
        )
    outcomes = await muster.recorder.record(
        [_operation(item) for item in raw], visitor.author, address=address_of(request)
    )
    answer = {
        "outcomes": [outcome.as_dict() for outcome in outcomes],
        "server_time": format_instant(muster.clock.now()),
    }
    return Response(orjson.dumps(answer), media_type="application/json")


def _operation(item: object) -> Operation | InvalidOperation:
    try:
        return parse(item)
    except InvalidOperation as invalid:
        return invalid


async def _inflated(request: Request) -> bytes:
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise Problem(415, f"Content-Encoding must be gzip or absent, got {encoding[:40]!r}.")
    return await run_in_threadpool(_gunzipped, body)


def _gunzipped(body: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(body, MAX_INFLATED)
    except zlib.error as error:
        raise Problem(400, f"The body is not gzip: {error}.", code="bad_gzip") from error
    if inflater.unconsumed_tail or not inflater.eof:
        if len(inflated) >= MAX_INFLATED:
            raise Problem(413, f"The body inflates to more than {MAX_INFLATED // 1024} KiB.")
        raise Problem(400, "The gzip body is cut off.", code="bad_gzip")
    return inflated


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"The body is not JSON: {error}.", code="bad_json") from error
