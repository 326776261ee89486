"""The OpenAPI description: what FastAPI reads off the routes, and what it cannot know.

Errors are problem details everywhere, operations are read by the domain, and one is logged in by a
bearer token or the cookie.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from realtime.api import shapes
from realtime.problems import MEDIA_TYPE
from realtime.security import COOKIE

#: Calls that need no login.
_OPEN = {"/healthz", "/readyz", "/metrics", "/api/v1/login"}
_SCHEMAS = "#/components/schemas/"
_WORDS = {
    "400": "The body cannot be read",
    "401": "Nobody is logged in, or the login has ended",
    "403": "Not allowed, or a call by cookie from another site",
    "404": "There is no such thing, or not for the asker",
    "409": "Not in the state that this needs",
    "413": "The body is too large",
    "415": "Not an encoding that is understood",
    "422": "Something in the query or the body cannot be taken",
    "429": "Too many tries; Retry-After says when to come again",
    "503": "Too much is waiting to be written; nothing was recorded",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of an application, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return app.openapi_schema


def _made(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    parts = document["components"]
    _, extra = models_json_schema(
        [(shapes.ProblemDetails, "validation"), (shapes.Operations, "validation")],
        ref_template=_SCHEMAS + "{model}",
    )
    parts["schemas"] |= extra["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "the token of POST /api/v1/login"},
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": COOKIE,
            "description": "set by the log-in; unsafe calls must come from this site's own pages",
        },
    }
    document["security"] = [{"token": []}, {"cookie": []}]
    for path, calls in document["paths"].items():
        for call in calls.values():
            _complete(path, call)
    return document


def _complete(path: str, call: dict[str, Any]) -> None:
    if path in _OPEN:
        call["security"] = []
    else:
        call["responses"].setdefault("401", {})
    for status, answer in call["responses"].items():
        if status in _WORDS and path != "/readyz":
            answer["description"] = _WORDS[status]
            answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMAS + "ProblemDetails"}}}
