"""The frame around every live page: who is here, where one can go, whether the page is live."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import RedirectResponse
from markupsafe import escape
from nicegui import Client, background_tasks, ui

from domain.logins import LoginView
from domain.model import Role
from domain.muster import Muster
from realtime.security import COOKIE
from ui import bridge, theme
from ui.login import find_visitor, home_of, login_address

log = logging.getLogger("muster.ui")

#: An open page uses only its socket; asking for its login now and then keeps it from expiring meanwhile.
KEEP_ALIVE_S = 600
NAVIGATION: dict[Role, tuple[tuple[str, str], ...]] = {
    Role.TEACHER: (("/teacher", "Today"),),
    Role.STUDENT: (("/student", "My attendance"),),
    Role.GUARDIAN: (("/guardian", "My children"),),
    Role.ADMIN: (
        ("/admin", "Overview"),
        ("/admin/people", "People"),
        ("/admin/sections", "Classes"),
        ("/admin/import", "Import"),
        ("/admin/policy", "Rules"),
        ("/admin/system", "System"),
        ("/teacher", "My classes"),
    ),
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One page being opened by somebody logged in."""

    muster: Muster
    login: LoginView
    address: str
    base_url: str  # as this browser reaches us, without a slash at its end
    request: Request


Build = Callable[..., Awaitable[Any]]


class Pages:
    """Registers live pages: each asks who comes, frames what it shows, and ends with its login."""

    def __init__(self, muster: Muster) -> None:
        self._muster = muster
        self._clients: dict[str, set[Client]] = {}  # login id -> open pages
        muster.logins.on_revoked(self._end_clients)

    def page(
        self,
        path: str,
        title: str,
        *,
        roles: Collection[Role] = tuple(Role),
        is_narrow: bool = False,
        is_bare: bool = False,
    ) -> Callable[[Build], Build]:
        """Serve ``build(visit, **path parameters)`` at ``path`` to these roles; others go to their own start."""

        def decorate(build: Build) -> Build:
            async def show(request: Request, **values: Any) -> Any:
                visitor = await find_visitor(request, self._muster)
                if visitor is None:
                    return RedirectResponse(login_address(request), 303)
                if visitor.role not in roles:
                    return RedirectResponse(home_of(visitor.role), 303)
                visit = Visit(
                    self._muster,
                    visitor,
                    request.client.host if request.client else "",
                    self._muster.settings.public_url or str(request.base_url).rstrip("/"),
                    request,
                )
                self._own(visitor)
                await _framed(visit, build, values, is_narrow=is_narrow, is_bare=is_bare, path=path)
                self._keep_alive(request.cookies.get(COOKIE))

            parameters = [
                inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request),
                *list(inspect.signature(build, eval_str=True).parameters.values())[1:],
            ]
            show.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # the path's parameters
            ui.page(path, title=f"{title} · Muster")(show)
            return build

        return decorate

    def _own(self, visitor: LoginView) -> None:
        client = ui.context.client
        pages = self._clients.setdefault(visitor.login_id, set())
        pages.add(client)

        def forget() -> None:
            pages.discard(client)
            if not pages:
                self._clients.pop(visitor.login_id, None)

        client.on_delete(forget)

    def _keep_alive(self, token: str | None) -> None:
        """Last on a page: a timer waits for the browser, and a page that waits is sent off half built."""
        client = ui.context.client

        async def keep_alive() -> None:
            if await self._muster.logins.find(token) is None:
                background_tasks.create(_end(client), name="end a page whose login has run out")

        ui.timer(KEEP_ALIVE_S, keep_alive)

    def _end_clients(self, login_ids: Sequence[str]) -> None:
        for login_id in login_ids:
            for client in tuple(self._clients.pop(login_id, ())):
                background_tasks.create(_end(client), name="end a page whose login has ended")


async def _end(client: Client) -> None:
    """Send the browser to the log-in, then drop the page's client: its socket obeys nobody any more."""
    try:
        with client:
            await client.run_javascript(
                'window.musterLeaves || (window.location.href = "/login?notice=ended")', timeout=2
            )
    except TimeoutError:
        pass  # the browser left before it could answer, as it was told to
    finally:
        if client.id in Client.instances:
            client.delete()


async def _framed(
    visit: Visit, build: Build, values: dict[str, Any], *, is_narrow: bool, is_bare: bool, path: str
) -> None:
    ui.add_head_html(
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        f'<link rel="stylesheet" href="{theme.live_style_url()}">'
        + bridge.THEME_SCRIPT
        + bridge.CONNECTION_SCRIPT
    )
    if is_bare:
        await build(visit, **values)
        return
    ui.html('<a class="m-skip" href="#main">Skip to the content</a>', sanitize=False)
    ui.html(_bar(visit, path), sanitize=False)
    with (
        ui.element("div").props("id=main tabindex=-1").classes("m-main" + (" m-narrow" if is_narrow else ""))
    ):
        await build(visit, **values)


def _bar(visit: Visit, path: str) -> str:
    def link(target: str, word: str) -> str:
        is_here = path == target or (target != "/admin" and path.startswith(target + "/"))
        current = ' aria-current="page"' if is_here else ""
        return f'<a href="{target}"{current}>{word}</a>'

    links = "".join(link(target, word) for target, word in NAVIGATION[visit.login.role])
    links += '<a class="m-phone" href="/account">Account</a>'  # there is no room for the name up there
    return (
        '<header class="m-bar"><a class="m-brand" href="/" aria-label="Muster, start page">'
        '<span class="m-mark" aria-hidden="true"></span>Muster</a>'
        f'<nav class="m-nav" aria-label="Pages">{links}</nav>'
        '<div class="m-who"><span class="m-state" role="status" aria-live="polite" data-testid="connection-state" '
        'data-state="reconnecting">Connecting</span>'
        '<button class="m-icon" type="button" onclick="musterToggleTheme()" aria-label="Light or dark" title="Light or dark">◐</button>'
        f'<a class="m-quiet m-name" href="/account" title="My account"><span>{escape(visit.login.name)}</span></a>'
        '<form method="post" action="/logout" onsubmit="window.musterLeaves = true"><button class="m-quiet" type="submit">Log out</button></form></div></header>'
    )
