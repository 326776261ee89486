"""Is this process alive, and may it be sent work: /healthz and /readyz."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, Response

from domain.school import read_school
from realtime.api import shapes, wire
from realtime.auth import TheMuster

router = APIRouter(tags=["health"])
TIMEOUT_S = 5.0
log = logging.getLogger("muster.health")


@router.get("/healthz", summary="The event loop turns", responses={200: {"model": shapes.Health}})
async def healthz() -> Response:
    """200 as long as this process can answer at all."""
    return wire.Json({"status": "ok"})


@router.get(
    "/readyz",
    summary="Database reachable and migrated, operations being written",
    responses={200: {"model": shapes.Readiness}, 503: {"model": shapes.Readiness}},
)
async def readyz(muster: TheMuster) -> Response:
    """200 when everything needed for work is there, else 503 with what is not."""
    checks = {"recorder": muster.recorder.is_running, "database": False}
    try:
        # A transaction alone opens no file: something has to be read.
        await asyncio.wait_for(muster.store.read(read_school), TIMEOUT_S)
        checks["database"] = muster.store.is_current
    except Exception:  # whatever is wrong with the database, the answer is: not ready
        log.exception("the database could not be read")
    is_ready = all(checks.values())
    return wire.Json({"status": "ok" if is_ready else "unready", "checks": checks}, 200 if is_ready else 503)
