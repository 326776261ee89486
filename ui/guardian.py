"""/guardian: the children, each with today and the recent record; live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from markupsafe import escape
from nicegui import ui
from sqlalchemy import Connection

from domain import people, register
from domain.events import WALL, Event, student_topic
from domain.logins import LoginView
from domain.muster import Muster
from domain.people import PersonView
from domain.register import StudentMeeting
from realtime.hub import Hub
from ui import own_record
from ui.forms import button, heading
from ui.fresh import Fresh

RECORD_DAYS = 400
RECENT_ROWS = 8


@dataclass(slots=True)
class _Child:
    student: PersonView
    meetings: list[StudentMeeting]


@dataclass(slots=True)
class _Card:
    today: ui.html
    rate: ui.html
    record: ui.html


class GuardianPage:
    """One guardian's open page."""

    def __init__(self, muster: Muster, hub: Hub, login: LoginView) -> None:
        self._muster = muster
        self._login = login
        self._children: list[_Child] = []
        self._cards: dict[str, _Card] = {}
        self._is_whole: set[str] = set()
        self._fresh = Fresh(hub, self._refresh, concerns=self._concerns)

    async def build(self) -> None:
        """Show everything; call once, inside the page's frame."""
        students = await self._muster.store.read(lambda conn: people.students_of(conn, self._login.person_id))
        self._fresh.follow([WALL, *(student_topic(s.id) for s in students)])
        await self._read()
        heading("My children")
        if not self._children:
            with ui.element("section").classes("m-card mp-card"):
                ui.label("No child is linked to this log-in yet. The school office can do that for you.")
        for child in self._children:
            self._build_child(child)

    def _build_child(self, child: _Child) -> None:
        student = child.student
        with (
            ui.element("section")
            .classes("m-card mp-card")
            .props(f'aria-labelledby="child-{student.id}" data-testid="child-{student.id}"')
        ):
            ui.html(str(escape(student.name)), tag="h2", sanitize=False).props(f'id="child-{student.id}"')
            ui.html("Today", tag="h3", sanitize=False)
            today = ui.html(self._today(child), sanitize=False)
            ui.html("Record", tag="h3", sanitize=False)
            rate = ui.html(own_record.rate_html(child.meetings), sanitize=False)
            record = ui.html(self._record(child), sanitize=False)
            self._cards[student.id] = _Card(today, rate, record)
            if len(child.meetings) > RECENT_ROWS:
                more = button("Show the whole record", kind="quiet")
                more.on_click(lambda: self._show_whole(student.id, more))

    async def _show_whole(self, student_id: str, clicked: ui.button) -> None:
        self._is_whole.add(student_id)
        clicked.set_visibility(False)
        await self._refresh()

    async def _refresh(self) -> None:
        await self._read()
        for child in self._children:
            card = self._cards.get(child.student.id)
            if card is not None:
                card.today.content = self._today(child)
                card.rate.content = own_record.rate_html(child.meetings)
                card.record.content = self._record(child)

    async def _read(self) -> None:
        now, guardian_id = self._muster.clock.now(), self._login.person_id

        def read(conn: Connection) -> list[_Child]:
            begin = now - timedelta(days=RECORD_DAYS)
            return [
                _Child(student, register.record_of_student(conn, student.id, now, begin=begin))
                for student in people.students_of(conn, guardian_id)
            ]

        self._children = await self._muster.store.read(read)

    def _concerns(self, event: Event) -> bool:
        if event.topic != WALL:
            return True
        section_id = event.data.get("section_id")
        return any(m.section_id == section_id for child in self._children for m in child.meetings)

    def _today(self, child: _Child) -> str:
        now = self._muster.clock.now()
        todays = [m for m in child.meetings if own_record.is_of_day(m, now)]
        return own_record.today_html(todays, now, empty="No classes today.")

    def _record(self, child: _Child) -> str:
        now = self._muster.clock.now()
        past = [m for m in child.meetings if m.scheduled_start <= now]
        return own_record.record_html(past if child.student.id in self._is_whole else past[:RECENT_ROWS], now)
