"""The two calls that need no socket: logging in, and operations where sockets are blocked (protocol §4)."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

import orjson

from realtime.client.errors import ClientError, LoginEnded, Refused, Unreachable

TIMEOUT_S = 10.0


async def log_in(base_url: str, email: str, password: str) -> str:
    """A login's bearer token. Raises Refused (wrong password; too many tries: see retry_after_s), Unreachable."""
    answer = await _post(base_url, "/api/v1/login", orjson.dumps({"email": email, "password": password}))
    token = answer.get("token")
    if not isinstance(token, str):
        raise Unreachable(f"{base_url} answered a log-in without a token.")
    return token


async def post_operations(base_url: str, token: str, operations: Sequence[bytes]) -> dict[str, Any]:
    """Send encoded operations; {outcomes, server_time}. Raises LoginEnded, Refused, Unreachable."""
    body = b'{"operations":[' + b",".join(operations) + b"]}"
    try:
        answer = await _post(base_url, "/api/v1/operations", body, token=token)
    except Refused as refused:
        if refused.code == "unauthenticated":
            raise LoginEnded from refused
        raise
    if not isinstance(answer.get("outcomes"), list):
        raise Unreachable(f"{base_url} answered operations without outcomes.")
    return answer


def socket_url(base_url: str) -> str:
    """Where /ws is. Raises ValueError unless ``base_url`` is http(s)://host…"""
    parts = urllib.parse.urlsplit(base_url)
    schemes = {"http": "ws", "https": "wss"}
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"base_url must be http(s)://host[:port], got {base_url!r}")
    return urllib.parse.urlunsplit(
        (schemes[parts.scheme], parts.netloc, parts.path.rstrip("/") + "/ws", "", "")
    )


def seconds(value: object) -> float | None:
    """A wait that the server asks for, in seconds; None if it is nothing of the kind."""
    try:
        wait_s = float(value)  # type: ignore[arg-type]  # that is what is tried here
    except (TypeError, ValueError):
        return None
    return wait_s if 0 <= wait_s <= 3600 else None


async def _post(base_url: str, path: str, body: bytes, *, token: str | None = None) -> dict[str, Any]:
    socket_url(base_url)  # http or https, or ValueError
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(  # noqa: S310  # the scheme has just been looked at
        base_url.rstrip("/") + path, data=body, headers=headers, method="POST"
    )
    try:
        answer = orjson.loads(await asyncio.to_thread(_fetch, request))
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{base_url} cannot be reached: {error}.") from error
    except orjson.JSONDecodeError as error:
        raise Unreachable(f"{base_url} did not answer with JSON: {error}.") from error
    if not isinstance(answer, dict):
        raise Unreachable(f"{base_url} must answer with an object, got {type(answer).__name__}.")
    return answer


def _fetch(request: urllib.request.Request) -> bytes:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310  # as above
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.code, error.read(), error.headers.get("Retry-After")) from error


def _refusal(status: int, body: bytes, retry_after: str | None) -> ClientError:
    """The problem detail (RFC 9457) that came; without a code of ours it is somebody else who answers."""
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or f"The server answered {status}.")
    retry_after_s = seconds(problem.get("retry_after", retry_after))
    if status >= 500 or "code" not in problem:
        return Unreachable(detail, retry_after_s=retry_after_s)
    hint = str(problem.get("hint") or "")
    return Refused(str(problem["code"]), detail, hint=hint, retry_after_s=retry_after_s)
