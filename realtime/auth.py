"""Who is asking: the login cookie or a bearer token, the same log-ins for pages, API and sockets."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request, Response
from starlette.requests import HTTPConnection

from domain.hints import HINTS
from domain.login_rows import LoginView
from domain.muster import Muster
from realtime.hub import Hub
from realtime.problems import Problem, unauthenticated
from realtime.realtime import Realtime
from realtime.security import COOKIE, token_of

#: Browsers keep a cookie 400 days at most (RFC 6265bis §5.5); how long a login lasts, the server says.
_COOKIE_LIFE_S = 400 * 24 * 3600


def muster_of(connection: HTTPConnection) -> Muster:
    """The running domain."""
    return cast(Muster, connection.app.state.muster)


def hub_of(connection: HTTPConnection) -> Hub:
    """The hub of this process."""
    return realtime_of(connection).hub


def realtime_of(connection: HTTPConnection) -> Realtime:
    """The real-time room of this process."""
    return cast(Realtime, connection.app.state.realtime)


def is_https(connection: HTTPConnection, muster: Muster) -> bool:
    """Whether browsers reach us over TLS, also when a proxy ends it: then cookies are for TLS only."""
    return connection.url.scheme == "https" or muster.settings.public_url.startswith("https://")


def set_login_cookie(response: Response, connection: HTTPConnection, muster: Muster, token: str) -> None:
    """Log the browser in: scripts cannot read it, other sites' forms do not carry it."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=_COOKIE_LIFE_S,
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_https(connection, muster),
    )


def forget_login_cookie(response: Response) -> None:
    """Log the browser out; the login itself is ended by ``muster.logins``."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")


async def visitor_of(request: Request) -> LoginView:
    """Who is asking. Raises Problem 401."""
    found = await muster_of(request).logins.find(token_of(request))
    if found is None:
        raise unauthenticated()
    return found


async def admin_of(request: Request) -> LoginView:
    """An admin who is asking. Raises Problem 401 or 403. The domain asks again in its transaction."""
    visitor = await visitor_of(request)
    if visitor.role != "admin":
        raise Problem(403, "Only an admin may do this.", hint=HINTS["forbidden"])
    return visitor


# Coroutines, since FastAPI sends plain functions to a thread: on the hot path the longest way of all.
async def _muster(connection: HTTPConnection) -> Muster:
    return muster_of(connection)


async def _hub(connection: HTTPConnection) -> Hub:
    return hub_of(connection)


async def _realtime(connection: HTTPConnection) -> Realtime:
    return realtime_of(connection)


Visitor = Annotated[LoginView, Depends(visitor_of)]
Admin = Annotated[LoginView, Depends(admin_of)]
TheMuster = Annotated[Muster, Depends(_muster)]
TheHub = Annotated[Hub, Depends(_hub)]
TheRealtime = Annotated[Realtime, Depends(_realtime)]
