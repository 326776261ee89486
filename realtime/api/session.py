"""Logging in and out, and what is one's own: /login, /logout, /me."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from domain.clock import format_instant
from realtime.api import shapes, wire
from realtime.auth import TheMuster, Visitor, forget_login_cookie, set_login_cookie
from realtime.problems import not_found
from realtime.security import address_of

router = APIRouter(prefix=wire.PREFIX, tags=["log-in"])


@router.post(
    "/login",
    summary="Log in: gives a bearer token and sets the cookie",
    responses={200: {"model": shapes.Granted}, 401: {}, 403: {}, 429: {}},
)
async def log_in(credentials: shapes.Credentials, request: Request, muster: TheMuster) -> Response:
    """``token`` goes into ``Authorization: Bearer``; browsers use the cookie that is set too."""
    granted = await muster.logins.log_in(
        credentials.email,
        credentials.password,
        address=address_of(request),
        device=request.headers.get("user-agent", ""),
    )
    response = wire.Json(
        {
            "token": granted.token,
            "expires_at": format_instant(granted.login.expires_at),
            "user": wire.user(granted.login),
        }
    )
    set_login_cookie(response, request, muster, granted.token)
    return response


@router.post("/logout", status_code=204, summary="End this login")
async def log_out(visitor: Visitor, muster: TheMuster) -> Response:
    """The token is worthless afterwards, everywhere."""
    await muster.logins.revoke(visitor.login_id, visitor.author)
    response = Response(status_code=204)
    forget_login_cookie(response)
    return response


@router.get("/me", summary="Who I am, and where I am logged in", responses={200: {"model": shapes.Me}})
async def me(visitor: Visitor, muster: TheMuster) -> Response:
    """The person, and every login that still holds; ``is_current`` is the one that asks."""
    logins = await muster.logins.logins_of(visitor.person_id, visitor.login_id)
    return wire.Json(
        {
            "user": wire.user(visitor),
            "logins": logins,
            "expires_at": visitor.expires_at,
            "server_time": muster.clock.now(),
        }
    )


@router.delete("/me/logins/{login_id}", status_code=204, summary="End one of my log-ins", responses={404: {}})
async def end_login(login_id: str, visitor: Visitor, muster: TheMuster) -> Response:
    """That browser or program is logged out at once."""
    own = await muster.logins.logins_of(visitor.person_id)
    if login_id not in {login.id for login in own}:
        raise not_found()
    await muster.logins.revoke(login_id, visitor.author)
    return Response(status_code=204)


@router.post(
    "/me/password",
    status_code=204,
    summary="Change my password; all my other log-ins end",
    responses={429: {}},
)
async def change_password(passwords: shapes.NewPassword, visitor: Visitor, muster: TheMuster) -> Response:
    """401 when ``old`` is wrong, 422 when ``new`` is too weak."""
    await muster.logins.change_password(
        visitor.person_id, passwords.old, passwords.new, keep_login_id=visitor.login_id
    )
    return Response(status_code=204)
