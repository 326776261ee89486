"""All pages, put on the outer application. Last, since NiceGUI is mounted at /."""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import date
from pathlib import Path

from fastapi import FastAPI, Response
from nicegui import Client, ui

from domain.clock import FIRST_DAY, LAST_DAY
from domain.model import Role
from domain.muster import Muster
from realtime.hub import Hub
from realtime.presence import Presence
from realtime.realtime import Realtime
from realtime.vitals import Vitals
from ui import check_in, login, plain, theme
from ui.account import AccountPage
from ui.admin import OverviewPage
from ui.admin_import import ImportPage
from ui.admin_people import NewPersonPage, PeoplePage, PersonPage
from ui.admin_policy import PolicyPage
from ui.admin_section import SectionPage
from ui.admin_sections import NewSectionPage, SectionsPage
from ui.admin_system import SystemPage
from ui.frame import Pages, Visit
from ui.guardian import GuardianPage
from ui.live import LiveMeetings
from ui.meeting import MeetingPage
from ui.projector import ProjectorPage
from ui.student import StudentPage
from ui.teacher import TeacherPage

ADMIN = (Role.ADMIN,)
STAFF = (Role.TEACHER, Role.ADMIN)


def install(app: FastAPI, muster: Muster, realtime: Realtime) -> None:
    """Register every page and mount NiceGUI."""
    hub = realtime.hub
    plain.install(app)
    login.install(app, muster)
    check_in.install(app, muster)

    @app.get("/ui/muster.css", include_in_schema=False)
    def style() -> Response:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(theme.live_style(), media_type="text/css", headers=headers)

    pages = Pages(muster)
    _everybody(pages, hub)
    _teachers(pages, muster, hub, realtime.presence)
    _admins(pages, hub, realtime.vitals)
    realtime.metrics.gauge(
        "muster_pages",
        "Pages open in browsers",
        lambda: sum(client.has_socket_connection for client in Client.instances.values()),
    )
    ui.run_with(
        app,
        title="Muster",
        storage_secret=_storage_secret(muster.settings.data),
        reconnect_timeout=30,  # a locked phone or a changed Wi-Fi comes back to the same page
        binding_refresh_interval=None,  # nothing here polls
        tailwind=False,
        dark=None,
        show_welcome_message=False,
    )


def _everybody(pages: Pages, hub: Hub) -> None:
    @pages.page("/", "Start", roles=())
    async def start(visit: Visit) -> None:
        """Nobody's page: everybody is sent on to the own start."""

    @pages.page("/student", "My attendance", roles=(Role.STUDENT,), is_narrow=True)
    async def student(visit: Visit) -> None:
        await StudentPage(visit.muster, hub, visit.login, visit.address).build()

    @pages.page("/guardian", "My children", roles=(Role.GUARDIAN,), is_narrow=True)
    async def guardian(visit: Visit) -> None:
        await GuardianPage(visit.muster, hub, visit.login).build()

    @pages.page("/account", "My account", is_narrow=True)
    async def account(visit: Visit) -> None:
        await AccountPage(visit.muster, visit.login).build()


def _teachers(pages: Pages, muster: Muster, hub: Hub, presence: Presence) -> None:
    lives = LiveMeetings(muster, hub)

    @pages.page("/teacher", "My classes", roles=STAFF)
    async def teacher(visit: Visit) -> None:
        try:
            on = date.fromisoformat(visit.request.query_params.get("on", ""))
        except ValueError:
            on = None
        if on is not None and not FIRST_DAY <= on <= LAST_DAY:
            on = None
        await TeacherPage(visit, hub, on).build()

    @pages.page("/meeting/{meeting_id}", "Class", roles=STAFF)
    async def meeting(visit: Visit, meeting_id: str) -> None:
        await MeetingPage(visit, lives, presence, meeting_id).build()

    @pages.page("/meeting/{meeting_id}/projector", "Check in", roles=STAFF, is_bare=True)
    async def projector(visit: Visit, meeting_id: str) -> None:
        await ProjectorPage(visit, lives, meeting_id).build()


def _admins(pages: Pages, hub: Hub, vitals: Vitals) -> None:
    @pages.page("/admin", "Overview", roles=ADMIN)
    async def overview(visit: Visit) -> None:
        await OverviewPage(visit.muster, hub, vitals, visit.login).build()

    @pages.page("/admin/people", "People", roles=ADMIN)
    async def people(visit: Visit) -> None:
        await PeoplePage(visit.muster, visit.login).build()

    @pages.page("/admin/people/new", "New person", roles=ADMIN, is_narrow=True)
    async def new_person(visit: Visit) -> None:
        await NewPersonPage(visit.muster, visit.login).build()

    @pages.page("/admin/people/{person_id}", "Person", roles=ADMIN)
    async def person(visit: Visit, person_id: str) -> None:
        await PersonPage(visit.muster, visit.login, person_id).build()

    @pages.page("/admin/sections", "Classes", roles=ADMIN)
    async def sections(visit: Visit) -> None:
        await SectionsPage(visit.muster, visit.login).build()

    @pages.page("/admin/sections/new", "New class", roles=ADMIN, is_narrow=True)
    async def new_section(visit: Visit) -> None:
        await NewSectionPage(visit.muster, visit.login).build()

    @pages.page("/admin/sections/{section_id}", "Class", roles=ADMIN)
    async def section(visit: Visit, section_id: str) -> None:
        await SectionPage(visit.muster, visit.login, section_id).build()

    @pages.page("/admin/import", "Import", roles=ADMIN)
    async def import_(visit: Visit) -> None:
        await ImportPage(visit.muster, visit.login).build()

    @pages.page("/admin/policy", "Rules", roles=ADMIN, is_narrow=True)
    async def policy(visit: Visit) -> None:
        await PolicyPage(visit.muster, visit.login).build()

    @pages.page("/admin/system", "System", roles=ADMIN)
    async def system(visit: Visit) -> None:
        await SystemPage(visit.muster, vitals).build()


def _storage_secret(data: Path) -> str:
    """What NiceGUI signs its own cookie with; nothing of ours rests on it. Made once, readable by us alone."""
    path = data / "storage.key"
    data.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        aside = data / f"storage.key.{secrets.token_hex(8)}"
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)  # whole or not at all, when several processes start at once
        aside.unlink()
    return path.read_text(encoding="ascii")
