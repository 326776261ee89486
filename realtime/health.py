"""Is this process alive, and may it be sent work: /healthz and /readyz."""

from __future__ import annotations

from fastapi import APIRouter, Response

from realtime.api import wire
from realtime.auth import TheMuster

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The event loop turns")
async def healthz() -> Response:
    """200 as long as this process can answer at all."""
    return wire.Json({"status": "ok"})


@router.get("/readyz", summary="Database reachable and migrated, operations being written")
async def readyz(muster: TheMuster) -> Response:
    """200 when everything needed for work is there, else 503 with what is not."""
    checks = {"recorder": muster.recorder.is_running, "database": False}
    try:
        checks["database"] = await muster.store.read(lambda _conn: True) and muster.store.is_current
    except Exception:  # whatever is wrong with the database, the answer is: not ready
        checks["database"] = False
    is_ready = all(checks.values())
    return wire.Json({"status": "ok" if is_ready else "unready", "checks": checks}, 200 if is_ready else 503)
