"""The outer application: the API, health, and the guard around everything, pages included."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.routing import Match

from domain.muster import Muster
from realtime import health, problems
from realtime.api import meetings, operations, session, transfer
from realtime.hub import Hub
from realtime.problems import Problem
from realtime.security import Guard

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
_ANYTHING = "/api/{path:path}"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def create_app(muster: Muster, hub: Hub, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The application without pages; ui.app.install adds them, last, since they are mounted at /."""
    app = FastAPI(
        title="Muster",
        version="1",
        description="Live student attendance. Log in with POST /api/v1/login; errors are RFC 9457 problem details.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # its pages come from elsewhere; the description itself is what tools need
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.muster, app.state.hub = muster, hub
    problems.install(app)
    app.add_middleware(Guard, public_url=muster.settings.public_url)
    app.include_router(health.router)
    api = APIRouter(prefix="/api/v1")
    for part in (session, meetings, operations, transfer):
        api.include_router(part.router)
    app.include_router(api)
    app.add_api_route(_ANYTHING, _nothing_here, methods=_METHODS, include_in_schema=False)
    return app


async def _nothing_here(request: Request) -> Response:
    """The pages are mounted at /, so what the API does not know is answered here: 405 or 404."""
    routes = [route for route in request.app.routes if getattr(route, "path", "") != _ANYTHING]
    allowed = [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    if allowed:
        problem = Problem(405, f"{request.method} is not allowed here, only {', '.join(allowed)}.")
        response = problem.response(request.scope)
        response.headers["Allow"] = ", ".join(allowed)
        return response
    raise problems.not_found()
