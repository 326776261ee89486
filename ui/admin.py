"""/admin: what runs right now, which registers nobody took, and the way to everything an admin keeps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup
from nicegui import ui
from sqlalchemy import Connection

from domain import register, school
from domain.clock import local_date
from domain.events import WALL, meeting_topic
from domain.logins import LoginView
from domain.model import MeetingState
from domain.muster import Muster
from domain.register import MeetingSummary
from domain.standings import require_admin
from realtime.hub import Hub
from realtime.vitals import Vitals
from ui.answers import clock_time
from ui.forms import card, heading
from ui.fresh import Fresh

_RUNNING = frozenset({MeetingState.OPEN, MeetingState.CLOSING})
_LINKS = (
    ("/admin/people", "People", "Search, add, edit, passwords"),
    ("/admin/sections", "Classes", "Rosters, staff, timetable"),
    ("/admin/import", "Import", "CSV or OneRoster, with a dry run"),
    ("/admin/policy", "Attendance rules", "Lateness, cut-off, closing"),
    ("/admin/system", "System", "How this server is doing"),
)


class OverviewPage:
    """One admin's open overview."""

    def __init__(self, muster: Muster, hub: Hub, vitals: Vitals, login: LoginView) -> None:
        self._muster, self._vitals = muster, vitals
        self._login = login
        self._meetings: list[MeetingSummary] = []
        self._fresh = Fresh(hub, self._refresh)

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        self._fresh.follow([WALL])
        await self._read()
        heading("Today")
        self._show_alerts()
        self._figures = ui.html(self._figures_html(), sanitize=False)
        with card("Running now", testid="running"):
            self._running = ui.html(self._running_html(), sanitize=False)
        with card("Registers not taken", testid="not-taken"):
            ui.label("Meetings of today that have ended without anybody closing the register.").classes(
                "mp-soft"
            )
            self._missed = ui.html(self._missed_html(), sanitize=False)
        with ui.element("nav").classes("mp-tiles").props('aria-label="Administration"'):
            for target, title, what in _LINKS:
                with ui.link(target=target).classes("mp-tile"):
                    ui.label(title).classes("mp-strong")
                    ui.label(what).classes("mp-soft")
            with ui.link(target="/api/v1/export/attendance.csv").classes("mp-tile").props("download"):
                ui.label("Export").classes("mp-strong")
                ui.label("Attendance as a CSV file").classes("mp-soft")

    def _show_alerts(self) -> None:
        """One line while something is wrong with the system; nothing is sent while that stays as it is."""
        line, client = ui.html(self._alerts_html(), sanitize=False), ui.context.client
        line.props("role=status").classes("mp-alert")

        def looked() -> None:
            if (html := self._alerts_html()) != line.content:
                line.content = html

        client.on_delete(self._vitals.watch(looked))

    def _alerts_html(self) -> str:
        told = " ".join(threshold.text for threshold, _since in self._vitals.alerts)
        line = Markup('<p class="mp-banner">{} <a href="/admin/system">What to do</a></p>')
        return str(line.format(told)) if told else ""

    async def _refresh(self) -> None:
        await self._read()
        self._figures.content = self._figures_html()
        self._running.content = self._running_html()
        self._missed.content = self._missed_html()

    async def _read(self) -> None:
        now = self._muster.clock.now()

        def read(conn: Connection) -> list[MeetingSummary]:
            require_admin(conn, self._login.author, now)
            found = school.read_school(conn)
            zone = found.zone if found else "UTC"
            return register.meetings_on(conn, None, local_date(now, zone), now, zone=zone)

        self._meetings = await self._muster.store.read(read)
        self._fresh.follow([WALL, *(meeting_topic(m.id) for m in self._of(_RUNNING))])

    def _of(self, states: frozenset[MeetingState]) -> list[MeetingSummary]:
        return [m for m in self._meetings if m.state in states]

    def _missing(self, now: datetime) -> list[MeetingSummary]:
        return [
            m
            for m in self._meetings
            if not m.is_register_taken
            and m.scheduled_end < now
            and m.state not in _RUNNING | {MeetingState.CANCELLED}
        ]

    def _figures_html(self) -> str:
        here = sum(m.attended for m in self._meetings)
        expected = sum(m.enrolled for m in self._meetings if m.state in _RUNNING or m.is_register_taken)
        taken = sum(1 for m in self._meetings if m.is_register_taken)
        takes_place = sum(1 for m in self._meetings if m.state is not MeetingState.CANCELLED)
        figures = (
            (str(len(self._of(_RUNNING))), "running now"),
            (f"{taken} of {takes_place}", "registers taken today"),
            (f"{here} of {expected}", "students here so far"),
        )
        items = Markup("").join(
            Markup("<li><strong>{}</strong><span>{}</span></li>").format(*f) for f in figures
        )
        return str(Markup('<ul class="mp-figures">{}</ul>').format(items))

    def _running_html(self) -> str:
        return _meetings_html(self._of(_RUNNING), empty="No meeting is running right now.", with_counts=True)

    def _missed_html(self) -> str:
        missing = self._missing(self._muster.clock.now())
        return _meetings_html(
            missing, empty="None: every register of today that is over was taken.", with_counts=False
        )


def _meetings_html(meetings: Sequence[MeetingSummary], *, empty: str, with_counts: bool) -> str:
    if not meetings:
        return str(Markup('<p class="mr-empty">{}</p>').format(empty))
    rows = Markup("").join(_meeting_row(m, with_counts=with_counts) for m in meetings)
    return str(Markup('<ul class="mp-running">{}</ul>').format(rows))


def _meeting_row(m: MeetingSummary, *, with_counts: bool) -> Markup:
    where = " · ".join(
        part for part in (m.section_code, m.room, clock_time(m.scheduled_start, m.zone)) if part
    )
    counts = Markup("")
    if with_counts:
        counts = Markup(
            '<span class="mp-count" data-testid="count-{}"><strong>{}</strong> of {} here</span>'
            '<progress class="mr-bar" max="{}" value="{}" aria-hidden="true"></progress>'
        ).format(m.id, m.attended, m.enrolled, max(1, m.enrolled), m.attended)
    return Markup(
        '<li data-testid="meeting-{}"><a href="/meeting/{}"><span class="mr-what"><b>{}</b><small>{}</small></span>{}</a></li>'
    ).format(m.id, m.id, m.section_title, where, counts)
