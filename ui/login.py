"""/login and /logout: a plain form, so that password managers work and a dead socket hinders nobody."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from domain.demo import DEMO_PASSWORD
from domain.logins import LoginRefused, LoginView
from domain.model import Role
from domain.muster import Muster
from realtime.auth import forget_login_cookie, set_login_cookie
from realtime.security import COOKIE, address_of
from ui import plain
from ui.answers import rate_limited

_MAX_FORM_BYTES = 8_192
_MAX_NEXT = 500
_HOMES = {
    Role.ADMIN: "/admin",
    Role.TEACHER: "/teacher",
    Role.STUDENT: "/student",
    Role.GUARDIAN: "/guardian",
}
_SENTENCES = {
    "invalid_credentials": "E-mail or password is wrong. Check both and try again.",
    "too_large": "That is too long for an e-mail and a password. Try again.",
    "ended": "Your log-in has ended, here or from another device. Log in again to go on.",
    "logged_out": "You are logged out.",
}


@dataclass(frozen=True, slots=True)
class DemoLogin:
    """One line of the demo school's list of log-ins."""

    email: str
    title: str
    what: str


DEMO_LOGINS = (
    DemoLogin(
        "teacher3@demo.school",
        "Teacher, class running",
        "A class is open right now: watch the students arrive",
    ),
    DemoLogin("teacher1@demo.school", "Teacher", "Open a class of 30 in two taps"),
    DemoLogin("student1@demo.school", "Student", "Check in and see your own record"),
    DemoLogin("guardian1@demo.school", "Guardian", "See how student1 is doing"),
    DemoLogin("admin@demo.school", "Admin", "People, classes, imports and rules"),
)


def home_of(role: Role) -> str:
    """The page a person of this role starts on."""
    return _HOMES[role]


def safe_next(target: str) -> str | None:
    """A path of this site to go on to, or None. Anything a browser could read as another site is refused."""
    if not target or len(target) > _MAX_NEXT:
        return None
    seen = unquote(target)
    if not target.startswith("/") or seen.startswith(("//", "/\\")) or "\\" in seen:
        return None
    if any(ord(c) < 33 or ord(c) == 127 for c in seen):  # tabs and newlines are dropped by browsers
        return None
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or parts.path.startswith(("/login", "/logout", "/api/", "/_nicegui")):
        return None
    return target


def login_address(request: Request, *, ended: bool = False) -> str:
    """Where to send somebody who is not logged in, so that they come back to what they asked for."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    query = f"next={quote(asked, safe='')}" if safe_next(asked) and asked != "/" else ""
    if ended:
        query += ("&" if query else "") + "notice=ended"
    return f"/login?{query}" if query else "/login"


async def find_visitor(request: Request, muster: Muster) -> LoginView | None:
    """Who is asking, by the login cookie; None for nobody."""
    return await muster.logins.find(request.cookies.get(COOKIE))


def install(app: FastAPI, muster: Muster) -> None:
    """Register log-in and log-out."""

    @app.get("/login", include_in_schema=False)
    async def show(request: Request) -> Response:
        target = safe_next(request.query_params.get("next", ""))
        visitor = await find_visitor(request, muster)
        if visitor is not None:
            return RedirectResponse(target or home_of(visitor.role), 303)
        notice = request.query_params.get("notice", "")
        if notice == "" and COOKIE in request.cookies:
            notice = "ended"
        response = _form(
            muster, target=target, notice_code=notice if notice in ("ended", "logged_out") else ""
        )
        if COOKIE in request.cookies:
            forget_login_cookie(response)
        return response

    @app.post("/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        form = await _read_form(request)
        if form is None:
            return _form(muster, target=None, notice_code="too_large", status_code=413)
        target, email = safe_next(form.get("next", "")), form.get("email", "")
        try:
            granted = await muster.logins.log_in(
                email,
                form.get("password", ""),
                address=address_of(request),
                device=request.headers.get("user-agent", ""),
            )
        except LoginRefused as refused:
            status_code = 429 if refused.code == "rate_limited" else 401
            response = _form(
                muster,
                target=target,
                email=email,
                notice_code=refused.code,
                refused=refused,
                status_code=status_code,
            )
            if refused.retry_after is not None:
                response.headers["Retry-After"] = str(max(1, round(refused.retry_after)))
            return response
        response = RedirectResponse(target or home_of(granted.login.role), 303)
        set_login_cookie(response, request, muster, granted.token)
        return response

    @app.post("/logout", include_in_schema=False)
    async def log_out(request: Request) -> Response:
        visitor = await find_visitor(request, muster)
        if visitor is not None:
            await muster.logins.revoke(visitor.login_id, visitor.author)
        response = RedirectResponse("/login?notice=logged_out", 303)
        forget_login_cookie(response)
        return response


def _form(
    muster: Muster,
    *,
    target: str | None,
    email: str = "",
    notice_code: str = "",
    refused: LoginRefused | None = None,
    status_code: int = 200,
) -> Response:
    notice = _SENTENCES.get(notice_code, "")
    if notice_code == "rate_limited" and refused is not None:
        notice = rate_limited(refused.retry_after)
    return plain.page(
        "login.html",
        title="Log in",
        lead="Log in to check in. The moment of your scan is kept meanwhile."
        if (target or "").startswith("/j/")
        else "",
        next=target or "",
        email=email[:254],
        notice=notice,
        notice_code=notice_code,
        is_wrong=notice_code == "invalid_credentials",
        demo_logins=DEMO_LOGINS if muster.is_demo else (),
        demo_password=DEMO_PASSWORD,
        status_code=status_code,
    )


async def _read_form(request: Request) -> dict[str, str] | None:
    """The form's fields; None if it is larger than any log-in is."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            return None
    return plain.parse_form(body)
