"""/teacher: my meetings of a day; the one for now first, one tap from open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import escape
from nicegui import ui
from sqlalchemy import Connection

from domain import operations, register, school, sections
from domain.clock import local_date
from domain.events import WALL, meeting_topic
from domain.hints import HINTS
from domain.ids import new_id
from domain.model import EnrolmentRole, Kind, MeetingState
from domain.outcomes import Outcome, Verdict
from domain.record import RecorderBusy
from domain.register import MeetingSummary
from realtime.hub import Hub
from ui.frame import Visit
from ui.fresh import Fresh

STATE_WORDS = {
    MeetingState.SCHEDULED: "Not opened yet",
    MeetingState.OPEN: "Open",
    MeetingState.CLOSING: "Closing",
    MeetingState.CLOSED: "Closed",
    MeetingState.LOCKED: "Locked",
    MeetingState.CANCELLED: "Cancelled",
}
#: A scheduled meeting is "for now" from so long before its start.
SOON = timedelta(minutes=30)
AD_HOC = timedelta(minutes=60)


@dataclass(slots=True)
class _Card:
    """The parts of one meeting's card that change."""

    root: ui.element
    state: ui.label
    counts: ui.label
    open: ui.element
    go: ui.html


class TeacherPage:
    """One teacher's open page."""

    def __init__(self, visit: Visit, hub: Hub, on: date | None) -> None:
        self._visit = visit
        self._muster = visit.muster
        self._asked_on = on
        self._cards: dict[str, _Card] = {}
        self._shown: tuple[tuple[str, bool], ...] | None = None
        self._is_opening = False  # stays so once the page is on its way to the meeting
        self._extra_id = new_id(
            self._muster.clock.now()
        )  # one per page, so that a double click opens one class
        self._fresh = Fresh(hub, self._refresh)

    async def build(self) -> None:
        """Show it; call once, inside the page's frame."""
        self._fresh.follow([WALL])
        await self._read()
        with ui.element("div").classes("t-head"):
            with ui.element("div"):
                ui.label(f"{self._on:%A, %-d %B}").classes("m-soft m-small")
                ui.html("Today" if self._is_today else "Classes of the day", tag="h1", sanitize=False)
            ui.html(
                f'<form class="t-day" method="get" action="/teacher">{_step(self._on, -1)}'
                f'<input type="date" name="on" value="{self._on.isoformat()}" aria-label="Another day" onchange="this.form.submit()">'
                f"{_step(self._on, 1)}</form>",
                sanitize=False,
            )
        self._said = ui.label("").classes("r-said").props('role="status" aria-live="polite"')
        self._list = ui.element("div").classes("t-list")
        self._update()
        if self._teaches and self._is_today:
            with ui.element("section").classes("m-card t-extra").props('aria-labelledby="extra-title"'):
                ui.html("A class that is not on the timetable", tag="h2", sanitize=False).props(
                    "id=extra-title"
                )
                ui.label("Opens right now and lasts an hour; late from five minutes on.").classes(
                    "m-soft m-small"
                )
                with ui.element("div").classes("t-extra-row"):
                    self._section = (
                        ui.select(self._teaches, value=next(iter(self._teaches)), label="Class")
                        .props('outlined options-dense data-testid="extra-section"')
                        .classes("t-select")
                    )
                    extra = (
                        ui.element("button")
                        .props('type="button" data-testid="open-extra"')
                        .classes("m-quiet")
                    )
                    extra.on("click", self._open_extra)
                    with extra:
                        ui.html("Open now", tag="span", sanitize=False)

    # -- reading and showing

    async def _read(self) -> None:
        now = self._muster.clock.now()
        person_id = self._visit.login.person_id

        def work(conn: Connection) -> tuple[date, bool, list[MeetingSummary], dict[str, str]]:
            found = school.read_school(conn)
            zone = found.zone if found is not None else "UTC"
            today = local_date(now, zone)
            on = self._asked_on or today
            teaches = {
                section.id: f"{section.title} ({section.code})"
                for section, role in sections.sections_of(conn, person_id, now)
                if role is not EnrolmentRole.STUDENT
            }
            return on, on == today, register.meetings_on(conn, person_id, on, now, zone=zone), teaches

        self._on, self._is_today, meetings, self._teaches = await self._muster.store.read(work)
        self._meetings = _by_relevance(meetings, self._muster.clock.now()) if self._is_today else meetings
        running = [m.id for m in meetings if m.state in (MeetingState.OPEN, MeetingState.CLOSING)]
        self._fresh.follow([WALL, *map(meeting_topic, running)])

    async def _refresh(self) -> None:
        await self._read()
        self._update()

    def _update(self) -> None:
        shape = tuple((m.id, place == 0 and self._is_now(m)) for place, m in enumerate(self._meetings))
        if shape != self._shown:  # another meeting, or another order; else texts change in place
            self._shown = shape
            self._cards.clear()
            self._list.clear()
            with self._list:
                for meeting, (_id, is_first) in zip(self._meetings, shape, strict=True):
                    self._cards[meeting.id] = self._card(meeting, is_first)
                if not self._meetings:
                    self._empty()
        for meeting in self._meetings:
            self._fill(self._cards[meeting.id], meeting)

    def _card(self, m: MeetingSummary, is_first: bool) -> _Card:
        zone = ZoneInfo(m.zone)
        start, end = m.scheduled_start.astimezone(zone), m.scheduled_end.astimezone(zone)
        root = ui.element("article").classes("m-card t-card" + (" t-now" if is_first else ""))
        root.props(f'data-testid="meeting-{m.id}"')
        with root:
            with ui.element("div").classes("t-when"):
                ui.label(f"{start:%H:%M}").classes("t-start m-num")
                ui.label(f"to {end:%H:%M}").classes("m-soft m-small m-num")
            with ui.element("div").classes("t-what"):
                ui.html(str(escape(m.section_title)), tag="h2", sanitize=False).props('dir="auto"')
                ui.label(f"{m.section_code}{f' · Room {m.room}' if m.room else ''}").classes("m-soft m-small")
                with ui.element("p").classes("t-facts"):
                    state = ui.label("").classes("r-state")
                    counts = ui.label("").classes("m-soft m-small m-num")
            with ui.element("div").classes("t-do"):
                opened = ui.element("button").props('type="button" data-testid="open-meeting"')
                opened.classes("m-primary t-open" if is_first else "m-quiet t-open")
                opened.on("click", lambda: self._open(m.id))
                with opened:
                    ui.html("Open", tag="span", sanitize=False)
                go = ui.html(
                    f'<a class="m-quiet" href="/meeting/{m.id}" data-testid="go-{m.id}">Register</a>',
                    sanitize=False,
                )
        return _Card(root, state, counts, opened, go)

    def _fill(self, card: _Card, m: MeetingSummary) -> None:
        card.state.text = STATE_WORDS[m.state]
        card.state.props(f"data-state={m.state.value}")
        counted = f"{m.attended} of {m.enrolled} here"
        if m.state in (MeetingState.CLOSED, MeetingState.LOCKED) and not m.is_register_taken:
            counted += " · register not confirmed"
        card.counts.text = f"{m.enrolled} students" if m.state is MeetingState.SCHEDULED else counted
        is_running = m.state is MeetingState.OPEN
        word, kind = ("Go to class", "m-primary") if is_running else ("Register", "m-quiet")
        link = f'<a class="{kind}" href="/meeting/{m.id}" data-testid="go-{m.id}">{word}</a>'
        if card.go.content != link:
            card.go.content = link
        card.open.set_visibility(m.state is MeetingState.SCHEDULED and self._is_today)

    def _empty(self) -> None:
        with ui.element("section").classes("m-card t-empty"):
            ui.html("No classes on this day", tag="h2", sanitize=False)
            ui.label(
                "Classes appear here by themselves when they are on the timetable; an admin sets that up. "
                + ("One that is not on it you can open below." if self._teaches and self._is_today else "")
            ).classes("m-soft")

    def _is_now(self, m: MeetingSummary) -> bool:
        now = self._muster.clock.now()
        if m.state in (MeetingState.OPEN, MeetingState.CLOSING):
            return True
        return m.state is MeetingState.SCHEDULED and m.scheduled_start - SOON <= now < m.scheduled_end

    # -- acting

    async def _open(self, meeting_id: str) -> None:
        await self._record_opening({"meeting_id": meeting_id})

    async def _open_extra(self) -> None:
        now = self._muster.clock.now()
        await self._record_opening(
            {
                "meeting_id": self._extra_id,
                "section_id": self._section.value,
                "scheduled_start": now,
                "scheduled_end": now + AD_HOC,
            }
        )

    async def _record_opening(self, fields: dict[str, Any]) -> None:
        if self._is_opening:  # the second of two clicks
            return
        self._is_opening = True
        operation = operations.make(
            Kind.OPEN_MEETING, captured_at=self._muster.clock.now(), clock_offset_ms=0, **fields
        )
        try:
            outcome: Outcome = (
                await self._muster.recorder.record(
                    [operation], self._visit.login.author, address=self._visit.address
                )
            )[0]
        except RecorderBusy:
            self._said.text, self._is_opening = HINTS["busy"], False
            return
        if outcome.outcome is Verdict.REJECTED:
            self._said.text, self._is_opening = outcome.hint or "", False
            return
        ui.navigate.to(f"/meeting/{operation.meeting_id}")


def _step(on: date, days: int) -> str:
    """The link to the day before or after."""
    to = on + timedelta(days=days)
    sign, word = ("‹", "The day before") if days < 0 else ("›", "The day after")
    return f'<a class="m-quiet" href="/teacher?on={to.isoformat()}" aria-label="{word}" title="{word}">{sign}</a>'


def _by_relevance(meetings: Sequence[MeetingSummary], now: datetime) -> list[MeetingSummary]:
    """The running ones first, then what is to come, then what is over; each by time."""
    rank = {MeetingState.OPEN: 0, MeetingState.CLOSING: 0, MeetingState.SCHEDULED: 1}

    def key(m: MeetingSummary) -> tuple[int, datetime]:
        is_over = m.state is MeetingState.SCHEDULED and m.scheduled_end <= now
        return (3 if is_over else rank.get(m.state, 2), m.scheduled_start)

    return sorted(meetings, key=key)
