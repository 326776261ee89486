"""Plain pages: server-rendered HTML without a socket, for what a phone opens cold and leaves again.

Log-in and check-in are such pages: a few kilobytes, no script needed, a strict content policy. Their
look is that of the live pages: the style sheet takes its colours from the theme.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ui import theme

_HERE = Path(__file__).resolve().parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_DEFAULTS: dict[str, Any] = {"language": "en", "person_name": ""}


def page(template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    """A rendered plain page. It is never cached: what it says is of this person and this moment."""
    values = _DEFAULTS | values | {"style_url": f"/ui/plain.css?{_style_version()}"}
    html = _TEMPLATES.get_template(template).render(values)
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": _POLICY,
        "Referrer-Policy": "same-origin",
    }
    return HTMLResponse(html, status_code=status_code, headers=headers)


def parse_form(body: bytes) -> dict[str, str]:
    """The fields of a form as browsers send it (application/x-www-form-urlencoded); the first of a name counts."""
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError:  # more fields than any form of ours
        return {}
    return dict(reversed(pairs))


def install(app: FastAPI) -> None:
    """Serve the style sheet and the script of the plain pages."""

    @app.get("/ui/plain.css", include_in_schema=False)
    def style() -> Response:
        return Response(
            _style(), media_type="text/css", headers={"Cache-Control": "public, max-age=31536000, immutable"}
        )

    @app.get("/ui/login.js", include_in_schema=False)
    def script() -> Response:
        return Response(_script(), media_type="text/javascript", headers={"Cache-Control": "no-cache"})


@cache
def _style() -> str:
    return theme.TOKENS + (_HERE / "templates" / "plain.css").read_text(encoding="utf-8")


@cache
def _style_version() -> str:
    return hashlib.sha256(_style().encode()).hexdigest()[:12]


@cache
def _script() -> str:
    return (_HERE / "templates" / "login.js").read_text(encoding="utf-8")
