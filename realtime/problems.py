"""Errors as the outside sees them: RFC 9457 problem details with a stable ``code``."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from domain.access import Denied
from domain.hints import HINTS
from domain.inputs import InvalidInput
from domain.logins import LoginRefused
from domain.record import RecorderBusy
from domain.store import StoreUnavailable

MEDIA_TYPE = "application/problem+json"
_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "rate_limited",
    503: "busy",
}


class Problem(Exception):
    """An error to be answered: a status, a stable code, what happened, and what to do."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.code = code or _CODES.get(status, "error")
        self.hint = hint
        self.retry_after = retry_after
        self.members = members

    def body(self, request_id: str) -> bytes:
        """The problem as JSON."""
        document: dict[str, Any] = {
            "type": f"urn:muster:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "hint": self.hint,
            "instance": f"urn:muster:request:{request_id}",
        }
        if self.retry_after is not None:
            document["retry_after"] = round(self.retry_after, 3)
        return orjson.dumps(document | self.members)

    def headers(self) -> dict[str, str]:
        """Retry-After in whole seconds (RFC 9110 §10.2.3) where there is one; the challenge with a 401."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="muster"'
        return headers

    def response(self, scope: Scope) -> Response:
        """The answer to send."""
        return Response(
            self.body(request_id(scope)), self.status, headers=self.headers(), media_type=MEDIA_TYPE
        )


def not_found() -> Problem:
    """The one answer for what does not exist and what the asker may not see."""
    return Problem(404, "There is no such thing here, or not for you.", hint="Check the address.")


def unauthenticated() -> Problem:
    """Nobody is logged in, or no longer."""
    return Problem(401, "Nobody is logged in here, or the log-in has ended.", hint="Log in, then try again.")


def unforeseen() -> Problem:
    """A fault of ours. What it was stands in the log, under the request's id."""
    return Problem(500, HINTS["internal"], code="internal", hint=HINTS["internal"])


def request_id(scope: Scope) -> str:
    """The id of this request, as in the log lines and the X-Request-ID header."""
    return str(scope.get("state", {}).get("request_id", ""))


def install(app: FastAPI) -> None:
    """Answer every error under this application as problem details; the guard answers what is left."""

    @app.exception_handler(Problem)
    async def of_ours(request: Request, error: Problem) -> Response:
        return error.response(request.scope)

    @app.exception_handler(HTTPException)
    async def of_starlette(request: Request, error: HTTPException) -> Response:
        response = Problem(error.status_code, str(error.detail)).response(request.scope)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"where": "/".join(str(part) for part in e["loc"]), "what": e["msg"]} for e in error.errors()
        ]
        detail = "; ".join(f"{e['where']}: {e['what']}" for e in errors[:5])
        return Problem(422, detail, hint=HINTS["invalid"], errors=errors[:20]).response(request.scope)

    @app.exception_handler(InvalidInput)
    async def of_input(request: Request, error: InvalidInput) -> Response:
        return Problem(422, error.message, errors=[{"where": error.field, "what": error.message}]).response(
            request.scope
        )

    @app.exception_handler(Denied)
    async def of_access(request: Request, error: Denied) -> Response:
        return Problem(403, "You may not do this.", hint=HINTS["forbidden"]).response(request.scope)

    @app.exception_handler(LoginRefused)
    async def of_login(request: Request, error: LoginRefused) -> Response:
        status = 429 if error.code == "rate_limited" else 401
        return Problem(status, error.hint, code=error.code, retry_after=error.retry_after).response(
            request.scope
        )

    @app.exception_handler(StoreUnavailable)
    @app.exception_handler(RecorderBusy)
    async def of_recorder(request: Request, error: RecorderBusy | StoreUnavailable) -> Response:
        return Problem(
            503, HINTS["busy"], code="busy", hint=HINTS["busy"], retry_after=error.retry_after
        ).response(request.scope)
