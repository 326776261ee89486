"""What holds for every request and socket, pages and API alike. Pure ASGI, around everything.

Request ids and log lines, security headers, the limit on bodies, and the same-origin rule: a browser
sends our cookie along with whatever a foreign page asks of it, so unsafe calls by cookie, and every
socket a browser opens, must come from our own pages. NiceGUI's socket asks for no log-in of its own
and takes a page's client id for all it needs, so it is opened only to those who are logged in.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.ids import new_id
from domain.login_rows import LoginView
from realtime.problems import Problem, unauthenticated, unforeseen

log = logging.getLogger("muster.requests")

MAX_BODY = 1024 * 1024
MAX_UPLOAD = 11 * 1024 * 1024  # a roster of 10 MiB and the form around it
COOKIE = "muster_login"
NODE_COOKIE = "muster_node"
_UPLOADS = ("/api/v1/import/", "/_nicegui/client/")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SOCKETS = "/_nicegui_ws/"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
FindLogin = Callable[[str | None], Awaitable[LoginView | None]]

#: NiceGUI compiles Vue templates in the browser and styles elements inline: it is blank without the
#: two 'unsafe-' words. Everything else comes from here alone. The plain pages set a stricter one.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'none'; form-action 'self'; worker-src 'self'; manifest-src 'self'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}


def token_of(connection: HTTPConnection) -> str | None:
    """The token that a request or socket carries; a bearer token goes before the cookie."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return connection.cookies.get(COOKIE)


def address_of(connection: HTTPConnection) -> str:
    """The client's address, for limits. Behind a proxy on this machine uvicorn has put the right one here."""
    return connection.client.host if connection.client else ""


def is_own_origin(headers: Headers, public_host: str, *, must: bool) -> bool:
    """Whether Origin (else Referer) names the host that was asked, or the public one; absent, whether it may be."""
    origin = headers.get("origin") or headers.get("referer")
    if origin is None:
        return not must
    named = host_of(origin)
    return bool(named) and named in (headers.get("host", "").lower(), public_host)


class Guard:
    """The outermost layer. ``find_login`` tells whose token one is, or None; ``sockets`` serve
    WebSocket paths and look after themselves. Of several processes each says its ``node`` in a cookie, for the balancer to
    bring the browser back to where its page lives."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        find_login: FindLogin,
        public_url: str = "",
        node: str = "main",
        sockets: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._app = app
        self._sockets = sockets or {}
        self._node = node
        self._find_login = find_login
        self._public = host_of(public_url)
        self._is_https = public_url.startswith("https://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if (own := self._sockets.get(scope["path"])) is not None:
            await own(scope, receive, send)
            return
        if not self._is_own(Headers(scope=scope), must=False):
            refusal = (4403, "foreign origin")
        elif scope["path"].startswith(_SOCKETS) and not await self._is_logged_in(scope):
            refusal = (4401, "not logged in")
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": refusal[0], "reason": refusal[1]})

    async def _is_logged_in(self, scope: Scope) -> bool:
        return await self._find_login(token_of(HTTPConnection(scope))) is not None

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._dress(scope, MutableHeaders(scope=message), request_id)
            await send(message)

        problem: Problem | None = None
        try:
            problem = await self._objection(scope, headers)
            if problem is None:
                body = await _whole_body(scope, headers, receive, await self._limit(scope))
                await self._app(scope, body, answer)
        except Problem as objection:
            problem = objection
        except ClientDisconnect:  # whoever asked has gone, so there is nobody to answer
            log.info("request %s was broken off", request_id, extra={"request_id": request_id})
            return
        except Exception:  # the rim of a request: logged with its number, which is all the asker is told
            log.exception("request %s failed", request_id, extra={"request_id": request_id})
            if status:
                raise  # the answer had begun: only cutting the connection says that it is not whole
            problem = unforeseen()
        if problem is not None:
            await problem.response(scope)(scope, receive, answer)
        _log(scope, request_id, status, (time.perf_counter() - started) * 1000)

    async def _limit(self, scope: Scope) -> int:
        """How large this body may be; files only of somebody who is logged in, since they are kept in memory."""
        is_upload = _starts(scope["path"], _UPLOADS)
        return MAX_UPLOAD if is_upload and await self._is_logged_in(scope) else MAX_BODY

    async def _objection(self, scope: Scope, headers: Headers) -> Problem | None:
        path, method = scope["path"], scope["method"]
        is_socket = path.startswith(_SOCKETS)
        if method in _SAFE and not is_socket:
            return None
        if not is_socket and headers.get("authorization", "").lower().startswith("bearer "):
            return None
        by_cookie = f"{COOKIE}=" in headers.get("cookie", "")
        if self._is_own(headers, must=by_cookie and not is_socket):
            return None if not is_socket or await self._is_logged_in(scope) else unauthenticated()
        return Problem(
            403,
            "This call came from another site than Muster's own pages.",
            code="foreign_origin",
            hint="Calls by cookie need an Origin header of this site; other programs use a bearer token.",
        )

    def _is_own(self, headers: Headers, *, must: bool) -> bool:
        return is_own_origin(headers, self._public, must=must)

    def _dress(self, scope: Scope, headers: MutableHeaders, request_id: str) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers["X-Request-ID"] = request_id
        path = scope["path"]
        is_page = headers.get("content-type", "").startswith("text/html")
        if path.startswith("/api/") or is_page:
            headers.setdefault("Cache-Control", "no-store")
        if is_page and self._node != "main":
            headers.append("Set-Cookie", f"{NODE_COOKIE}={self._node}; Path=/; HttpOnly; SameSite=Lax")
        if self._is_https or scope.get("scheme") == "https":
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")


async def _whole_body(scope: Scope, headers: Headers, receive: Receive, limit: int) -> Receive:
    """Read the body up to its limit before anybody else does.

    Raises Problem 413 above it, ClientDisconnect when it does not come whole."""
    if scope["method"] in _SAFE:
        return receive
    told = headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            break
    return _replayed({"type": "http.request", "body": b"".join(parts), "more_body": False}, receive)


def _replayed(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def host_of(address: str) -> str:
    """Host and port of an address; "" for what is none, as a header may hold anything."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def _starts(path: str, prefixes: Iterable[str]) -> bool:
    return any(path.startswith(prefix) for prefix in prefixes)


def _too_large(limit: int) -> Problem:
    return Problem(
        413,
        f"The body is larger than {limit // 1024} KiB.",
        hint="Send less at a time: operations in several batches, a roster in several files.",
    )


def _log(scope: Scope, request_id: str, status: int, ms: float) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    route = getattr(scope.get("route"), "path", None) or "(page)"
    log.info(
        "%s %s %s %.1f ms",
        scope["method"],
        route,
        status,
        ms,
        extra={
            "request_id": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(ms, 1),
        },
    )
