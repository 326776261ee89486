"""The outer application: the API, health, and the guard around everything, pages included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from domain.muster import Muster
from realtime import health, problems
from realtime.api import meetings, operations, session, transfer
from realtime.description import describe
from realtime.problems import Problem
from realtime.realtime import Realtime
from realtime.security import Guard
from realtime.wire import PATH

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def create_app(muster: Muster, realtime: Realtime, *, lifespan: Lifespan | None = None) -> FastAPI:
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
    app.state.muster, app.state.realtime = muster, realtime
    problems.install(app)
    app.add_middleware(
        Guard,
        find_login=muster.logins.find,
        public_url=muster.settings.public_url,
        node=muster.settings.node,
        sockets={PATH: realtime.gateway},
    )
    # Routes are tried in order: first what thirty students ask for in the same second.
    for part in (operations, session, meetings, transfer, health):
        app.include_router(part.router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.router.routes.append(Route("/api/{path:path}", _NothingHere(tuple(app.routes))))
    return app


class _NothingHere:
    """What the API does not know, by any method: 405 or 404. Else it would reach the pages, mounted at /."""

    def __init__(self, known: Sequence[BaseRoute]) -> None:
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = ", ".join(
            method
            for method in _METHODS
            if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in self._known)
        )
        if not allowed:
            raise problems.not_found()
        response = Problem(405, f"{scope['method']} is not allowed here, only {allowed}.").response(scope)
        response.headers["Allow"] = allowed
        await response(scope, receive, send)
