"""Is this process alive, may it be sent work, and what does it do: /healthz, /readyz, /metrics."""

from __future__ import annotations

import ipaddress
import secrets

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from realtime.api import shapes, wire
from realtime.auth import TheMuster, TheRealtime
from realtime.metrics import CONTENT_TYPE
from realtime.problems import Problem
from realtime.security import address_of, token_of

router = APIRouter(tags=["health"])


class _Exposition(PlainTextResponse):
    media_type = CONTENT_TYPE


@router.get("/healthz", summary="The event loop turns", responses={200: {"model": shapes.Health}})
async def healthz() -> Response:
    """200 as long as this process can answer at all."""
    return wire.Json({"status": "ok"})


@router.get(
    "/readyz",
    summary="Database reachable and migrated, operations being written, the log being followed, not draining",
    responses={200: {"model": shapes.Readiness}, 503: {"model": shapes.Readiness}},
)
async def readyz(realtime: TheRealtime) -> Response:
    """200 when everything needed for work is there, else 503 with what is not. Redis is not needed."""
    checks = realtime.vitals.checks | {"database": await realtime.vitals.has_database()}
    is_ready = all(checks.values())
    return wire.Json({"status": "ok" if is_ready else "unready", "checks": checks}, 200 if is_ready else 503)


@router.get(
    "/metrics",
    summary="What this process does, for Prometheus",
    response_class=_Exposition,
    responses={403: {}},
)
async def metrics(request: Request, muster: TheMuster, realtime: TheRealtime) -> Response:
    """From this machine, or with the token of MUSTER_METRICS_TOKEN as a bearer token."""
    token, given = muster.settings.metrics_token, token_of(request) or ""
    is_theirs = bool(token) and secrets.compare_digest(token.encode(), given.encode())
    if not (_is_here(address_of(request)) or is_theirs):
        raise Problem(
            403,
            "Metrics are given to this machine, or for the token of MUSTER_METRICS_TOKEN.",
            hint="Ask from the machine itself or send the token as Authorization: Bearer.",
        )
    return _Exposition(realtime.metrics.text())


def _is_here(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
